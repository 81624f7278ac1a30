//! Builds the spans of a finished request: one for the hop, and below it one for each phase.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_trace::{Edge, Phase, Record, SpanId, Timeline};
use opentelemetry::{
    InstrumentationScope,
    trace::{self, SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::grpc;

use super::{attributes, clock::Scale, finished::Finished};

/// Longer names of gRPC methods are replaced by `grpc`.
const MAX_NAME_BYTES: usize = 256;

/// Appends the spans of a request, the hop's first. The ids of phases without one are derived from `seed`, so that a
/// batch that is sent again has the same ids.
pub(super) fn build(
    finished: &Finished,
    seed: u64,
    scope: &InstrumentationScope,
    spans: &mut Vec<SpanData>,
) {
    let record = finished.record();
    let timeline = finished.timeline();
    spans.push(hop(&record, timeline, finished.scale(), scope));
    for (index, phase) in (1..).zip(timeline.spans()) {
        let reaches_service =
            record.edge == Edge::Egress && matches!(phase.phase, Phase::Dial | Phase::FirstByte);
        let id = phase.id.unwrap_or_else(|| nth_id(seed, index));
        let end = phase.end.unwrap_or(record.ended).max(phase.start);
        spans.push(SpanData {
            parent_span_id: span_id(timeline.context().span_id),
            parent_span_is_remote: false,
            span_kind: kind(phase.phase),
            name: phase.phase.as_str().into(),
            start_time: wall_clock(finished.scale(), phase.start),
            end_time: wall_clock(finished.scale(), end),
            attributes: attributes::of_phase(&record, phase, reaches_service),
            ..span(timeline, id, scope)
        });
    }
}

/// The span of the hop. The hop serves the visitor or the other hop, so its kind is `SERVER`. It lasts as long as its
/// phases.
fn hop(
    record: &Record<'_>,
    timeline: &Timeline,
    scale: Scale,
    scope: &InstrumentationScope,
) -> SpanData {
    let phases = timeline.spans().iter();
    let start = phases
        .clone()
        .map(|phase| phase.start)
        .fold(record.started, Instant::min);
    let end = phases
        .filter_map(|phase| phase.end)
        .fold(record.ended, Instant::max);
    let failure = attributes::failure(record);
    let attributes = attributes::of_hop(record, failure.as_deref());
    SpanData {
        parent_span_id: timeline.parent().map_or(trace::SpanId::INVALID, span_id),
        parent_span_is_remote: timeline.parent().is_some(),
        span_kind: SpanKind::Server,
        name: name(record),
        start_time: wall_clock(scale, start),
        end_time: wall_clock(scale, end),
        attributes,
        status: match failure {
            // For a status of HTTP or gRPC the number is sufficient.
            Some(reason) if record.reason.is_some() => Status::Error {
                description: reason,
            },
            Some(_) => Status::error(""),
            None => Status::Unset,
        },
        ..span(timeline, timeline.context().span_id, scope)
    }
}

/// A span of the trace, without attributes.
fn span(timeline: &Timeline, id: SpanId, scope: &InstrumentationScope) -> SpanData {
    let trace_id = trace::TraceId::from(timeline.context().trace_id.0.get());
    SpanData {
        span_context: SpanContext::new(
            trace_id,
            span_id(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: trace::SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: UNIX_EPOCH,
        end_time: UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// The kind of a phase. A request to the other hop or to the service is a `CLIENT` span.
const fn kind(phase: Phase) -> SpanKind {
    match phase {
        Phase::Transit | Phase::FirstByte => SpanKind::Client,
        _ => SpanKind::Internal,
    }
}

/// The name of the hop's span. There are few names, however many paths there are. Calls of gRPC are named by their
/// method, as the conventions require.
fn name(record: &Record<'_>) -> Cow<'static, str> {
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

fn span_id(id: SpanId) -> trace::SpanId {
    trace::SpanId::from(id.0.get())
}

/// The n-th id of a request. The ids of one request differ from one another, because the step is odd.
fn nth_id(seed: u64, n: u64) -> SpanId {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    SpanId::from_random(seed.wrapping_add(n.wrapping_mul(STEP)))
}

fn wall_clock(scale: Scale, at: Instant) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(scale.unix_nanos(at))
}
