//! The statuses of failures in the tunnel (P-8.4), and retries on other clients (P-8.5).

use std::time::Duration;

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, layers};
use adit_link::{Failure, Reason};
use adit_testlink::{
    HttpEntry, Incoming, Link, Route,
    exchanges::{failure_of, payload, respond_grpc},
    grpc::{Visitor, framed, rest},
    http_config, next_part,
};

use crate::grpc::GRPC;

#[tokio::test(start_paused = true)]
async fn p_8_4_every_reason_is_a_response_of_trailers() {
    for reason in Reason::ALL {
        let failing = Route::director(&[], move |_, _| {
            Direction::Fail(Failure::new(reason, "für 100 %"))
        });
        let entry = failing.http(http_config());
        let mut visitor = Visitor::connect(entry.connect().await).await;
        let call = visitor.open("/pkg.Echo/Say", &[], true).await;
        if reason == Reason::Cancelled {
            // The visitor has left: its stream is reset.
            call.whole().await.unwrap_err();
            continue;
        }
        let response = call.whole().await.unwrap();
        assert_eq!(response.status, 200, "{reason}");
        assert!(response.trailers.is_empty() && response.body.is_empty());
        let status = reason.grpc_status().to_string();
        assert_eq!(response.verdict(), (&status[..], reason.as_str()));
        assert_eq!(response.trailer("content-type"), Some("application/grpc"));
        let text = response.trailer("grpc-message");
        assert_eq!(text, Some("f%C3%BCr 100 %25"), "{reason}");
        assert_eq!(response.trailer("adit-request-id").unwrap().len(), 36);
        assert!(response.trailer("retry-after").is_none());
        entry.settled().await;
        assert_eq!(entry.stats().failures.of(reason), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn p_8_4_a_reset_before_the_response_is_a_status() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for (code, status, reason) in [
        (ResetCode::DialFailed, "14", "dial_failed"),
        (ResetCode::ServiceAborted, "14", "service_aborted"),
        (ResetCode::ServiceTimeout, "4", "service_timeout"),
        (ResetCode::NoTunnel, "12", "no_tunnel"),
        (ResetCode::Limit, "8", "limit"),
        (ResetCode::Stalled, "1", "stalled"),
        (ResetCode::ProtocolError, "13", "protocol_error"),
        // The visitor has not left, so this is a failure of the service.
        (ResetCode::Cancelled, "14", "service_aborted"),
    ] {
        // The result is the same whether the messages of the call have ended or not.
        for end in [true, false] {
            let call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, exchange) = incoming.grpc().await;
            exchange.send.reset(code, "because");
            let response = call.whole().await.unwrap();
            assert_eq!(response.verdict(), (status, reason));
        }
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_4_a_failure_after_the_head_is_in_the_trailers() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for (code, status, reason) in [
        (ResetCode::ServiceAborted, "14", "service_aborted"),
        (ResetCode::Cancelled, "14", "service_aborted"),
        (ResetCode::Internal, "13", "internal"),
    ] {
        for end in [true, false] {
            let call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, exchange) = incoming.grpc().await;
            // The announced length is wrong when the response breaks off.
            let metadata = [GRPC, ("content-length", "5000")];
            respond_grpc(&exchange.send, &metadata, &framed(b"one"), false);
            let (begun, _send) = call.head().await;
            assert!(begun.headers().get("content-length").is_none());
            exchange.send.reset(code, "gone");
            let response = rest(begun).await.unwrap();
            assert_eq!(response.verdict(), (status, reason));
            assert!(!response.trailers.is_empty());
            assert!(response.trailer("adit-request-id").is_some());
            assert!(response.trailer("content-type").is_none());
        }
    }
    // All calls fail when the link is lost.
    let mut running = Vec::new();
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &[], end).await;
        let (_, exchange) = incoming.grpc().await;
        respond_grpc(&exchange.send, &[GRPC], b"", false);
        running.push((call.head().await, exchange));
    }
    let lost = Failure::new(Reason::LinkLost, "the cable");
    entry.links[0].near.close(&lost);
    for ((begun, _send), _exchange) in running {
        let response = rest(begun).await.unwrap();
        assert_eq!(response.verdict(), ("14", "link_lost"));
        assert_eq!(response.trailer("grpc-message"), Some("the cable"));
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_4_invalid_calls_are_refused() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    for timeout in ["soon", "1", "123456789S", "5s"] {
        let headers = [("grpc-timeout", timeout)];
        let call = visitor.open("/pkg.Echo/Say", &headers, true).await;
        let response = call.whole().await.unwrap();
        assert_eq!(response.verdict(), ("3", "bad_request"), "{timeout}");
    }
    let headers = [("host", "another.example")];
    let call = visitor.open("/pkg.Echo/Say", &headers, true).await;
    let response = call.whole().await.unwrap();
    assert_eq!(response.verdict(), ("3", "bad_request"));
    let many: Vec<_> = (0..300).map(|_| ("x-many", "")).collect();
    let call = visitor.open("/pkg.Echo/Say", &many, true).await;
    let response = call.whole().await.unwrap();
    assert_eq!(response.verdict(), ("8", "header_too_large"));
    assert!(incoming.try_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn p_8_4_a_call_over_the_limit_gets_a_pushback() {
    let (link, mut incoming) = Link::scripted();
    let permits = layers::Permits::new(Gate::new(1, 0), Duration::ZERO);
    let entry = Route::to(&link).layer(permits).http(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let running = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, exchange) = incoming.grpc().await;
    let response = visitor.call("/pkg.Echo/Say", &[], b"").await;
    assert_eq!(response.verdict(), ("8", "limit"));
    assert_eq!(response.trailer("grpc-retry-pushback-ms"), Some("1000"));
    // The end of a call returns its permit, whichever side ends it.
    drop(running);
    failure_of(&exchange.send).await;
    let _running = visitor.open("/pkg.Echo/Say", &[], false).await;
    incoming.grpc().await;
}

/// Two clients, the first of which resets every call with `code`.
fn two(code: ResetCode) -> (HttpEntry, Incoming) {
    let (first, mut refused) = Link::scripted();
    let (second, incoming) = Link::scripted();
    tokio::spawn(async move {
        loop {
            let exchange = refused.next().await.exchange;
            exchange.send.reset(code, "not me");
        }
    });
    let entry = Route::through(&[first, second]).http(http_config());
    (entry, incoming)
}

#[tokio::test(start_paused = true)]
async fn p_8_5_refused_calls_are_retried_on_other_clients() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        let (entry, mut incoming) = two(code);
        let mut visitor = Visitor::connect(entry.connect().await).await;
        // No message, one message with the end, one of several messages, and none yet.
        for (message, end) in [
            (None, true),
            (Some("a"), true),
            (Some("b"), false),
            (None, false),
        ] {
            let mut call = visitor
                .open("/pkg.Echo/Say", &[], message.is_none() && end)
                .await;
            let message = message.map(|text| framed(text.as_bytes()));
            if let Some(message) = &message {
                call.send.send_data(message.clone(), end).unwrap();
            }
            let (_, mut exchange) = incoming.grpc().await;
            if let Some(message) = &message {
                let first = payload(&mut exchange.recv).await;
                assert_eq!(first, message);
            }
            respond_grpc(&exchange.send, &[("grpc-status", "0")], b"", true);
            assert_eq!(call.whole().await.unwrap().verdict(), ("0", ""));
        }
        entry.settled().await;
        assert_eq!(entry.stats().retries, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn p_8_5_other_failures_are_not_retried() {
    for code in [ResetCode::DialFailed, ResetCode::ServiceAborted] {
        let (entry, mut incoming) = two(code);
        let mut visitor = Visitor::connect(entry.connect().await).await;
        let response = visitor.call("/pkg.Echo/Say", &[], b"a").await;
        assert_eq!(response.verdict().0, "14");
        assert_eq!(entry.stats().retries, 0);
        assert!(incoming.try_next().is_none());
    }
    // A call of a lost link is not retried either: a service may have received it.
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    incoming.grpc().await;
    let lost = Failure::new(Reason::LinkLost, "the cable");
    entry.links[0].near.close(&lost);
    assert_eq!(call.whole().await.unwrap().verdict(), ("14", "link_lost"));
    assert_eq!(entry.stats().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn p_8_5_calls_with_forwarded_messages_are_not_retried() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, mut exchange) = incoming.grpc().await;
    call.send.send_data(framed(b"seen"), false).unwrap();
    next_part(&mut exchange.recv).await.unwrap().unwrap();
    exchange.send.reset(ResetCode::Refused, "after all");
    assert_eq!(call.whole().await.unwrap().verdict(), ("14", "refused"));
}

#[tokio::test(start_paused = true)]
async fn too_large_metadata_get_a_status_with_their_size() {
    let (entry, _incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let large = "x".repeat(70_000);
    let response = visitor
        .call("/pkg.Echo/Say", &[("x-large", &large)], b"")
        .await;
    assert_eq!(response.status, 200);
    assert_eq!(response.verdict(), ("8", "header_too_large"));
    let text = response.trailer("grpc-message").unwrap();
    assert!(text.contains(" 70") && text.contains(" 65536"), "{text}");
}
