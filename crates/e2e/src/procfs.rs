//! Resources of a process, as the kernel reports them.

use procfs::process::{LimitValue, Process};

fn process(pid: u32) -> Process {
    let pid = i32::try_from(pid).expect("a process id");
    Process::new(pid).expect("a live process")
}

/// Resident memory of a process, in bytes.
///
/// # Panics
/// Panics when the process has ended.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = process(pid).status().expect("the status of a live process");
    status.vmrss.expect("resident memory") * 1024
}

/// Threads of a process.
///
/// # Panics
/// Panics when the process has ended.
#[must_use]
pub fn threads(pid: u32) -> u64 {
    let status = process(pid).status().expect("the status of a live process");
    status.threads
}

/// Open file descriptors of a process.
///
/// # Panics
/// Panics when the process has ended.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    process(pid)
        .fd_count()
        .expect("the descriptors of a live process")
}

/// The soft and the hard limit of open descriptors of a process.
///
/// # Panics
/// Panics when the process has ended, or has no limit.
#[must_use]
pub fn descriptor_limits(pid: u32) -> (u64, u64) {
    let limits = process(pid).limits().expect("the limits of a live process");
    let number = |limit| match limit {
        LimitValue::Value(number) => number,
        LimitValue::Unlimited => panic!("process {pid} has no limit of descriptors"),
    };
    let limit = limits.max_open_files;
    (number(limit.soft_limit), number(limit.hard_limit))
}

/// CPU time of a process, in clock ticks.
///
/// # Panics
/// Panics when the process has ended.
#[must_use]
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = process(pid).stat().expect("the times of a live process");
    stat.utime + stat.stime
}

/// Raises the limit of open descriptors of this process to `wanted`, if it is lower.
///
/// # Panics
/// Panics when the system does not allow it.
pub fn allow_descriptors(wanted: u64) {
    let limits = Process::myself().and_then(|process| process.limits());
    let soft = match limits
        .expect("the limits of this process")
        .max_open_files
        .soft_limit
    {
        LimitValue::Value(soft) => soft,
        LimitValue::Unlimited => return,
    };
    if soft >= wanted {
        return;
    }
    let done = std::process::Command::new("prlimit")
        .args([
            "--pid",
            &std::process::id().to_string(),
            &format!("--nofile={wanted}:"),
        ])
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "this test needs {wanted} descriptors and has {soft}: raise the limit with `ulimit -n {wanted}`"
    );
}
