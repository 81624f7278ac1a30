//! The subscriber of the process.
//!
//! Promises: the log is written to standard error, so that standard output has the output of a command only;
//! `ADIT__LOG` is the filter, as in `info,adit_link=debug`; colours are used on terminals, unless `NO_COLOR` is set; an
//! invalid filter is an error; logging does not wait for standard error.
//!
//! Cost: one comparison for events that the filter drops; other events are formatted by the calling thread, and another
//! thread writes the line.
//!
//! Proof: the tests below drive the subscriber into memory; `tests/install.rs` installs it.

use std::{
    env, fmt, io,
    io::IsTerminal,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::{FilterExt, dynamic_filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    registry::Registry,
    util::SubscriberInitExt,
};

use super::{
    HeldLog, LogCounters, LogFileSettings, LogGuard, LogStartError, LogTarget,
    filter::{self, ParseFilterError},
    queue::Lines,
};

/// The variable of the filter.
pub const FILTER_VARIABLE: &str = "ADIT__LOG";

/// The default filter.
pub const DEFAULT_FILTER: &str = "info";

/// The format of a line of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for terminals.
    #[default]
    Text,
    /// One JSON object for each line, for Loki, ELK and similar tools.
    Json,
}

/// Why no subscriber was installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The filter is invalid.
    #[error(
        "invalid log filter {filter:?}: {error}; write a level such as info, or info,adit_link=debug"
    )]
    Filter {
        /// The text as it was given.
        filter: String,
        /// The invalid part of the filter.
        error: ParseFilterError,
    },
    /// The process already has a subscriber.
    #[error("logging has been set up already")]
    Installed,
    /// The thread that writes cannot be started.
    #[error(transparent)]
    Start(#[from] LogStartError),
}

/// The text is not the name of a [`Format`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {refused:?}; use text or json")]
pub struct ParseFormatError {
    /// The text as it was given.
    pub refused: String,
}

/// The installed log of the process. Keep it to the end of `main`: when it is dropped, the queue is written, within two
/// seconds. Later lines are written by the calling thread.
#[derive(Debug)]
pub struct Logging {
    errors: Arc<OnceLock<Lines>>,
    stderr: LogGuard,
}

impl Logging {
    /// Counters of standard error.
    pub fn counters(&self) -> LogCounters {
        self.stderr.counters()
    }

    /// Holds the lines until the returned value is dropped, at most for this time, so that a command prints its result
    /// first.
    pub fn hold(&self, at_most: Duration) -> HeldLog {
        self.stderr.hold(at_most)
    }

    /// Writes warnings and errors to a file as well, as JSON, except those that the filter drops.
    ///
    /// # Errors
    /// The file cannot be opened, the thread cannot be started, or there is an error log already.
    pub fn start_error_log(&self, settings: LogFileSettings) -> Result<LogGuard, LogStartError> {
        const LOG: &str = "error";
        let started = || LogStartError::Started { log: LOG };
        if self.errors.get().is_some() {
            return Err(started());
        }
        let (lines, guard) = super::start(LOG, &LogTarget::File(settings))?;
        self.errors.set(lines).map_err(|_| started())?;
        Ok(guard)
    }
}

/// Installs the subscriber of the process, which writes to standard error. An error log may follow when the settings are
/// known: [`Logging::start_error_log`].
///
/// `filter` is the value of a flag, such as `debug` for `-v`. Without it `ADIT__LOG` is used, and without that
/// [`DEFAULT_FILTER`].
///
/// # Errors
/// [`InitError::Filter`] for an invalid filter, [`InitError::Installed`] when the process has a subscriber,
/// [`InitError::Start`] when the thread cannot be started. The process is unchanged then.
pub fn init(format: Format, filter: Option<&str>) -> Result<Logging, InitError> {
    let variable = env::var_os(FILTER_VARIABLE)
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| !value.is_empty());
    let filter = filter.or(variable.as_deref()).unwrap_or(DEFAULT_FILTER);
    let colour = coloured(
        io::stderr().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
    );
    let errors = Arc::new(OnceLock::new());
    let (lines, stderr) = super::start("stderr", &LogTarget::Stderr)?;
    let lines = Queued {
        lines,
        late: io::stderr,
    };
    subscriber(format, filter, colour, lines, errors.clone())?
        .try_init()
        .map_err(|_| InitError::Installed)?;
    Ok(Logging { errors, stderr })
}

/// Passes lines to the thread that writes them. After its end they are written by the calling thread.
struct Queued<L> {
    lines: Lines,
    late: L,
}

/// Writes one line.
struct QueuedLine<'w, L>(&'w Queued<L>);

impl<'w, L: Fn() -> W + 'w, W: io::Write> MakeWriter<'w> for Queued<L> {
    type Writer = QueuedLine<'w, L>;

    fn make_writer(&'w self) -> Self::Writer {
        QueuedLine(self)
    }
}

/// Each write is one whole line.
impl<L: Fn() -> W, W: io::Write> io::Write for QueuedLine<'_, L> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.0.lines.offer(line) {
            // A failure cannot be reported: the subscriber would print it to the same stream.
            let _ = (self.0.late)().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether to colour: on a terminal, unless the variable has a value (https://no-color.org).
fn coloured(terminal: bool, no_color: Option<&std::ffi::OsStr>) -> bool {
    terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// Writes to the error log, once there is one.
struct Errors(Arc<OnceLock<Lines>>);

impl<'w> MakeWriter<'w> for Errors {
    type Writer = Box<dyn io::Write + 'w>;

    fn make_writer(&'w self) -> Self::Writer {
        match self.0.get() {
            Some(lines) => Box::new(lines.clone()),
            None => Box::new(io::sink()),
        }
    }
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    colour: bool,
    writer: W,
    errors: Arc<OnceLock<Lines>>,
) -> Result<impl Subscriber + Send + Sync, InitError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter::parse(filter).map_err(|error| InitError::Filter {
        filter: filter.to_owned(),
        error,
    })?;
    // The layers print their own errors with `eprintln!`, which panics when standard error is a file on a full disk.
    let lines = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => lines.with_ansi(colour).boxed(),
        Format::Json => lines.json().flatten_event(true).with_ansi(false).boxed(),
    };
    let started = errors.clone();
    let is_error = dynamic_filter_fn(move |event, _| {
        *event.level() <= tracing::Level::WARN && started.get().is_some()
    });
    let is_error = is_error.with_max_level_hint(LevelFilter::WARN);
    let errors = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(Errors(errors))
        .json()
        .flatten_event(true)
        .with_ansi(false)
        .with_filter(is_error.and(filter.clone()));
    Ok(tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(errors))
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = ParseFormatError;

    /// Reads `text` or `json`.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Text, Self::Json]
            .into_iter()
            .find(|format| format.to_string() == text)
            .ok_or_else(|| ParseFormatError {
                refused: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, sync::Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .map_err(|_| io::ErrorKind::Other)?
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, colour: bool) -> Result<String, InitError> {
        let memory = Memory::default();
        let writer = memory.clone();
        let writer = move || writer.clone();
        let subscriber = subscriber(format, filter, colour, writer, Arc::default())?;
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(client_id = "office-1", "registered");
            tracing::debug!("detail");
        });
        let bytes = memory.0.lock().map(|bytes| bytes.clone());
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    #[test]
    fn text_has_level_and_fields() -> Result<(), InitError> {
        let text = logged(Format::Text, "info", false)?;
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(
                " INFO adit_telemetry::logs::subscriber::tests: registered client_id=\"office-1\""
            ),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(logged(Format::Text, "info", true)?.contains('\u{1b}'));
        Ok(())
    }

    #[test]
    fn json_has_its_fields_at_the_top() -> Result<(), InitError> {
        let text = logged(Format::Json, "info", true)?;
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("{\"timestamp\":"), "{text}");
        assert!(text.contains("\"level\":\"INFO\""), "{text}");
        assert!(
            text.contains("\"message\":\"registered\",\"client_id\":\"office-1\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        Ok(())
    }

    #[test]
    fn the_filter_decides() -> Result<(), InitError> {
        assert_eq!(logged(Format::Text, "warn", false)?, "");
        assert_eq!(logged(Format::Text, "debug", false)?.lines().count(), 2);
        assert_eq!(
            logged(Format::Text, "warn,adit_telemetry=info", false)?
                .lines()
                .count(),
            1
        );
        Ok(())
    }

    #[test]
    fn warnings_and_errors_go_to_the_error_log_too() -> Result<(), Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        let path = place.path().join("error.log");
        let errors = Arc::new(OnceLock::new());
        let memory = Memory::default();
        let writer = memory.clone();
        let writer = move || writer.clone();
        let filter = "info,quiet=off";
        let subscriber = subscriber(Format::Text, filter, false, writer, errors.clone())?;
        let (_, stderr) = super::super::start("stderr", &LogTarget::Stderr)?;
        let logging = Logging { errors, stderr };
        let guard = tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("too early");
            let settings = LogFileSettings::try_new(&path, super::super::Rotate::Daily, 1)?;
            let guard = logging.start_error_log(settings.clone())?;
            tracing::info!("fine");
            tracing::warn!(client = "a\"\nb", "odd");
            tracing::error!("bad");
            tracing::error!(target: "quiet", "silenced");
            let second = logging.start_error_log(settings);
            assert!(matches!(
                second,
                Err(LogStartError::Started { log: "error" })
            ));
            Ok::<_, Box<dyn std::error::Error>>(guard)
        })?;
        let counters = guard.counters();
        drop(guard);
        assert_eq!((counters.written(), counters.dropped()), (2, 0));
        let text = std::fs::read_to_string(&path)?;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["client"], "a\"\nb");
        assert_eq!(lines[1]["message"], "bad");
        let ordinary = memory
            .0
            .lock()
            .map(|bytes| bytes.clone())
            .unwrap_or_default();
        assert_eq!(String::from_utf8(ordinary)?.lines().count(), 4);
        Ok(())
    }

    /// The thread writes as long as the log is kept; lines after that are written by the calling thread.
    #[test]
    fn lines_are_queued_and_late_ones_written_at_once() -> Result<(), Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        let path = place.path().join("log");
        let settings = LogFileSettings::try_new(&path, super::super::Rotate::Never, 1)?;
        let (lines, guard) = super::super::start("stderr", &LogTarget::File(settings))?;
        let memory = Memory::default();
        let late = memory.clone();
        let late = move || late.clone();
        let queued = Queued { lines, late };
        let subscriber = subscriber(Format::Text, "info", false, queued, Arc::default())?;
        let counters = guard.counters();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("in time");
            drop(guard);
            tracing::info!("late");
        });
        assert_eq!((counters.written(), counters.dropped()), (1, 0));
        let file = std::fs::read_to_string(&path)?;
        assert_eq!(file.lines().count(), 1, "{file}");
        assert!(file.ends_with("in time\n"), "{file}");
        let late = memory.0.lock().map(|bytes| bytes.clone());
        let late = String::from_utf8(late.unwrap_or_default())?;
        assert_eq!(late.lines().count(), 1, "{late}");
        assert!(late.ends_with("late\n"), "{late}");
        Ok(())
    }

    #[test]
    fn colours_depend_on_the_terminal_and_no_color() {
        assert!(coloured(true, None));
        assert!(coloured(true, Some(OsStr::new(""))));
        assert!(!coloured(true, Some(OsStr::new("1"))));
        assert!(!coloured(false, None));
    }

    #[test]
    fn formats_are_parsed_by_their_names() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "xml".parse::<Format>(),
            Err(ParseFormatError {
                refused: "xml".into()
            })
        );
        assert_eq!(format!("{:>5}", Format::Text), " text");
        assert_eq!(Format::default(), Format::Text);
    }
}
