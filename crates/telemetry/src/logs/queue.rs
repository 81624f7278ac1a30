//! A queue of lines for a file: one thread writes them, and no other thread waits for it.

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

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{error::LogStartError, rotation::RotatingFile, settings::LogTarget};

/// Bytes that may wait to be written: some ten thousand lines.
const MOST_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Time for writing the queue at the end of the process. A disk that takes longer has failed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Pause before a full non-blocking stream is tried again, on the writing thread.
const FULL_STREAM_PAUSE: Duration = Duration::from_millis(10);

/// The target to which the thread writes.
pub(crate) trait Sink: Send + 'static {
    /// Writes complete lines.
    ///
    /// # Errors
    /// Errors of the system.
    fn write(&mut self, now: SystemTime, lines: &[u8]) -> io::Result<()>;

    /// Opens the file that has the name of the sink now. Does nothing for a stream.
    ///
    /// # Errors
    /// Errors of the system; the sink then keeps its old file.
    fn reopen(&mut self, _: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for RotatingFile {
    fn write(&mut self, now: SystemTime, lines: &[u8]) -> io::Result<()> {
        Self::write(self, now, lines)
    }

    fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        Self::reopen(self, now)
    }
}

/// A stream of the process.
struct Stream<W>(W);

impl<W: Write + Send + 'static> Sink for Stream<W> {
    fn write(&mut self, _: SystemTime, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process can make a shared terminal non-blocking. A partly written line would be unreadable.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(FULL_STREAM_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        self.0.flush()
    }
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// The time until which lines wait, unless the log is closed before.
    held: Option<Instant>,
    /// The sink is opened again before the next write.
    reopen: bool,
    /// Set when the log is closed: the time until which the close waits. Further lines are rejected.
    closed: Option<Instant>,
    /// The thread has written everything and ended.
    ended: bool,
}

struct Queue {
    name: &'static str,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
    /// Notified when there are lines to write, or the log is closed.
    wake: Condvar,
    /// Notified when the thread has ended.
    end: Condvar,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Accepts lines. Never waits for the disk: the lock is held for the copy of a line only.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Queue>);

/// Counts the written and lost lines of a log.
#[derive(Clone)]
pub struct LogCounters(Arc<Queue>);

/// Closes a log when dropped, after its queue was written, within two seconds. Keep it to the end of `main`.
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(Arc<Queue>);

/// Releases the held lines of a log when dropped: [`Logging::hold`](super::Logging::hold).
#[must_use = "lines are held until this is dropped"]
pub struct HeldLog(Arc<Queue>);

/// Opens the file of a log again, for instance after it has been renamed.
#[derive(Clone)]
pub struct LogReopener(Arc<Queue>);

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
    /// Queues a line, with its line end. Drops it when the queue is full or the log is closed.
    pub(crate) fn push(&self, line: &[u8]) {
        if !self.offer(line) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a line as `push` does, but returns `false` without counting the line when the log is closed.
    pub(crate) fn offer(&self, line: &[u8]) -> bool {
        let queue = &*self.0;
        let mut waiting = queue.waiting.lock();
        if waiting.closed.is_some() {
            return false;
        }
        if waiting.bytes.len() + line.len() > queue.most_bytes {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
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

impl Waiting {
    /// The time until which lines wait.
    fn held(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.held = self.held.filter(|until| *until > now);
        self.held
    }
}

impl Queue {
    /// Waits until there are lines to write, or the log is closed.
    fn wait(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        while waiting.closed.is_none() && !waiting.reopen {
            match (waiting.bytes.is_empty(), waiting.held()) {
                (false, None) => return,
                (false, Some(until)) => drop(self.wake.wait_until(waiting, until)),
                (true, _) => self.wake.wait(waiting),
            }
        }
    }

    fn write_all(&self, sink: &mut dyn Sink) {
        let mut taken = Vec::new();
        let mut is_reported = false;
        loop {
            let mut waiting = self.waiting.lock();
            self.wait(&mut waiting);
            if std::mem::take(&mut waiting.reopen) {
                drop(waiting);
                if let Err(error) = sink.reopen(SystemTime::now()) {
                    tracing::error!(log = self.name, %error, "the file of a log cannot be opened again");
                }
                continue;
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
                    is_reported = false;
                    self.written.fetch_add(lines, Ordering::Relaxed);
                }
                Err(error) => {
                    self.failed.fetch_add(lines, Ordering::Relaxed);
                    // A failure is reported once until the log works again: the report may be written to this log.
                    if !std::mem::replace(&mut is_reported, true) {
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

    /// Lines that were written.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Lines that could not be written.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }
}

impl LogGuard {
    /// Counters of the log.
    pub fn counters(&self) -> LogCounters {
        LogCounters(self.0.clone())
    }

    /// A handle for the signal that reopens logs.
    pub fn reopener(&self) -> LogReopener {
        LogReopener(self.0.clone())
    }

    /// Holds the lines until the returned value is dropped, at most for this time.
    pub(crate) fn hold(&self, at_most: Duration) -> HeldLog {
        self.0.waiting.lock().held = Some(Instant::now() + at_most);
        HeldLog(self.0.clone())
    }

    /// Rejects further lines. The time for writing the queue begins now, so that several logs are closed at the same time.
    pub fn close(&self) {
        let mut waiting = self.0.waiting.lock();
        waiting
            .closed
            .get_or_insert_with(|| Instant::now() + END_WITHIN);
        self.0.wake.notify_one();
    }
}

impl LogReopener {
    /// Makes the thread of the log open its file again before the next write.
    pub fn reopen(&self) {
        self.0.waiting.lock().reopen = true;
        self.0.wake.notify_one();
    }
}

impl Drop for HeldLog {
    fn drop(&mut self) {
        self.0.waiting.lock().held = None;
        self.0.wake.notify_one();
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.close();
        let mut waiting = self.0.waiting.lock();
        let until = waiting.closed.unwrap_or_else(Instant::now);
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
debug!(Lines, LogCounters, LogGuard, HeldLog, LogReopener);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A disk that reports each write and completes it on request.
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
        let (may, permits) = mpsc::channel();
        let disk = Disk {
            given,
            may: permits,
        };
        let (lines, guard) = start_with("access", Box::new(disk), most_bytes).unwrap();
        World {
            lines,
            guard,
            given: takes,
            may,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_without_waiting() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(8);
        lines.push(b"one\n");
        assert_eq!(given.recv().unwrap(), "one\n");
        // The disk blocks. Two lines fit into the queue, the others are dropped.
        for line in ["two\n", "tri\n", "for\n", "x\n"] {
            lines.push(line.as_bytes());
        }
        let counters = lines.counters();
        assert_eq!((counters.name(), counters.dropped()), ("access", 2));
        may.send(Ok(())).unwrap();
        assert_eq!(given.recv().unwrap(), "two\ntri\n");
        // The queue has room again.
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
    fn the_queue_is_written_before_the_end() {
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
    fn failed_lines_are_counted_and_the_next_is_tried() {
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
    fn held_lines_wait_for_their_release_or_the_end() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(1_000);
        drop(may);
        let held = guard.hold(Duration::from_secs(3_600));
        lines.push(b"one\n");
        lines.push(b"two\n");
        assert_eq!(given.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(held);
        assert_eq!(given.recv().unwrap(), "one\ntwo\n");
        let _held = guard.hold(Duration::ZERO);
        lines.push(b"three\n");
        assert_eq!(given.recv().unwrap(), "three\n");
        let _held = guard.hold(Duration::from_secs(3_600));
        lines.push(b"four\n");
        drop(guard);
        assert_eq!(given.recv().unwrap(), "four\n");
    }

    #[test]
    fn a_reopened_log_writes_to_the_file_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let settings =
            super::super::LogFileSettings::try_new(&path, super::super::Rotate::Never, 1).unwrap();
        let (lines, guard) = start("access", &LogTarget::File(settings)).unwrap();
        lines.push(b"before\n");
        let counters = guard.counters();
        while counters.written() == 0 {
            thread::yield_now();
        }
        std::fs::rename(&path, dir.path().join("a.log.1")).unwrap();
        guard.reopener().reopen();
        lines.push(b"after\n");
        drop(guard);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("a.log.1"), read("a.log")),
            ("before\n".into(), "after\n".into())
        );
    }

    /// Regression: the thread did not wake up after an empty line.
    #[test]
    fn an_empty_line_stops_no_log() {
        let World {
            lines,
            guard,
            given,
            may,
        } = world(1_000);
        drop(may);
        lines.push(b"");
        lines.push(b"x\n");
        assert_eq!(given.recv().unwrap(), "x\n");
        drop(guard);
    }

    /// A non-blocking terminal that accepts three bytes, then none, and then all.
    struct Reluctant {
        turn: usize,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn += 1;
            let some = match self.turn {
                1 => &bytes[..3],
                2 => return Err(io::ErrorKind::WouldBlock.into()),
                3 => return Err(io::ErrorKind::Interrupted.into()),
                _ => bytes,
            };
            self.taken.lock().extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_stream_cuts_no_line() {
        let taken = Arc::new(Mutex::default());
        let stream = Stream(Reluctant {
            turn: 0,
            taken: Arc::clone(&taken),
        });
        let (lines, guard) = start_with("stderr", Box::new(stream), 1_000).unwrap();
        lines.push(b"a whole line\n");
        drop(guard);
        assert_eq!(*taken.lock(), b"a whole line\n");
        assert_eq!(
            (lines.counters().written(), lines.counters().failed()),
            (1, 0)
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let place = tempfile::tempdir().unwrap();
        let settings =
            super::super::LogFileSettings::try_new(place.path(), super::super::Rotate::Daily, 1);
        let target = LogTarget::File(settings.unwrap());
        let text = start("error", &target).unwrap_err().to_string();
        let begins = format!("cannot write the error log to {}: ", place.path().display());
        assert!(text.starts_with(&begins), "{text}");
    }
}
