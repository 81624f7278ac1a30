//! The times of a request's stages, and the status of its response.

use std::{sync::Arc, time::Instant};

use adit_codec::{Open, Side};
use adit_link::{CreditWait, Exchange};
use adit_trace::{Observer, Phase, Span, Timeline, TraceContext};

use super::origin::{RequestOrigin, RequestOwner};

/// The times of a request's stages, and the status of its response. Without an observer the clock is never read; for a
/// request that is not traced it is read when it starts, when its response starts, and when it ends.
pub(crate) struct RequestTimeline {
    opener: Side,
    owner: Arc<RequestOwner>,
    /// `None` without an observer, and once the request has ended.
    started: Option<Instant>,
    response: ResponseStart,
    /// The request's head has been written.
    head_written: bool,
    /// The request was sent again on a second connection because the first one was dead.
    retried: bool,
    status: u16,
    grpc_status: Option<u16>,
    /// The phases of a traced request, and its waits for credit.
    phases: Option<Box<Timeline>>,
    credit_wait: Option<Arc<CreditWait>>,
}

/// When the response started.
#[derive(Clone, Copy)]
enum ResponseStart {
    NotYet,
    At(Instant),
    /// Head and end were one message: one reading of the clock serves both.
    AtEnd,
}

/// When the dial of a connection began, and when the connection was ready.
pub(crate) type DialSpan = (tokio::time::Instant, tokio::time::Instant);

/// The time by the runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl RequestTimeline {
    /// The timeline of a request that has just arrived.
    pub(crate) fn new(
        observer: &dyn Observer,
        open: &Open,
        exchange: &Exchange,
        origin: RequestOrigin,
    ) -> Self {
        let RequestOrigin {
            owner,
            waited_since,
        } = origin;
        let waited_since = waited_since.map(tokio::time::Instant::into_std);
        // The end that accepted the visitor decides whether a request is traced: a request without a context is not
        // traced.
        let mut phases = Some(&*open.traceparent)
            .filter(|sent| !sent.is_empty())
            .and_then(|sent| observer.begin(sent));
        if let (Some(phases), Some(since)) = (&mut phases, waited_since) {
            phases.add(Phase::Queue, since, now());
        }
        let credit_wait = phases.as_ref().map(|_| {
            let watch = Arc::new(CreditWait::default());
            exchange.watch_credit(watch.clone());
            watch
        });
        Self {
            opener: exchange.id().opener(),
            owner,
            started: observer
                .is_enabled()
                .then(|| waited_since.unwrap_or_else(now)),
            response: ResponseStart::NotYet,
            head_written: false,
            retried: false,
            status: 0,
            grpc_status: None,
            phases,
            credit_wait,
        }
    }

    /// The trace context of this hop, if the request is traced.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.phases.as_ref().map(|phases| phases.context())
    }

    /// Begins a phase.
    pub(crate) fn begin(&mut self, phase: Phase) {
        if let Some(phases) = &mut self.phases {
            phases.begin(phase, now());
        }
    }

    /// Ends the latest phase of this kind.
    pub(crate) fn end(&mut self, phase: Phase) {
        if let Some(phases) = &mut self.phases {
            phases.end(phase, now());
        }
    }

    /// Called when the wait for a shared connection is over: one was opened during `dial`, or could not be opened
    /// (`None`). The dial may have begun for another request; the part of it within this request's wait is recorded.
    pub(crate) fn on_dialled(&mut self, dial: Option<DialSpan>) {
        let Some(phases) = &mut self.phases else {
            return;
        };
        let mut waits = phases.spans().iter().rev();
        let wait = waits.find(|span| span.phase == Phase::Queue);
        if let Some(&Span {
            start: since,
            end: Some(until),
            ..
        }) = wait
        {
            let (start, end) = dial.map_or((since, until), |(start, end)| {
                (start.into_std().max(since), end.into_std().min(until))
            });
            phases.add(Phase::Dial, start, end.max(start));
        }
    }

    /// Notes that the request's head has been written. Further calls change nothing.
    pub(crate) fn on_head_written(&mut self) {
        if let Some(phases) = &mut self.phases
            && !std::mem::replace(&mut self.head_written, true)
        {
            phases.begin(Phase::FirstByte, now());
        }
    }

    /// Notes that the connection was lost before a response: the request is sent again.
    pub(crate) fn on_retry(&mut self) {
        self.end(Phase::FirstByte);
        self.head_written = false;
        self.retried = true;
    }

    /// Whether the request has been sent again.
    pub(crate) const fn is_retried(&self) -> bool {
        self.retried
    }

    /// Notes that the head of the response has been forwarded; with `is_complete` nothing follows it.
    pub(crate) fn on_response(&mut self, status: u16, is_complete: bool) {
        self.status = status;
        if let Some(phases) = &mut self.phases {
            let now = now();
            phases.end(Phase::FirstByte, now);
            phases.begin(Phase::End, now);
            self.response = ResponseStart::At(now);
        } else if self.started.is_some() {
            self.response = if is_complete {
                ResponseStart::AtEnd
            } else {
                ResponseStart::At(now())
            };
        }
    }

    /// Sets the status of gRPC in the head of a response or in its trailers; `None` changes nothing.
    pub(crate) fn on_grpc_status(&mut self, status: Option<u16>) {
        self.grpc_status = status.or(self.grpc_status);
    }

    /// Whether the request has not ended, and is observed.
    pub(super) const fn is_running(&self) -> bool {
        self.started.is_some()
    }

    /// Called when the request has ended. Returns the values for its record. `None` without an observer, and from the
    /// second call on.
    pub(super) fn end_now(&mut self) -> Option<EndedTimeline<'_>> {
        let started = self.started.take()?;
        if let Some(phases) = &mut self.phases
            && let Some(waited) = self.credit_wait.as_ref().and_then(|wait| wait.waited())
        {
            phases.add_wait(Phase::CreditWait, waited.start, waited.end, waited.total);
        }
        let ended = now();
        Some(EndedTimeline {
            opener: match self.opener {
                Side::Server => "server",
                Side::Client => "client",
            },
            owner: &self.owner,
            status: self.status,
            grpc_status: self.grpc_status,
            started,
            responded: match self.response {
                ResponseStart::NotYet => None,
                ResponseStart::At(at) => Some(at),
                ResponseStart::AtEnd => Some(ended),
            },
            ended,
            phases: self.phases.as_deref(),
        })
    }
}

/// The timeline of a request that has ended.
pub(super) struct EndedTimeline<'t> {
    pub(super) opener: &'static str,
    pub(super) owner: &'t RequestOwner,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) started: Instant,
    /// When the response started.
    pub(super) responded: Option<Instant>,
    pub(super) ended: Instant,
    pub(super) phases: Option<&'t Timeline>,
}
