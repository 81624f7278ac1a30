//! A file as a tree in which every key and value knows where it was written.
//!
//! The usual way, a derived struct per section, loses the place of a value as soon as it is read, so that only the parser
//! could point at an error; here every later check can, and the environment and the flags are layers of the same tree.

mod json;
mod toml;
mod yaml;

use std::{fmt, fs::File, io::Read, path::Path};

use crate::error::{ConfigError, Origin};

pub(crate) use yaml::flow as parse_flow;

/// No configuration is larger; a file that is was given by mistake, and would be held in memory several times over.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What formats have in common.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// From the environment or a flag, where everything is text: read as what is expected.
    Words(String),
    List(Vec<Node>),
    Section(Vec<Entry>),
    /// Refused and reported: as if it were not there.
    Refused,
}

/// A key, where it was written, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    /// A file in which nothing is written.
    pub(crate) fn empty() -> Self {
        Self {
            value: Value::Section(Vec::new()),
            origin: Origin::Default,
        }
    }

    pub(crate) fn words(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            value: Value::Words(text.into()),
            origin,
        }
    }

    /// The same tree, as if all of it had been written at `origin`.
    pub(crate) fn moved_to(mut self, origin: &Origin) -> Self {
        self.origin = origin.clone();
        self.value = match self.value {
            Value::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| item.moved_to(origin))
                    .collect(),
            ),
            Value::Section(entries) => Value::Section(
                entries
                    .into_iter()
                    .map(|entry| Entry {
                        key: entry.key,
                        origin: origin.clone(),
                        node: entry.node.moved_to(origin),
                    })
                    .collect(),
            ),
            other => other,
        };
        self
    }
}

impl Node {
    /// Takes the node at a path such as `client.tunnels[0].name` out of the tree; its neighbours keep their numbers.
    /// Answers whether there was one.
    pub(crate) fn refuse(&mut self, path: &str) -> bool {
        if path.is_empty() {
            let was_there = !matches!(self.value, Value::Refused);
            self.value = Value::Refused;
            return was_there;
        }
        match &mut self.value {
            Value::List(items) => {
                let Some((index, rest)) =
                    path.strip_prefix('[').and_then(|path| path.split_once(']'))
                else {
                    return false;
                };
                let item = index
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get_mut(index));
                item.is_some_and(|item| item.refuse(rest))
            }
            Value::Section(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                // Keys of others may hold dots and brackets themselves.
                entries.iter_mut().any(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str());
                    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
                    rest.is_some_and(|rest| entry.node.refuse(rest))
                })
            }
            _ => false,
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.value, Value::Refused)
    }
}

/// How an error tells what it found.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST_QUOTE: usize = 60;
        match self {
            Self::Null | Self::Refused => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) | Self::Words(text) => {
                let quote: String = text.chars().take(LONGEST_QUOTE).collect();
                let cut = if quote.len() < text.len() { "..." } else { "" };
                write!(f, "the text {quote:?}{cut}")
            }
            Self::List(_) => f.write_str("a list"),
            Self::Section(_) => f.write_str("a section with keys"),
        }
    }
}

/// Reads a file; the end of its name tells the format.
///
/// # Errors
/// A file that cannot be read, is of no known format or is none of it.
pub(crate) fn load(path: &Path) -> Result<Node, ConfigError> {
    let parse: fn(&str) -> Result<Node, ConfigError> = match path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("yaml" | "yml") => yaml::parse,
        Some("toml") => toml::parse,
        Some("json") => json::parse,
        _ => {
            return Err(whole_file(
                "the format is not known from the name, expected .yaml, .yml, .toml or .json",
            )
            .in_file(path));
        }
    };
    text(path)
        .and_then(|text| parse(text.strip_prefix('\u{feff}').unwrap_or(&text)))
        .map_err(|error| error.in_file(path))
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            whole_file(format!("the file cannot be read: {error}"))
                .with_help("check the path given with --config and who may read it")
        })?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(whole_file(
            "the file is larger than 1 MiB, expected a configuration",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(
            error
                .as_bytes()
                .get(..error.utf8_error().valid_up_to())
                .unwrap_or_default(),
        )
        .into_owned();
        let origin = Lines::new(&good).origin(good.len());
        ConfigError::new(origin, "", "expected text in UTF-8")
    })
}

fn whole_file(message: impl Into<String>) -> ConfigError {
    ConfigError::new(Origin::place(0, 0), "", message)
}

/// Tells lines and columns of a text; made once for each, because it is asked for every node.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(newlines).collect(),
        }
    }

    /// Line and column, from 1, of a byte.
    fn place(&self, byte: usize) -> (usize, usize) {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.starts.partition_point(|&start| start <= end);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..end).unwrap_or_default();
        (line, 1 + before.chars().count())
    }

    fn origin(&self, byte: usize) -> Origin {
        let (line, column) = self.place(byte);
        Origin::place(line, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_node_leaves_its_neighbours_their_numbers() {
        let mut root = yaml::parse("a: [{b: 1, c.d: 2}, {b: 3}]").unwrap();
        assert!(root.refuse("a[0].c.d"));
        assert!(root.refuse("a[0]"));
        assert!(!root.refuse("a[0]"), "it is gone already");
        assert!(root.refuse("a[1].b"));
        for missing in ["a[2]", "a[x]", "a.b", "b", "a[1].b.c"] {
            assert!(!root.refuse(missing), "{missing}");
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let lines = Lines::new("aé\nbc\n");
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(1), (1, 2));
        // In the middle of a character: the character.
        assert_eq!(lines.place(2), (1, 2));
        assert_eq!(lines.place(3), (1, 3));
        assert_eq!(lines.place(4), (2, 1));
        assert_eq!(lines.place(6), (2, 3));
        assert_eq!(lines.place(7), (3, 1));
        assert_eq!(lines.place(99), (3, 1));
    }
}
