//! Counts instructions, measures processor time, and gets memory figures from the counting program.

use std::{
    io,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::case::{Figure, Worker};

/// Long enough for the resolution of the clock, and short enough to run about fifty times slower under callgrind.
const CALIBRATED: Duration = Duration::from_millis(3);

/// Returns how often a worker does its operation in a few milliseconds, as a power of two; the worker does as many
/// operations before, as a warm-up.
pub fn calibrate(worker: &mut Worker) -> u64 {
    let mut times = 1;
    loop {
        let start = Instant::now();
        worker(times);
        if start.elapsed() >= CALIBRATED {
            return times;
        }
        times *= 2;
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Runs all workers at once; returns the sum of the durations that `run` returns, and the longest duration.
pub fn together(
    workers: &mut [Worker],
    run: impl Fn(&mut Worker) -> Duration + Sync,
) -> (Duration, Duration) {
    let barrier = Barrier::new(workers.len());
    let took: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                scope.spawn(|| {
                    barrier.wait();
                    run(worker)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let longest = took.iter().copied().max().unwrap_or_default();
    (took.iter().sum(), longest)
}

/// Nanoseconds of processor time for each operation, where all workers run at once and do `times` operations each.
pub fn cpu_nanos(workers: &mut [Worker], times: u64) -> f64 {
    let (all, _) = together(workers, |worker| {
        let start = thread_time();
        worker(times);
        thread_time().saturating_sub(start)
    });
    all.as_nanos() as f64 / (times * workers.len() as u64) as f64
}

fn callgrind(program: &Path, id: &str, times: u64) -> io::Result<Child> {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", id, &times.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn collected(child: Child) -> io::Result<f64> {
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let count = { stderr.lines() }
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .filter(|_| output.status.success());
    count.ok_or_else(|| io::Error::other(format!("callgrind counted nothing: {stderr}")))
}

/// Instructions for each operation of a case of this program. They are counted for `times` operations and for twice as
/// many; the difference does not include what happens only once.
///
/// # Errors
/// Returns an error when valgrind is missing or does not count.
pub fn instructions(program: &Path, id: &str, times: u64) -> io::Result<f64> {
    let once = callgrind(program, id, times)?;
    let twice = callgrind(program, id, 2 * times)?;
    let (once, twice) = (collected(once)?, collected(twice)?);
    Ok((twice - once) / times as f64)
}

/// Figures of a suite's memory, from the program that counts.
///
/// # Errors
/// Returns an error when that program is missing or fails.
pub fn memory(program: &Path, suite: &str) -> io::Result<Vec<Figure>> {
    let output = Command::new(program).arg(suite).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{}: {stderr}", program.display())));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}
