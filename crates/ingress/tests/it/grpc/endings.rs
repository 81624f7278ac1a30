//! Calls that end early: deadlines and visitors that leave (P-8.3).

use std::time::Duration;

use adit_codec::ResetCode;
use adit_link::Reason;
use adit_testlink::{
    HttpEntry, Route,
    exchanges::{failure_of, payload, respond_grpc},
    grpc::{Visitor, framed, rest, send_all},
    http_config, never, next_part, within,
};
use h2::Reason as Code;
use tokio::time::Instant;

use crate::grpc::GRPC;

const SOON: [(&str, &str); 1] = [("grpc-timeout", "100m")];

#[tokio::test(start_paused = true)]
async fn p_8_3_at_the_deadline_both_sides_end_the_call() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for end in [true, false] {
        let start = Instant::now();
        let call = visitor.open("/pkg.Echo/Say", &SOON, end).await;
        let (head, exchange) = incoming.grpc().await;
        assert!(head.timeout.unwrap() <= Duration::from_millis(100));
        let response = call.whole().await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert_eq!(response.verdict(), ("4", "service_timeout"));
        let text = response.trailer("grpc-message").unwrap();
        assert!(text.contains("100ms"), "{text}");
        assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
    }
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::ServiceTimeout), 2);
}

#[tokio::test(start_paused = true)]
async fn p_8_3_the_deadline_holds_after_the_response_head() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &SOON, end).await;
        let (_, exchange) = incoming.grpc().await;
        respond_grpc(&exchange.send, &[GRPC], &framed(b"one"), false);
        let (begun, _send) = call.head().await;
        let response = rest(begun).await.unwrap();
        assert_eq!(response.body, framed(b"one"));
        assert_eq!(response.verdict(), ("4", "service_timeout"));
        assert!(!response.trailers.is_empty());
        assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
    }
    entry.settled().await;
}

/// hyper polls no body while the visitor reads nothing; the deadline must hold nevertheless.
#[tokio::test(start_paused = true)]
async fn p_8_3_the_deadline_holds_while_the_visitor_reads_nothing() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &SOON, true).await;
    let (_, exchange) = incoming.grpc().await;
    respond_grpc(&exchange.send, &[GRPC], b"", false);
    let (begun, _send) = call.head().await;
    let message = framed(&vec![1; 16 * 1024]);
    let failure = within(async {
        loop {
            if let Err(failure) = exchange.send.send_all(message.clone(), false).await {
                return failure;
            }
        }
    })
    .await;
    assert_eq!(failure.reason, Reason::Cancelled);
    // The messages that were sent until then arrive, and then the status.
    let response = rest(begun).await.unwrap();
    assert!(response.body.len() >= 64 * 1024 - 1);
    assert_eq!(response.verdict(), ("4", "service_timeout"));
    drop(exchange);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_3_the_deadline_holds_while_no_client_is_there() {
    let waiting = Route::director(&[], |_, _| never());
    let entry = waiting.http(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for timeout in ["100m", "0S"] {
        let headers = [("grpc-timeout", timeout)];
        let response = visitor.call("/pkg.Echo/Say", &headers, b"").await;
        assert_eq!(response.verdict(), ("4", "service_timeout"), "{timeout}");
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_3_a_response_in_time_is_not_cut() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &SOON, true).await;
    let (_, exchange) = incoming.grpc().await;
    respond_grpc(&exchange.send, &[GRPC], &framed(b"one"), true);
    let (begun, _send) = call.head().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let response = rest(begun).await.unwrap();
    assert_eq!(response.body, framed(b"one"));
    drop(exchange);
    entry.settled().await;
    assert_eq!(entry.links[0].near.stats().pending.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn p_8_3_a_visitor_that_cancels_resets_the_request() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let mut cancelled = 0;
    for responded in [false, true] {
        for end in [true, false] {
            let mut call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, mut exchange) = incoming.grpc().await;
            if responded {
                respond_grpc(&exchange.send, &[GRPC], &framed(b"one"), false);
                let (begun, mut send) = call.head().await;
                send.send_reset(Code::CANCEL);
                drop(begun);
            } else {
                call.send.send_reset(Code::CANCEL);
            }
            assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
            let failure = next_part(&mut exchange.recv).await.unwrap().unwrap_err();
            assert_eq!(failure.reason, Reason::Cancelled);
            cancelled += 1;
        }
    }
    // A connection that ends cancels all its calls.
    let mut running = Vec::new();
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &[], end).await;
        let (_, exchange) = incoming.grpc().await;
        running.push((call, exchange));
    }
    drop(visitor);
    for (call, exchange) in running {
        drop(call);
        assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
        cancelled += 1;
    }
    entry.settled().await;
    let stats = entry.links[0].near.stats().pending;
    assert_eq!(stats.cancelled, cancelled);
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), cancelled);
}

/// Unread messages fill the buffers of the connection: the call ends nevertheless.
#[tokio::test(start_paused = true)]
async fn p_8_3_a_cancelled_call_does_not_wait_for_unread_messages() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = incoming.grpc().await;
    respond_grpc(&exchange.send, &[GRPC], b"", false);
    let (begun, mut send) = call.head().await;
    let message = framed(&vec![1; 64 * 1024]);
    let sending = async { while exchange.send.send_all(message.clone(), false).await.is_ok() {} };
    let full = tokio::time::timeout(Duration::from_millis(200), sending);
    full.await.unwrap_err();
    send.send_reset(Code::CANCEL);
    assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
    drop((begun, exchange));
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_1_a_service_that_ends_first_ends_the_call() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, mut exchange) = incoming.grpc().await;
    send_all(&mut call.send, framed(b"one"), false).await;
    payload(&mut exchange.recv).await;
    respond_grpc(&exchange.send, &[GRPC, ("grpc-status", "8")], b"", true);
    // A client sends this after a complete response (P-3.6).
    exchange.recv.stop(ResetCode::Cancelled);
    let response = call.whole().await.unwrap();
    assert_eq!(response.verdict(), ("8", ""));
    drop(exchange.send);
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn p_8_4_messages_before_a_service_breaks_off_arrive_before_the_status() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for _ in 0..10 {
        let call = visitor.open("/pkg.Echo/Say", &[], true).await;
        let (_, exchange) = incoming.grpc().await;
        respond_grpc(&exchange.send, &[GRPC], b"", false);
        let message = framed(&vec![1; 20_000]);
        exchange
            .send
            .send_all(message.clone(), false)
            .await
            .unwrap();
        exchange.send.abort(ResetCode::ServiceAborted, "broke off");
        let (begun, _send) = call.head().await;
        let response = rest(begun).await.unwrap();
        assert_eq!(response.body, message);
        assert_eq!(response.verdict(), ("14", "service_aborted"));
    }
    entry.settled().await;
}
