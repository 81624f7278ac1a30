//! The environment: `ADIT__SERVER__BIND_PORT` stands for `server.bind_port`.

use std::{collections::BTreeMap, ffi::OsString};

use crate::{
    document::{Entry, Node, Value, parse_flow},
    error::{ConfigError, Origin},
    spelling,
};

/// Prefix of adit's variables. It has two underscores, because with one the variables that Kubernetes sets for a
/// service called `adit` would match.
const PREFIX: &str = "ADIT__";

/// Prefix of a variable with a missing underscore. Other programs use it too.
const MISSPELT_PREFIX: &str = "ADIT_";

/// The variables of a proxy that other programs read as well, in their order, and the one with exceptions.
pub(crate) const PROXY_VARIABLES: [&str; 4] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
pub(crate) const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Variables of flags without a key; they are read with the flags, and ignored here.
pub const FLAG_VARIABLES: &[&str] = &[
    "ADIT__CHECK",
    "ADIT__CONFIG",
    "ADIT__DEMO__ONCE",
    "ADIT__JOIN",
    "ADIT__JOIN__FILE",
    "ADIT__JSON",
    "ADIT__LOG",
    "ADIT__LOG_FORMAT",
    "ADIT__ROUTE__ADMIN",
    "ADIT__STATE_DIR",
    "ADIT__TOKEN",
    "ADIT__TUNNEL__DOMAIN",
    "ADIT__TUNNEL__HOST_REWRITE",
    "ADIT__TUNNEL__LOAD_BALANCE",
    "ADIT__TUNNEL__LOCAL_PROTOCOL",
    "ADIT__TUNNEL__NAME",
    "ADIT__TUNNEL__PROXY_PROTOCOL",
    "ADIT__TUNNEL__REMOTE_PORT",
    "ADIT__TUNNEL__SESSION_TIMEOUT",
    "ADIT__TUNNEL__SSL_CERT",
    "ADIT__TUNNEL__TLS_CA",
    "ADIT__TUNNEL__TLS_INSECURE",
    "ADIT__TUNNEL__TLS_NAME",
    "ADIT__TUNNEL__WEIGHT",
    "ADIT__VERBOSE",
];

/// The variables of this process that the settings may use. Invalid bytes of a value are replaced, so that the error
/// can show it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    relevant(std::env::vars_os())
}

fn relevant(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (String, String)> {
    variables.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        counts(&name).then(|| (name, value.to_string_lossy().into_owned()))
    })
}

fn counts(name: &str) -> bool {
    name.starts_with(MISSPELT_PREFIX)
        || name.starts_with("OTEL_")
        || matches!(name, "HOME" | "HOSTNAME" | "XDG_STATE_HOME")
        || PROXY_VARIABLES.contains(&name)
        || NO_PROXY_VARIABLES.contains(&name)
}

/// The variables without those that are empty: compose files set those to leave a key unset.
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    pub(crate) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(
            variables
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        )
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Variables that are ignored and resemble those of adit, each with the correct name.
    pub(crate) fn misspelt(&self) -> Vec<String> {
        let variables = self.0.iter();
        variables
            .filter_map(|(name, value)| misspelt(name, value))
            .collect()
    }

    /// Puts the variables of one side, `server` or `client`, into the tree of the file. Returns the variables of adit
    /// without a matching key, and those whose path contains a value that is not a section.
    pub(crate) fn lay_over(&self, root: &mut Node, side: &str) -> Vec<ConfigError> {
        let mut refused = Vec::new();
        for (name, value) in &self.0 {
            let Some(path) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if FLAG_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let path = path.to_ascii_lowercase();
            let keys: Vec<&str> = path.split("__").collect();
            match keys.first() {
                Some(&first) if first == side && keys.len() > 1 => {
                    refused.extend(lay(root, name, &keys, value).err());
                }
                // The variable is for the other program.
                Some(&("server" | "client")) if keys.len() > 1 => {}
                _ => refused.push(unknown(name)),
            }
        }
        refused
    }
}

/// A warning about an unknown name that resembles a variable of adit. Not an error: other programs, and Kubernetes for
/// a service called `adit`, set such names as well.
fn misspelt(name: &str, value: &str) -> Option<String> {
    if name.starts_with(PREFIX)
        || !name.starts_with(MISSPELT_PREFIX)
        || is_of_kubernetes(name, value)
    {
        return None;
    }
    let ignored = format!("the variable {name} is ignored");
    let known = FLAG_VARIABLES.iter();
    if let Some(known) = known
        .copied()
        .find(|known| spelling::same_letters(known, name))
    {
        return Some(format!(
            "{ignored}: the name is {known}, with two underscores"
        ));
    }
    let ours = name.replacen(MISSPELT_PREFIX, PREFIX, 1);
    if ["SERVER_", "CLIENT_"]
        .iter()
        .any(|side| ours[PREFIX.len()..].starts_with(side))
    {
        return Some(format!(
            "{ignored}: write two underscores before each key, as in ADIT__SERVER__BIND_PORT"
        ));
    }
    spelling::nearest(&ours, FLAG_VARIABLES.iter().copied())
        .map(|near| format!("{ignored}: did you mean {near}?"))
}

/// Whether this is a variable that Kubernetes sets, such as `ADIT_SERVICE_HOST`, `ADIT_PORT=tcp://...` or
/// `ADIT_SERVER_PORT_7000_TCP_ADDR`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let protocol = ["_TCP", "_UDP", "_SCTP"]
        .iter()
        .any(|end| name.contains(end));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || (name.contains("_PORT_") && protocol)
}

fn unknown(name: &str) -> ConfigError {
    let help = spelling::nearest(name, FLAG_VARIABLES.iter().copied()).map_or_else(
        || "a key of a file, such as server.bind_port, is ADIT__SERVER__BIND_PORT".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    ConfigError::new(
        Origin::Variable(name.to_owned()),
        "",
        "unknown variable, expected ADIT__SERVER__KEY or ADIT__CLIENT__KEY",
    )
    .with_help(help)
}

fn lay(root: &mut Node, name: &str, keys: &[&str], value: &str) -> Result<(), ConfigError> {
    let origin = Origin::Variable(name.to_owned());
    let start = value.trim_start();
    let node = if start.starts_with(['[', '{']) {
        parse_flow(value, &origin, &keys.join("."))?
    } else {
        Node::untyped(value, origin.clone())
    };
    place(root, keys, node).map_err(|at| {
        ConfigError::new(
            origin,
            keys.join("."),
            format!("{at} is not a section, so no key in it can be set"),
        )
        .with_help("set all of it in one variable, in the syntax of YAML: [{...}, {...}]")
    })
}

/// Puts a node at the path of these keys, and creates missing sections.
///
/// # Errors
/// The path of the value that is not a section.
pub(crate) fn place(root: &mut Node, keys: &[&str], node: Node) -> Result<(), String> {
    let mut section = root;
    let Some((last, parents)) = keys.split_last() else {
        return Ok(());
    };
    for (depth, key) in parents.iter().enumerate() {
        let here = || keys.get(..=depth).unwrap_or(keys).join(".");
        let entry = entry(section, key, &node.origin).ok_or_else(here)?;
        if matches!(entry.value, Value::Null) {
            entry.value = Value::Section(Vec::new());
        }
        section = entry;
        if !matches!(section.value, Value::Section(_)) {
            return Err(here());
        }
    }
    let slot = entry(section, last, &node.origin).ok_or_else(|| parents.join("."))?;
    *slot = node;
    Ok(())
}

/// The node of a key, which is an empty section at first; `None` if the parent is not a section.
fn entry<'n>(section: &'n mut Node, key: &str, origin: &Origin) -> Option<&'n mut Node> {
    if matches!(section.value, Value::Null) {
        section.value = Value::Section(Vec::new());
    }
    let Value::Section(entries) = &mut section.value else {
        return None;
    };
    let index = entries
        .iter()
        .position(|entry| entry.key == key)
        .unwrap_or(entries.len());
    if index == entries.len() {
        entries.push(Entry {
            key: key.to_owned(),
            origin: origin.clone(),
            node: Node {
                value: Value::Section(Vec::new()),
                origin: origin.clone(),
            },
        });
    }
    let entry = entries.get_mut(index)?;
    // An unknown key is reported at the last place where it was written.
    entry.origin = origin.clone();
    Some(&mut entry.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_with_one_underscore_is_a_warning() {
        let warned = |name, value| misspelt(name, value).unwrap_or_default();
        for (name, right) in [
            ("ADIT_TOKEN", "ADIT__TOKEN"),
            ("ADIT_STATE_DIR", "ADIT__STATE_DIR"),
            ("ADIT_TOKNE", "ADIT__TOKEN"),
            ("ADIT_SERVER_BIND_PORT", "ADIT__SERVER__BIND_PORT"),
            ("ADIT_CLIENT__GROUP_ID", "two underscores"),
        ] {
            let warning = warned(name, "7000-secret");
            assert!(
                warning.contains(name) && warning.contains(right),
                "{warning}"
            );
            assert!(!warning.contains("secret"), "{warning}");
        }
        for (name, value) in [
            ("ADIT__TOKEN", "x"),
            ("ADIT_POSTGRES_PASSWORD", "x"),
            ("ADIT_SERVICE_HOST", "10.0.0.1"),
            ("ADIT_SERVER_SERVICE_PORT_HTTP", "80"),
            ("ADIT_PORT", "tcp://10.0.0.1:7000"),
            ("ADIT_SERVER_PORT_7000_TCP_ADDR", "10.0.0.1"),
            ("HOME", "/"),
        ] {
            assert_eq!(warned(name, value), "", "{name}");
        }
    }

    #[test]
    fn only_variables_with_a_meaning_here_are_read() {
        let kept = [
            ("ADIT__TOKEN", "t"),
            ("ADIT_TOKEN", ""),
            ("HOME", "/root"),
            ("HOSTNAME", "h"),
            ("OTEL_SERVICE_NAME", "s"),
            ("XDG_STATE_HOME", "/state"),
        ];
        let others = ["ADITOKEN", "PATH", "adit__token", ""];
        let all = kept.into_iter().chain(others.map(|name| (name, "x")));
        let read = relevant(all.map(|(name, value)| (name.into(), value.into())));
        let expected = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_utf8_are_replaced_in_values() {
        use std::os::unix::ffi::OsStringExt as _;
        let invalid = OsString::from_vec(b"a\xffb".to_vec());
        let variables = [
            ("HOME".into(), invalid.clone()),
            (invalid, OsString::from("x")),
        ];
        let read: Vec<_> = relevant(variables.into_iter()).collect();
        assert_eq!(read, [("HOME".to_owned(), "a\u{fffd}b".to_owned())]);
    }
}
