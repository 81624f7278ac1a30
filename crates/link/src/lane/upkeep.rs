//! The timers of a lane: probes, deadlines, stalled requests.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_codec::{RequestId, ResetCode};
use adit_mux::Attachment;
use adit_pending::Settled;
use adit_proto::{Control, Heartbeat, control::Kind};
use bytes::Bytes;
use prost::Message as _;

use super::state::LaneState;
use crate::{
    clock::now,
    failure::{Failure, Reason},
    inbox::Progress,
    liveness::{Liveness, Verdict},
};

impl LaneState {
    /// How often [`LaneState::tick`] is to be called.
    pub(super) fn tick_every(&self) -> Duration {
        (self.config.heartbeat / 3).max(Duration::from_millis(10))
    }

    /// Runs all timers: probes, deadlines, stalled requests.
    pub(super) fn tick(&self, connection: Attachment, now: Instant) {
        let verdict = {
            let mut liveness = self.lock_liveness();
            if self.received.swap(false, Ordering::Relaxed) {
                liveness.on_received(now);
            }
            liveness.on_tick(now)
        };
        match verdict {
            Verdict::Fine => {}
            Verdict::Probe(sequence) => self.send_probe(sequence),
            Verdict::Dead => {
                let silence = self.config.dead_after;
                self.silent.store(true, Ordering::Relaxed);
                let detail = format!("the peer has been silent for {silence:?}");
                self.detach(connection, &Failure::new(Reason::LinkLost, detail));
                return;
            }
        }
        self.mux.tick();
        let mut expired = Vec::new();
        self.table.expire(now, &mut expired);
        for (id, inbox) in expired {
            self.mux.reset(
                RequestId::new(id),
                ResetCode::ServiceTimeout,
                "no response in time",
            );
            inbox.fail(Failure::new(
                Reason::ServiceTimeout,
                "the service did not respond in time",
            ));
        }
        self.reset_stalled(now);
    }

    /// Resets requests whose received parts have waited for too long (F12).
    fn reset_stalled(&self, now: Instant) {
        let mut stalled = Vec::new();
        self.table.for_each(|id, inbox| {
            let mut state = inbox.lock();
            let consumed = state.consumed;
            match state.progress {
                _ if state.waiting == 0 || state.paced_until.is_some_and(|until| until >= now) => {
                    state.progress = None;
                }
                Some(progress) if progress.consumed == consumed => {
                    let stall = state.stall.unwrap_or(self.config.stall);
                    if now.saturating_duration_since(progress.since) >= stall {
                        stalled.push(id);
                    }
                }
                _ => {
                    state.progress = Some(Progress {
                        consumed,
                        since: now,
                    });
                }
            }
        });
        for id in stalled {
            if let Some(inbox) = self.table.settle(id, Settled::Failed) {
                // The end that opened a request serves a visitor, the other one a service.
                let id = RequestId::new(id);
                let code = if id.opener() == self.mux.side() {
                    ResetCode::Stalled
                } else {
                    ResetCode::ServiceTimeout
                };
                self.mux.reset(id, code, "no progress");
                inbox.fail(Failure::of_reset(
                    code,
                    b"received data was not consumed in time",
                ));
            }
        }
    }

    /// Sends a probe to the peer and waits for any byte, at most `within`.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn probe(&self, within: Duration) -> bool {
        let Some(connection) = self.attached() else {
            return false;
        };
        let alive = self.alive.notified();
        let sequence = {
            let now = now();
            let mut liveness = self.lock_liveness();
            // The reader wakes this task at the first byte after this: bytes since the last tick are not a response.
            if self.received.swap(false, Ordering::Relaxed) {
                liveness.on_received(now);
            }
            liveness.probe(now)
        };
        self.send_probe(sequence);
        tokio::select! {
            () = alive => self.has(connection),
            _ = self.wait_lost(connection) => false,
            () = tokio::time::sleep(within) => false,
        }
    }

    fn send_probe(&self, sequence: u64) {
        self.mux.send_control(heartbeat(sequence, false));
    }

    /// Replies to a heartbeat of the peer.
    pub(super) fn on_control(&self, control: &Bytes) {
        // Unknown kinds are from a newer peer; in this version the stream carries only heartbeats.
        if let Ok(Control {
            kind: Some(Kind::Heartbeat(Heartbeat { sequence, reply })),
        }) = Control::decode(&control[..])
            && !reply
        {
            self.mux.send_control_reply(heartbeat(sequence, true));
        }
    }

    pub(super) fn lock_liveness(&self) -> std::sync::MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn heartbeat(sequence: u64, reply: bool) -> Bytes {
    let kind = Some(Kind::Heartbeat(Heartbeat { sequence, reply }));
    Control { kind }.encode_to_vec().into()
}
