//! What a visitor is told when the tunnel fails (P-8.4), and what is tried elsewhere (P-8.5).

use std::time::Duration;

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, Layer, layers};
use adit_link::{Failure, Part, Reason};

use crate::{
    carried::{answer, grpc},
    setting::{Visitor, framed, rest, scripted, scripted_link},
    world::{World, config, destination, director, standard_layers, within},
};

#[tokio::test]
async fn p_8_4_every_reason_is_an_answer_of_trailers_only() {
    for reason in Reason::ALL {
        let failing = director(move |_, _| Direction::Fail(Failure::new(reason, "für 100 %")));
        let world = World::assemble(config(), standard_layers(), failing).await;
        let mut visitor = Visitor::connect(&world).await;
        let call = visitor.open("/pkg.Echo/Say", &[], true).await;
        if reason == Reason::Cancelled {
            // It left: there is nobody to tell.
            call.told().await.unwrap_err();
            continue;
        }
        let told = call.told().await.unwrap();
        assert_eq!(told.status, 200, "{reason}");
        assert!(told.trailers.is_none() && told.body.is_empty());
        let status = reason.grpc_status().to_string();
        assert_eq!(told.verdict(), (&status[..], reason.as_str()));
        assert_eq!(told.trailer("content-type"), Some("application/grpc"));
        let text = told.trailer("grpc-message");
        assert_eq!(text, Some("f%C3%BCr 100 %25"), "{reason}");
        assert_eq!(told.trailer("adit-request-id").unwrap().len(), 36);
        assert!(told.trailer("retry-after").is_none());
        world.settle().await;
        assert_eq!(world.http.stats().failed(reason), 1);
    }
}

#[tokio::test]
async fn p_8_4_a_reset_before_the_answer_is_told_so_too() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    for (code, status, reason) in [
        (ResetCode::DialFailed, "14", "dial_failed"),
        (ResetCode::ServiceAborted, "14", "service_aborted"),
        (ResetCode::ServiceTimeout, "4", "service_timeout"),
        (ResetCode::NoTunnel, "12", "no_tunnel"),
        (ResetCode::Limit, "8", "limit"),
        (ResetCode::Stalled, "1", "stalled"),
        (ResetCode::ProtocolError, "13", "protocol_error"),
        // It was not the visitor who left.
        (ResetCode::Cancelled, "14", "service_aborted"),
    ] {
        // Whether its messages have ended or not.
        for end in [true, false] {
            let call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, exchange) = grpc(&mut opened).await;
            exchange.send.reset(code, "because");
            let told = call.told().await.unwrap();
            assert_eq!(told.verdict(), (status, reason));
        }
    }
    world.settle().await;
}

#[tokio::test]
async fn p_8_4_a_failure_behind_the_head_stands_in_the_trailers() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let kind = ("content-type", "application/grpc");
    for (code, status, reason) in [
        (ResetCode::ServiceAborted, "14", "service_aborted"),
        (ResetCode::Cancelled, "14", "service_aborted"),
        (ResetCode::Internal, "13", "internal"),
    ] {
        for end in [true, false] {
            let call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, exchange) = grpc(&mut opened).await;
            // The length would be a lie.
            let metadata = [kind, ("content-length", "5000")];
            answer(&exchange.send, &metadata, &framed(b"one"), false);
            let (parts, body, _send) = call.head().await;
            assert!(parts.headers.get("content-length").is_none());
            exchange.send.reset(code, "gone");
            let told = rest(parts, body).await.unwrap();
            assert_eq!(told.verdict(), (status, reason));
            let trailers = told.trailers.unwrap();
            assert!(trailers.contains_key("adit-request-id"));
            assert!(!trailers.contains_key("content-type"));
        }
    }
    // And all of them when the link is lost.
    let mut running = Vec::new();
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &[], end).await;
        let (_, exchange) = grpc(&mut opened).await;
        answer(&exchange.send, &[kind], b"", false);
        running.push((call.head().await, exchange));
    }
    let lost = Failure::new(Reason::LinkLost, "the cable");
    world.links[0].lane.close(&lost);
    for ((parts, body, _send), _exchange) in running {
        let told = rest(parts, body).await.unwrap();
        assert_eq!(told.verdict(), ("14", "link_lost"));
        assert_eq!(told.trailer("grpc-message"), Some("the cable"));
    }
    world.settle().await;
}

#[tokio::test]
async fn p_8_4_what_cannot_be_carried_is_refused() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    for timeout in ["soon", "1", "123456789S", "5s"] {
        let headers = [("grpc-timeout", timeout)];
        let call = visitor.open("/pkg.Echo/Say", &headers, true).await;
        let told = call.told().await.unwrap();
        assert_eq!(told.verdict(), ("3", "bad_request"), "{timeout}");
    }
    let headers = [("host", "another.example")];
    let call = visitor.open("/pkg.Echo/Say", &headers, true).await;
    let told = call.told().await.unwrap();
    assert_eq!(told.verdict(), ("3", "bad_request"));
    let many: Vec<_> = (0..300).map(|_| ("x-many", "")).collect();
    let call = visitor.open("/pkg.Echo/Say", &many, true).await;
    let told = call.told().await.unwrap();
    assert_eq!(told.verdict(), ("8", "header_too_large"));
    assert!(opened.try_recv().is_err());
}

#[tokio::test]
async fn p_8_4_a_full_house_says_when_to_come_again() {
    let (link, mut opened) = scripted_link();
    let there = link.clone();
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let gate = Gate::new(1, 0);
    let permits = layers::Permits::new(gate, Duration::ZERO);
    let layers: Vec<Box<dyn Layer>> = vec![Box::new(permits)];
    let world = World::assemble(config(), layers, director).await;
    let mut visitor = Visitor::connect(&world).await;
    let running = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, exchange) = grpc(&mut opened).await;
    let told = visitor.call("/pkg.Echo/Say", &[], b"").await;
    assert_eq!(told.verdict(), ("8", "limit"));
    assert_eq!(told.trailer("grpc-retry-pushback-ms"), Some("1000"));
    // The permit comes back with the end of the call, whoever ends it.
    drop(running);
    within(async {
        while exchange.send.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _running = visitor.open("/pkg.Echo/Say", &[], false).await;
    grpc(&mut opened).await;
}

/// Two clients, the first of which answers with `code`.
async fn two(
    code: ResetCode,
) -> (
    World,
    tokio::sync::mpsc::UnboundedReceiver<adit_link::IncomingRequest>,
) {
    let (first, mut refused) = scripted_link();
    let (second, opened) = scripted_link();
    tokio::spawn(async move {
        while let Some(opened) = refused.recv().await {
            opened.exchange.send.reset(code, "not me");
        }
    });
    let links = [first.clone(), second.clone()];
    let director = director(move |_, avoid| {
        let number = 1 + avoid.len() as u64;
        match links.get(avoid.len()) {
            Some(link) => Direction::Go(destination(link, number)),
            None => Direction::Fail(Failure::new(Reason::NoClient, "nobody else")),
        }
    });
    let mut world = World::assemble(config(), standard_layers(), director).await;
    world.links = vec![first, second];
    (world, opened)
}

#[tokio::test]
async fn p_8_5_what_no_service_has_seen_is_tried_elsewhere() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        let (world, mut opened) = two(code).await;
        let mut visitor = Visitor::connect(&world).await;
        // None, one with its end, one of more, and none yet.
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
            let (_, mut exchange) = grpc(&mut opened).await;
            if let Some(message) = &message {
                let Some(Ok(Part::Data(first))) = within(exchange.recv.part()).await else {
                    panic!("no payload");
                };
                assert_eq!(first.bytes(), message);
            }
            answer(&exchange.send, &[("grpc-status", "0")], b"", true);
            assert_eq!(call.told().await.unwrap().verdict(), ("0", ""));
        }
        world.settle().await;
        assert_eq!(world.http.stats().retries, 4);
    }
}

#[tokio::test]
async fn p_8_5_nothing_else_is_tried_elsewhere() {
    for code in [ResetCode::DialFailed, ResetCode::ServiceAborted] {
        let (world, mut opened) = two(code).await;
        let mut visitor = Visitor::connect(&world).await;
        let told = visitor.call("/pkg.Echo/Say", &[], b"a").await;
        assert_eq!(told.verdict().0, "14");
        assert_eq!(world.http.stats().retries, 0);
        assert!(opened.try_recv().is_err());
    }
    // Nor is a call of a link that is lost: somebody may have seen it.
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    grpc(&mut opened).await;
    let lost = Failure::new(Reason::LinkLost, "the cable");
    world.links[0].lane.close(&lost);
    assert_eq!(call.told().await.unwrap().verdict(), ("14", "link_lost"));
    assert_eq!(world.http.stats().retries, 0);
}

#[tokio::test]
async fn p_8_5_messages_that_have_been_passed_on_are_not_repeated() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, mut exchange) = grpc(&mut opened).await;
    call.send.send_data(framed(b"seen"), false).unwrap();
    within(exchange.recv.part()).await.unwrap().unwrap();
    exchange.send.reset(ResetCode::Refused, "after all");
    assert_eq!(call.told().await.unwrap().verdict(), ("14", "refused"));
}

#[tokio::test]
async fn metadata_above_the_bound_get_a_status_that_names_their_size() {
    let (world, _opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let large = "x".repeat(70_000);
    let told = visitor
        .call("/pkg.Echo/Say", &[("x-large", &large)], b"")
        .await;
    assert_eq!(told.status, 200);
    assert_eq!(told.verdict(), ("8", "header_too_large"));
    let text = told.trailer("grpc-message").unwrap();
    assert!(text.contains(" 70") && text.contains(" 65536 "), "{text}");
}
