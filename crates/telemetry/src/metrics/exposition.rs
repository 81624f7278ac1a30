//! The text for Prometheus (text exposition format, 0.0.4).

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_trace::{Edge, Sample};

use super::{
    histogram::Histogram,
    labels::write_labels,
    names::{self, RequestFamily},
    series::Series,
};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number in the form of the format.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() {
            f.write_str("NaN")
        } else if self.0.is_infinite() {
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{}", self.0)
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    pub(super) fn into_string(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    /// The metrics of requests of one edge.
    pub(super) fn requests(&mut self, edge: Edge, series: &[Arc<Series>]) {
        let names = names::of(edge);
        let of_edge = || series.iter().filter(|series| series.key().edge() == edge);
        if of_edge().next().is_none() {
            return;
        }
        let RequestFamily { name, .. } = names.requests;
        self.request_head(&names.requests);
        for series in of_edge() {
            let labels = &series.labels;
            for (outcome, status, count) in series.requests() {
                self.line(format_args!(
                    "{name}{{{labels},outcome=\"{outcome}\",status=\"{status}\"}} {count}"
                ));
            }
        }
        self.by_one_label(&names.failures, of_edge(), Series::failures);
        self.by_one_label(&names.grpc, of_edge(), |series| series.grpc().collect());
        if let Some(retries) = &names.retries {
            self.totals(retries, of_edge(), |series| &series.retries);
        }
        self.totals(&names.received, of_edge(), |series| &series.received_bytes);
        self.totals(&names.sent, of_edge(), |series| &series.sent_bytes);
        self.request_head(&names.duration);
        for series in of_edge() {
            self.histogram(names.duration.name, &series.labels, &series.duration);
        }
        self.request_head(&names.first_byte);
        for series in of_edge() {
            self.histogram(names.first_byte.name, &series.labels, &series.first_byte);
        }
    }

    fn request_head(&mut self, family: &RequestFamily) {
        self.head(family.name, family.kind, family.help);
    }

    fn by_one_label<'a>(
        &mut self,
        family: &RequestFamily,
        series: impl Iterator<Item = &'a Arc<Series>>,
        counts: impl Fn(&Series) -> Vec<(&'static str, u64)>,
    ) {
        let (name, label) = (
            family.name,
            family.labels.first().copied().unwrap_or("label"),
        );
        let mut headed = false;
        for series in series {
            for (value, count) in counts(series) {
                if !std::mem::replace(&mut headed, true) {
                    self.request_head(family);
                }
                let labels = &series.labels;
                self.line(format_args!(
                    "{name}{{{labels},{label}=\"{value}\"}} {count}"
                ));
            }
        }
    }

    fn totals<'a>(
        &mut self,
        family: &RequestFamily,
        series: impl Iterator<Item = &'a Arc<Series>>,
        total: impl Fn(&Series) -> &AtomicU64,
    ) {
        self.request_head(family);
        for series in series {
            let count = total(series).load(Ordering::Relaxed);
            self.line(format_args!("{}{{{}}} {count}", family.name, series.labels));
        }
    }

    fn histogram<const N: usize>(&mut self, name: &str, labels: &str, histogram: &Histogram<N>) {
        let mut count = 0;
        for (bound, so_far) in histogram.cumulative() {
            let bound = Number(bound.unwrap_or(f64::INFINITY));
            self.line(format_args!(
                "{name}_bucket{{{labels},le=\"{bound}\"}} {so_far}"
            ));
            count = so_far;
        }
        let sum = histogram.sum_seconds();
        self.line(format_args!("{name}_sum{{{labels}}} {sum}"));
        self.line(format_args!("{name}_count{{{labels}}} {count}"));
    }

    /// Families in the order of their names, each once, whatever the order of its samples.
    pub(super) fn samples(&mut self, samples: &[Sample]) {
        let mut families = BTreeMap::new();
        for sample in samples {
            let (_, values) = families
                .entry(sample.family.name)
                .or_insert_with(|| (sample.family, BTreeMap::new()));
            let mut labels = String::new();
            let given = sample.values.iter().map(String::as_str);
            let given = given.chain(std::iter::repeat(""));
            write_labels(&mut labels, sample.family.labels.iter().copied().zip(given));
            values.insert(labels, Number(sample.value));
        }
        for (name, (family, values)) in families {
            self.head(name, family.kind.as_str(), family.help);
            for (labels, value) in values {
                if labels.is_empty() {
                    self.line(format_args!("{name} {value}"));
                } else {
                    self.line(format_args!("{name}{{{labels}}} {value}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_trace::Family;

    use super::*;

    static PLAIN: Family = Family::gauge("adit_b", &[], "Two\nlines, and a \\.");
    static LABELLED: Family = Family::gauge("adit_a", &["x", "y"], "Labels.");

    #[test]
    fn a_family_is_written_once_and_a_label_set_too() {
        let mut text = Exposition::default();
        text.samples(&[
            LABELLED.sample(&["1", ""], 1.0),
            PLAIN.sample(&[], f64::INFINITY),
            LABELLED.sample(&["0", "é"], 2.5),
            LABELLED.sample(&["1", ""], 3.0),
        ]);
        assert_eq!(
            text.into_string(),
            "# HELP adit_a Labels.\n# TYPE adit_a gauge\nadit_a{x=\"0\",y=\"é\"} 2.5\nadit_a{x=\"1\",y=\"\"} 3\n\
             # HELP adit_b Two\\nlines, and a \\\\.\n# TYPE adit_b gauge\nadit_b +Inf\n"
        );
    }

    #[test]
    fn a_hostile_value_is_escaped() {
        let mut text = String::new();
        write_labels(&mut text, [("x", "a\"} 1\nadit_up 0\\")].into_iter());
        assert_eq!(text, r#"x="a\"} 1\nadit_up 0\\""#);
    }

    #[test]
    fn numbers_have_the_form_of_the_format() {
        let written = |number| Number(number).to_string();
        assert_eq!(written(f64::NAN), "NaN");
        assert_eq!(written(f64::NEG_INFINITY), "-Inf");
        assert_eq!(written(86_400.0), "86400");
        assert_eq!(written(0.000_5), "0.0005");
    }
}
