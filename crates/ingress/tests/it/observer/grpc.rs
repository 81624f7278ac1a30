//! Calls of gRPC.

use adit_codec::ResetCode;
use adit_testlink::{
    FORWARDED, SAMPLED, block,
    exchanges::{payload, respond_grpc},
    grpc::{Visitor, framed, rest},
};
use adit_trace::Phase;

use crate::observer::Observed;

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(start_paused = true)]
async fn a_call_has_the_status_of_its_trailers() {
    let mut observed = Observed::new();
    let mut visitor = Visitor::connect(observed.entry.connect().await).await;
    for (status, trailers_only) in [("0", false), ("5", false), ("16", true)] {
        let lines = [("traceparent", SAMPLED)];
        let mut call = visitor.open("/pkg.Echo/Say", &lines, false).await;
        call.send.send_data(framed(b"hello"), true).unwrap();
        let (head, exchange) = observed.incoming.grpc().await;
        let message = if trailers_only { 0 } else { 7 };
        if trailers_only {
            respond_grpc(&exchange.send, &[GRPC, ("grpc-status", status)], b"", true);
        } else {
            respond_grpc(&exchange.send, &[GRPC], &framed(b"hi"), false);
            let trailers = block(&[("grpc-status", status)]);
            exchange.send.finish_with(trailers).unwrap();
        }
        call.whole().await.unwrap();
        let record = observed.record().await;
        assert_eq!((record.protocol, record.version), ("grpc", "HTTP/2.0"));
        assert_eq!(record.grpc_status, Some(status.parse().unwrap()));
        // The status is one of the service, not a failure.
        assert_eq!(record.outcome(), (200, None, 10, message));
        assert_eq!(record.path, "/pkg.Echo/Say");
        assert_eq!(record.phases(), FORWARDED);
        record.expect_forwarded();
        record.expect_context(0, &head.open.traceparent);
        let timeline = record.timeline.unwrap();
        assert_eq!(timeline.parent().unwrap().to_string(), SAMPLED[36..52]);
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_counts_all_its_messages() {
    let mut observed = Observed::new();
    let mut visitor = Visitor::connect(observed.entry.connect().await).await;
    let mut call = visitor.open("/pkg.Echo/Chat", &[], false).await;
    let (_, mut exchange) = observed.incoming.grpc().await;
    let stats = observed.entry.stats();
    assert_eq!((stats.requests_open, stats.grpc_open), (1, 1));
    assert_eq!(stats.websockets_open, 0);
    respond_grpc(&exchange.send, &[GRPC], b"", false);
    let mut got = 0;
    for end in [false, false, true] {
        call.send.send_data(framed(b"hello"), end).unwrap();
        while got < 10 {
            got += payload(&mut exchange.recv).await.len();
        }
        got = 0;
        exchange.send.send_all(framed(b"hi"), false).await.unwrap();
    }
    let trailers = block(&[("grpc-status", "0")]);
    exchange.send.finish_with(trailers).unwrap();
    call.whole().await.unwrap();
    let record = observed.record().await;
    assert_eq!(record.outcome(), (200, None, 30, 21));
    assert_eq!(record.phases()[..5], FORWARDED);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_records_the_status_of_its_response() {
    let mut observed = Observed::new();
    let mut visitor = Visitor::connect(observed.entry.connect().await).await;
    for begun in [false, true] {
        let call = visitor.open("/pkg.Echo/Say", &[], true).await;
        let (_, exchange) = observed.incoming.grpc().await;
        if begun {
            respond_grpc(&exchange.send, &[GRPC], b"", false);
            let (begun, _send) = call.head().await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
            rest(begun).await.unwrap();
        } else {
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
            call.whole().await.unwrap();
        }
        let record = observed.record().await;
        assert_eq!(record.outcome(), (200, Some("service_aborted"), 0, 0));
        assert_eq!(record.grpc_status, Some(14));
        assert_eq!(record.phases(), FORWARDED);
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_ends_in_transit() {
    let mut observed = Observed::new();
    let mut visitor = Visitor::connect(observed.entry.connect().await).await;
    let lines = [("grpc-timeout", "50m")];
    let call = visitor.open("/pkg.Echo/Say", &lines, true).await;
    let (_, _exchange) = observed.incoming.grpc().await;
    call.whole().await.unwrap();
    let record = observed.record().await;
    assert_eq!(record.outcome(), (200, Some("service_timeout"), 0, 0));
    assert_eq!(record.grpc_status, Some(4));
    assert_eq!(record.phases(), FORWARDED);
    assert!(record.spans()[3].end.is_some());
    // A call with an invalid timeout has no destination.
    let lines = [("grpc-timeout", "soon")];
    let call = visitor.open("/pkg.Echo/Say", &lines, true).await;
    call.whole().await.unwrap();
    let record = observed.record().await;
    assert_eq!(
        (record.grpc_status, record.reason),
        (Some(3), Some("bad_request"))
    );
    assert_eq!(record.phases(), [Phase::Accept, Phase::End]);
    record.expect_not_forwarded();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_recorded_as_cancelled() {
    let mut observed = Observed::new();
    let mut visitor = Visitor::connect(observed.entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = observed.incoming.grpc().await;
    drop(call);
    let record = observed.record().await;
    assert_eq!(record.outcome(), (0, Some("cancelled"), 0, 0));
    assert_eq!(record.grpc_status, None);
    drop(exchange);
    observed.settled().await;
}
