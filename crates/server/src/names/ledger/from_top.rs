//! An order of hosts in which those below a name are beside each other.

use std::ops::Range;

use adit_router::HostPattern;

/// The labels of a host from the top, and whether it is a wildcard: `a.example.test` is `test.example.a`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FromTop {
    labels: Box<str>,
    wildcard: bool,
}

impl FromTop {
    pub(super) fn of(host: &HostPattern) -> Self {
        Self {
            labels: labels(host.name()).into(),
            wildcard: host.is_wildcard(),
        }
    }

    /// Everything below the name of a host.
    pub(super) fn below(host: &HostPattern) -> Range<Self> {
        let labels = labels(host.name());
        // `/` follows `.` in the order of bytes.
        let bound = |end: char| Self {
            labels: format!("{labels}{end}").into(),
            wildcard: false,
        };
        bound('.')..bound('/')
    }
}

fn labels(name: &str) -> String {
    name.rsplit('.').collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_a_name_are_in_its_range() {
        let key = |text: &str| FromTop::of(&text.parse().unwrap());
        let below = FromTop::below(&"*.app.test".parse().unwrap());
        for text in ["a.app.test", "a-b.app.test", "*.a.app.test", "1.2.app.test"] {
            assert!(below.contains(&key(text)), "{text}");
        }
        for text in [
            "app.test",
            "*.app.test",
            "xapp.test",
            "app-x.test",
            "app.tests",
            "*.test",
        ] {
            assert!(!below.contains(&key(text)), "{text}");
        }
    }
}
