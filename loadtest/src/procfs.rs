//! What the kernel says of a process and of this machine.
//!
//! CPU time is read from each thread's `schedstat`, in nanoseconds: a run of a
//! few seconds would be only some hundred of the clock ticks that
//! `/proc/PID/stat` counts in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture that
/// Rust's Linux targets run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of some processes up to one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    processes: BTreeMap<u32, ProcessCpu>,
}

#[derive(Debug, Clone, Default)]
struct ProcessCpu {
    /// Nanoseconds on a CPU, by thread.
    threads: BTreeMap<u32, u64>,
    /// The whole process, threads that have ended included.
    ticks: u32,
}

impl Cpu {
    /// Reads the CPU time of `pids`, all their threads together.
    ///
    /// # Errors
    /// One of the processes is gone.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let processes = pids.iter().map(|pid| Ok((*pid, ProcessCpu::of(*pid)?)));
        Ok(Self {
            processes: processes.collect::<io::Result<_>>()?,
        })
    }

    /// What was spent since `earlier`, which was read for the same processes.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = |(pid, now): (&u32, &ProcessCpu)| {
            now.since(earlier.processes.get(pid).unwrap_or(&ProcessCpu::default()))
        };
        self.processes.iter().map(spent).sum()
    }
}

impl ProcessCpu {
    fn of(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            // A thread may end between the listing and the reading.
            let (Some(thread), Ok(text)) = (
                path.file_name()
                    .and_then(|name| name.to_str()?.parse().ok()),
                fs::read_to_string(path.join("schedstat")),
            ) else {
                continue;
            };
            threads.insert(thread, first_number(&text));
        }
        Ok(Self {
            threads,
            ticks: ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?),
        })
    }

    fn since(&self, earlier: &Self) -> Duration {
        // A thread that ended took its nanoseconds along; the coarser count
        // of the process still has them.
        if earlier
            .threads
            .keys()
            .any(|thread| !self.threads.contains_key(thread))
        {
            return TICK * self.ticks.saturating_sub(earlier.ticks);
        }
        let spent = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.threads.iter().map(spent).sum())
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// User and system time from the text of `/proc/PID/stat` (proc_pid_stat(5),
/// fields 14 and 15). The command's name, field 2, may hold spaces.
fn ticks(stat: &str) -> u32 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u32>().ok())
        .sum()
}

/// Memory of some processes, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident_kib: u64,
    /// The most that was ever resident, or since [`forget_peak`].
    pub(crate) peak_kib: u64,
}

impl Memory {
    /// Reads and adds up the memory of `pids`.
    ///
    /// # Errors
    /// One of the processes is gone.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            sum.resident_kib += field(&status, "VmRSS:");
            sum.peak_kib += field(&status, "VmHWM:");
        }
        Ok(sum)
    }
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or(0, first_number)
}

/// Lets the peak of each process start again from what is resident now.
/// A kernel that refuses leaves the peak of the whole life in place.
pub(crate) fn forget_peak(pids: &[u32]) {
    for pid in pids {
        // proc_pid_clear_refs(5): 5 resets the peak resident size.
        let _ = fs::write(PathBuf::from(format!("/proc/{pid}/clear_refs")), "5");
    }
}

/// The machine that a result belongs to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// How many of its cores this process may use.
    pub(crate) cores: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Tasks that were ready to run just before, over one minute: a result
    /// from a busy machine is a poor one.
    pub(crate) load_before: String,
}

impl Machine {
    /// Describes this machine; what cannot be read is `unknown`.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let known = |text: &str| {
            let text = text.trim();
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text.to_owned()
            }
        };
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, model)| model);
        Self {
            cpu: known(model),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: known(&read("/proc/sys/kernel/osrelease")),
            load_before: known(read("/proc/loadavg").split(' ').next().unwrap_or("")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 30 999 999";
        assert_eq!(ticks(stat), 150);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn threads_that_come_are_counted_and_threads_that_go_fall_back_to_ticks() {
        let at = |threads: &[(u32, u64)], ticks| ProcessCpu {
            threads: threads.iter().copied().collect(),
            ticks,
        };
        let before = at(&[(1, 100), (2, 50)], 4);
        assert_eq!(
            at(&[(1, 160), (2, 55), (3, 7)], 4).since(&before),
            Duration::from_nanos(72)
        );
        assert_eq!(at(&[(1, 160)], 6).since(&before), Duration::from_millis(20));
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = Cpu::of(&[pid]).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            std::hint::black_box(0);
        }
        let spent = Cpu::of(&[pid]).unwrap().since(&before);
        assert!(spent > Duration::from_millis(5), "{spent:?}");
    }

    #[test]
    fn memory_is_read_and_never_above_its_peak() {
        let memory = Memory::of(&[std::process::id()]).unwrap();
        assert!(
            memory.resident_kib > 0 && memory.peak_kib >= memory.resident_kib,
            "{memory:?}"
        );
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), 12);
        assert!(Memory::of(&[u32::MAX]).is_err());
    }
}
