//! The dial loop: connects, serves the session, connects again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_link::{
    Failure, Lane, Reason,
    control::{Channel, Transport},
};
use adit_proto::control::Kind;
use adit_reconnect::{Action, Event, Reconnect, StopReason};
use adit_trace::Printable;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use super::{state::State, totals::Totals};
use crate::{
    certificate::CertificateKeeper,
    instance::Instance,
    links::CurrentLink,
    renewal::{RenewalKeeper, RenewalResults},
    session::{self, Session, SessionObserver, Upstreams},
    status::TunnelOutcome,
};

/// The service of a removed tunnel is kept this long after the server has confirmed its end: requests that were sent
/// before may still arrive on a data stream.
const RETIRE_AFTER: Duration = Duration::from_millis(250);

/// The result of a registration, or of a change of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Epoch of the session.
    pub epoch: u64,
    /// The outcomes of the announcement, one for each tunnel.
    pub tunnels: Vec<TunnelOutcome>,
}

/// Why a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The reason of the reconnect machine.
    pub reason: StopReason,
    /// The last error.
    pub error: Option<String>,
}

/// The loop of a client, on its data thread.
pub(super) struct Run<T> {
    pub(super) transport: Arc<T>,
    pub(super) state: Arc<State>,
    pub(super) instance: Instance,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) registrations: watch::Sender<Option<Registration>>,
}

impl<T: Transport> Run<T> {
    pub(super) async fn until_stopped(self) -> Ended {
        let mut stop = self.stop.clone();
        let state = self.state.clone();
        state.entries.accept(&Handle::current());
        tokio::select! {
            ended = self.dial_and_serve() => ended,
            // The wait also ends when the sender is dropped.
            _ = stop.wait_for(|stop| *stop) => {
                let failure = Failure::new(Reason::Draining, "the client is stopping");
                self.state.close(&failure);
                Ended { reason: StopReason::Requested, error: None }
            }
        }
    }

    /// Executes the actions of the reconnect machine until it stops.
    async fn dial_and_serve(&self) -> Ended {
        let state = &self.state;
        let config = state.settings().reconnect.clone();
        let mut machine = Reconnect::new(config.clone());
        let mut event = Event::Start;
        let mut dialled = None;
        loop {
            let action = match machine.on_event(event, Instant::now(), rand::random()) {
                Ok(action) => action,
                Err(wrong) => {
                    // This would be a defect of this loop: start over instead of waiting forever.
                    tracing::error!(%wrong, "reconnect");
                    machine = Reconnect::new(config.clone());
                    event = Event::Start;
                    continue;
                }
            };
            state.cell.set(machine.status());
            state.lock().dials = machine.stats().dials;
            event = match action {
                Action::Dial => match self.dial().await {
                    Ok(session) => {
                        let epoch = session.epoch;
                        dialled = Some(session);
                        Event::Established { epoch }
                    }
                    Err(kind) => Event::DialFailed(kind),
                },
                Action::Serve => match dialled.take() {
                    Some(session) => {
                        self.serve(session).await;
                        if state.draining.load(Ordering::Relaxed) {
                            Event::Stop
                        } else {
                            Event::Lost
                        }
                    }
                    None => Event::Lost,
                },
                Action::Wait { until } => {
                    let wait = until.saturating_duration_since(Instant::now());
                    state.lock().waits(wait);
                    tokio::time::sleep_until(until.into()).await;
                    Event::TimerDue
                }
                Action::Stop(reason) => {
                    let error = state.lock().last_error.clone();
                    return Ended { reason, error };
                }
            };
        }
    }

    async fn dial(&self) -> Result<Session<T>, adit_reconnect::Failure> {
        let state = &self.state;
        let (settings, secret) = (state.subscribe(), self.instance.secret);
        let session = session::dial(&self.transport, settings, secret, &state.egress).await;
        let session = session.map_err(|error| state.lock().dial_failed(error, Instant::now()))?;
        let tunnels = session.announcements.outcomes();
        let refused = |tunnel: &TunnelOutcome| tunnel.error.is_some() && !tunnel.waiting;
        // No tunnel is or was served: the user has to change the settings.
        if !tunnels.is_empty()
            && tunnels.iter().all(refused)
            && state.entries.is_empty()
            && self.registrations.borrow().is_none()
        {
            let texts: Vec<_> = tunnels
                .iter()
                .filter_map(|tunnel| tunnel.error.clone())
                .collect();
            state.lock().last_error = Some(texts.join("; "));
            let failure = Failure::new(Reason::Cancelled, "every tunnel was refused");
            for lane in session.lanes() {
                lane.close(&failure);
            }
            return Err(adit_reconnect::Failure::Refused { fatal: true });
        }
        log_outcomes(&[], &tunnels);
        {
            let mut live = state.lock();
            live.lanes = session.lanes();
            live.lost_lanes = Totals::default();
            live.control = Some(session.control.clone());
            live.epoch = session.epoch;
            live.tunnels.clone_from(&tunnels);
            live.is_settled = session.announcements.is_settled();
            live.dial_succeeded();
        }
        // Requests for removed tunnels ended with the previous session.
        state.retire_services();
        let link = CurrentLink::new(session.epoch, session.revision, session.lanes());
        state.entries.link_up(link, session.max_requests);
        self.registrations.send_replace(Some(Registration {
            epoch: session.epoch,
            tunnels,
        }));
        Ok(session)
    }

    async fn serve(&self, session: Session<T>) {
        // The program prints the public URL first.
        tracing::debug!(epoch = session.epoch, "session set up");
        let mut tasks = JoinSet::new();
        tasks.spawn(check_upstreams(self.state.clone(), session.upstreams()));
        let joined = self.state.settings().joined.clone();
        let joined = joined.filter(|_| session.has_certificates);
        let certificate = joined.map(|path| CertificateKeeper::new(&path));
        if let Some(keeper) = &certificate {
            tasks.spawn(keeper.clone().run(session.control.clone()));
        }
        let renewal = session.renewable.clone().map(|presented| {
            let (keeper, results) =
                RenewalKeeper::new(presented, self.state.subscribe(), session.control.clone());
            tasks.spawn(keeper.run());
            results
        });
        let observer = Arc::new(Observer {
            state: self.state.clone(),
            registrations: self.registrations.clone(),
            epoch: session.epoch,
            certificate,
            renewal,
        });
        let failure = session.serve(observer).await;
        tracing::warn!(%failure, "the link was lost");
        if self.state.draining.load(Ordering::Relaxed) {
            self.state.entries.links.over();
        } else {
            self.state.entries.links.down();
        }
        let mut live = self.state.lock();
        live.last_error = Some(failure.to_string());
        live.lanes.clear();
        live.control = None;
    }
}

/// Applies the events of one session to the state of the client.
struct Observer {
    state: Arc<State>,
    registrations: watch::Sender<Option<Registration>>,
    epoch: u64,
    /// Of a client that has joined.
    certificate: Option<Arc<CertificateKeeper>>,
    /// Of a client with a token, of a server that can continue a session with another one.
    renewal: Option<RenewalResults>,
}

impl SessionObserver for Observer {
    fn on_control(&self, kind: Kind) {
        match kind {
            Kind::Drain(drain) => {
                tracing::info!(reason = %Printable(&drain.reason), "the server drains");
                self.state.entries.links.leaving();
            }
            Kind::CertificateResult(result) => {
                if let Some(keeper) = &self.certificate {
                    keeper.on_result(result);
                }
            }
            Kind::CredentialRenewalResult(result) => {
                if let Some(renewal) = &self.renewal {
                    renewal.on_result(result);
                }
            }
            Kind::Roots(roots) => {
                if let Some(keeper) = &self.certificate {
                    keeper.on_roots(roots);
                }
            }
            Kind::Error(error) => {
                tracing::warn!(code = %Printable(&error.code), "{}", Printable(&error.message));
            }
            _ => {}
        }
    }

    fn on_tunnels(&self, tunnels: Vec<TunnelOutcome>) {
        {
            let mut live = self.state.lock();
            log_outcomes(&live.tunnels, &tunnels);
            live.tunnels.clone_from(&tunnels);
            live.is_settled = true;
        }
        tokio::spawn(retire_services(self.state.clone()));
        let epoch = self.epoch;
        self.registrations
            .send_replace(Some(Registration { epoch, tunnels }));
    }

    fn on_lane(&self, index: usize, lane: &Arc<Lane>) {
        let lanes = {
            let mut live = self.state.lock();
            live.streams_reopened += 1;
            if let Some(slot) = live.lanes.get_mut(index) {
                let lost = std::mem::replace(slot, lane.clone());
                live.lost_lanes.add(&lost.stats());
            }
            live.lanes.clone()
        };
        self.state.entries.links.replace_lanes(lanes);
    }

    fn on_control_reopened(&self) {
        self.state.lock().streams_reopened += 1;
    }

    fn is_draining(&self) -> bool {
        self.state.draining.load(Ordering::Relaxed)
    }
}

/// Compares the entries with the upstreams that the server defines, now and after each change of the settings.
async fn check_upstreams(state: Arc<State>, upstreams: Upstreams<impl Channel>) {
    let mut settings = state.subscribe();
    loop {
        settings.mark_unchanged();
        if !state.entries.is_empty() {
            state.check_upstreams(upstreams.fetch()).await;
        }
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Removes the services of tunnels whose end the server has confirmed, unless others have been removed since.
async fn retire_services(state: Arc<State>) {
    tokio::time::sleep(RETIRE_AFTER).await;
    let is_settled = state.lock().is_settled;
    if is_settled {
        state.retire_services();
    }
}

/// Whether the outcomes differ at most in the time for which a name is kept: each refusal has a shorter one.
fn is_same(one: &TunnelOutcome, other: &TunnelOutcome) -> bool {
    fn without_times(outcome: &TunnelOutcome) -> TunnelOutcome {
        let is_time = |word: &&str| {
            let word = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
            word.parse::<u64>().is_ok() || matches!(word, "min" | "s")
        };
        let cut = |error: &String| {
            let words = error.split(' ').filter(|word| !is_time(word));
            words.collect::<Vec<_>>().join(" ")
        };
        TunnelOutcome {
            error: outcome.error.as_ref().map(cut),
            ..outcome.clone()
        }
    }
    one == other || (one.waiting && without_times(one) == without_times(other))
}

/// Logs each tunnel whose outcome has changed.
fn log_outcomes(before: &[TunnelOutcome], now: &[TunnelOutcome]) {
    let is_new = |tunnel: &&TunnelOutcome| !before.iter().any(|before| is_same(before, tunnel));
    for tunnel in now.iter().filter(is_new) {
        let name = &tunnel.name;
        match &tunnel.error {
            Some(error) if tunnel.waiting => {
                tracing::warn!(
                    tunnel = name,
                    "tunnel waits and is announced again: {error}"
                );
            }
            Some(error) => tracing::warn!(tunnel = name, "tunnel refused: {error}"),
            None if before.is_empty() => {}
            None => tracing::info!(tunnel = name, "tunnel accepted"),
        }
        if let Some(note) = &tunnel.note {
            tracing::warn!(tunnel = name, "{note}");
        }
    }
    let is_gone = |tunnel: &&TunnelOutcome| now.iter().all(|now| now.name != tunnel.name);
    for tunnel in before.iter().filter(is_gone) {
        tracing::info!(tunnel = tunnel.name, "tunnel removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_in_the_refusal_of_a_waiting_tunnel_is_not_news() {
        let outcome = |error: &str| TunnelOutcome {
            name: "web".to_owned(),
            error: Some(error.to_owned()),
            waiting: true,
            public_url: String::new(),
            note: None,
        };
        let first = outcome("host `a.test` is kept for another 9 min 59 s");
        assert!(is_same(
            &first,
            &outcome("host `a.test` is kept for another 8 min")
        ));
        assert!(is_same(
            &first,
            &outcome("host `a.test` is kept for another 59 s")
        ));
        assert!(!is_same(
            &first,
            &outcome("host `b.test` is kept for another 59 s")
        ));
        let refused = TunnelOutcome {
            waiting: false,
            ..first.clone()
        };
        assert!(!is_same(&first, &refused));
    }
}
