//! Reads a tree key by key. A [`Section`] records which keys were read; a key that was not read is an error.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use bytesize::ByteSize;
use jiff::SignedDuration;

#[cfg(test)]
use crate::reference;
use crate::{
    document::{Entry, Node, Value},
    error::{ConfigError, Kind, Origin},
    key_names::KeyNames,
    spelling::{nearest, same_letters},
};

/// The longest wait. A longer one is a mistake, and with this bound the sum of a time and a wait always fits into an
/// `Instant`.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The values of one section, read by key.
pub(crate) struct Section<'n> {
    path: String,
    origin: Origin,
    entries: Option<&'n [Entry]>,
    read: Vec<&'static str>,
}

/// One value.
#[derive(Clone)]
pub(crate) struct Item<'n> {
    path: String,
    node: &'n Node,
}

impl<'n> Section<'n> {
    /// The whole document.
    pub(crate) fn root(node: &'n Node) -> Result<Self, ConfigError> {
        let path = String::new();
        Item { path, node }.section()
    }

    fn absent(path: String, origin: Origin) -> Self {
        Self {
            path,
            origin,
            entries: None,
            read: Vec::new(),
        }
    }

    /// Whether the section has any key.
    pub(crate) fn is_written(&self) -> bool {
        self.entries.is_some()
    }

    fn find(&self, key: &str) -> Option<&'n Entry> {
        let mut entries = self.entries?.iter();
        entries.find(|entry| entry.key == key && !entry.node.is_refused())
    }

    /// Whether the section has the key, without reading the value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of a key.
    pub(crate) fn item(&mut self, key: &'static str) -> Option<Item<'n>> {
        self.read.push(key);
        #[cfg(test)]
        reference::key(&self.path_of(key));
        self.find(key).map(|entry| Item {
            path: self.path_of(key),
            node: &entry.node,
        })
    }

    /// The section of a key; an empty one if it is missing.
    pub(crate) fn section(&mut self, key: &'static str) -> Result<Section<'n>, ConfigError> {
        match self.item(key) {
            Some(item) => item.section(),
            None => Ok(Self::absent(self.path_of(key), self.origin.clone())),
        }
    }

    /// All keys and values of a section with free keys; the section has been read completely then.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'n str, Item<'n>)> {
        let entries = self.entries.unwrap_or_default().iter();
        let entries = entries.filter(|entry| !entry.node.is_refused());
        entries.map(|entry| {
            let item = Item {
                path: self.path_of(&entry.key),
                node: &entry.node,
            };
            (entry.key.as_str(), item)
        })
    }

    pub(crate) fn set_number<T: TryFrom<u64> + Copy + Display>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        slot: &mut T,
    ) -> Result<(), ConfigError> {
        #[cfg(test)]
        reference::number(&self.path_of(key), &range, *slot);
        match self.item(key) {
            Some(item) => item.number(range).map(|number| *slot = number),
            None => Ok(()),
        }
    }

    pub(crate) fn set_size<T: TryFrom<u64> + Copy + Display>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        slot: &mut T,
    ) -> Result<(), ConfigError> {
        #[cfg(test)]
        reference::size(&self.path_of(key), &range, *slot);
        match self.item(key) {
            Some(item) => item.size(range).map(|size| *slot = size),
            None => Ok(()),
        }
    }

    /// Sets a wait. `least` is the lower bound: some waits must not be zero.
    pub(crate) fn set_wait(
        &mut self,
        key: &'static str,
        least: Duration,
        slot: &mut Duration,
    ) -> Result<(), ConfigError> {
        #[cfg(test)]
        reference::wait(&self.path_of(key), least, *slot);
        match self.item(key) {
            Some(item) => item.wait(least).map(|wait| *slot = wait),
            None => Ok(()),
        }
    }

    /// Rejects keys that were not read. `key_names` has suggestions.
    pub(crate) fn finish(&self, key_names: &KeyNames) -> Result<(), ConfigError> {
        let written = self.entries.unwrap_or_default();
        match written
            .iter()
            .find(|entry| !self.read.contains(&entry.key.as_str()) && !entry.node.is_refused())
        {
            Some(entry) => Err(self.unknown_key(entry, key_names).of_kind(Kind::Unknown)),
            None => Ok(()),
        }
    }

    fn unknown_key(&self, entry: &Entry, key_names: &KeyNames) -> ConfigError {
        let key = entry.key.as_str();
        let error =
            |message: String| ConfigError::new(entry.origin.clone(), self.path_of(key), message);
        let later = |key: &&&str| same_letters(key, &entry.key);
        if let Some(ours) = key_names.unsupported.iter().find(later) {
            return error(format!("`{ours}` is not supported by this version"))
                .with_help("remove it");
        }
        let unknown = format!("unknown key `{key}`");
        if let Some(suggestion) = key_names.suggestion(key) {
            return error(unknown).with_help(suggestion);
        }
        if let Some(ours) = self.read.iter().find(|ours| same_letters(ours, key)) {
            return error(unknown).with_help(format!("adit calls it `{ours}`"));
        }
        let expected = match self.read.as_slice() {
            [only] => format!("expected {only}"),
            keys => format!("expected one of {}", keys.join(", ")),
        };
        let unknown = error(format!("{unknown}, {expected}"));
        match nearest(key, self.read.iter().copied()) {
            Some(near) => unknown.with_help(format!("did you mean `{near}`?")),
            None => unknown,
        }
    }

    /// An error about several keys, reported at the first of them that is present, or at the section.
    pub(crate) fn conflict(&self, keys: &[&str], message: impl Into<String>) -> ConfigError {
        let written = keys
            .iter()
            .find_map(|key| self.find(key).map(|entry| (*key, &entry.node.origin)));
        let error = match written {
            Some((key, origin)) => ConfigError::new(origin.clone(), self.path_of(key), message),
            None => ConfigError::new(self.origin.clone(), self.path.clone(), message),
        };
        error.of_kind(Kind::Together)
    }

    /// The error for a missing key.
    pub(crate) fn missing(&self, key: &str, what: &str) -> ConfigError {
        ConfigError::new(
            self.origin.clone(),
            self.path.clone(),
            format!("the key `{key}` is missing, expected {what}"),
        )
        .of_kind(Kind::Missing)
    }
}

impl<'n> Item<'n> {
    /// The place where the value was written.
    pub(crate) fn origin(&self) -> &Origin {
        &self.node.origin
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.node.origin.clone(), self.path.clone(), message)
    }

    /// The error for a value that conflicts with others.
    pub(crate) fn conflict(&self, message: impl Into<String>) -> ConfigError {
        self.error(message).of_kind(Kind::Together)
    }

    fn expected(&self, what: impl Display) -> ConfigError {
        self.error(format!("expected {what}, found {}", self.node.value))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn is_text(&self) -> bool {
        self.as_text().is_some()
    }

    /// The value if it is a text.
    fn as_text(&self) -> Option<&str> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn text(&self, what: &str) -> Result<&str, ConfigError> {
        self.text_with(what, "put quotes around it")
    }

    /// A text, with the advice for a number instead of it.
    pub(crate) fn text_with(&self, what: &str, help: &str) -> Result<&str, ConfigError> {
        self.as_text().ok_or_else(|| {
            let error = self.expected(what);
            match self.node.value {
                Value::Integer(_) | Value::Float(_) | Value::Bool(_) => error.with_help(help),
                _ => error,
            }
        })
    }

    /// A secret, which errors do not show.
    pub(crate) fn secret(&self, what: &str) -> Result<&str, ConfigError> {
        self.as_text().ok_or_else(|| {
            let error = self.error(format!("expected {what} as text"));
            match self.node.value {
                Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                    error.with_help("put quotes around it")
                }
                _ => error,
            }
        })
    }

    /// Parses the text; the error is that of the type's parser.
    pub(crate) fn parse<T>(&self, what: &str) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text(what)?
            .parse()
            .map_err(|error: T::Err| self.error(error.to_string()))
    }

    /// Parses the text; the error states the expected form, `what`.
    pub(crate) fn parse_as<T: FromStr>(&self, what: &str) -> Result<T, ConfigError> {
        self.text(what)?.parse().map_err(|_| self.expected(what))
    }

    pub(crate) fn number<T: TryFrom<u64>>(
        &self,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let number = match &self.node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                self.expected(format_args!(
                    "a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    pub(crate) fn fraction(&self) -> Result<f64, ConfigError> {
        let number = match &self.node.value {
            // The callers reject whole numbers above this range, so that rounding has no effect.
            Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
            Value::Float(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.expected("a number such as 2.0"))
    }

    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            Value::Untyped(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| self.expected("true or false"))
    }

    /// Whether the value is `off`, which some readers of YAML read as `false`.
    pub(crate) fn is_off(&self) -> bool {
        match &self.node.value {
            Value::Bool(value) => !value,
            value => matches!(value, Value::Text(text) | Value::Untyped(text) if text == "off"),
        }
    }

    /// Whether the value is this word.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.node.value, Value::Text(text) | Value::Untyped(text) if text.trim() == word)
    }

    pub(crate) fn size<T: TryFrom<u64>>(
        &self,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let size = match &self.node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) | Value::Untyped(text) => {
                text.trim().parse().ok().map(|ByteSize(bytes)| bytes)
            }
            _ => None,
        };
        size.filter(|size| range.contains(size))
            .and_then(|size| T::try_from(size).ok())
            .ok_or_else(|| {
                self.expected(format_args!(
                    "a size from {} to {}, such as `64KiB` or `100MB`",
                    ByteSize(*range.start()),
                    ByteSize(*range.end())
                ))
            })
    }

    pub(crate) fn wait(&self, least: Duration) -> Result<Duration, ConfigError> {
        let wait = self
            .as_text()
            .and_then(|text| text.trim().parse::<SignedDuration>().ok())
            .and_then(|wait| Duration::try_from(wait).ok());
        let Some(wait) = wait else {
            let error = self.expected("a time such as `5s`, `100ms` or `1m 30s`");
            return Err(match self.node.value {
                Value::Integer(_) | Value::Float(_) => error.with_help("a time needs a unit"),
                _ => error,
            });
        };
        if wait < least || wait > LONGEST_WAIT {
            return Err(self.expected(format_args!("a time from {least:?} to 365 days")));
        }
        Ok(wait)
    }

    /// The items of a list.
    pub(crate) fn list(&self, what: &str) -> Result<Vec<Item<'n>>, ConfigError> {
        match &self.node.value {
            Value::List(nodes) => Ok(nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| !node.is_refused())
                .map(|(index, node)| Item {
                    path: format!("{}[{index}]", self.path),
                    node,
                })
                .collect()),
            Value::Untyped(_) => Err(self
                .error(format!("expected a list of {what}, found a text"))
                .with_help("use the syntax of YAML: [{...}, {...}]")),
            _ => Err(self.expected(format_args!("a list of {what}"))),
        }
    }

    /// The items of a list, or a single value instead of a list.
    pub(crate) fn one_or_more(&self, what: &str) -> Result<Vec<Item<'n>>, ConfigError> {
        if self.is_list() {
            return self.list(what);
        }
        Ok(vec![Item {
            path: self.path.clone(),
            node: self.node,
        }])
    }

    /// The keys and values of the section. A key without a value is an empty section, for example when all of its keys
    /// are commented out.
    pub(crate) fn section(&self) -> Result<Section<'n>, ConfigError> {
        let entries = match &self.node.value {
            Value::Section(entries) => Some(entries.as_slice()),
            Value::Null | Value::Refused => None,
            // The text may be a secret: `auth: "..."`.
            Value::Text(_) | Value::Untyped(_) => {
                return Err(self.error("expected a section with keys, found a text"));
            }
            _ => return Err(self.expected("a section with keys")),
        };
        Ok(Section {
            path: self.path.clone(),
            origin: self.node.origin.clone(),
            entries,
            read: Vec::new(),
        })
    }
}
