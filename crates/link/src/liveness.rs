//! Liveness of the peer: a machine without a clock (P-6.5).

use std::time::{Duration, Instant};

/// The action at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No action.
    Fine,
    /// Send a heartbeat with this sequence number.
    Probe(u64),
    /// Declare the link dead.
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

    /// Any received byte shows that the peer is alive.
    pub(crate) const fn on_received(&mut self, now: Instant) {
        self.last_received = now;
        self.last_probe = None;
    }

    pub(crate) fn on_tick(&mut self, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.last_received);
        match self.last_probe {
            // Only a peer that was probed can be declared silent: after a pause of this process (a suspended laptop) the
            // silence is long and no probe has been sent yet.
            Some(probed)
                if silence >= self.dead_after
                    && now.saturating_duration_since(probed) >= self.heartbeat =>
            {
                Verdict::Dead
            }
            Some(probed) if now.saturating_duration_since(probed) < self.heartbeat => Verdict::Fine,
            _ if silence >= self.heartbeat => {
                self.last_probe = Some(now);
                self.sequence += 1;
                Verdict::Probe(self.sequence)
            }
            _ => Verdict::Fine,
        }
    }

    /// A probe on request. It does not delay the decision of an earlier one.
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
    fn a_silent_peer_is_probed_then_declared_dead() {
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
    fn any_byte_counts_as_life() {
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
    fn the_peer_is_probed_first_after_a_pause() {
        let start = Instant::now();
        let mut live = Liveness::new(HEARTBEAT, DEAD, start);
        let woken = start + Duration::from_secs(3600);
        assert_eq!(live.on_tick(woken), Verdict::Probe(1));
        assert_eq!(live.on_tick(woken + Duration::from_secs(1)), Verdict::Fine);
        assert_eq!(live.on_tick(woken + HEARTBEAT), Verdict::Dead);
    }
}
