//! YAML, through serde-saphyr, which keeps the place of each node.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::node::{Entry, Node, Value};
use crate::error::{ConfigError, Origin};

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    read(text).map_err(|(origin, message)| ConfigError::new(origin, "", message))
}

/// Reads a list or a section from one variable.
pub(crate) fn flow(text: &str, origin: &Origin, key: &str) -> Result<Node, ConfigError> {
    read(text)
        .map(|node| node.moved_to(origin))
        .map_err(|(_, message)| ConfigError::new(origin.clone(), key, message))
}

fn read(text: &str) -> Result<Node, (Origin, String)> {
    // A document that has only comments has no value.
    let blank = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return Ok(Node::empty());
    }
    if let Some(line) = text.lines().position(|line| marks(line) > DEEPEST) {
        return Err((Origin::place(line + 1, 1), TOO_MUCH.to_owned()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEEPEST },
    };
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options)
        .map(node)
        .map_err(|error| {
            let place = error.location().map_or(Origin::place(0, 0), origin);
            (place, message(error.without_snippet()))
        })
}

/// More than twice the depth of the deepest key. The parser uses some 30 KiB of stack for each level in a debug build,
/// and a thread may have no more than 2 MiB.
const DEEPEST: usize = 16;

const TOO_MUCH: &str =
    "expected a configuration, found a text that is nested too deep or has too many values";

/// The number of lists and keys that a line opens with `- ` and `? `. The scanner recurses into each before it checks
/// the parser's budget, so that a line of them would overflow the stack.
fn marks(line: &str) -> usize {
    let blank = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    let bytes = line.as_bytes();
    let lead = bytes
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'-' | b'?'))
        .count();
    (0..lead)
        .filter(|&at| !blank(bytes.get(at)) && blank(bytes.get(at + 1)))
        .count()
}

/// The parser's message, without its advice for programmers, without its excerpt of the text, which may contain a
/// secret, and without the place, which is reported in the format of this crate.
fn message(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key `{key}` is given twice");
        }
        serde_saphyr::Error::Budget { .. } => return TOO_MUCH.to_owned(),
        serde_saphyr::Error::MultipleDocuments { .. } => {
            return "expected one document, found a second one after `---`".to_owned();
        }
        _ => {}
    }
    let text = UserMessageFormatter.format_message(error);
    let first = text.lines().next().unwrap_or_default();
    let end = first
        .find(" at line ")
        .or_else(|| first.find(" (line "))
        .unwrap_or(first.len());
    format!("invalid YAML: {}", first.get(..end).unwrap_or(first))
}

fn origin(location: Location) -> Origin {
    let number = |number: u64| usize::try_from(number).unwrap_or(0);
    Origin::place(number(location.line()), number(location.column()))
}

fn node(spanned: Spanned<Tree>) -> Node {
    Node {
        value: spanned.value.0,
        origin: origin(spanned.referenced),
    }
}

struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree(Value::Integer(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree(Value::Integer(value)))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree(i128::try_from(value).map_or_else(
            |_| Value::Text(value.to_string()),
            Value::Integer,
        )))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree(Value::Text(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Tree>>()? {
            list.push(node(item));
        }
        Ok(Tree(Value::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push(Entry {
                key: key.value,
                origin: origin(key.referenced),
                node: node(map.next_value::<Spanned<Tree>>()?),
            });
        }
        Ok(Tree(Value::Section(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_before_a_blank_open_something() {
        assert_eq!(marks("  - - ? -\t-"), 5);
        assert_eq!(marks("-----"), 1);
        assert_eq!(marks("- a: - - -"), 1);
        assert_eq!(marks("a - - -"), 0);
        assert_eq!(marks(""), 0);
    }
}
