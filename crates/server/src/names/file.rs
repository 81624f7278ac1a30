//! The owners of names, as stored in the state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use adit_private_file as private_file;
use serde::{Deserialize, Serialize};

use super::name::Name;

/// Bound of the file's length; a longer file was written by another program.
const LONGEST_FILE: u64 = 256 << 20;

/// A name and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    /// Seconds since 1970; absent while something uses the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_since: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    names: Vec<Record>,
}

/// The file `names.json` in a state directory, readable by its owner only.
#[derive(Debug, Clone)]
pub struct NamesFile {
    path: PathBuf,
}

impl NamesFile {
    /// The file in a state directory; it need not exist.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("names.json"),
        }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored owners; none if the file does not exist.
    pub(crate) fn read(&self) -> io::Result<Vec<Record>> {
        let Some(text) = private_file::read(&self.path, LONGEST_FILE)? else {
            return Ok(Vec::new());
        };
        let content: Content = serde_json::from_slice(&text)?;
        Ok(content.names)
    }

    /// Renames a file that could not be read, so that the next write does not replace it.
    pub(crate) fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("json.unreadable");
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// Replaces the file as a whole.
    pub(crate) fn write(&self, mut names: Vec<Record>) -> io::Result<()> {
        names.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        let text = serde_json::to_vec_pretty(&Content { names })?;
        private_file::replace(&self.path, &text)
    }

    /// Takes a name, and with a group all of its names, from its owner, while no server runs. Returns the number of
    /// released names.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn release(&self, name: &Name) -> io::Result<usize> {
        let mut names = self.read()?;
        let before = names.len();
        let text = name.text();
        let is_meant = |record: &Record| {
            (record.kind == name.kind() && record.name == text)
                || (matches!(name, Name::Group(_)) && record.group == text)
        };
        names.retain(|record| !is_meant(record));
        let released = before - names.len();
        if released > 0 {
            self.write(names)?;
        }
        Ok(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, name: &str, group: &str) -> Record {
        Record {
            kind: kind.into(),
            name: name.into(),
            user: "alice".into(),
            group: group.into(),
            tunnel: None,
            idle_since: Some(7),
        }
    }

    #[test]
    fn the_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = NamesFile::in_dir(&dir.path().join("deep/state"));
        assert_eq!(file.read().unwrap(), []);
        let names = vec![record("group", "a", "a"), record("host", "a.test", "a")];
        file.write(names.clone()).unwrap();
        assert_eq!(file.read().unwrap(), names);
    }

    #[test]
    fn releasing_a_group_removes_its_names_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = NamesFile::in_dir(dir.path());
        let name = |kind, text| Name::parse(kind, text).unwrap();
        assert_eq!(file.release(&name("host", "a.test")).unwrap(), 0);
        let all = ["a", "b"].map(|group| {
            let host = format!("{group}.test");
            [record("group", group, group), record("host", &host, group)]
        });
        file.write(all.concat()).unwrap();
        assert_eq!(file.release(&name("host", "A.test.")).unwrap(), 1);
        assert_eq!(file.release(&name("group", "b")).unwrap(), 2);
        assert_eq!(file.read().unwrap(), [record("group", "a", "a")]);
    }

    #[test]
    fn a_foreign_file_is_an_error_and_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let file = NamesFile::in_dir(dir.path());
        fs::write(file.path(), "{").unwrap();
        assert!(file.read().is_err());
        let aside = file.put_aside().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "{");
        assert_eq!(file.read().unwrap(), []);
    }
}
