//! A file that is rotated at full hours or days.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

use super::settings::{LogFileSettings, Rotate};

const HOUR_SECONDS: i64 = 60 * 60;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;

/// The current file keeps its name, so that readers can follow it. A rotated file has the day or hour of its first line
/// as a suffix: `access.log.2026-11-21`, `access.log.2026-11-21-05`.
#[derive(Debug)]
pub(super) struct RotatingFile {
    settings: LogFileSettings,
    file: File,
    /// The day or hour of the file's contents, counted from the start of 1970.
    period: i64,
}

impl RotatingFile {
    /// Opens the file, or creates it and its directory. Contents of an earlier period are rotated at once.
    ///
    /// # Errors
    /// Returns the errors of the system.
    pub(super) fn open(settings: LogFileSettings, now: SystemTime) -> io::Result<Self> {
        let written = fs::metadata(settings.path()).and_then(|metadata| metadata.modified());
        let file = open(&settings)?;
        let mut this = Self {
            period: period(settings.rotate(), written.unwrap_or(now)),
            settings,
            file,
        };
        this.rotate(now)?;
        Ok(this)
    }

    /// Opens the file with the configured name again, after another program has renamed the old one.
    ///
    /// # Errors
    /// Errors of the system. The old file stays in use then.
    pub(super) fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        *self = Self::open(self.settings.clone(), now)?;
        Ok(())
    }

    /// Appends lines, to a new file when a new period has begun.
    ///
    /// # Errors
    /// Errors of the system. The old file stays in use when a new one cannot be created.
    pub(super) fn write(&mut self, now: SystemTime, bytes: &[u8]) -> io::Result<()> {
        let rotated = self.rotate(now);
        self.file.write_all(bytes)?;
        rotated
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let period = period(self.settings.rotate(), now);
        // When the clock has been set back, no new file is begun.
        if period <= self.period {
            return Ok(());
        }
        let old = self.rotated(self.period);
        // An error below is reported once for each period.
        self.period = period;
        if self.file.metadata()?.len() > 0 && !old.exists() {
            match fs::rename(self.settings.path(), old) {
                // Another program has removed the file: a new one is created below.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.file = open(&self.settings)?,
            }
        }
        self.prune()
    }

    /// The name of the rotated file of this period.
    fn rotated(&self, period: i64) -> PathBuf {
        let (seconds, format) = match self.settings.rotate() {
            Rotate::Hourly => (HOUR_SECONDS, "%Y-%m-%d-%H"),
            Rotate::Daily | Rotate::Never => (DAY_SECONDS, "%Y-%m-%d"),
        };
        let start = Timestamp::from_second(period.saturating_mul(seconds)).unwrap_or_default();
        let mut name = self.settings.path().as_os_str().to_owned();
        name.push(format!(".{}", start.strftime(format)));
        name.into()
    }

    /// Removes the oldest files.
    fn prune(&self) -> io::Result<()> {
        let path = self.settings.path();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => ".".as_ref(),
        };
        let Some(own) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        let mut rotated = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let suffix = name.to_str().and_then(|name| name.strip_prefix(own));
            let suffix = suffix.and_then(|rest| rest.strip_prefix('.'));
            if suffix.is_some_and(is_period) && entry.file_type()?.is_file() {
                rotated.push(entry.path());
            }
        }
        // Their names are in the order of their times.
        rotated.sort_unstable();
        let surplus = rotated.len().saturating_sub(self.settings.keep());
        for path in &rotated[..surplus] {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(settings: &LogFileSettings) -> io::Result<File> {
    if let Some(parent) = settings.path().parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.open(settings.path())
}

fn period(rotate: Rotate, at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    match rotate {
        Rotate::Daily => seconds / DAY_SECONDS,
        Rotate::Hourly => seconds / HOUR_SECONDS,
        Rotate::Never => 0,
    }
}

/// Whether this is a suffix of the rotation, such as `2026-11-21` or `2026-11-21-05`.
fn is_period(suffix: &str) -> bool {
    let pattern: &[u8] = match suffix.len() {
        10 => b"dddd-dd-dd",
        13 => b"dddd-dd-dd-dd",
        _ => return false,
    };
    let mut pairs = suffix.bytes().zip(pattern);
    pairs.all(|(byte, wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        wanted => byte == *wanted,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2026-11-21T05:00:00Z plus this many hours.
    fn at(hours: i64) -> SystemTime {
        let start: Timestamp = "2026-11-21T05:00:00Z".parse().unwrap();
        let seconds = start.as_second() + hours * HOUR_SECONDS;
        UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap())
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn settings(&self, rotate: Rotate, keep: usize) -> LogFileSettings {
            LogFileSettings::try_new(self.0.path().join("sub/a.log"), rotate, keep).unwrap()
        }

        fn put(&self, name: &str, text: &str) {
            fs::create_dir_all(self.0.path().join("sub")).unwrap();
            fs::write(self.0.path().join("sub").join(name), text).unwrap();
        }

        /// Names and contents, in order.
        fn files(&self) -> Vec<(String, String)> {
            let mut files: Vec<_> = fs::read_dir(self.0.path().join("sub"))
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    (name, fs::read_to_string(entry.path()).unwrap())
                })
                .collect();
            files.sort();
            files
        }
    }

    fn files(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn a_removed_file_is_created_again() {
        let place = Place::new();
        let mut log = RotatingFile::open(place.settings(Rotate::Daily, 2), at(0)).unwrap();
        log.write(at(0), b"one\n").unwrap();
        fs::remove_file(place.0.path().join("sub/a.log")).unwrap();
        log.write(at(24), b"two\n").unwrap();
        assert_eq!(place.files(), files(&[("a.log", "two\n")]));
    }

    #[test]
    fn the_number_of_days_is_bounded() {
        let place = Place::new();
        let mut log = RotatingFile::open(place.settings(Rotate::Daily, 2), at(0)).unwrap();
        for day in 0..5 {
            log.write(at(day * 24), format!("{day}\n").as_bytes())
                .unwrap();
            log.write(at(day * 24 + 1), b"more\n").unwrap();
        }
        assert_eq!(
            place.files(),
            files(&[
                ("a.log", "4\nmore\n"),
                ("a.log.2026-11-23", "2\nmore\n"),
                ("a.log.2026-11-24", "3\nmore\n"),
            ])
        );
    }

    #[test]
    fn hours_have_their_own_names_in_utc() {
        let place = Place::new();
        let mut log = RotatingFile::open(place.settings(Rotate::Hourly, 10), at(0)).unwrap();
        for hour in [18, 19, 21] {
            log.write(at(hour), format!("{hour}\n").as_bytes()).unwrap();
        }
        assert_eq!(
            place.files(),
            files(&[
                ("a.log", "21\n"),
                ("a.log.2026-11-21-23", "18\n"),
                ("a.log.2026-11-22-00", "19\n"),
            ])
        );
    }

    #[test]
    fn never_is_never() {
        let place = Place::new();
        let mut log = RotatingFile::open(place.settings(Rotate::Never, 1), at(0)).unwrap();
        log.write(at(0), b"1\n").unwrap();
        log.write(at(10_000), b"2\n").unwrap();
        assert_eq!(place.files(), files(&[("a.log", "1\n2\n")]));
    }

    #[test]
    fn a_start_appends_to_its_period_and_rotates_older_files() {
        let place = Place::new();
        place.put("a.log", "before\n");
        let written = place.0.path().join("sub/a.log");
        let file = File::options().write(true).open(written).unwrap();
        file.set_modified(at(0)).unwrap();
        for hours in [1, 24] {
            let settings = place.settings(Rotate::Daily, 1);
            let mut log = RotatingFile::open(settings, at(hours)).unwrap();
            log.write(at(hours), b"after\n").unwrap();
            // The writes above set the time of the machine on the file.
            file.set_modified(at(hours)).unwrap();
        }
        assert_eq!(
            place.files(),
            files(&[
                ("a.log", "after\n"),
                ("a.log.2026-11-21", "before\nafter\n"),
            ])
        );
    }

    #[test]
    fn other_files_are_neither_removed_nor_overwritten() {
        let place = Place::new();
        for name in [
            "a.log.gz",
            "a.log.2026-01-01.gz",
            "a.log.2026-1-01x",
            "a.log-2026-01-01",
            "b.log.2026-01-01",
            "a.log.2026-11-22",
        ] {
            place.put(name, "theirs\n");
        }
        fs::create_dir(place.0.path().join("sub/a.log.2026-01-02")).unwrap();
        let mut log = RotatingFile::open(place.settings(Rotate::Daily, 1), at(0)).unwrap();
        for day in 0..2 {
            log.write(at(day * 24), b"ours\n").unwrap();
        }
        fs::remove_dir(place.0.path().join("sub/a.log.2026-01-02")).unwrap();
        // The file of the 21st was the oldest of two; a file with the name of the 22nd exists already.
        log.write(at(48), b"last\n").unwrap();
        let names: Vec<_> = place.files().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "a.log",
                "a.log-2026-01-01",
                "a.log.2026-01-01.gz",
                "a.log.2026-1-01x",
                "a.log.2026-11-22",
                "a.log.gz",
                "b.log.2026-01-01",
            ]
        );
        let current = fs::read_to_string(place.0.path().join("sub/a.log")).unwrap();
        assert_eq!(current, "ours\nlast\n");
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let place = Place::new();
        let mut log = RotatingFile::open(place.settings(Rotate::Daily, 1), at(48)).unwrap();
        log.write(at(48), b"1\n").unwrap();
        log.write(at(0), b"2\n").unwrap();
        assert_eq!(place.files(), files(&[("a.log", "1\n2\n")]));
    }
}
