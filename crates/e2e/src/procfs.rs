//! What a process holds, as the kernel counts it.

use std::fs;

/// Resident memory of a process, in bytes.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    status_field(pid, "VmRSS:") * 1024
}

/// Threads of a process.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn threads(pid: u32) -> u64 {
    status_field(pid, "Threads:")
}

/// File descriptors that a process has open.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    entries.expect("the descriptors of a live process").count()
}

/// The soft and the hard limit of open descriptors of a process.
///
/// # Panics
/// When there is no such process, or it has no limit.
#[must_use]
pub fn descriptor_limits(pid: u32) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a live process");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("a limit").split_whitespace();
    let mut next = || {
        numbers
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    };
    (next(), next())
}

/// CPU time that a process has used, in clock ticks.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live process");
    // The name may contain anything but ends with the last parenthesis; user and system time are fields 14 and 15.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn status_field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} of process {pid}"))
}

/// Raises this process's own limit of open descriptors to `wanted`, if it is lower.
///
/// # Panics
/// When the system does not allow it.
pub fn allow_descriptors(wanted: u64) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse::<u64>().ok())
        .unwrap_or(u64::MAX);
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
