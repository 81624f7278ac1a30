//! The target of a log, and how much of it is kept.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Default number of rotated files that are kept: a week of days.
pub const DEFAULT_KEEP: usize = 7;

/// The number of hours in a year.
const MOST_KEPT: usize = 8_784;

/// Invalid settings of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogSettingsError {
    /// The path has no file name.
    #[error("the path {path:?} has no file name; write a path such as /var/log/adit/access.log")]
    Path {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The number of files is out of range.
    #[error("invalid number of rotated files {keep}, expected 1 to {MOST_KEPT}")]
    Keep {
        /// The number as it was given.
        keep: usize,
    },
    /// The text is not the name of a [`Rotate`].
    #[error("unknown rotation {refused:?}; use daily, hourly or never")]
    Rotate {
        /// The text as it was given.
        refused: String,
    },
}

/// When a new file begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rotate {
    /// A new file begins at midnight, UTC.
    #[default]
    Daily,
    /// A new file begins at each full hour.
    Hourly,
    /// Never; for external rotation, such as logrotate with `copytruncate`.
    Never,
}

impl fmt::Display for Rotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Daily => "daily",
            Self::Hourly => "hourly",
            Self::Never => "never",
        })
    }
}

impl FromStr for Rotate {
    type Err = LogSettingsError;

    /// Reads `daily`, `hourly` or `never`.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Daily, Self::Hourly, Self::Never]
            .into_iter()
            .find(|rotate| rotate.to_string() == text)
            .ok_or_else(|| LogSettingsError::Rotate {
                refused: text.to_owned(),
            })
    }
}

/// A log file. Checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFileSettings {
    path: PathBuf,
    rotate: Rotate,
    keep: usize,
}

impl LogFileSettings {
    /// Settings of a file: its path, when it is rotated, and how many rotated files are kept.
    ///
    /// # Errors
    /// [`LogSettingsError::Path`] for a path without a file's name or with one that is not UTF-8,
    /// [`LogSettingsError::Keep`] for 0 and for more than a year of hours.
    pub fn try_new(
        path: impl Into<PathBuf>,
        rotate: Rotate,
        keep: usize,
    ) -> Result<Self, LogSettingsError> {
        let path = path.into();
        // `Path::file_name` returns `logs` for `logs/`, which is a directory.
        let slash = path.as_os_str().to_string_lossy().ends_with(['/', '\\']);
        if slash || path.file_name().and_then(|name| name.to_str()).is_none() {
            return Err(LogSettingsError::Path { path });
        }
        if keep == 0 || keep > MOST_KEPT {
            return Err(LogSettingsError::Keep { keep });
        }
        Ok(Self { path, rotate, keep })
    }

    /// The file that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When a new file begins.
    pub const fn rotate(&self) -> Rotate {
        self.rotate
    }

    /// Number of rotated files that are kept.
    pub const fn keep(&self) -> usize {
        self.keep
    }
}

/// The target of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error, among the lines of the log.
    Stderr,
    /// A file.
    File(LogFileSettings),
}

/// The access log: one line for each request. Checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// The target of the lines.
    pub target: LogTarget,
}

impl AccessLogSettings {
    /// `target` is `stdout`, `stderr` or the path of a file; `rotate` and `keep` are for the file.
    ///
    /// # Errors
    /// Returns the same errors as [`LogFileSettings::try_new`].
    pub fn try_new(target: &str, rotate: Rotate, keep: usize) -> Result<Self, LogSettingsError> {
        let target = match target {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            path => LogTarget::File(LogFileSettings::try_new(path, rotate, keep)?),
        };
        Ok(Self { target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_a_file_name_are_rejected() {
        for path in ["", "/", "..", "logs/"] {
            let refused = LogFileSettings::try_new(path, Rotate::Daily, 1).unwrap_err();
            assert_eq!(refused, LogSettingsError::Path { path: path.into() });
        }
    }

    #[test]
    fn the_number_of_files_has_bounds() {
        for keep in [0, MOST_KEPT + 1] {
            let refused = LogFileSettings::try_new("a.log", Rotate::Daily, keep).unwrap_err();
            assert_eq!(refused, LogSettingsError::Keep { keep });
        }
        let good = LogFileSettings::try_new("a.log", Rotate::Hourly, MOST_KEPT).unwrap();
        assert_eq!(good.path(), Path::new("a.log"));
        assert_eq!((good.rotate(), good.keep()), (Rotate::Hourly, MOST_KEPT));
    }

    #[test]
    fn rotations_are_parsed_by_their_names() {
        for rotate in [Rotate::Daily, Rotate::Hourly, Rotate::Never] {
            assert_eq!(rotate.to_string().parse(), Ok(rotate));
        }
        let refused = "weekly".parse::<Rotate>().unwrap_err().to_string();
        assert_eq!(
            refused,
            "unknown rotation \"weekly\"; use daily, hourly or never"
        );
    }

    #[test]
    fn an_access_log_goes_to_a_stream_or_a_file() {
        let target =
            |text| AccessLogSettings::try_new(text, Rotate::Never, 1).map(|log| log.target);
        assert_eq!(target("stdout"), Ok(LogTarget::Stdout));
        assert_eq!(target("stderr"), Ok(LogTarget::Stderr));
        assert!(matches!(target("./stdout"), Ok(LogTarget::File(_))));
        assert!(matches!(target(""), Err(LogSettingsError::Path { .. })));
    }
}
