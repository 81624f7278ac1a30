//! The state of a running client: what its run, its handles and its end share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use adit_egress::Egress;
use adit_link::{
    Failure, Lane,
    control::{CallError, ControlMessage},
};
use adit_reconnect::StatusCell;
use tokio::sync::mpsc;

use crate::{entries::Entries, session::DialError, settings::Settings, status::TunnelOutcome};

/// A server that is away is worth a line of the log this often.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// The state of a client.
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) egress: Arc<Egress>,
    pub(super) entries: Entries,
    pub(super) cell: StatusCell,
    live: Mutex<Live>,
    /// A link that is lost now is not dialled again: a new one would be sent new requests.
    pub(super) draining: AtomicBool,
}

/// The link that is up, and what was last reported.
#[derive(Default)]
pub(super) struct Live {
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) control: Option<mpsc::Sender<ControlMessage>>,
    pub(super) epoch: u64,
    pub(super) tunnels: Vec<TunnelOutcome>,
    pub(super) last_error: Option<String>,
    pub(super) dials: u64,
    /// The failure of a dial that was logged last, and when.
    reported: Option<(String, Instant)>,
}

impl Live {
    /// A dial has succeeded: the next one that fails is reported again.
    pub(super) fn dial_succeeded(&mut self) {
        self.reported = None;
    }

    /// Keeps the error, and logs it: once for all dials that fail alike, and then once in a while.
    pub(super) fn dial_failed(
        &mut self,
        error: DialError,
        now: Instant,
    ) -> adit_reconnect::Failure {
        let DialError { kind, text } = error;
        let is_news = self.reported.as_ref().is_none_or(|(last, at)| {
            *last != text || now.saturating_duration_since(*at) >= REMIND_AFTER
        });
        match kind {
            adit_reconnect::Failure::Transient if is_news => {
                tracing::warn!("{text}; trying again until it succeeds");
            }
            _ if is_news => tracing::warn!("{text}"),
            _ => tracing::debug!("{text}"),
        }
        if is_news {
            self.reported = Some((text.clone(), now));
        }
        self.last_error = Some(text);
        kind
    }
}

impl State {
    pub(super) fn new(settings: Settings, egress: Arc<Egress>, entries: Entries) -> Self {
        Self {
            settings,
            egress,
            entries,
            cell: StatusCell::default(),
            live: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Finds out which entries lead nowhere. Only for people: the server decides at each request.
    pub(super) async fn ask_upstreams(
        &self,
        asked: impl Future<Output = Result<Vec<String>, CallError>>,
    ) {
        match tokio::time::timeout(self.settings.timeouts.connect, asked).await {
            Ok(Ok(names)) => self.entries.check(&names),
            Ok(Err(error)) => tracing::debug!(%error, "the server does not list its upstreams"),
            Err(_) => tracing::debug!("the server does not list its upstreams in time"),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_server_that_is_away_is_reported_once_a_minute() {
        let mut live = Live::default();
        let start = Instant::now();
        let mut reported_at = |text: &str, seconds| {
            let error = DialError {
                kind: adit_reconnect::Failure::Transient,
                text: text.to_owned(),
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
