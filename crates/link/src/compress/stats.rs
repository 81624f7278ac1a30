//! Effect and cost of compression.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The numbers of one lane, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompressionStats {
    /// Messages sent compressed.
    pub sent_messages: u64,
    /// Bytes of their payload before compression.
    pub sent_plain_bytes: u64,
    /// Bytes of their payload on the hop.
    pub sent_packed_bytes: u64,
    /// Messages of directions with compression that were sent unchanged.
    pub sent_raw_messages: u64,
    /// Messages received compressed.
    pub received_messages: u64,
    /// Bytes of their payload on the hop.
    pub received_packed_bytes: u64,
    /// Bytes of their payload after inflating.
    pub received_plain_bytes: u64,
    /// Time spent compressing, including payload that did not shrink.
    pub compressing: Duration,
    /// Time spent on inflating.
    pub inflating: Duration,
}

impl CompressionStats {
    /// Adds the numbers of another lane.
    pub fn add(&mut self, other: &Self) {
        self.sent_messages += other.sent_messages;
        self.sent_plain_bytes += other.sent_plain_bytes;
        self.sent_packed_bytes += other.sent_packed_bytes;
        self.sent_raw_messages += other.sent_raw_messages;
        self.received_messages += other.received_messages;
        self.received_packed_bytes += other.received_packed_bytes;
        self.received_plain_bytes += other.received_plain_bytes;
        self.compressing += other.compressing;
        self.inflating += other.inflating;
    }
}

/// The counters of a running lane.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    sent: Count,
    sent_raw_messages: AtomicU64,
    received: Count,
}

#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    plain_bytes: AtomicU64,
    packed_bytes: AtomicU64,
    nanos: AtomicU64,
}

fn more(count: &AtomicU64, by: usize) {
    count.fetch_add(by as u64, Ordering::Relaxed);
}

impl Count {
    fn message(&self, plain: usize, packed: usize) {
        more(&self.messages, 1);
        more(&self.plain_bytes, plain);
        more(&self.packed_bytes, packed);
    }

    fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

impl Gauge {
    /// Called when compression was tried for one message; `packed` is its size if it shrank.
    pub(crate) fn on_packed(&self, plain: usize, packed: Option<usize>, took: Duration) {
        match packed {
            Some(packed) => self.sent.message(plain, packed),
            None => more(&self.sent_raw_messages, 1),
        }
        self.sent.took(took);
    }

    pub(crate) fn on_unpacked(&self, packed: usize, plain: usize, took: Duration) {
        self.received.message(plain, packed);
        self.received.took(took);
    }

    pub(crate) fn snapshot(&self) -> CompressionStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CompressionStats {
            sent_messages: load(&self.sent.messages),
            sent_plain_bytes: load(&self.sent.plain_bytes),
            sent_packed_bytes: load(&self.sent.packed_bytes),
            sent_raw_messages: load(&self.sent_raw_messages),
            received_messages: load(&self.received.messages),
            received_packed_bytes: load(&self.received.packed_bytes),
            received_plain_bytes: load(&self.received.plain_bytes),
            compressing: self.sent.time(),
            inflating: self.received.time(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up_in_every_field() {
        let gauge = Gauge::default();
        let milli = Duration::from_millis(1);
        gauge.on_packed(1000, Some(300), milli);
        gauge.on_packed(1000, None, milli);
        gauge.on_unpacked(200, 500, 3 * milli);
        let one = gauge.snapshot();
        let expected = CompressionStats {
            sent_messages: 1,
            sent_plain_bytes: 1000,
            sent_packed_bytes: 300,
            sent_raw_messages: 1,
            received_messages: 1,
            received_packed_bytes: 200,
            received_plain_bytes: 500,
            compressing: 2 * milli,
            inflating: 3 * milli,
        };
        assert_eq!(one, expected);
        let mut sum = one;
        sum.add(&one);
        let doubled = CompressionStats {
            sent_messages: 2,
            sent_plain_bytes: 2000,
            sent_packed_bytes: 600,
            sent_raw_messages: 2,
            received_messages: 2,
            received_packed_bytes: 400,
            received_plain_bytes: 1000,
            compressing: 4 * milli,
            inflating: 6 * milli,
        };
        assert_eq!(sum, doubled);
    }
}
