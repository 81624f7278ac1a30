//! One record becomes spans: one for the hop, and below it one for each phase.

use std::{borrow::Cow, time::Instant};

use adit_trace::{Edge, Phase, Record, SpanId, Timeline, TraceId};

use crate::grpc;

use super::{
    attributes::{self, Attributes},
    clock::Scale,
    wire::Wire,
};

/// The spans of one request, as they stand in the `spans` of a `ScopeSpans`: they leave together.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Messages of OTLP, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// How many there are.
    pub(super) spans: u64,
}

/// Fields of OTLP's `ScopeSpans`, `Span` and `Status`.
const SPANS: u8 = 2;
const TRACE_ID: u8 = 1;
const SPAN_ID: u8 = 2;
const PARENT_SPAN_ID: u8 = 4;
const NAME: u8 = 5;
const KIND: u8 = 6;
const START: u8 = 7;
const END: u8 = 8;
const ATTRIBUTES: u8 = 9;
const STATUS: u8 = 15;
const FLAGS: u8 = 16;
const STATUS_MESSAGE: u8 = 2;
const STATUS_CODE: u8 = 3;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// What most hops take: more than 127 bytes, and less than 16 KiB.
const HOP_BYTES: usize = 1_024;

/// What most phases take: less than 128 bytes.
const PHASE_BYTES: usize = 100;

/// How many spans a timeline becomes.
pub(super) fn count(timeline: &Timeline) -> u64 {
    timeline.spans().len() as u64 + 1
}

/// The spans of a request, the hop's first.
pub(super) fn spans(
    record: &Record<'_>,
    timeline: &Timeline,
    scale: Scale,
    random: &mut dyn FnMut() -> u64,
) -> Tree {
    let phases = timeline.spans().len();
    let mut wire = Wire::with_capacity(HOP_BYTES + phases * PHASE_BYTES);
    wire.message(SPANS, HOP_BYTES, |span| hop(span, record, timeline, scale));
    for phase in timeline.spans() {
        let reaches_service =
            record.edge == Edge::Egress && matches!(phase.phase, Phase::Dial | Phase::FirstByte);
        let about = if reaches_service || phase.busy.is_some() {
            HOP_BYTES
        } else {
            PHASE_BYTES
        };
        let head = Head {
            trace_id: timeline.context().trace_id,
            span_id: phase.id.unwrap_or_else(|| SpanId::from_random(random())),
            parent: Some(timeline.context().span_id),
            flags: SAMPLED | HAS_IS_REMOTE,
            name: phase.phase.as_str(),
            kind: kind(phase.phase),
            start: scale.unix_nanos(phase.start),
            end: scale.unix_nanos(phase.end.unwrap_or(record.ended).max(phase.start)),
        };
        wire.message(SPANS, about, |span| {
            head.write(span);
            let mut attributes = Attributes::new(span, ATTRIBUTES);
            attributes::of_phase(&mut attributes, record, phase, reaches_service);
        });
    }
    Tree {
        bytes: wire.into_inner(),
        spans: phases as u64 + 1,
    }
}

/// What every span has.
struct Head<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanId>,
    flags: u32,
    name: &'a str,
    kind: Kind,
    start: u64,
    end: u64,
}

impl Head<'_> {
    fn write(&self, span: &mut Wire) {
        span.bytes(TRACE_ID, &self.trace_id.0.get().to_be_bytes());
        span.bytes(SPAN_ID, &self.span_id.0.get().to_be_bytes());
        if let Some(parent) = self.parent {
            span.bytes(PARENT_SPAN_ID, &parent.0.get().to_be_bytes());
        }
        span.text(NAME, self.name);
        span.varint(KIND, self.kind as u64);
        span.fixed64(START, self.start);
        span.fixed64(END, self.end);
        span.fixed32(FLAGS, self.flags);
    }
}

/// The hop serves whoever came to it, the visitor or the other hop: `SERVER`. It lasts as long as its phases do.
fn hop(span: &mut Wire, record: &Record<'_>, timeline: &Timeline, scale: Scale) {
    let phases = timeline.spans().iter();
    let start = phases
        .clone()
        .map(|phase| phase.start)
        .fold(record.started, Instant::min);
    let end = phases
        .filter_map(|phase| phase.end)
        .fold(record.ended, Instant::max);
    let remote = if timeline.parent().is_some() {
        IS_REMOTE
    } else {
        0
    };
    let head = Head {
        trace_id: timeline.context().trace_id,
        span_id: timeline.context().span_id,
        parent: timeline.parent(),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: &name(record),
        kind: Kind::Server,
        start: scale.unix_nanos(start),
        end: scale.unix_nanos(end),
    };
    head.write(span);
    let failure = attributes::failure(record);
    let error_type = failure.as_deref().unwrap_or_default();
    attributes::of_hop(&mut Attributes::new(span, ATTRIBUTES), record, error_type);
    if failure.is_some() {
        span.message(STATUS, error_type.len(), |status| {
            if record.reason.is_some() {
                status.text(STATUS_MESSAGE, error_type);
            }
            status.varint(STATUS_CODE, ERROR);
        });
    }
}

/// OTLP's `SpanKind`.
#[derive(Clone, Copy)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// What is asked of somebody else is `CLIENT`: of the other hop, of the service.
const fn kind(phase: Phase) -> Kind {
    match phase {
        Phase::Transit | Phase::FirstByte => Kind::Client,
        _ => Kind::Internal,
    }
}

/// Few names, however many paths there are. Calls of gRPC are named by method, which the conventions want.
fn name<'a>(record: &Record<'a>) -> Cow<'a, str> {
    match record.protocol {
        "http" => attributes::known_method(record.method)
            .unwrap_or("HTTP")
            .into(),
        "grpc" => match grpc::method(record.path) {
            Some((service, method)) if service.len() + method.len() < MAX_NAME_BYTES => {
                format!("{service}/{method}").into()
            }
            _ => "grpc".into(),
        },
        protocol => protocol.into(),
    }
}

/// Nobody's method has a longer name.
const MAX_NAME_BYTES: usize = 256;

/// The flag of a `traceparent`.
const SAMPLED: u32 = 1;

/// Whether the parent is in another process is known.
const HAS_IS_REMOTE: u32 = 0x100;

/// It is.
const IS_REMOTE: u32 = 0x200;
