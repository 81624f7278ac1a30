//! JSON. serde_json validates the text and reports the place of an error, but not the places of values; a second parser
//! determines them from the valid text.

use std::collections::HashSet;

use super::{
    lines::Lines,
    node::{Entry, Node, Value},
};
use crate::error::{ConfigError, Origin};

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    // Validation also bounds the depth of the second parser.
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| {
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or_default();
        let origin = Origin::place(error.line(), error.column().max(1));
        ConfigError::new(origin, "", format!("invalid JSON: {reason}"))
    })?;
    Walk {
        text,
        lines: Lines::new(text),
        at: 0,
    }
    .node()
}

struct Walk<'t> {
    text: &'t str,
    lines: Lines<'t>,
    at: usize,
}

impl<'t> Walk<'t> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn node(&mut self) -> Result<Node, ConfigError> {
        let first = self.peek();
        let origin = self.lines.origin(self.at);
        let value = match first {
            Some(b'{') => self.section()?,
            Some(b'[') => self.list()?,
            Some(b'"') => Value::Text(self.string()),
            _ => self.word(),
        };
        Ok(Node { value, origin })
    }

    fn section(&mut self) -> Result<Value, ConfigError> {
        self.at += 1;
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        while self.peek() == Some(b'"') {
            let origin = self.lines.origin(self.at);
            let key = self.string();
            if !seen.insert(key.clone()) {
                return Err(ConfigError::new(origin, key, "the key is given twice"));
            }
            // Skips the colon.
            self.peek();
            self.at += 1;
            let node = self.node()?;
            entries.push(Entry { key, origin, node });
            self.comma();
        }
        self.at += 1;
        Ok(Value::Section(entries))
    }

    fn list(&mut self) -> Result<Value, ConfigError> {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek().is_some_and(|byte| byte != b']') {
            items.push(self.node()?);
            self.comma();
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn comma(&mut self) {
        if self.peek() == Some(b',') {
            self.at += 1;
        }
    }

    fn string(&mut self) -> String {
        let start = self.at;
        let mut escaped = false;
        let length = self.rest().bytes().skip(1).take_while(|&byte| {
            let inside = byte != b'"' || escaped;
            escaped = byte == b'\\' && !escaped;
            inside
        });
        self.at += length.count() + 2;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(quoted).unwrap_or_default()
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Value {
        let rest = self.rest();
        let end = rest
            .find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}'))
            .unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        // The position advances by at least one byte, so that the parser always ends.
        self.at += end.max(1);
        match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            _ => word.parse().map(Value::Integer).unwrap_or_else(|_| {
                word.parse()
                    .map_or_else(|_| Value::Text(word.to_owned()), Value::Float)
            }),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }
}
