//! What has been used, as stored in the state directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use adit_auth::{ClientId, GroupId, TunnelName, UserName};
use adit_private_file as private_file;
use adit_quota::Usage;
use serde::{Deserialize, Serialize};

/// Bound of the file's length; a longer file was written by another program.
const LONGEST_FILE: u64 = 256 << 20;

/// The form of the file.
const VERSION: u32 = 1;

/// What a client, a tunnel or a user has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(super) of: Named,
    pub(super) usage: Usage,
}

/// A client, a tunnel or a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    User { name: UserName },
    Client { name: ClientId },
    Tunnel { group: GroupId, name: TunnelName },
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.of.cmp(&other.of)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    usages: Vec<Stored>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

/// The file `usage.json` in a state directory, readable by its owner only.
#[derive(Debug, Clone)]
pub(crate) struct UsageFile {
    path: PathBuf,
}

impl UsageFile {
    /// The file in a state directory; it need not exist.
    pub(crate) fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("usage.json"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is stored; nothing if the file does not exist.
    ///
    /// # Errors
    /// A text that says what to do: quotas must not begin at zero because their file is broken.
    pub(crate) fn read(&self) -> Result<Vec<Record>, String> {
        self.try_read().map_err(|error| {
            format!(
                "what clients, tunnels and users have used cannot be read from {}: {error}; restore the file, or move it away \
                 to count from zero",
                self.path.display()
            )
        })
    }

    fn try_read(&self) -> io::Result<Vec<Record>> {
        let Some(text) = private_file::read(&self.path, LONGEST_FILE)? else {
            return Ok(Vec::new());
        };
        let content: Content = serde_json::from_slice(&text)?;
        if content.version != VERSION {
            let version = content.version;
            return Err(io::Error::other(format!(
                "it has the form {version} of another version of adit"
            )));
        }
        content.usages.into_iter().map(Stored::read).collect()
    }

    /// Replaces the file as a whole.
    pub(crate) fn write(&self, records: &[Record]) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            usages: records.iter().map(Stored::of).collect(),
        };
        private_file::replace(&self.path, &serde_json::to_vec_pretty(&content)?)
    }
}

impl Stored {
    fn of(record: &Record) -> Self {
        let (of, group, name) = match &record.of {
            Named::User { name } => ("user", None, name.to_string()),
            Named::Client { name } => ("client", None, name.to_string()),
            Named::Tunnel { group, name } => ("tunnel", Some(group.to_string()), name.to_string()),
        };
        Self {
            of: of.to_owned(),
            group,
            name,
            usage: record.usage,
        }
    }

    fn read(self) -> io::Result<Record> {
        let invalid = || io::Error::other(format!("it names no {} {:?}", self.of, self.name));
        let of = match (&*self.of, &self.group) {
            ("user", _) => Named::User {
                name: UserName::parse(&self.name).map_err(|_| invalid())?,
            },
            ("client", _) => Named::Client {
                name: ClientId::parse(&self.name).map_err(|_| invalid())?,
            },
            ("tunnel", Some(group)) => Named::Tunnel {
                group: GroupId::parse(group).map_err(|_| invalid())?,
                name: TunnelName::parse(&self.name).map_err(|_| invalid())?,
            },
            _ => return Err(invalid()),
        };
        let usage = self.usage;
        Ok(Record { of, usage })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use adit_quota::{Calendar, Timestamp};

    use super::*;

    fn usage(bytes: u64) -> Usage {
        let mut usage = Usage::default();
        usage.add(&Calendar::default().at(Timestamp::UNIX_EPOCH), bytes, 1);
        usage
    }

    #[test]
    fn p_16_6_the_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = UsageFile::in_dir(&dir.path().join("state"));
        assert_eq!(file.read().unwrap(), []);
        let name = |name: &str| name.to_owned();
        let records = vec![
            Record {
                of: Named::User {
                    name: UserName::parse(&name("alice")).unwrap(),
                },
                usage: usage(7),
            },
            Record {
                of: Named::Tunnel {
                    group: GroupId::parse("office").unwrap(),
                    name: TunnelName::parse("web").unwrap(),
                },
                usage: usage(9),
            },
        ];
        file.write(&records).unwrap();
        assert_eq!(file.read().unwrap(), records);
        assert_eq!(private_file::shared_mode(file.path()), None);
    }

    #[test]
    fn p_16_6_a_broken_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = UsageFile::in_dir(dir.path());
        for broken in [
            "",
            "{",
            r#"{"version": 2, "usages": []}"#,
            r#"{"version": 1, "usages": [{"of": "host", "name": "a"}]}"#,
            r#"{"version": 1, "usages": [{"of": "user", "name": "a", "day": "yesterday"}]}"#,
        ] {
            fs::write(file.path(), broken).unwrap();
            let error = file.read().unwrap_err();
            assert!(
                error.contains("usage.json") && error.contains("move it away"),
                "{error}"
            );
        }
    }
}
