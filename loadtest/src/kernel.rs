//! Counters of the kernel during a measurement: a result is unreliable if the machine was short of memory or processor
//! time, or lost packets.

use std::fs;
use std::time::Instant;

use serde::Serialize;

/// Retransmitted segments, in percent of all segments: above this limit, packets were lost.
const MANY_RETRANSMITS_PERCENT: f64 = 0.1;

/// Time in which a task waited for memory, in percent of the window.
const MUCH_MEMORY_PRESSURE_PERCENT: f64 = 1.0;

/// Processor time that the host gave to other guests, in percent of all.
const MUCH_STEAL_PERCENT: f64 = 2.0;

/// The kernel's counters at one moment; `None` where this kernel does not have a counter.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    at: Instant,
    /// Retransmitted segments, and all sent segments.
    segments: Option<(u64, u64)>,
    /// Microseconds in which some task waited for memory.
    memory_stalls_us: Option<u64>,
    /// Stolen ticks, and all ticks.
    ticks: Option<(u64, u64)>,
}

/// The changes of the counters in a window; `None` where this kernel does not have a counter.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Kernel {
    /// The number of retransmitted TCP segments.
    pub(crate) tcp_retransmits: Option<u64>,
    /// Retransmitted segments, in percent of all sent segments.
    pub(crate) tcp_retransmits_percent: Option<f64>,
    /// Time in which some task waited for memory, in percent.
    pub(crate) memory_pressure_percent: Option<f64>,
    /// Processor time that the host gave to other guests, in percent.
    pub(crate) steal_percent: Option<f64>,
}

impl Counters {
    /// Reads the counters.
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            at: Instant::now(),
            segments: segments(&read("/proc/net/snmp")),
            memory_stalls_us: stalls_us(&read("/proc/pressure/memory")),
            ticks: ticks(&read("/proc/stat")),
        }
    }

    /// The change since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Kernel {
        let segments = both(self.segments, earlier.segments);
        let ticks = both(self.ticks, earlier.ticks);
        let stalls = self.memory_stalls_us.zip(earlier.memory_stalls_us);
        let window_us = self.at.duration_since(earlier.at).as_micros().max(1) as f64;
        Kernel {
            tcp_retransmits: segments.map(|(again, _)| again),
            tcp_retransmits_percent: segments.map(percent),
            memory_pressure_percent: stalls
                .map(|(now, then)| 100.0 * now.saturating_sub(then) as f64 / window_us),
            steal_percent: ticks.map(percent),
        }
    }
}

fn both(now: Option<(u64, u64)>, then: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let ((part, all), (part_then, all_then)) = now.zip(then)?;
    Some((part.saturating_sub(part_then), all.saturating_sub(all_then)))
}

fn percent((part, all): (u64, u64)) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

impl Kernel {
    /// The conditions that make the result unreliable.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let above = |value: Option<f64>, most: f64| value.filter(|value| *value > most);
        let retransmits = above(self.tcp_retransmits_percent, MANY_RETRANSMITS_PERCENT);
        let retransmits = retransmits.map(|percent| {
            format!("{percent:.2} % of all TCP segments were sent again: packets were lost")
        });
        let memory = above(self.memory_pressure_percent, MUCH_MEMORY_PRESSURE_PERCENT);
        let memory = memory
            .map(|percent| format!("for {percent:.1} % of the time a task waited for memory"));
        let steal = above(self.steal_percent, MUCH_STEAL_PERCENT).map(|percent| {
            format!("{percent:.1} % of the processor time went to other guests of the host (steal)")
        });
        [retransmits, memory, steal].into_iter().flatten().collect()
    }

    /// All counters on one line.
    pub(crate) fn text(&self) -> String {
        let shown = |value: Option<f64>| {
            value.map_or("unknown".to_owned(), |value| format!("{value:.2} %"))
        };
        let again = self
            .tcp_retransmits
            .map_or("unknown".to_owned(), |count| count.to_string());
        format!(
            "TCP retransmits {again} ({}), memory pressure {}, steal {}",
            shown(self.tcp_retransmits_percent),
            shown(self.memory_pressure_percent),
            shown(self.steal_percent),
        )
    }
}

/// `RetransSegs` and `OutSegs` of /proc/net/snmp, where a line of names precedes each line of numbers.
fn segments(snmp: &str) -> Option<(u64, u64)> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let mut both = names.split_whitespace().zip(numbers.split_whitespace());
        both.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((of("RetransSegs")?, of("OutSegs")?))
}

/// The value of `total` in the line `some` of a file in /proc/pressure.
fn stalls_us(pressure: &str) -> Option<u64> {
    let some = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some "))?;
    let total = some
        .split_whitespace()
        .find_map(|word| word.strip_prefix("total="));
    total?.parse().ok()
}

/// Steal, the eighth number of the line `cpu` of /proc/stat, and the sum of the first eight; the later numbers are
/// already part of the first two.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers = all.split_whitespace().take(8);
    let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((*numbers.get(7)?, numbers.iter().sum()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SNMP: &str =
        "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 4000 8\nUdp: A\nUdp: 1\n";
    const STAT: &str = "cpu  10 20 30 40 50 60 70 80 900 900\ncpu0 1 2 3 4 5 6 7 8 9 9\n";
    const PRESSURE: &str = "some avg10=0.00 avg60=0.00 total=1500\nfull avg10=0.00 total=7\n";

    #[test]
    fn counters_are_found_by_their_names() {
        assert_eq!(segments(SNMP), Some((8, 4000)));
        assert_eq!(ticks(STAT), Some((80, 360)));
        assert_eq!(stalls_us(PRESSURE), Some(1500));
        for text in [
            "",
            "Tcp: A\n",
            "Tcp: A\nTcp: 1\n",
            "cpu 1 2\n",
            "some total=x\n",
        ] {
            assert_eq!(
                (segments(text), ticks(text), stalls_us(text)),
                (None, None, None)
            );
        }
    }

    fn at(seconds: u64, segments: (u64, u64), stalls: u64, ticks: (u64, u64)) -> Counters {
        Counters {
            at: Instant::now() + Duration::from_secs(seconds),
            segments: Some(segments),
            memory_stalls_us: Some(stalls),
            ticks: Some(ticks),
        }
    }

    #[test]
    fn a_poor_window_has_each_warning() {
        let before = at(0, (10, 1_000), 0, (5, 100));
        let quiet = at(10, (10, 11_000), 1_000, (5, 2_100)).since(&before);
        assert_eq!(quiet.warnings(), [""; 0]);
        assert_eq!(quiet.tcp_retransmits, Some(0));
        let poor = at(10, (60, 11_000), 1_000_000, (105, 2_100)).since(&before);
        let warnings = poor.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].starts_with("0.50 % of all TCP segments"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("10.0 %"), "{warnings:?}");
        assert!(warnings[2].starts_with("5.0 %"), "{warnings:?}");
        assert!(
            poor.text().starts_with("TCP retransmits 50 (0.50 %)"),
            "{}",
            poor.text()
        );
    }

    #[test]
    fn what_the_kernel_does_not_report_is_unknown() {
        let nothing = Kernel::default();
        assert_eq!(nothing.warnings(), [""; 0]);
        assert!(
            nothing.text().contains("steal unknown"),
            "{}",
            nothing.text()
        );
    }
}
