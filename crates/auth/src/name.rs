//! Names that users choose: short, printable, and the same in a log, a label, a host name and a file name.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Long enough for a label of a host name, short enough for a line of a log.
const LONGEST_NAME: usize = 64;

/// Why a text is an invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?} {problem}")]
pub struct NameError {
    /// The kind of name, as the configuration calls it.
    pub kind: &'static str,
    /// The text, cut to the longest length of a name.
    pub name: String,
    /// What is wrong with the name.
    pub problem: NameProblem,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// The name is empty.
    #[error("is empty: it needs 1 to 64 characters")]
    Empty,
    /// The name is too long.
    #[error("is too long: it may have 64 characters")]
    TooLong,
    /// The name begins with a punctuation character, as an option or a hidden file does.
    #[error("begins with {found:?}: it must begin with a letter or a digit (A-Z, a-z, 0-9)")]
    Start {
        /// The first character.
        found: char,
    },
    /// The name contains a character that is not allowed.
    #[error("contains {found:?}: only A-Z, a-z, 0-9, '.', '_' and '-' are allowed")]
    Character {
        /// The first character that is not allowed.
        found: char,
    },
}

fn check(name: &str) -> Result<(), NameProblem> {
    let first = name.chars().next().ok_or(NameProblem::Empty)?;
    // The length is in bytes, without decoding a hostile text: characters of several bytes are rejected anyway.
    if name.len() > LONGEST_NAME {
        return Err(NameProblem::TooLong);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(found) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameProblem::Character { found });
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameProblem::Start { found: first });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 64 characters of `A-Z a-z 0-9 . _ -`, the first a letter or a digit. Case matters. A clone shares the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`NameError`] with the first problem.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                match check(name) {
                    Ok(()) => Ok(Self(name.into())),
                    Err(problem) => Err(NameError {
                        kind: $kind,
                        name: name.chars().take(LONGEST_NAME).collect(),
                        problem,
                    }),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl From<$name> for Arc<str> {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name! {
    /// A client, as it reports itself.
    ClientId, "client_id"
}
name! {
    /// Clients that serve the same tunnels and share the load.
    GroupId, "group_id"
}
name! {
    /// A public entry and its target.
    TunnelName, "tunnel name"
}
name! {
    /// The user of a credential.
    UserName, "user name"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str) -> Option<NameProblem> {
        ClientId::parse(name).err().map(|error| error.problem)
    }

    #[test]
    fn valid_names_are_accepted() {
        for name in [
            "a",
            "Z",
            "0",
            "office-1",
            "a.b_c-d",
            "9..--__",
            &"x".repeat(64),
        ] {
            assert_eq!(problem(name), None, "{name}");
        }
    }

    #[test]
    fn each_problem_is_named() {
        assert_eq!(problem(""), Some(NameProblem::Empty));
        assert_eq!(problem(&"x".repeat(65)), Some(NameProblem::TooLong));
        for found in ['.', '_', '-'] {
            let name = format!("{found}a");
            assert_eq!(problem(&name), Some(NameProblem::Start { found }));
        }
        for found in [' ', '/', '\n', '\0', ':', '@', '[', '`', '{', 'é', '１'] {
            let name = format!("a{found}");
            assert_eq!(problem(&name), Some(NameProblem::Character { found }));
        }
    }

    #[test]
    fn the_error_is_bounded_and_printable() {
        let text = |error: Option<NameError>| error.map(|error| error.to_string());
        assert_eq!(
            text(TunnelName::parse("my\ntunnel").err()).as_deref(),
            Some(
                r#"tunnel name "my\ntunnel" contains '\n': only A-Z, a-z, 0-9, '.', '_' and '-' are allowed"#
            )
        );
        assert_eq!(
            text(GroupId::parse("-x").err()).as_deref(),
            Some(
                r#"group_id "-x" begins with '-': it must begin with a letter or a digit (A-Z, a-z, 0-9)"#
            )
        );
        assert_eq!(
            text(UserName::parse("").err()).as_deref(),
            Some(r#"user name "" is empty: it needs 1 to 64 characters"#)
        );
        let huge = ClientId::parse(&"é".repeat(10_000)).err();
        assert_eq!(
            huge.map(|error| (error.kind, error.name.chars().count(), error.problem)),
            Some(("client_id", 64, NameProblem::TooLong))
        );
    }

    #[test]
    fn a_name_is_shown_as_its_text() -> Result<(), NameError> {
        let name: ClientId = "office-1".parse()?;
        assert_eq!(name.as_str(), "office-1");
        assert_eq!(AsRef::<str>::as_ref(&name), "office-1");
        assert_eq!(Borrow::<str>::borrow(&name), "office-1");
        assert_eq!(
            format!("{name} {name:?} {name:>9}"),
            r#"office-1 "office-1"  office-1"#
        );
        assert_eq!(&*Arc::<str>::from(name), "office-1");
        Ok(())
    }
}
