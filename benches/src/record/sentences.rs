//! What a person says of the numbers, kept apart from them so that the next run keeps it, and held against them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{compare::Compared, verdict::Verdict};

/// By room, what its tables decided.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Sentences(BTreeMap<String, Sentence>);

/// What is said of a room.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentence {
    /// Of the table of speed and memory.
    speed: String,
    /// Of the table of quality.
    #[serde(default)]
    quality: String,
    /// The verdicts and ratios that it rests on: `operation/size threads verdict`, or
    /// `operation/size threads contender least..most` for how many times of ours a contender needs.
    #[serde(default)]
    rests_on: Vec<String>,
}

impl Sentences {
    /// Reads TOML.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(toml: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(toml)
    }

    /// What is said of a room's speed, with what this run says otherwise.
    #[must_use]
    pub fn speed(&self, room: &Compared) -> String {
        let Some(sentence) = self.0.get(&room.room) else {
            return "Nobody has said yet what these numbers decided.".to_owned();
        };
        let mut said = sentence.speed.clone();
        let contradictions: Vec<_> = { sentence.rests_on.iter() }
            .filter_map(|claim| contradiction(claim, room))
            .chain(sentence.is_groundless().then(|| {
                "the sentence speaks of two threads and rests on none of their verdicts".to_owned()
            }))
            .collect();
        if !contradictions.is_empty() {
            said += &format!(
                " **This run says otherwise: {}.**",
                contradictions.join("; ")
            );
        }
        said
    }

    /// What is said of a room's quality.
    #[must_use]
    pub fn quality(&self, room: &Compared) -> &str {
        { self.0.get(&room.room) }.map_or("", |sentence| &sentence.quality)
    }
}

impl Sentence {
    /// Whether it says something of two threads that no claim is about.
    fn is_groundless(&self) -> bool {
        let is_of_two = |claim: &String| claim.split_whitespace().nth(1) == Some("2");
        self.speed.contains("two threads") && !self.rests_on.iter().any(is_of_two)
    }
}

/// How a run differs from a claim.
fn contradiction(claim: &str, room: &Compared) -> Option<String> {
    let words: Vec<_> = claim.split_whitespace().collect();
    let (what, threads, who, range) = match words[..] {
        [what, threads, verdict] => (what, threads, verdict, None),
        [what, threads, contender, range] => (what, threads, contender, Some(range)),
        _ => {
            let forms = "`operation/size threads verdict` or `operation/size threads contender least..most`";
            return Some(format!("`{claim}` is neither {forms}"));
        }
    };
    let panel = match threads {
        "1" => 0,
        "2" => 1,
        _ => return Some(format!("`{claim}` names neither 1 nor 2 threads")),
    };
    let place = format!("{what} on {threads} thread{}", ["", "s"][panel]);
    let group =
        { room.groups.iter() }.find(|group| format!("{}/{}", group.operation, group.size) == what);
    let Some(group) = group else {
        return Some(format!("{place} was not measured"));
    };
    let Some(range) = range else {
        let verdict = [Some(&group.one_thread), group.two_threads.as_ref()][panel];
        let Some(measured) = verdict.map(Verdict::to_string) else {
            return Some(format!("{place} was not measured"));
        };
        return (measured != who).then(|| format!("{place}: {measured}, not {who}"));
    };
    let bounds = range.split_once("..");
    let bounds = bounds.and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
    let Some((least, most)): Option<(f64, f64)> = bounds else {
        return Some(format!("`{claim}` names no range such as 0.5..2"));
    };
    let Some(ratio) = group.ratio(who, panel) else {
        return Some(format!("{place} was not measured with {who}"));
    };
    let holds = (least..=most).contains(&ratio);
    (!holds).then(|| format!("{place}: {who} needs {ratio:.2} times of ours, not {range}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::report;

    fn said(claims: &str) -> String {
        let toml = format!("[table]\nspeed = \"It won.\"\nrests_on = [{claims}]");
        Sentences::parse(&toml).unwrap().speed(&report().rooms[0])
    }

    #[test]
    fn a_sentence_stands_while_the_numbers_bear_it() {
        assert_eq!(
            said("\"trip/64 1 ours\", \"trip/64 2 undecided\""),
            "It won."
        );
        assert_eq!(
            said("\"trip/64 1 map 2..3\", \"trip/64 2 map 2.5..2.5\", \"trip/64 2 memcpy 0..0.2\""),
            "It won."
        );
    }

    #[test]
    fn a_run_that_says_otherwise_is_told() {
        let told = said("\"trip/64 1 map\", \"trip/64 2 ours\"");
        assert!(
            told.starts_with("It won. **This run says otherwise: "),
            "{told}"
        );
        assert!(
            told.contains("trip/64 on 1 thread: ours, not map; "),
            "{told}"
        );
        assert!(
            told.contains("trip/64 on 2 threads: undecided, not ours"),
            "{told}"
        );
        for panel in ["1", "2"] {
            let told = said(&format!("\"trip/64 {panel} map 0.4..0.6\""));
            assert!(
                told.contains("map needs 2.50 times of ours, not 0.4..0.6"),
                "{told}"
            );
        }
        for unmeasured in ["\"trip/65 1 map\"", "\"trip/64 2 maps 1..2\""] {
            assert!(
                said(unmeasured).contains("was not measured"),
                "{unmeasured}"
            );
        }
        for wrong in [
            "\"trip/64 ours\"",
            "\"trip/64 3 ours\"",
            "\"trip/64 1 map 2\"",
        ] {
            assert!(said(wrong).contains("`trip/64 "), "{wrong}");
        }
    }

    #[test]
    fn a_room_of_which_nothing_was_said_admits_it() {
        let nothing = Sentences::default();
        assert!(nothing.speed(&report().rooms[0]).contains("Nobody"));
        assert!(Sentences::parse("[table]\nspede = \"\"").is_err());
    }

    /// Regression: a sentence about two threads stood above a table that said otherwise.
    #[test]
    fn a_sentence_about_two_threads_rests_on_verdicts_of_two() {
        let toml = |claims: &str| {
            format!("[table]\nspeed = \"On two threads it won.\"\nrests_on = [{claims}]")
        };
        let said = |claims: &str| {
            Sentences::parse(&toml(claims))
                .unwrap()
                .speed(&report().rooms[0])
        };
        assert!(said("\"trip/64 1 ours\"").contains("rests on none of their verdicts"));
        assert_eq!(said("\"trip/64 2 undecided\""), "On two threads it won.");
        let kept = Sentences::parse(include_str!("../../record/sentences.toml")).unwrap();
        for (room, sentence) in &kept.0 {
            assert!(!sentence.is_groundless(), "{room}");
        }
    }
}
