//! Bytes from one end to the other.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::Rng;

/// How one direction behaves.
#[derive(Debug, Clone)]
pub struct PipeConfig {
    /// Time from sending the last byte to its arrival.
    pub latency: Duration,
    /// Bytes per second; `None` for no bound.
    pub bandwidth: Option<u64>,
    /// Bytes that may be in transit or wait to be sent; more are not accepted, as a socket's buffer would not accept
    /// them.
    pub capacity: usize,
    /// Arriving bytes are cut into frames of 1 to this many bytes, however they were written.
    pub max_frame: usize,
    /// The stream is lost after this many bytes: nothing further arrives, and both ends notice it.
    pub cut_at: Option<u64>,
}

impl Default for PipeConfig {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            bandwidth: None,
            capacity: 1 << 20,
            max_frame: 16 * 1024,
            cut_at: None,
        }
    }
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Some bytes, one frame.
    Frame(Bytes),
    /// No bytes until this time since the start; without a time, until something is written.
    Nothing(Option<Duration>),
    /// The stream has been lost.
    Lost,
}

/// One direction of a stream, in virtual time.
#[derive(Debug)]
pub struct Pipe {
    config: PipeConfig,
    rng: Rng,
    /// Bytes in transit, with the time of their arrival.
    under_way: VecDeque<(Duration, BytesMut)>,
    bytes_under_way: usize,
    /// When the line is free for the next byte.
    free_at: Duration,
    /// Bytes accepted since the start.
    written: u64,
    lost: bool,
}

impl Pipe {
    /// An empty direction, whose frames are cut by `rng`.
    pub fn new(config: PipeConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            free_at: Duration::ZERO,
            written: 0,
            lost: false,
        }
    }

    /// How many bytes [`Pipe::write`] would accept.
    pub fn room(&self) -> usize {
        self.config.capacity.saturating_sub(self.bytes_under_way)
    }

    /// Accepts as much of `bytes` as there is room for and returns how much that was. After a loss everything is
    /// accepted and nothing arrives.
    pub fn write(&mut self, now: Duration, bytes: &[u8]) -> usize {
        if self.lost {
            return bytes.len();
        }
        let taken = bytes.len().min(self.room());
        let survives = match self.config.cut_at {
            Some(cut) => usize::try_from(cut.saturating_sub(self.written)).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let kept = &bytes[..taken.min(survives)];
        self.written += kept.len() as u64;
        if !kept.is_empty() {
            self.free_at = self.free_at.max(now) + self.time_of(kept.len());
            let at = self.free_at + self.config.latency;
            self.under_way.push_back((at, BytesMut::from(kept)));
            self.bytes_under_way += kept.len();
        }
        if taken > survives {
            self.lost = true;
            return bytes.len();
        }
        taken
    }

    /// The next frame that has arrived.
    pub fn read(&mut self, now: Duration) -> Received {
        let Some((at, bytes)) = self.under_way.front_mut() else {
            return if self.lost {
                Received::Lost
            } else {
                Received::Nothing(None)
            };
        };
        if *at > now {
            return Received::Nothing(Some(*at));
        }
        let length = self.rng.within(1, self.config.max_frame).min(bytes.len());
        let frame = bytes.split_to(length).freeze();
        if bytes.is_empty() {
            self.under_way.pop_front();
        }
        self.bytes_under_way -= frame.len();
        Received::Frame(frame)
    }

    /// Loses the stream now: bytes that have not arrived never will.
    pub fn cut(&mut self) {
        self.lost = true;
        self.under_way.clear();
        self.bytes_under_way = 0;
    }

    /// Whether the stream has been lost, seen from the writing end.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Bytes that were accepted and arrive or have arrived.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether no bytes are in transit.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    fn time_of(&self, bytes: usize) -> Duration {
        self.config.bandwidth.map_or(Duration::ZERO, |per_sec| {
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(per_sec.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pipe(config: PipeConfig) -> Pipe {
        Pipe::new(config, Rng::from_seed(1))
    }

    fn read_all(pipe: &mut Pipe, now: Duration) -> (Vec<u8>, Received) {
        let mut read = Vec::new();
        loop {
            match pipe.read(now) {
                Received::Frame(frame) => read.extend_from_slice(&frame),
                other => return (read, other),
            }
        }
    }

    #[test]
    fn bytes_arrive_after_transmission_and_propagation_delay() {
        let mut pipe = pipe(PipeConfig {
            latency: 50 * MS,
            bandwidth: Some(1000),
            ..PipeConfig::default()
        });
        assert_eq!(pipe.read(MS), Received::Nothing(None));
        assert_eq!(pipe.write(Duration::ZERO, &[1; 10]), 10);
        assert_eq!(pipe.write(Duration::ZERO, &[2; 10]), 10);
        assert_eq!(pipe.read(59 * MS), Received::Nothing(Some(60 * MS)));
        let (first, then) = read_all(&mut pipe, 60 * MS);
        assert_eq!(
            (first, then),
            (vec![1; 10], Received::Nothing(Some(70 * MS)))
        );
        let (second, then) = read_all(&mut pipe, 70 * MS);
        assert_eq!((second, then), (vec![2; 10], Received::Nothing(None)));
        assert!(pipe.is_empty() && pipe.written() == 20);
    }

    #[test]
    fn frames_are_cut_anywhere_and_join_to_what_was_written() {
        let mut pipe = pipe(PipeConfig {
            max_frame: 3,
            ..PipeConfig::default()
        });
        let bytes: Vec<u8> = (0..=255).collect();
        pipe.write(Duration::ZERO, &bytes);
        let mut lengths = [0; 4];
        let mut read = Vec::new();
        while let Received::Frame(frame) = pipe.read(Duration::ZERO) {
            lengths[frame.len()] += 1;
            read.extend_from_slice(&frame);
        }
        assert_eq!(read, bytes);
        assert_eq!(lengths[0], 0);
        assert!(lengths[1..].iter().all(|&count| count > 10), "{lengths:?}");
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_it_is_read() {
        let mut pipe = pipe(PipeConfig {
            capacity: 4,
            max_frame: 1,
            ..PipeConfig::default()
        });
        assert_eq!(pipe.write(Duration::ZERO, b"abcdef"), 4);
        assert_eq!((pipe.room(), pipe.write(Duration::ZERO, b"ef")), (0, 0));
        assert_eq!(pipe.read(Duration::ZERO), Received::Frame("a".into()));
        assert_eq!(pipe.write(Duration::ZERO, b"ef"), 1);
    }

    #[test]
    fn nothing_passes_the_cut() {
        let mut pipe = pipe(PipeConfig {
            cut_at: Some(3),
            ..PipeConfig::default()
        });
        assert_eq!(pipe.write(Duration::ZERO, b"ab"), 2);
        assert!(!pipe.is_lost());
        assert_eq!(pipe.write(Duration::ZERO, b"cd"), 2);
        assert!(pipe.is_lost());
        assert_eq!(pipe.write(Duration::ZERO, b"ef"), 2);
        assert_eq!(read_all(&mut pipe, MS), (b"abc".to_vec(), Received::Lost));
        assert_eq!(pipe.written(), 3);
    }

    #[test]
    fn a_cut_takes_what_is_under_way() {
        let mut pipe = pipe(PipeConfig::default());
        pipe.write(Duration::ZERO, b"ab");
        pipe.cut();
        assert_eq!(pipe.read(MS), Received::Lost);
        assert_eq!((pipe.is_empty(), pipe.room()), (true, 1 << 20));
    }
}
