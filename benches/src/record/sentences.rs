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
    /// The verdicts that it rests on: `operation/size threads verdict`.
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

/// How a run differs from a claim; what was not measured contradicts nothing.
fn contradiction(claim: &str, room: &Compared) -> Option<String> {
    let mut words = claim.split_whitespace();
    let (Some(what), Some(threads), Some(verdict), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Some(format!("`{claim}` is not `operation/size threads verdict`"));
    };
    let group = { room.groups.iter() }
        .find(|group| format!("{}/{}", group.operation, group.size) == what)?;
    let measured: &Verdict = match threads {
        "1" => &group.one_thread,
        "2" => group.two_threads.as_ref()?,
        _ => return Some(format!("`{claim}` names neither 1 nor 2 threads")),
    };
    let measured = measured.to_string();
    (measured != verdict).then(|| {
        let plural = if threads == "1" { "" } else { "s" };
        format!("{what} on {threads} thread{plural}: {measured}, not {verdict}")
    })
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
        assert_eq!(said("\"trip/65 1 map\""), "It won.", "not measured");
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
        for wrong in ["\"trip/64 ours\"", "\"trip/64 3 ours\""] {
            assert!(said(wrong).contains("`trip/64 "), "{wrong}");
        }
    }

    #[test]
    fn a_room_of_which_nothing_was_said_admits_it() {
        let nothing = Sentences::default();
        assert!(nothing.speed(&report().rooms[0]).contains("Nobody"));
        assert!(Sentences::parse("[table]\nspede = \"\"").is_err());
    }
}
