//! What happens to a request, and when.

use std::{sync::Arc, time::Instant};

use adit_codec::{Open, ResetCode, Side};
use adit_link::{CreditWait, Exchange, Failure, Reason, SendHalf};
use adit_trace::{Edge, Observer, Phase, Record, Span, Timeline, TraceContext};

use super::{
    arrival::{RequestOrigin, RequestOwner},
    asked::Asked,
    moved::Moved,
};

/// What happens to a request, and when.
pub(crate) struct Course {
    opener: Side,
    owner: Arc<RequestOwner>,
    /// `None`: nobody is told, and the clock is not asked.
    started: Option<Instant>,
    answered: Answered,
    /// The request's head has been written.
    asked: bool,
    /// It has met a connection that had died, and is on its second.
    retried: bool,
    status: u16,
    grpc_status: Option<u16>,
    /// `None`: it did not fail.
    reason: Option<Reason>,
    /// Its phases, when it is traced, and how long it waits for credit.
    timeline: Option<Box<Timeline>>,
    credit_wait: Option<Arc<CreditWait>>,
}

#[derive(Clone, Copy)]
enum Answered {
    No,
    At(Instant),
    /// Head and end were one: that is one look at the clock.
    AtEnd,
}

/// When a connection was made: from when to when.
pub(crate) type Made = (tokio::time::Instant, tokio::time::Instant);

/// The time by the runtime's clock, which tests may turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Course {
    /// A request has come.
    pub(crate) fn new(
        observer: &dyn Observer,
        open: &Open,
        exchange: &Exchange,
        arrival: RequestOrigin,
    ) -> Self {
        let RequestOrigin {
            owner,
            waited_since,
        } = arrival;
        let waited_since = waited_since.map(tokio::time::Instant::into_std);
        // Whether it is traced has been decided where its visitor came in: what comes without a context is not.
        let mut timeline = Some(&*open.traceparent)
            .filter(|sent| !sent.is_empty())
            .and_then(|sent| observer.begin(sent));
        if let (Some(timeline), Some(since)) = (&mut timeline, waited_since) {
            timeline.add(Phase::Queue, since, now());
        }
        let credit_wait = timeline.as_ref().map(|_| {
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
            answered: Answered::No,
            asked: false,
            retried: false,
            status: 0,
            grpc_status: None,
            reason: Some(Reason::Cancelled),
            timeline,
            credit_wait,
        }
    }

    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.timeline.as_ref().map(|timeline| timeline.context())
    }

    /// A phase begins.
    pub(crate) fn begin(&mut self, phase: Phase) {
        if let Some(timeline) = &mut self.timeline {
            timeline.begin(phase, now());
        }
    }

    /// The last phase of this kind ends.
    pub(crate) fn end(&mut self, phase: Phase) {
        if let Some(timeline) = &mut self.timeline {
            timeline.end(phase, now());
        }
    }

    /// The wait for a connection is over, in which one was made, from when to when, or could not be made. It may have been
    /// begun for another request: of this one it is what came while it waited.
    pub(crate) fn on_dialled(&mut self, made: Option<Made>) {
        let Some(timeline) = &mut self.timeline else {
            return;
        };
        let mut waits = timeline.spans().iter().rev();
        let wait = waits.find(|span| span.phase == Phase::Queue);
        if let Some(&Span {
            start: since,
            end: Some(until),
            ..
        }) = wait
        {
            let (start, end) = made.map_or((since, until), |(start, end)| {
                (start.into_std().max(since), end.into_std().min(until))
            });
            timeline.add(Phase::Dial, start, end.max(start));
        }
    }

    /// The request's head has been written. Said again, it changes nothing.
    pub(crate) fn on_asked(&mut self) {
        if let Some(timeline) = &mut self.timeline
            && !std::mem::replace(&mut self.asked, true)
        {
            timeline.begin(Phase::FirstByte, now());
        }
    }

    /// The connection was lost before an answer: the request begins anew.
    pub(crate) fn on_retry(&mut self) {
        self.end(Phase::FirstByte);
        self.asked = false;
        self.retried = true;
    }

    /// Whether it has begun anew.
    pub(crate) const fn is_retried(&self) -> bool {
        self.retried
    }

    /// The head of the answer has been passed on; `is_whole`: and there is nothing more.
    pub(crate) fn on_answer(&mut self, status: u16, is_whole: bool) {
        self.status = status;
        if let Some(timeline) = &mut self.timeline {
            let now = now();
            timeline.end(Phase::FirstByte, now);
            timeline.begin(Phase::End, now);
            self.answered = Answered::At(now);
        } else if self.started.is_some() {
            self.answered = if is_whole {
                Answered::AtEnd
            } else {
                Answered::At(now())
            };
        }
    }

    /// The answer of a call says so, at its start or at its end.
    pub(crate) fn on_grpc_status(&mut self, status: Option<u16>) {
        self.grpc_status = status.or(self.grpc_status);
    }

    /// All of the answer has been passed on.
    pub(crate) fn on_complete(&mut self) {
        self.reason = None;
    }

    /// It is reset by this side.
    pub(crate) fn on_reset(&mut self, code: ResetCode) {
        // What it means at the other end.
        self.on_failure(&Failure::of_reset(code, b""));
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
    }

    /// Nobody waits for it any more, if the exchange says so, and it says why.
    pub(crate) fn on_gone(&mut self, send: &SendHalf) {
        if let Some(failure) = send.failure() {
            self.on_failure(&failure);
        }
    }

    /// It is over. Tells the observer.
    pub(crate) fn tell(
        &mut self,
        observer: &dyn Observer,
        asked: &Asked<'_>,
        service: &str,
        moved: &Moved,
    ) {
        let Some(started) = self.started else {
            return;
        };
        if let Some(timeline) = &mut self.timeline
            && let Some(waited) = self.credit_wait.as_ref().and_then(|wait| wait.waited())
        {
            timeline.add_wait(Phase::CreditWait, waited.start, waited.end, waited.total);
        }
        let ended = now();
        let needs_details = self.timeline.is_some() || observer.needs_details();
        let (host, port) = if needs_details {
            asked.host_and_port()
        } else {
            ("", 0)
        };
        observer.on_end(&Record {
            edge: Edge::Egress,
            protocol: asked.protocol.as_str(),
            opener: match self.opener {
                Side::Server => "server",
                Side::Client => "client",
            },
            request_uuid: asked.open.request_uuid,
            user: &self.owner.user,
            group: &self.owner.group,
            client: &self.owner.client,
            tunnel: &asked.open.tunnel,
            revision: asked.open.revision,
            visitor: &asked.open.visitor,
            scheme: asked.scheme(),
            method: asked.method(),
            host,
            port,
            path: if needs_details { asked.path() } else { "" },
            version: "",
            status: self.status,
            grpc_status: self.grpc_status,
            service,
            reason: self.reason.map(Reason::as_str),
            received_bytes: moved.received(),
            sent_bytes: moved.sent(),
            retries: 0,
            started,
            answered: match self.answered {
                Answered::No => None,
                Answered::At(at) => Some(at),
                Answered::AtEnd => Some(ended),
            },
            ended,
            timeline: self.timeline.as_deref(),
        });
    }
}
