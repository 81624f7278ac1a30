//! The requests that are traced: by `ParentBased(TraceIdRatioBased)`, or by `TraceIdRatioBased` alone.

use adit_otlp::{Traces, TracesSettings};

use super::{
    collector::refusing,
    record::{http, settings},
};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn share(sample_ratio: f64) -> Traces {
    Traces::start(TracesSettings {
        sample_ratio,
        ..settings(&refusing().1)
    })
    .unwrap()
}

#[test]
fn the_parent_decides() {
    for ratio in [0.0, 1.0] {
        let traces = share(ratio);
        assert!(traces.begin(NOT_SAMPLED).is_none());
        let timeline = traces.begin(SAMPLED).unwrap();
        let context = timeline.context().to_string();
        assert!(
            context.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
            "{context}"
        );
        assert!(context.ends_with("-01"), "{context}");
        assert_eq!(timeline.parent().unwrap().to_string(), "b7ad6b7169203331");
        assert_ne!(timeline.parent(), Some(timeline.context().span_id));
    }
}

#[test]
fn without_the_parent_the_ratio_decides() {
    for (ratio, traceparent, is_traced) in [(0.0, SAMPLED, false), (1.0, NOT_SAMPLED, true)] {
        let traces = Traces::start(TracesSettings {
            sample_ratio: ratio,
            follow_parent: false,
            ..settings(&refusing().1)
        })
        .unwrap();
        let timeline = traces.begin(traceparent);
        assert_eq!(timeline.is_some(), is_traced);
        let parent = timeline.and_then(|timeline| timeline.parent());
        assert_eq!(parent.is_some(), is_traced);
    }
}

#[test]
fn a_share_of_new_traces_is_recorded() {
    let count = |ratio| {
        let traces = share(ratio);
        (0..10_000).filter(|_| traces.begin("").is_some()).count()
    };
    assert_eq!(count(0.0), 0);
    assert_eq!(count(1.0), 10_000);
    // The bounds are twenty standard deviations.
    let half = count(0.5);
    assert!((4_000..=6_000).contains(&half), "{half}");
}

#[test]
fn an_invalid_context_begins_a_new_trace() {
    let traces = share(1.0);
    for text in [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-b7ad6b7169203331-00",
    ] {
        let timeline = traces.begin(text).unwrap();
        assert_eq!(timeline.parent(), None, "{text}");
    }
    let ids: Vec<_> = (0..2)
        .map(|_| traces.begin("").unwrap().context())
        .collect();
    assert_ne!(ids[0].trace_id, ids[1].trace_id);
    assert_ne!(ids[0].span_id, ids[1].span_id);
}

#[test]
fn a_request_without_timeline_has_no_spans() {
    let traces = share(1.0);
    traces.on_end(&http(adit_trace::Edge::Ingress, std::time::Instant::now()));
    let stats = traces.shutdown(std::time::Duration::ZERO);
    assert_eq!(stats, adit_otlp::TracesStats::default());
}
