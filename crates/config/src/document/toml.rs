//! TOML, through the parser of the `toml` crate, which keeps the span of each node.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    lines::Lines,
    node::{Entry, Node, Value},
};
use crate::error::ConfigError;

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let message = format!("invalid TOML: {}", error.message());
        ConfigError::new(lines.origin(start), "", message)
    })?;
    let start = table.span().start;
    Ok(Node {
        value: section(&lines, table.into_inner()),
        origin: lines.origin(start),
    })
}

fn section(lines: &Lines<'_>, table: DeTable<'_>) -> Value {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The table is sorted by key; headers are sent, and errors reported, in the order of the file.
    entries.sort_by_key(|(key, _)| key.span().start);
    Value::Section(
        entries
            .into_iter()
            .map(|(key, value)| Entry {
                origin: lines.origin(key.span().start),
                key: key.into_inner().into_owned(),
                node: node(lines, value),
            })
            .collect(),
    )
}

fn node(lines: &Lines<'_>, value: Spanned<DeValue<'_>>) -> Node {
    let origin = lines.origin(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.into_iter().map(|item| node(lines, item)).collect())
        }
        DeValue::Table(table) => section(lines, table),
    };
    Node { value, origin }
}
