//! The state of a running client, shared by its dial loop, its handles and its drain.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    time::{Duration, Instant},
};

use adit_egress::{Egress, ServiceConfig};
use adit_link::{
    Failure, Lane,
    control::{CallError, ControlMessage},
};
use adit_reconnect::StatusCell;
use tokio::sync::{mpsc, watch};

use super::{services::services, totals::Totals};
use crate::{
    entries::Entries, session::DialError, settings::Settings, status::TunnelOutcome, sync::lock,
};

/// How often an unreachable server is logged.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// The state of a client.
pub(super) struct State {
    /// The settings in use; tunnels and entries change while the client runs.
    settings: watch::Sender<Arc<Settings>>,
    /// The services of `egress`: those of the settings, and those of removed tunnels until the server has confirmed their
    /// end.
    services: Mutex<HashMap<Box<str>, ServiceConfig>>,
    pub(super) egress: Arc<Egress>,
    pub(super) entries: Entries,
    pub(super) cell: StatusCell,
    live: Mutex<Live>,
    /// Whether the client drains: a lost link is not dialled again then, because the server would send new requests on
    /// the next one.
    pub(super) draining: AtomicBool,
}

/// The current link, and the last reported values.
#[derive(Default)]
pub(super) struct Live {
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Counters of the session's lanes that were lost and replaced.
    pub(super) lost_lanes: Totals,
    /// Data and control streams that were lost and opened again.
    pub(super) streams_reopened: u64,
    pub(super) control: Option<mpsc::Sender<ControlMessage>>,
    pub(super) epoch: u64,
    pub(super) tunnels: Vec<TunnelOutcome>,
    /// Changes of the settings that were applied.
    pub(super) applied: u64,
    /// Keys of the newest settings that take effect at the next start.
    pub(super) needs_restart: Vec<&'static str>,
    /// The server has confirmed every change of the tunnels.
    pub(super) is_settled: bool,
    pub(super) last_error: Option<String>,
    pub(super) dials: u64,
    /// The dial error that was logged last, and when.
    reported: Option<(String, Instant)>,
    /// The next try after a refusal is to be logged.
    is_retry_news: bool,
}

impl Live {
    /// Called when a dial has succeeded: the next error is logged again.
    pub(super) fn dial_succeeded(&mut self) {
        self.reported = None;
    }

    /// Stores the error, and logs it: the first time, when it changes, and once a minute.
    pub(super) fn dial_failed(
        &mut self,
        error: DialError,
        now: Instant,
    ) -> adit_reconnect::Failure {
        let DialError { kind, text, .. } = error;
        let is_news = self.reported.as_ref().is_none_or(|(last, at)| {
            *last != text || now.saturating_duration_since(*at) >= REMIND_AFTER
        });
        match kind {
            adit_reconnect::Failure::Transient if is_news => {
                tracing::warn!("{text}; trying again until it succeeds");
            }
            _ if is_news => {
                self.is_retry_news = kind == adit_reconnect::Failure::Unauthenticated;
                tracing::warn!("{text}");
            }
            _ => tracing::debug!("{text}"),
        }
        if is_news {
            self.reported = Some((text.clone(), now));
        }
        self.last_error = Some(text);
        kind
    }

    /// Logs when the next try comes, after a refusal that was logged: after a refusal it is a long time.
    pub(super) fn waits(&mut self, wait: Duration) -> bool {
        let is_news = std::mem::take(&mut self.is_retry_news);
        if is_news {
            tracing::info!("trying again in {:?}", shown(wait));
        }
        is_news
    }
}

/// The time in whole seconds, rounded up, or in milliseconds below a second.
fn shown(wait: Duration) -> Duration {
    match u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) {
        millis if millis < 1_000 => Duration::from_millis(millis),
        millis => Duration::from_secs(millis.div_ceil(1_000)),
    }
}

impl State {
    pub(super) fn new(settings: Settings, egress: Arc<Egress>, entries: Entries) -> Self {
        let services = Mutex::new(services(&settings));
        Self {
            settings: watch::Sender::new(Arc::new(settings)),
            services,
            egress,
            entries,
            cell: StatusCell::default(),
            live: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// The settings in use.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// A receiver of the settings and their changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Uses other tunnels and entries. Services of removed tunnels stay until [`State::retire_services`].
    pub(super) fn replace_settings(&self, next: Settings) {
        {
            let mut known = lock(&self.services);
            known.extend(services(&next));
            self.egress.set_services(known.clone());
        }
        self.settings.send_replace(Arc::new(next));
    }

    /// Removes the services of tunnels that are not in the settings. Running requests finish.
    pub(super) fn retire_services(&self) {
        let mut known = lock(&self.services);
        let current = services(&self.settings());
        if known.len() > current.len() {
            self.egress.set_services(current.clone());
        }
        *known = current;
    }

    /// Records which entries name an unknown upstream. For information only: the server decides at each request.
    pub(super) async fn check_upstreams(
        &self,
        upstreams: impl Future<Output = Result<Vec<String>, CallError>>,
    ) {
        let within = self.settings().timeouts.connect;
        match tokio::time::timeout(within, upstreams).await {
            Ok(Ok(names)) => self.entries.check(&names),
            Ok(Err(error)) => tracing::debug!(%error, "the server did not list its upstreams"),
            Err(_) => tracing::debug!("the server did not list its upstreams in time"),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    pub(super) fn close(&self, failure: &Failure) {
        let lanes = std::mem::take(&mut self.lock().lanes);
        for lane in lanes {
            lane.close(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_is_logged_once_after_a_refusal_that_was_logged() {
        use adit_reconnect::Failure::{Transient, Unauthenticated};

        let mut live = Live::default();
        let now = Instant::now();
        let fails = |live: &mut Live, kind| {
            let error = DialError {
                kind,
                text: format!("{kind:?}"),
                is_stale: false,
            };
            live.dial_failed(error, now);
            live.waits(Duration::from_millis(29_500))
        };
        assert!(fails(&mut live, Unauthenticated));
        assert!(!fails(&mut live, Unauthenticated));
        assert!(!fails(&mut live, Transient));
        assert_eq!(format!("{:?}", shown(Duration::from_millis(29_500))), "30s");
        assert_eq!(
            format!("{:?}", shown(Duration::from_micros(200_300))),
            "200ms"
        );
    }

    #[test]
    fn an_unreachable_server_is_logged_once_a_minute() {
        let mut live = Live::default();
        let start = Instant::now();
        let mut reported_at = |text: &str, seconds| {
            let error = DialError {
                kind: adit_reconnect::Failure::Transient,
                text: text.to_owned(),
                is_stale: false,
            };
            live.dial_failed(error, start + Duration::from_secs(seconds));
            let (text, at) = live.reported.clone().unwrap();
            (text, (at - start).as_secs())
        };
        let at = |text: &str, seconds| (text.to_owned(), seconds);
        assert_eq!(reported_at("refused", 0), at("refused", 0));
        assert_eq!(reported_at("refused", 1), at("refused", 0));
        assert_eq!(reported_at("refused", 59), at("refused", 0));
        assert_eq!(reported_at("refused", 60), at("refused", 60));
        assert_eq!(reported_at("timed out", 61), at("timed out", 61));
    }
}
