//! A file as a tree of keys and values, each with the place where it was written.
//!
//! With a derived struct for each section, the place of a value would be lost when it is read, and only the parser
//! could report the place of an error. With the tree every later check can report it, and the environment and the flags
//! are layers of the same tree (decision 0028).

mod json;
mod lines;
mod node;
mod toml;
mod yaml;

use std::path::Path;

use self::lines::Lines;
use crate::{
    bounded_file,
    error::{ConfigError, Origin},
};

pub(crate) use self::{
    node::{Entry, Node, Value},
    yaml::flow as parse_flow,
};

/// Size of the largest file; a larger one was given by mistake, and would be held in memory several times.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// Reads a file, whose extension selects the format.
///
/// # Errors
/// A file that cannot be read, has an unknown format or is invalid.
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
            return Err(
                whole_file("unknown file extension, expected .yaml, .yml, .toml or .json")
                    .in_file(path),
            );
        }
    };
    text(path)
        .and_then(|text| parse(text.strip_prefix('\u{feff}').unwrap_or(&text)))
        .map_err(|error| error.in_file(path))
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let read = bounded_file::read(path, LARGEST_FILE_BYTES).map_err(|error| {
        whole_file(format!("cannot read the file: {error}"))
            .with_help("check the path given with --config and its permissions")
    })?;
    let bytes =
        read.ok_or_else(|| whole_file("the file is larger than 1 MiB, expected a configuration"))?;
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
}
