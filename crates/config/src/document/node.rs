//! The tree of a document: values, and where each was written.

use std::fmt;

use crate::error::Origin;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value of any format.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// Text of the environment or of a flag, read as the type that the key has.
    Untyped(String),
    List(Vec<Node>),
    Section(Vec<Entry>),
    /// A value that was rejected and reported; it counts as missing.
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
    /// An empty file.
    pub(crate) fn empty() -> Self {
        Self {
            value: Value::Section(Vec::new()),
            origin: Origin::Default,
        }
    }

    pub(crate) fn untyped(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            value: Value::Untyped(text.into()),
            origin,
        }
    }

    /// This tree with `origin` as the place of all its nodes.
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
    /// Removes the node at a path such as `client.tunnels[0].name` from the tree; the other items of a list keep their
    /// numbers. Returns whether there was one.
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
                // Keys that users choose may contain dots and brackets.
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

/// The value in the form in which errors show it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST_QUOTE: usize = 60;
        match self {
            Self::Null | Self::Refused => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) | Self::Untyped(text) => {
                let quote: String = text.chars().take(LONGEST_QUOTE).collect();
                let cut = if quote.len() < text.len() { "..." } else { "" };
                write!(f, "the text {quote:?}{cut}")
            }
            Self::List(_) => f.write_str("a list"),
            Self::Section(_) => f.write_str("a section with keys"),
        }
    }
}
