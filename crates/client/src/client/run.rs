//! Dials, serves, dials again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use adit_link::{Failure, Reason, control::Transport};
use adit_proto::control::Kind;
use adit_reconnect::{Action, Event, Reconnect, StopReason};
use adit_trace::Printable;
use tokio::sync::watch;

use super::state::State;
use crate::{
    instance::Instance,
    links::Up,
    session::{self, Session},
    status::TunnelOutcome,
};

/// What the last registration gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its epoch.
    pub epoch: u64,
    /// One outcome for each tunnel.
    pub tunnels: Vec<TunnelOutcome>,
}

/// Why a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// In short.
    pub reason: StopReason,
    /// The last error, if there was one.
    pub error: Option<String>,
}

/// The loop of a client, on its data thread.
pub(super) struct Run<T> {
    pub(super) transport: T,
    pub(super) state: Arc<State>,
    pub(super) instance: Instance,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) registrations: watch::Sender<Option<Registration>>,
}

impl<T: Transport> Run<T> {
    pub(super) async fn until_stopped(self) -> Ended {
        let mut stop = self.stop.clone();
        let state = self.state.clone();
        tokio::spawn(async move { state.entries.accept().await });
        tokio::select! {
            ended = self.dial_and_serve() => ended,
            // A dropped sender means that nobody is left to say stop.
            _ = stop.wait_for(|stop| *stop) => {
                let failure = Failure::new(Reason::Draining, "the client is stopping");
                self.state.close(&failure);
                Ended { reason: StopReason::Requested, error: None }
            }
        }
    }

    /// Does what the reconnect machine says, until it says stop.
    async fn dial_and_serve(&self) -> Ended {
        let state = &self.state;
        let mut machine = Reconnect::new(state.settings.reconnect.clone());
        let mut event = Event::Start;
        let mut dialled = None;
        loop {
            let action = match machine.on_event(event, Instant::now(), rand::random()) {
                Ok(action) => action,
                Err(wrong) => {
                    // A fault of this file, not of the network: begin anew rather than hang.
                    tracing::error!(%wrong, "reconnect");
                    machine = Reconnect::new(state.settings.reconnect.clone());
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

    async fn dial(&self) -> Result<Session<T::Channel>, adit_reconnect::Failure> {
        let state = &self.state;
        let (settings, secret) = (&state.settings, self.instance.secret);
        let session = session::dial(&self.transport, settings, secret, &state.egress).await;
        let session = session.map_err(|error| state.lock().dial_failed(error, Instant::now()))?;
        let tunnels = session.announcements.outcomes();
        let refused = |tunnel: &TunnelOutcome| tunnel.error.is_some() && !tunnel.waiting;
        // Nothing to serve, and nothing was ever served: the user has to change something.
        if !tunnels.is_empty()
            && tunnels.iter().all(refused)
            && state.settings.entries.is_empty()
            && self.registrations.borrow().is_none()
        {
            let texts: Vec<_> = tunnels
                .iter()
                .filter_map(|tunnel| tunnel.error.clone())
                .collect();
            state.lock().last_error = Some(texts.join("; "));
            let failure = Failure::new(Reason::Cancelled, "every tunnel was refused");
            for lane in &session.lanes {
                lane.close(&failure);
            }
            return Err(adit_reconnect::Failure::Refused { fatal: true });
        }
        log_refused(&[], &tunnels);
        {
            let mut live = state.lock();
            live.lanes.clone_from(&session.lanes);
            live.control = Some(session.control.clone());
            live.epoch = session.epoch;
            live.tunnels.clone_from(&tunnels);
            live.dial_succeeded();
        }
        let up = Up::new(session.epoch, session.revision, session.lanes.clone());
        state.entries.link_up(up, session.max_requests);
        self.registrations.send_replace(Some(Registration {
            epoch: session.epoch,
            tunnels,
        }));
        Ok(session)
    }

    async fn serve(&self, session: Session<T::Channel>) {
        // People are told by the program, after the public URL.
        tracing::debug!(epoch = session.epoch, "session set up");
        if !self.state.settings.entries.is_empty() {
            let (asked, state) = (session.upstreams(), self.state.clone());
            tokio::spawn(async move { state.ask_upstreams(asked).await });
        }
        let state = self.state.clone();
        let on_control = move |kind| {
            if matches!(kind, Kind::Drain(_)) {
                state.entries.links.leaving();
            }
            on_control(kind);
        };
        let (state, registrations) = (self.state.clone(), self.registrations.clone());
        let epoch = session.epoch;
        let on_tunnels = move |tunnels: Vec<TunnelOutcome>| {
            {
                let mut live = state.lock();
                log_refused(&live.tunnels, &tunnels);
                live.tunnels.clone_from(&tunnels);
            }
            registrations.send_replace(Some(Registration { epoch, tunnels }));
        };
        let failure = session.serve(on_control, on_tunnels).await;
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

fn on_control(kind: Kind) {
    match kind {
        Kind::Drain(drain) => {
            tracing::info!(reason = %Printable(&drain.reason), "the server is leaving");
        }
        Kind::Error(error) => {
            tracing::warn!(code = %Printable(&error.code), "{}", Printable(&error.message));
        }
        _ => {}
    }
}

/// One line for each tunnel that is not served, unless it was not served for the same reason before.
fn log_refused(before: &[TunnelOutcome], now: &[TunnelOutcome]) {
    for tunnel in now.iter().filter(|tunnel| !before.contains(tunnel)) {
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
    }
}
