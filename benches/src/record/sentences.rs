//! Sentences about the numbers, written by hand. They are kept after the next run, and are compared with its verdicts.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{compare::Compared, verdict::Verdict};

/// The sentences on the results, by suite.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Sentences(BTreeMap<String, Sentence>);

/// The sentences about a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentence {
    /// The sentence on the table of speed and memory.
    speed: String,
    /// The sentence on the table of quality.
    #[serde(default)]
    quality: String,
    /// The verdicts and ratios that the sentence is based on: `operation/size threads verdict`, or `operation/size
    /// threads contender least..most` for the ratio of a contender to the design of this project.
    #[serde(default)]
    rests_on: Vec<String>,
}

impl Sentences {
    /// Reads sentences from TOML.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(toml: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(toml)
    }

    /// The sentence about a suite's speed, with the verdicts of this run that contradict it.
    #[must_use]
    pub fn speed(&self, suite: &Compared) -> String {
        let Some(sentence) = self.0.get(&suite.suite) else {
            return "These numbers have no sentence yet.".to_owned();
        };
        let mut text = sentence.speed.clone();
        let contradictions: Vec<_> = { sentence.rests_on.iter() }
            .filter_map(|claim| contradiction(claim, suite))
            .chain(sentence.is_groundless().then(|| {
                "the sentence speaks of two threads and rests on none of their verdicts".to_owned()
            }))
            .collect();
        if !contradictions.is_empty() {
            text += &format!(
                " **This run says otherwise: {}.**",
                contradictions.join("; ")
            );
        }
        text
    }

    /// The sentence about a suite's quality.
    #[must_use]
    pub fn quality(&self, suite: &Compared) -> &str {
        { self.0.get(&suite.suite) }.map_or("", |sentence| &sentence.quality)
    }
}

impl Sentence {
    /// Whether the sentence mentions two threads without a claim about them.
    fn is_groundless(&self) -> bool {
        let is_of_two = |claim: &String| claim.split_whitespace().nth(1) == Some("2");
        self.speed.contains("two threads") && !self.rests_on.iter().any(is_of_two)
    }
}

/// How a run differs from a claim.
fn contradiction(claim: &str, suite: &Compared) -> Option<String> {
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
        { suite.groups.iter() }.find(|group| format!("{}/{}", group.operation, group.size) == what);
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

    fn speed_of(claims: &str) -> String {
        let toml = format!("[table]\nspeed = \"It won.\"\nrests_on = [{claims}]");
        Sentences::parse(&toml).unwrap().speed(&report().suites[0])
    }

    #[test]
    fn a_sentence_stands_while_the_numbers_bear_it() {
        assert_eq!(
            speed_of("\"trip/64 1 ours\", \"trip/64 2 undecided\""),
            "It won."
        );
        assert_eq!(
            speed_of(
                "\"trip/64 1 map 2..3\", \"trip/64 2 map 2.5..2.5\", \"trip/64 2 memcpy 0..0.2\""
            ),
            "It won."
        );
    }

    #[test]
    fn a_run_that_contradicts_a_sentence_is_reported() {
        let sentence = speed_of("\"trip/64 1 map\", \"trip/64 2 ours\"");
        assert!(
            sentence.starts_with("It won. **This run says otherwise: "),
            "{sentence}"
        );
        assert!(
            sentence.contains("trip/64 on 1 thread: ours, not map; "),
            "{sentence}"
        );
        assert!(
            sentence.contains("trip/64 on 2 threads: undecided, not ours"),
            "{sentence}"
        );
        for panel in ["1", "2"] {
            let sentence = speed_of(&format!("\"trip/64 {panel} map 0.4..0.6\""));
            assert!(
                sentence.contains("map needs 2.50 times of ours, not 0.4..0.6"),
                "{sentence}"
            );
        }
        for unmeasured in ["\"trip/65 1 map\"", "\"trip/64 2 maps 1..2\""] {
            assert!(
                speed_of(unmeasured).contains("was not measured"),
                "{unmeasured}"
            );
        }
        for wrong in [
            "\"trip/64 ours\"",
            "\"trip/64 3 ours\"",
            "\"trip/64 1 map 2\"",
        ] {
            assert!(speed_of(wrong).contains("`trip/64 "), "{wrong}");
        }
    }

    #[test]
    fn a_suite_without_a_sentence_is_reported() {
        let nothing = Sentences::default();
        assert!(nothing.speed(&report().suites[0]).contains("no sentence"));
        assert!(Sentences::parse("[table]\nspede = \"\"").is_err());
    }

    /// Regression: a sentence about two threads contradicted its table.
    #[test]
    fn a_sentence_about_two_threads_rests_on_verdicts_of_two() {
        let toml = |claims: &str| {
            format!("[table]\nspeed = \"On two threads it won.\"\nrests_on = [{claims}]")
        };
        let speed_of = |claims: &str| {
            Sentences::parse(&toml(claims))
                .unwrap()
                .speed(&report().suites[0])
        };
        assert!(speed_of("\"trip/64 1 ours\"").contains("rests on none of their verdicts"));
        assert_eq!(
            speed_of("\"trip/64 2 undecided\""),
            "On two threads it won."
        );
        let kept = Sentences::parse(include_str!("../../record/sentences.toml")).unwrap();
        for (suite, sentence) in &kept.0 {
            assert!(!sentence.is_groundless(), "{suite}");
        }
    }
}
