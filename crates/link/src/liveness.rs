//! Whether the peer is there: a machine without a clock (P-6.5).

use std::time::{Duration, Instant};

/// What to do at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Send a heartbeat with this sequence number.
    Probe(u64),
    /// Give the link up.
    Dead,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    heartbeat: Duration,
    dead_after: Duration,
    last_received: Instant,
    last_probe: Option<Instant>,
    sequence: u64,
}

impl Liveness {
    pub(crate) const fn new(heartbeat: Duration, dead_after: Duration, now: Instant) -> Self {
        Self {
            heartbeat,
            dead_after,
            last_received: now,
            last_probe: None,
            sequence: 0,
        }
    }

    /// Any byte counts as life.
    pub(crate) const fn on_received(&mut self, now: Instant) {
        self.last_received = now;
        self.last_probe = None;
    }

    pub(crate) fn on_tick(&mut self, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.last_received);
        match self.last_probe {
            // Only a peer that was asked can be found silent: after a pause of this process (a suspended laptop) the
            // silence is long and nobody has been asked yet.
            Some(asked)
                if silence >= self.dead_after
                    && now.saturating_duration_since(asked) >= self.heartbeat =>
            {
                Verdict::Dead
            }
            Some(asked) if now.saturating_duration_since(asked) < self.heartbeat => Verdict::Fine,
            _ if silence >= self.heartbeat => {
                self.last_probe = Some(now);
                self.sequence += 1;
                Verdict::Probe(self.sequence)
            }
            _ => Verdict::Fine,
        }
    }

    /// A probe asked for from outside. It does not put off the verdict on an earlier one.
    pub(crate) fn probe(&mut self, now: Instant) -> u64 {
        self.last_probe.get_or_insert(now);
        self.sequence += 1;
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(3);
    const DEAD: Duration = Duration::from_secs(10);

    fn run(until: u64, start: Instant, live: &mut Liveness) -> Vec<(u64, Verdict)> {
        (1..=until)
            .map(|second| (second, live.on_tick(start + Duration::from_secs(second))))
            .filter(|(_, verdict)| *verdict != Verdict::Fine)
            .collect()
    }

    #[test]
    fn silence_is_probed_and_then_given_up() {
        let start = Instant::now();
        let mut live = Liveness::new(HEARTBEAT, DEAD, start);
        assert_eq!(
            run(12, start, &mut live),
            [
                (3, Verdict::Probe(1)),
                (6, Verdict::Probe(2)),
                (9, Verdict::Probe(3)),
                (12, Verdict::Dead)
            ]
        );
    }

    #[test]
    fn any_byte_is_life() {
        let start = Instant::now();
        let mut live = Liveness::new(HEARTBEAT, DEAD, start);
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            assert_ne!(live.on_tick(now), Verdict::Dead);
            if second % 5 == 0 {
                live.on_received(now);
            }
        }
    }

    #[test]
    fn after_a_pause_of_this_process_the_peer_is_asked_first() {
        let start = Instant::now();
        let mut live = Liveness::new(HEARTBEAT, DEAD, start);
        let woken = start + Duration::from_secs(3600);
        assert_eq!(live.on_tick(woken), Verdict::Probe(1));
        assert_eq!(live.on_tick(woken + Duration::from_secs(1)), Verdict::Fine);
        assert_eq!(live.on_tick(woken + HEARTBEAT), Verdict::Dead);
    }
}
