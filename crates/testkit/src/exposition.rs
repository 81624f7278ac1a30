//! A parser of the Prometheus text format that reports more faults than Prometheus does.

use std::collections::{BTreeMap, BTreeSet};

/// A family of the text exposition format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricFamily {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The help text, as written.
    pub help: String,
    /// The samples: name, labels with their values unescaped, and the number as written.
    pub samples: Vec<MetricSample>,
}

/// A line with a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSample {
    /// The name, with the suffix of a histogram.
    pub name: String,
    /// The labels in their order.
    pub labels: Vec<(String, String)>,
    /// The text of the value.
    pub value: String,
}

impl MetricSample {
    /// The value of a label; empty when it is not there.
    pub fn label(&self, name: &str) -> &str {
        let mut labels = self.labels.iter();
        labels
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }
}

/// Reads the text: families by name.
///
/// # Errors
/// All faults, each with its line: no `HELP` or `TYPE`, or two; a family that occurs twice; a sample outside of its
/// family; a name, label, escape or number that is invalid in the format; labels that differ within a family; the same
/// sample twice; a counter that does not end in `_total`, or something else that does; a name without its unit at its
/// end; a histogram that is incomplete or decreases.
pub fn parse_exposition(text: &str) -> Result<BTreeMap<String, MetricFamily>, Vec<String>> {
    let mut reader = Reader::default();
    if !text.is_empty() && !text.ends_with('\n') {
        reader.complain("the last line does not end");
    }
    for line in text.lines() {
        reader.line += 1;
        reader.read(line);
    }
    for (name, family) in &reader.families {
        reader.complaints.extend(lint(name, family));
    }
    if reader.complaints.is_empty() {
        Ok(reader.families)
    } else {
        Err(reader.complaints)
    }
}

#[derive(Default)]
struct Reader {
    line: usize,
    helped: Option<(String, String)>,
    current: Option<String>,
    families: BTreeMap<String, MetricFamily>,
    seen: BTreeSet<String>,
    complaints: Vec<String>,
}

impl Reader {
    fn complain(&mut self, what: &str) {
        self.complaints.push(format!("line {}: {what}", self.line));
    }

    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            match rest.split_once(' ') {
                Some((name, help)) if !help.is_empty() => {
                    self.helped = Some((name.to_owned(), help.to_owned()));
                }
                _ => self.complain("a HELP without a text"),
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.read_type(rest);
        } else if line.starts_with('#') || line.trim().is_empty() {
            self.complain("neither HELP nor TYPE nor a sample");
        } else {
            match read_sample(line) {
                Ok(sample) => self.take(line, sample),
                Err(what) => self.complain(&what),
            }
        }
    }

    fn read_type(&mut self, rest: &str) {
        let Some((name, kind)) = rest.split_once(' ') else {
            return self.complain("a TYPE without a type");
        };
        let help = match self.helped.take() {
            Some((helped, help)) if helped == name => help,
            _ => return self.complain("a TYPE that does not follow its HELP"),
        };
        if !["counter", "gauge", "histogram"].contains(&kind) {
            self.complain(&format!("unknown type {kind}"));
        }
        let family = MetricFamily {
            kind: kind.to_owned(),
            help,
            samples: Vec::new(),
        };
        if self.families.insert(name.to_owned(), family).is_some() {
            self.complain(&format!("{name} comes twice"));
        }
        self.current = Some(name.to_owned());
    }

    fn take(&mut self, line: &str, sample: MetricSample) {
        let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
        if !self.seen.insert(series.to_owned()) {
            self.complain(&format!("{series} comes twice"));
        }
        let current = self.current.clone().unwrap_or_default();
        let Some(family) = self.families.get_mut(&current) else {
            return self.complain("a sample without a family");
        };
        let own = match sample.name.strip_prefix(&current) {
            Some("") => family.kind != "histogram",
            Some("_bucket" | "_sum" | "_count") => family.kind == "histogram",
            _ => false,
        };
        family.samples.push(sample);
        if !own {
            self.complain(&format!("a sample outside of its family {current}"));
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn read_sample(line: &str) -> Result<MetricSample, String> {
    let end = line.find(['{', ' ']).ok_or("a name without a number")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            let (value, after) = read_value(after)?;
            labels.push((label.to_owned(), value));
            if let Some(after) = after.strip_prefix("} ") {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').ok_or("labels that do not end")?;
        }
    } else {
        rest = &rest[1..];
    }
    if !is_name(name) || !labels.iter().all(|(label, _)| is_name(label)) {
        return Err(format!("invalid name: {line}"));
    }
    if rest.contains(' ') || rest.parse::<f64>().is_err() {
        return Err(format!("invalid number {rest:?}"));
    }
    Ok(MetricSample {
        name: name.to_owned(),
        labels,
        value: rest.to_owned(),
    })
}

/// The text up to the closing quote, unescaped, and the rest after the quote.
fn read_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => return Err("an escape that the format does not have".into()),
            }),
            other => value.push(other),
        }
    }
    Err("a value that does not end".into())
}

const UNITS: [&str; 3] = ["seconds", "bytes", "info"];
const NO_UNITS: [&str; 8] = [
    "milliseconds",
    "millis",
    "micros",
    "minutes",
    "kilobytes",
    "kib",
    "percent",
    "ms",
];

fn lint(name: &str, family: &MetricFamily) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: &str| complaints.push(format!("{name}: {what}"));
    if !is_name(name) {
        complain("invalid name");
    }
    if (family.kind == "counter") != name.ends_with("_total") {
        complain("counters, and only they, end in _total");
    }
    let words: Vec<_> = name.trim_end_matches("_total").split('_').collect();
    if words.iter().any(|word| NO_UNITS.contains(word)) {
        complain("seconds and bytes are the units");
    }
    let (last, before) = words.split_last().unwrap_or((&"", &[]));
    if before.iter().any(|word| UNITS.contains(word)) && !UNITS.contains(last) {
        complain("the unit is at the end of the name");
    }
    if !family.help.ends_with('.') {
        complain("the help must be a sentence");
    }
    if family.samples.is_empty() {
        complain("the family has no sample");
    }
    let names = |sample: &MetricSample| -> Vec<String> {
        let labels = sample.labels.iter().map(|(label, _)| label.clone());
        labels.filter(|label| label != "le").collect()
    };
    let first = family.samples.first().map(names).unwrap_or_default();
    if family.samples.iter().any(|sample| names(sample) != first) {
        complain("its samples have different labels");
    }
    if family.kind == "histogram" {
        complaints.extend(lint_histogram(name, family));
    }
    complaints
}

fn lint_histogram(name: &str, family: &MetricFamily) -> Vec<String> {
    #[derive(Default)]
    struct Seen {
        buckets: Vec<(f64, f64)>,
        sum: bool,
        count: Option<f64>,
    }
    let mut series: BTreeMap<Vec<&(String, String)>, Seen> = BTreeMap::new();
    for sample in &family.samples {
        let labels = sample.labels.iter().filter(|(label, _)| label != "le");
        let seen = series.entry(labels.collect()).or_default();
        let value: f64 = sample.value.parse().unwrap_or(f64::NAN);
        match sample.name.strip_prefix(name) {
            Some("_bucket") => {
                let bound = sample.label("le").parse().unwrap_or(f64::NAN);
                seen.buckets.push((bound, value));
            }
            Some("_sum") => seen.sum = true,
            _ => seen.count = Some(value),
        }
    }
    let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
    let whole = |seen: &Seen| {
        let last = seen.buckets.last();
        let all =
            last.is_some_and(|(bound, count)| bound.is_infinite() && Some(*count) == seen.count);
        all && seen.sum && seen.buckets.windows(2).all(grows)
    };
    if series.values().all(whole) {
        Vec::new()
    } else {
        vec![format!("{name}: a histogram that is not whole")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# HELP a_total All.
# TYPE a_total counter
a_total{x=\"1\\\"\\\\\\n} \"} 1
a_total{x=\"\"} 2
# HELP b_seconds How long.
# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.5\"} 1
b_seconds_bucket{le=\"+Inf\"} 2
b_seconds_sum 3
b_seconds_count 2
";

    #[test]
    fn a_valid_exposition_is_parsed() {
        let families = parse_exposition(GOOD).unwrap();
        assert_eq!(families["a_total"].samples[0].label("x"), "1\"\\\n} ");
        assert_eq!(families["b_seconds"].samples.len(), 4);
    }

    #[test]
    fn each_fault_is_reported() {
        for (from, to, complaint) in [
            ("# HELP a_total All.\n", "", "does not follow its HELP"),
            (
                "# HELP a_total All.",
                "# HELP a_total All",
                "must be a sentence",
            ),
            ("# TYPE a_total counter\n", "", "a sample without a family"),
            ("a_total counter", "a_total gauge", "end in _total"),
            ("a_total counter", "a_total summary", "unknown type summary"),
            ("{x=\"\"} 2", "{y=\"\"} 2", "different labels"),
            ("{x=\"\"} 2", "{x=\"\"} two", "invalid number"),
            ("{x=\"\"} 2", "{x=\"} 2", "does not end"),
            (
                "a_total{x=\"\"} 2\n",
                "a_total{x=\"\"} 2\na_total{x=\"\"} 3\n",
                "comes twice",
            ),
            (
                "a_total{x=\"\"} 2",
                "c_total{x=\"\"} 2",
                "outside of its family a_total",
            ),
            ("\\\\\\n", "\\t", "an escape"),
            ("le=\"0.5\"} 1", "le=\"0.5\"} 3", "not whole"),
            ("b_seconds_sum 3\n", "", "not whole"),
            ("b_seconds_count 2", "b_seconds_count 1", "not whole"),
            ("b_seconds_count 2\n", "b_seconds_count 2", "the last line"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD, "{from}");
            let complaints = parse_exposition(&bad).unwrap_err().join("; ");
            assert!(complaints.contains(complaint), "{from}: {complaints}");
        }
        for name in ["a_ms", "a_seconds_b", "a_bytes_open"] {
            let text = format!("# HELP {name} A.\n# TYPE {name} gauge\n{name} 1\n");
            assert!(parse_exposition(&text).is_err(), "{name}");
        }
    }
}
