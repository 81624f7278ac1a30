//! The phases of one request on one hop, with their times.

use std::time::{Duration, Instant};

use crate::context::{SpanId, TraceContext, TraceId};

/// A phase of a request. Each becomes a span below the span of its hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Visitors' side: from the first byte to a complete head.
    Accept,
    /// Visitors' side: choosing the client.
    Route,
    /// Visitors' side: waiting for a permit. Services' side: waiting for a connection of the pool, and before that, for
    /// requests of a client's entry, for a permit.
    Queue,
    /// Either side: payload waits for credit of the peer.
    CreditWait,
    /// Visitors' side: from sending the request to the other end until the first byte of the response. The spans of the
    /// other end are its children.
    Transit,
    /// Services' side: a new connection to the service.
    Dial,
    /// Services' side: from writing the request's head to the first byte of the response.
    FirstByte,
    /// Either side: from the first byte of the response to its last.
    End,
}

impl Phase {
    /// The name of the phase in spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Route => "route",
            Self::Queue => "queue",
            Self::CreditWait => "credit wait",
            Self::Transit => "transit",
            Self::Dial => "dial",
            Self::FirstByte => "first byte",
            Self::End => "end",
        }
    }
}

/// One phase of one request. A phase can occur more than once: each attempt on another client has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The kind of phase.
    pub phase: Phase,
    /// The id of the span, if it has children on another hop; `None` if any id will do.
    pub id: Option<SpanId>,
    /// When the phase began.
    pub start: Instant,
    /// When the phase ended; `None` while it lasts. A phase that lasts when the request ends has ended with it.
    pub end: Option<Instant>,
    /// The time spent waiting, for an interrupted wait.
    pub busy: Option<Duration>,
}

/// Further phases are not recorded: a request that is tried on many clients must not grow without bound.
const MAX_SPANS: usize = 32;

/// The phases of one traced request on one hop.
#[derive(Debug, Clone)]
pub struct Timeline {
    context: TraceContext,
    parent: Option<SpanId>,
    spans: Vec<Span>,
}

impl Timeline {
    /// A timeline whose span is a child of `parent`, or the root of the trace `new`. `random` is its id.
    pub fn new(parent: Option<TraceContext>, new: TraceId, random: u64) -> Self {
        Self {
            context: TraceContext {
                trace_id: parent.map_or(new, |parent| parent.trace_id),
                span_id: SpanId::from_random(random),
                sampled: true,
            },
            parent: parent.map(|parent| parent.span_id),
            spans: Vec::with_capacity(8),
        }
    }

    /// The span of this hop. The phases of the hop, and the spans of the service, are its children.
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// The parent of the hop's span; `None` for the root.
    pub const fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// Adds a finished phase.
    pub fn add(&mut self, phase: Phase, start: Instant, end: Instant) {
        self.push(Span {
            phase,
            id: None,
            start,
            end: Some(end),
            busy: None,
        });
    }

    /// Adds a wait of `busy` in total, in pieces between `start` and `end`.
    pub fn add_wait(&mut self, phase: Phase, start: Instant, end: Instant, busy: Duration) {
        self.push(Span {
            phase,
            id: None,
            start,
            end: Some(end),
            busy: Some(busy),
        });
    }

    /// Begins a phase.
    pub fn begin(&mut self, phase: Phase, now: Instant) {
        self.push(Span {
            phase,
            id: None,
            start: now,
            end: None,
            busy: None,
        });
    }

    /// Begins a phase whose children are on another hop. Returns the context for that hop.
    pub fn begin_onward(&mut self, phase: Phase, now: Instant, random: u64) -> TraceContext {
        let id = SpanId::from_random(random);
        self.push(Span {
            phase,
            id: Some(id),
            start: now,
            end: None,
            busy: None,
        });
        TraceContext {
            span_id: id,
            ..self.context
        }
    }

    /// Ends the latest phase of this kind that has not ended.
    pub fn end(&mut self, phase: Phase, now: Instant) {
        let lasting = |span: &&mut Span| span.phase == phase && span.end.is_none();
        if let Some(span) = self.spans.iter_mut().rev().find(lasting) {
            span.end = Some(now);
        }
    }

    /// All phases, in the order in which they began.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    fn push(&mut self, span: Span) {
        if self.spans.len() < MAX_SPANS {
            self.spans.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline {
        Timeline::new(None, TraceId::from_random(7), 8)
    }

    #[test]
    fn a_child_has_the_trace_of_its_parent() {
        let here = timeline();
        assert_eq!(here.parent(), None);
        let there = Timeline::new(Some(here.context()), TraceId::from_random(9), 10);
        assert_eq!(there.context().trace_id, here.context().trace_id);
        assert_eq!(there.parent(), Some(here.context().span_id));
        assert!(there.context().sampled);
    }

    #[test]
    fn the_last_phase_of_a_kind_ends() {
        let mut timeline = timeline();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        timeline.begin(Phase::Transit, at(0));
        timeline.end(Phase::Transit, at(1));
        let onward = timeline.begin_onward(Phase::Transit, at(2), 11);
        timeline.end(Phase::Dial, at(3));
        timeline.end(Phase::Transit, at(4));
        timeline.end(Phase::Transit, at(5));
        let ends: Vec<_> = timeline.spans().iter().map(|span| span.end).collect();
        assert_eq!(ends, [Some(at(1)), Some(at(4))]);
        assert_eq!(timeline.spans()[1].id, Some(onward.span_id));
    }

    #[test]
    fn phases_are_bounded() {
        let mut timeline = timeline();
        for _ in 0..1_000 {
            timeline.begin(Phase::Queue, Instant::now());
        }
        assert_eq!(timeline.spans().len(), MAX_SPANS);
    }
}
