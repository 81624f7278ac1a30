//! CPU time and memory of processes, and the description of this machine.
//!
//! CPU time is read from each thread's `schedstat`, in nanoseconds: a run of a few seconds has only a few hundred of
//! the clock ticks of `/proc/PID/stat`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ::procfs::{
    Current, ProcError, ProcResult,
    process::{ClearRefs, Process},
};
use serde::Serialize;

/// CPU time that some processes have used up to one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    processes: BTreeMap<u32, ProcessCpu>,
}

#[derive(Debug, Clone, Default)]
struct ProcessCpu {
    /// Nanoseconds on a CPU, by thread.
    threads: BTreeMap<i32, u64>,
    /// Clock ticks of the whole process, including threads that have ended.
    ticks: u64,
}

impl Cpu {
    /// Reads the CPU time of all threads of the processes `pids`.
    ///
    /// # Errors
    /// Returns an error when one of the processes has ended.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let processes = pids.iter().map(|pid| Ok((*pid, ProcessCpu::of(*pid)?)));
        Ok(Self {
            processes: processes.collect::<io::Result<_>>()?,
        })
    }

    /// The CPU time since `earlier`, which was read for the same processes.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = |(pid, now): (&u32, &ProcessCpu)| {
            now.since(earlier.processes.get(pid).unwrap_or(&ProcessCpu::default()))
        };
        self.processes.iter().map(spent).sum()
    }
}

impl ProcessCpu {
    fn of(pid: u32) -> io::Result<Self> {
        let process = process(pid)?;
        let mut threads = BTreeMap::new();
        for task in process.tasks().map_err(io_error)? {
            // A thread may end after it was listed.
            if let Ok(task) = task
                && let Ok(schedstat) = task.schedstat()
            {
                threads.insert(task.tid, schedstat.sum_exec_runtime);
            }
        }
        let stat = process.stat().map_err(io_error)?;
        Ok(Self {
            threads,
            ticks: stat.utime + stat.stime,
        })
    }

    fn since(&self, earlier: &Self) -> Duration {
        // The nanoseconds of a thread that has ended are lost; the less precise count of the process includes them.
        if earlier
            .threads
            .keys()
            .any(|thread| !self.threads.contains_key(thread))
        {
            let ticks = self.ticks.saturating_sub(earlier.ticks);
            return Duration::from_secs(ticks).div_f64(::procfs::ticks_per_second() as f64);
        }
        let spent = |(thread, now): (&i32, &u64)| {
            now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.threads.iter().map(spent).sum())
    }
}

fn process(pid: u32) -> io::Result<Process> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Process::new(pid).map_err(io_error)
}

fn io_error(error: ProcError) -> io::Error {
    io::Error::other(error)
}

/// The memory of some processes, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// The current resident memory.
    pub(crate) resident_kib: u64,
    /// The maximum since the start of the process or since [`reset_peak`].
    pub(crate) peak_kib: u64,
}

impl Memory {
    /// Reads and adds up the memory of `pids`.
    ///
    /// # Errors
    /// Returns an error when one of the processes has ended.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let status = process(*pid)?.status().map_err(io_error)?;
            sum.resident_kib += status.vmrss.unwrap_or(0);
            sum.peak_kib += status.vmhwm.unwrap_or(0);
        }
        Ok(sum)
    }
}

/// Sets the peak of each process to its current resident size. If the kernel rejects this, the old peak remains.
pub(crate) fn reset_peak(pids: &[u32]) {
    for pid in pids {
        let _ = process(*pid).map(|process| process.clear_refs(ClearRefs::PeakRSS));
    }
}

/// The machine of a result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// The number of cores that this process may use.
    pub(crate) cores: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Runnable tasks before the run, over one minute: the result of a busy machine is unreliable.
    pub(crate) load_before: String,
}

impl Machine {
    /// Describes this machine; values that cannot be read are `unknown`.
    pub(crate) fn here() -> Self {
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        let model = || -> ProcResult<Option<String>> {
            Ok(::procfs::CpuInfo::current()?
                .model_name(0)
                .map(str::to_owned))
        };
        let load = ::procfs::LoadAverage::current();
        Self {
            cpu: known(model().ok().flatten()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: known(release()),
            load_before: known(load.ok().map(|load| format!("{:.2}", load.one))),
        }
    }
}

/// The release of the kernel with its suffix, which `Version` does not contain.
fn release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_threads_are_counted_in_ticks() {
        let at = |threads: &[(i32, u64)], ticks| ProcessCpu {
            threads: threads.iter().copied().collect(),
            ticks,
        };
        let before = at(&[(1, 100), (2, 50)], 4);
        assert_eq!(
            at(&[(1, 160), (2, 55), (3, 7)], 4).since(&before),
            Duration::from_nanos(72)
        );
        let two_ticks = Duration::from_secs(2).div_f64(::procfs::ticks_per_second() as f64);
        assert_eq!(at(&[(1, 160)], 6).since(&before), two_ticks);
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
    fn memory_is_never_above_its_peak() {
        let memory = Memory::of(&[std::process::id()]).unwrap();
        assert!(
            memory.resident_kib > 0 && memory.peak_kib >= memory.resident_kib,
            "{memory:?}"
        );
        assert!(Memory::of(&[u32::MAX]).is_err());
    }

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::here();
        assert!(machine.cores > 0);
        for text in [&machine.kernel, &machine.load_before] {
            assert_ne!(text, "unknown");
        }
    }
}
