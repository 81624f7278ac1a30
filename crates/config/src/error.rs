//! The one error type of this crate.

use std::{fmt, path::PathBuf};

/// Why settings were rejected: the place, the key, the expected value, the advice, and the [other
/// errors](Self::others).
///
/// `Display` formats it for a terminal: each error on one line or, with help, on two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    origin: Origin,
    key: String,
    message: String,
    help: Option<String>,
    kind: Kind,
    others: Vec<ConfigError>,
}

/// The subject of an error, which decides which other errors follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An invalid value.
    Value,
    /// An unknown key.
    Unknown,
    /// A missing key.
    Missing,
    /// Several values that exclude each other.
    Together,
    /// Required settings are missing: a token, or a tunnel. Reported only without other errors.
    Lacking,
    /// Required settings are missing, and a server on this machine would provide them.
    NoServer,
}

/// The place of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A position in a file.
    File {
        /// The file; empty until the path is known.
        path: PathBuf,
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// Character in the line, from 1; 0 for the file as a whole.
        column: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
    /// The value is a default or missing, and has no place.
    Default,
}

impl Origin {
    pub(crate) fn place(line: usize, column: usize) -> Self {
        Self::File {
            path: PathBuf::new(),
            line,
            column,
        }
    }
}

impl ConfigError {
    pub(crate) fn new(origin: Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            origin,
            key: key.into(),
            message: message.into(),
            help: None,
            kind: Kind::Value,
            others: Vec::new(),
        }))
    }

    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(crate) fn with_others(mut self, others: Vec<Self>) -> Self {
        self.0.others.extend(others);
        self
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Sets the file, which the parsers do not know.
    pub(crate) fn in_file(mut self, file: &std::path::Path) -> Self {
        if let Origin::File { path, .. } = &mut self.0.origin {
            file.clone_into(path);
        }
        self
    }

    /// The other errors, in the order of the file.
    #[must_use]
    pub fn others(&self) -> &[Self] {
        &self.0.others
    }

    /// Whether the only error is that neither a server nor a token is named and no server runs on this machine: once
    /// one runs, the same settings are valid.
    #[must_use]
    pub fn waits_for_server(&self) -> bool {
        self.0.kind == Kind::NoServer
    }

    /// The place of the setting.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// The key, as `server.http.bind_port`; empty if the error is not about one key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The error, and the expected value.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The advice.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// Line in the file, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self.0.origin {
            Origin::File { line, .. } if line > 0 => Some(line),
            _ => None,
        }
    }

    /// Character in the line, from 1.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        match self.0.origin {
            Origin::File { column, .. } if column > 0 => Some(column),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    /// Writes `server.yaml:3:14`, `ADIT__SERVER__BIND_PORT` or `--bind-port`; nothing for a default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Default => Ok(()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            origin,
            key,
            message,
            help,
            others,
            ..
        } = &*self.0;
        if *origin != Origin::Default {
            write!(f, "{origin}: ")?;
        }
        // The name of a variable or a flag already contains the key.
        if !key.is_empty() && matches!(origin, Origin::File { .. } | Origin::Default) {
            write!(f, "{key}: ")?;
        }
        f.write_str(message)?;
        if let Some(help) = help {
            write!(f, "\n  help: {help}")?;
        }
        others.iter().try_for_each(|other| write!(f, "\n{other}"))
    }
}

impl std::error::Error for ConfigError {}
