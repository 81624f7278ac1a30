//! A rate of bytes that senders share: each chunk is sent in a slot of its own, one slot after the other.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How much of an unused past may be used later. It covers the lateness of timers: a sender that wakes late sends the
/// more.
const BURST: Duration = Duration::from_millis(50);

/// The smallest and the largest slot, in bytes.
const LEAST_CHUNK: usize = 2 * 1024;
const LARGEST_CHUNK: usize = 64 * 1024;

/// A chunk takes at most a fiftieth of a second at the whole rate, so that slow rates are smooth as well.
const CHUNKS_PER_SEC: u64 = 50;

/// A rate of bytes that any number of senders share, as a virtual clock (Zhang, "VirtualClock", 1990): a chunk reserves the
/// slot after the last one, and is sent when its slot begins. Times are since an origin of the caller's choice.
///
/// Promises: in a time `t`, the chunks whose slots begin have at most `(t + BURST) * rate` bytes, and one chunk more, and
/// as many as that less one chunk while there is demand. Senders that have one chunk each at a time get slots in turn.
///
/// Cost: one uncontended lock for a chunk.
#[derive(Debug, Default)]
pub struct Bandwidth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes per second; `None`: any number.
    rate: Option<NonZeroU64>,
    /// When the next slot begins, in nanoseconds since the origin.
    next: u64,
}

impl State {
    fn nanos_of(&self, bytes: usize) -> u64 {
        let Some(rate) = self.rate else {
            return 0;
        };
        // Rounded up, so that small chunks do not exceed the rate.
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate.get()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Bandwidth {
    /// A rate in bytes per second; `None`: no bound.
    #[must_use]
    pub fn new(rate: Option<NonZeroU64>) -> Self {
        let bandwidth = Self::default();
        bandwidth.lock().rate = rate;
        bandwidth
    }

    /// Changes the rate. Slots that have been reserved stay.
    pub fn set_rate(&self, rate: Option<NonZeroU64>) {
        self.lock().rate = rate;
    }

    /// The rate in bytes per second; `None`: no bound.
    #[must_use]
    pub fn rate(&self) -> Option<NonZeroU64> {
        self.lock().rate
    }

    /// The bytes that a sender should reserve at a time.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        match self.rate() {
            None => LARGEST_CHUNK,
            Some(rate) => usize::try_from(rate.get() / CHUNKS_PER_SEC)
                .unwrap_or(LARGEST_CHUNK)
                .clamp(LEAST_CHUNK, LARGEST_CHUNK),
        }
    }

    /// Reserves the next slot for a chunk. Returns the time until it begins; zero: now.
    pub fn reserve(&self, bytes: usize, now: Duration) -> Duration {
        let now = nanos(now);
        let mut state = self.lock();
        if state.rate.is_none() {
            return Duration::ZERO;
        }
        let start = state.next.max(now.saturating_sub(nanos(BURST)));
        state.next = start.saturating_add(state.nanos_of(bytes));
        Duration::from_nanos(start.saturating_sub(now))
    }

    /// Returns the bytes of a slot that will not be sent. Later slots begin the earlier.
    pub fn give_back(&self, bytes: usize) {
        let mut state = self.lock();
        state.next = state.next.saturating_sub(state.nanos_of(bytes));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    /// The times at which `senders` send, each with one chunk at a time, for as long as `time`.
    fn run(bandwidth: &Bandwidth, chunks: &[usize], time: Duration) -> Vec<(Duration, usize)> {
        let mut due: Vec<_> = chunks
            .iter()
            .map(|bytes| START + bandwidth.reserve(*bytes, START))
            .collect();
        let mut sent = Vec::new();
        loop {
            let (sender, now) = due
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|(_, due)| *due)
                .unwrap();
            if now > START + time {
                return sent;
            }
            sent.push((now, sender));
            due[sender] = now + bandwidth.reserve(chunks[sender], now);
        }
    }

    #[test]
    fn no_rate_means_no_wait() {
        let bandwidth = Bandwidth::new(None);
        assert_eq!(bandwidth.reserve(usize::MAX, START), Duration::ZERO);
        assert_eq!(bandwidth.reserve(1, START), Duration::ZERO);
        assert_eq!(bandwidth.chunk_bytes(), LARGEST_CHUNK);
    }

    #[test]
    fn equal_senders_get_equal_shares() {
        let bandwidth = Bandwidth::new(rate(5_000_000));
        let sent = run(&bandwidth, &[64 * 1024; 8], Duration::from_secs(10));
        let of = |sender| sent.iter().filter(|(_, one)| *one == sender).count();
        let (least, most) = (0..8)
            .map(of)
            .fold((usize::MAX, 0), |(least, most), count| {
                (least.min(count), most.max(count))
            });
        assert!(most - least <= 1, "{least} to {most}");
        let bytes = sent.len() * 64 * 1024;
        assert!((50_000_000..=50_400_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_slot_that_is_given_back_is_used_by_the_next_chunk() {
        let bandwidth = Bandwidth::new(rate(1_000));
        // The burst of the past, then a second each.
        assert_eq!(bandwidth.reserve(1_050, START), Duration::ZERO);
        assert_eq!(bandwidth.reserve(1_000, START), Duration::from_secs(1));
        bandwidth.give_back(600);
        assert_eq!(bandwidth.reserve(1, START), Duration::from_millis(1_400));
    }

    #[test]
    fn a_changed_rate_holds_for_the_next_slot() {
        let bandwidth = Bandwidth::new(rate(1_000));
        bandwidth.reserve(1_050, START);
        bandwidth.set_rate(rate(2_000));
        assert_eq!(bandwidth.reserve(1_000, START), Duration::from_secs(1));
        assert_eq!(
            bandwidth.reserve(1_000, START),
            Duration::from_millis(1_500)
        );
        bandwidth.set_rate(None);
        assert_eq!(bandwidth.reserve(1_000, START), Duration::ZERO);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        for rate in [1, u64::MAX] {
            let bandwidth = Bandwidth::new(NonZeroU64::new(rate));
            for now in [Duration::ZERO, Duration::MAX] {
                for bytes in [0, 1, usize::MAX] {
                    bandwidth.reserve(bytes, now);
                    bandwidth.give_back(bytes);
                }
            }
        }
    }

    proptest! {
        /// In any window the slots that begin have at most the rate, the burst and one chunk; with demand at least that.
        #[test]
        fn every_window_has_the_rate(
            rate in 10_000_u64..50_000_000,
            chunks in prop::collection::vec(1_usize..65_536, 1..12),
            from in 0_usize..1_000,
        ) {
            let bandwidth = Bandwidth::new(NonZeroU64::new(rate));
            let sent = run(&bandwidth, &chunks, Duration::from_millis(1_500));
            let from = from % sent.len();
            let largest = chunks.iter().max().copied().unwrap_or(0) as f64;
            let (start, mut bytes) = (sent[from].0, 0_f64);
            for (now, sender) in &sent[from..] {
                let window = (*now - start).as_secs_f64() * rate as f64;
                // Before this chunk, while every sender had one waiting.
                prop_assert!(bytes >= window - largest - 1.0 - sent.len() as f64, "{bytes} of {window}");
                bytes += chunks[*sender] as f64;
                let burst = BURST.as_secs_f64() * rate as f64;
                prop_assert!(bytes <= window + burst + largest + sent.len() as f64, "{bytes} in {window}");
            }
        }

        /// An idle time gives no more than the burst.
        #[test]
        fn idle_time_is_not_saved(rate in 10_000_u64..50_000_000, idle in 1_u64..1_000) {
            let bandwidth = Bandwidth::new(NonZeroU64::new(rate));
            bandwidth.reserve(1, START);
            let now = START + Duration::from_secs(idle);
            let mut free = 0_u64;
            while bandwidth.reserve(100, now).is_zero() {
                free += 100;
            }
            let burst = rate / 20;
            prop_assert!(free <= burst + 200, "{free} of {burst}");
        }
    }
}
