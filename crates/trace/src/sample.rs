//! One number that a side tells of itself at one moment: how many clients, how many bytes that wait.

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It only grows, until the process starts again. Its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// Its name in the text that Prometheus reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// What a number means. All samples of a family have the same labels, so that they can be added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `adit_<crate>_<what>_<unit>`.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The names of its labels. Their values are bounded by the configuration: never a visitor's address.
    pub labels: &'static [&'static str],
    /// One line for whoever meets the name first.
    pub help: &'static str,
}

impl Family {
    /// A number that moves up and down.
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            labels,
            help,
        }
    }

    /// A number that only grows.
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            labels,
            help,
        }
    }

    /// A number of this family. `values` are those of [`Family::labels`], in their order; one that is left out is empty.
    pub fn sample(&'static self, values: &[&str], value: f64) -> Sample {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        Sample {
            family: self,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            value,
        }
    }
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What it means.
    pub family: &'static Family,
    /// The values of its labels.
    pub values: Vec<String>,
    /// The number: what Prometheus computes with.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_labels_of_its_family() {
        static WAITING: Family = Family::gauge("adit_x_waiting_bytes", &["client"], "Waiting.");
        let sample = WAITING.sample(&["office-1"], 7.0);
        assert_eq!(sample.family, &WAITING);
        assert_eq!(sample.values, ["office-1"]);
        assert_eq!(WAITING.kind.as_str(), "gauge");
        assert_eq!(Family::counter("a", &[], "b").kind.as_str(), "counter");
    }
}
