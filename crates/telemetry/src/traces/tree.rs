//! One record becomes spans: one for the hop, and below it one for each phase.

use std::time::Instant;

use adit_trace::{Edge, Phase, Record, SpanId, Timeline};
use opentelemetry_proto::tonic::trace::v1::{
    Span, SpanFlags, Status, span::SpanKind, status::StatusCode,
};

use super::{attributes, clock::since};

/// How many spans a timeline becomes.
pub(super) fn count(timeline: &Timeline) -> u64 {
    timeline.spans().len() as u64 + 1
}

/// The spans of a request, the hop's first. Their times count from `epoch`.
pub(super) fn spans(
    record: &Record<'_>,
    timeline: &Timeline,
    epoch: Instant,
    random: &mut dyn FnMut() -> u64,
) -> Vec<Span> {
    let mut spans = Vec::with_capacity(timeline.spans().len() + 1);
    spans.push(hop(record, timeline, epoch));
    for phase in timeline.spans() {
        let reaches_service =
            record.edge == Edge::Egress && matches!(phase.phase, Phase::Dial | Phase::FirstByte);
        spans.push(Span {
            span_id: id(phase.id.unwrap_or_else(|| SpanId::from_random(random()))),
            parent_span_id: id(timeline.context().span_id),
            flags: SAMPLED | HAS_IS_REMOTE,
            name: phase.phase.as_str().to_owned(),
            kind: kind(phase.phase).into(),
            start_time_unix_nano: since(epoch, phase.start),
            end_time_unix_nano: since(epoch, phase.end.unwrap_or(record.ended).max(phase.start)),
            attributes: attributes::of_phase(record, phase, reaches_service),
            ..blank(timeline)
        });
    }
    spans
}

/// The hop serves whoever came to it, the visitor or the other hop: `SERVER`. It lasts as long as its phases do.
fn hop(record: &Record<'_>, timeline: &Timeline, epoch: Instant) -> Span {
    let phases = timeline.spans().iter();
    let start = phases
        .clone()
        .map(|phase| phase.start)
        .fold(record.started, Instant::min);
    let end = phases
        .filter_map(|phase| phase.end)
        .fold(record.ended, Instant::max);
    let failure = attributes::failure(record);
    let remote = if timeline.parent().is_some() {
        IS_REMOTE
    } else {
        0
    };
    Span {
        span_id: id(timeline.context().span_id),
        parent_span_id: timeline.parent().map(id).unwrap_or_default(),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: name(record),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: since(epoch, start),
        end_time_unix_nano: since(epoch, end),
        attributes: attributes::of_hop(record, failure.as_deref()),
        status: failure.map(|failure| Status {
            message: record.reason.map(|_| failure).unwrap_or_default(),
            code: StatusCode::Error.into(),
        }),
        ..blank(timeline)
    }
}

fn blank(timeline: &Timeline) -> Span {
    Span {
        trace_id: timeline.context().trace_id.0.get().to_be_bytes().to_vec(),
        ..Span::default()
    }
}

/// What is asked of somebody else is `CLIENT`: of the other hop, of the service.
const fn kind(phase: Phase) -> SpanKind {
    match phase {
        Phase::Transit | Phase::FirstByte => SpanKind::Client,
        _ => SpanKind::Internal,
    }
}

/// Few names, however many paths there are. Calls of gRPC are named by method, which the conventions want.
fn name(record: &Record<'_>) -> String {
    match record.protocol {
        "http" => attributes::known_method(record.method)
            .unwrap_or("HTTP")
            .to_owned(),
        "grpc" => match grpc_path(record.path) {
            Some((service, method)) if service.len() + method.len() < MAX_NAME_BYTES => {
                format!("{service}/{method}")
            }
            _ => "grpc".to_owned(),
        },
        protocol => protocol.to_owned(),
    }
}

/// Nobody's method has a longer name.
const MAX_NAME_BYTES: usize = 256;

/// Service and method of a path `/package.Service/Method`.
pub(super) fn grpc_path(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let is_name = |text: &str| !text.is_empty() && !text.contains(['/', '?']);
    (is_name(service) && is_name(method)).then_some((service, method))
}

fn id(id: SpanId) -> Vec<u8> {
    id.0.get().to_be_bytes().to_vec()
}

/// The flag of a `traceparent`.
const SAMPLED: u32 = 1;

/// Whether the parent is in another process is known.
const HAS_IS_REMOTE: u32 = SpanFlags::ContextHasIsRemoteMask as u32;

/// It is.
const IS_REMOTE: u32 = SpanFlags::ContextIsRemoteMask as u32;
