//! Lines on their way to a file: one thread writes them, and nobody else waits for it.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Condvar, Mutex};

use super::{LogStartError, rotation::RotatingFile, settings::LogTarget};

/// What may wait to be written: some ten thousand lines, which a disk that has stopped holds up for a second or so.
const MOST_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// How long the end of the process waits for what has not been written yet. A disk that takes longer has failed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where the thread writes.
pub(crate) trait Sink: Send + 'static {
    /// Writes whole lines.
    ///
    /// # Errors
    /// Those of the system.
    fn write(&mut self, now: SystemTime, lines: &[u8]) -> io::Result<()>;
}

impl Sink for RotatingFile {
    fn write(&mut self, now: SystemTime, lines: &[u8]) -> io::Result<()> {
        Self::write(self, now, lines)
    }
}

/// A stream of the process.
struct Stream<W>(W);

impl<W: Write + Send + 'static> Sink for Stream<W> {
    fn write(&mut self, _: SystemTime, lines: &[u8]) -> io::Result<()> {
        self.0.write_all(lines)?;
        self.0.flush()
    }
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    closed: bool,
    /// The thread has written everything and is gone.
    ended: bool,
}

struct Queue {
    name: &'static str,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
    /// There is something to write, or the end has come.
    wake: Condvar,
    /// The thread is gone.
    end: Condvar,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Takes lines. Never waits for the disk: the lock is held for the copy of a line, and no longer by anybody.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Queue>);

/// How many lines a log has written and lost so far.
#[derive(Clone)]
pub struct LogCounters(Arc<Queue>);

/// Ends a log when it is dropped: what waits is written first, within two seconds. Keep it to the end of `main`.
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(Arc<Queue>);

/// Opens the target and starts the thread.
pub(crate) fn start(
    name: &'static str,
    target: &LogTarget,
) -> Result<(Lines, LogGuard), LogStartError> {
    let sink: Box<dyn Sink> = match target {
        LogTarget::Stdout => Box::new(Stream(io::stdout())),
        LogTarget::Stderr => Box::new(Stream(io::stderr())),
        LogTarget::File(settings) => {
            let file = RotatingFile::open(settings.clone(), SystemTime::now());
            Box::new(file.map_err(|error| LogStartError::Open {
                log: name,
                path: settings.path().to_owned(),
                error,
            })?)
        }
    };
    start_with(name, sink, MOST_WAITING_BYTES)
}

fn start_with(
    name: &'static str,
    mut sink: Box<dyn Sink>,
    most_bytes: usize,
) -> Result<(Lines, LogGuard), LogStartError> {
    let queue = Arc::new(Queue {
        name,
        most_bytes,
        waiting: Mutex::default(),
        wake: Condvar::new(),
        end: Condvar::new(),
        written: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let writing = queue.clone();
    thread::Builder::new()
        .name(format!("{name} log"))
        .spawn(move || writing.write_all(&mut *sink))
        .map_err(|error| LogStartError::Thread { log: name, error })?;
    Ok((Lines(queue.clone()), LogGuard(queue)))
}

impl Lines {
    /// Takes a line, with its end, or drops it when too much waits or the log has ended.
    pub(crate) fn push(&self, line: &[u8]) {
        if !self.offer(line) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same; `false` when the log has ended: then the line is the caller's again, and not counted.
    pub(crate) fn offer(&self, line: &[u8]) -> bool {
        let queue = &*self.0;
        let mut waiting = queue.waiting.lock();
        if waiting.closed {
            return false;
        }
        if waiting.bytes.len() + line.len() > queue.most_bytes {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
        let first = waiting.lines == 1;
        drop(waiting);
        if first {
            queue.wake.notify_one();
        }
        true
    }

    pub(crate) fn counters(&self) -> LogCounters {
        LogCounters(self.0.clone())
    }
}

/// Each write is one whole line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn write_all(&self, sink: &mut dyn Sink) {
        let mut taken = Vec::new();
        let mut told = false;
        loop {
            let mut waiting = self.waiting.lock();
            while waiting.bytes.is_empty() && !waiting.closed {
                self.wake.wait(&mut waiting);
            }
            if waiting.bytes.is_empty() {
                waiting.ended = true;
                drop(waiting);
                self.end.notify_all();
                return;
            }
            std::mem::swap(&mut taken, &mut waiting.bytes);
            let lines = std::mem::take(&mut waiting.lines);
            drop(waiting);
            match sink.write(SystemTime::now(), &taken) {
                Ok(()) => {
                    told = false;
                    self.written.fetch_add(lines, Ordering::Relaxed);
                }
                Err(error) => {
                    self.failed.fetch_add(lines, Ordering::Relaxed);
                    // Once until it works again: this may be the log that it goes to.
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(log = self.name, %error, "lines of a log are lost");
                    }
                }
            }
            taken.clear();
        }
    }
}

impl LogCounters {
    /// `access`, `error` or `stderr`.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Lines that the system has taken.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because too much waited.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Lines that the system did not take.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }
}

impl LogGuard {
    /// What the log loses.
    pub fn counters(&self) -> LogCounters {
        LogCounters(self.0.clone())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let until = Instant::now() + END_WITHIN;
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        self.0.wake.notify_one();
        while !waiting.ended {
            if self.0.end.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }
}

macro_rules! debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("log", &self.0.name)
                    .finish_non_exhaustive()
            }
        }
    )*};
}
debug!(Lines, LogCounters, LogGuard);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A disk that says what it is given, and writes when it is told to.
    struct Disk {
        given: mpsc::Sender<String>,
        may: mpsc::Receiver<io::Result<()>>,
    }

    impl Sink for Disk {
        fn write(&mut self, _: SystemTime, lines: &[u8]) -> io::Result<()> {
            let _ = self.given.send(String::from_utf8(lines.to_vec()).unwrap());
            self.may.recv().unwrap_or(Ok(()))
        }
    }

    struct World {
        lines: Lines,
        guard: LogGuard,
        given: mpsc::Receiver<String>,
        may: mpsc::Sender<io::Result<()>>,
    }

    fn world(most_bytes: usize) -> World {
        let (given, takes) = mpsc::channel();
        let (may, asks) = mpsc::channel();
        let disk = Disk { given, may: asks };
        let (lines, guard) = start_with("access", Box::new(disk), most_bytes).unwrap();
        World {
            lines,
            guard,
            given: takes,
            may,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(8);
        lines.push(b"one\n");
        assert_eq!(given.recv().unwrap(), "one\n");
        // The disk has stopped. Two lines fit, the others go.
        for line in ["two\n", "tri\n", "for\n", "x\n"] {
            lines.push(line.as_bytes());
        }
        let counters = lines.counters();
        assert_eq!((counters.name(), counters.dropped()), ("access", 2));
        may.send(Ok(())).unwrap();
        assert_eq!(given.recv().unwrap(), "two\ntri\n");
        // There is room again.
        lines.push(b"five\n");
        may.send(Ok(())).unwrap();
        assert_eq!(given.recv().unwrap(), "five\n");
        drop(may);
        drop(guard);
        assert_eq!((counters.written(), counters.dropped()), (4, 2));
        lines.push(b"late\n");
        assert_eq!(counters.dropped(), 3);
    }

    #[test]
    fn what_waits_is_written_before_the_end() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(1_000);
        drop(may);
        for number in 0..100 {
            lines.push(format!("{number}\n").as_bytes());
        }
        drop(guard);
        let all: String = given.try_iter().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(all, expected);
        assert_eq!(lines.counters().written(), 100);
    }

    #[test]
    fn what_the_system_does_not_take_is_counted_and_the_next_is_tried() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(1_000);
        lines.push(b"lost\n");
        assert_eq!(given.recv().unwrap(), "lost\n");
        may.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        lines.push(b"kept\n");
        assert_eq!(given.recv().unwrap(), "kept\n");
        drop(may);
        drop(guard);
        let counters = lines.counters();
        assert_eq!((counters.failed(), counters.written()), (1, 1));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_by_name() {
        let place = tempfile::tempdir().unwrap();
        let settings =
            super::super::LogFileSettings::try_new(place.path(), super::super::Rotate::Daily, 1);
        let target = LogTarget::File(settings.unwrap());
        let text = start("error", &target).unwrap_err().to_string();
        let begins = format!("cannot write the error log to {}: ", place.path().display());
        assert!(text.starts_with(&begins), "{text}");
    }
}
