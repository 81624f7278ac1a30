//! One number of a side at one moment, such as connected clients or queued bytes.

/// How a number changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The value only grows until the process restarts. The name of the family ends in `_total`.
    Counter,
    /// The value increases and decreases.
    Gauge,
}

impl Kind {
    /// The name of the kind in the text format of Prometheus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The meaning of a number. All samples of a family have the same labels, so that they can be summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `adit_<crate>_<what>_<unit>`.
    pub name: &'static str,
    /// How the value changes: counter or gauge.
    pub kind: Kind,
    /// The names of the labels. The configuration bounds their values: a visitor's address is never one.
    pub labels: &'static [&'static str],
    /// A description in one line.
    pub help: &'static str,
}

impl Family {
    /// A family of gauges.
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

    /// A family of counters.
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

    /// A number of this family. `values` are the values of [`Family::labels`], in their order.
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
    /// The family that the sample belongs to.
    pub family: &'static Family,
    /// The values of the family's labels.
    pub values: Vec<String>,
    /// The number, as Prometheus computes with it.
    pub value: f64,
}

/// Declares families, each as a static of its name, and `FAMILIES`, the list of all of them.
///
/// ```
/// adit_trace::families! {
///     OPEN = gauge("adit_pool_connections", &["state"], "Open connections.");
///     DIALS = counter("adit_pool_dials_total", &[], "Connections made.");
/// }
/// assert_eq!(FAMILIES.len(), 2);
/// assert_eq!(OPEN.sample(&["idle"], 3.0).family.name, "adit_pool_connections");
/// # let _ = &DIALS;
/// ```
#[macro_export]
macro_rules! families {
    ($($id:ident = $kind:ident($name:literal, $labels:expr, $help:literal);)*) => {
        $(static $id: $crate::Family = $crate::Family::$kind($name, $labels, $help);)*

        /// Every family that this module has samples of.
        pub const FAMILIES: &[&$crate::Family] = &[$(&$id),*];
    };
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
