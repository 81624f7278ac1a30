//! Calls of gRPC.

use adit_codec::{GrpcRequest, GrpcResponseHead, HeaderBlock, RequestHead, ResetCode};
use adit_link::Exchange;

use crate::{
    grpc_setting::{Visitor, framed},
    rig::{CARRIED, PARENT, Rig, crossed},
};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

async fn call(rig: &mut Rig) -> (GrpcRequest, Exchange) {
    match rig.opened().await {
        (RequestHead::Grpc(head), exchange) => (*head, exchange),
        (other, _) => panic!("no call: {other:?}"),
    }
}

fn block(lines: &[(&str, &str)]) -> HeaderBlock {
    let lines = lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    lines.collect()
}

fn answer(exchange: &Exchange, metadata: &[(&str, &str)], body: &[u8], end: bool) {
    let lines = metadata.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let head = GrpcResponseHead { status: 200 }.encode(lines, body);
    exchange.send.respond(head.unwrap(), end).unwrap();
}

#[tokio::test]
async fn a_call_has_the_status_of_its_trailers() {
    let mut rig = Rig::new().await;
    let mut visitor = Visitor::connect(&rig.world).await;
    for (status, trailers_only) in [("0", false), ("5", false), ("16", true)] {
        let lines = [("traceparent", PARENT)];
        let mut asked = visitor.open("/pkg.Echo/Say", &lines, false).await;
        asked.send.send_data(framed(b"hello"), true).unwrap();
        let (head, exchange) = call(&mut rig).await;
        let message = if trailers_only { 0 } else { 7 };
        if trailers_only {
            answer(&exchange, &[GRPC, ("grpc-status", status)], b"", true);
        } else {
            answer(&exchange, &[GRPC], &framed(b"hi"), false);
            let trailers = block(&[("grpc-status", status)]);
            exchange.send.finish_with(trailers).unwrap();
        }
        asked.told().await.unwrap();
        let told = rig.told().await;
        assert_eq!((told.protocol, told.asked.4), ("grpc", "HTTP/2.0"));
        assert_eq!(told.grpc_status, Some(status.parse().unwrap()));
        // It is the service's word, not a failure.
        assert_eq!(told.outcome(), (200, None, 10, message));
        assert_eq!(told.asked.3, "/pkg.Echo/Say");
        assert_eq!(told.phases(), CARRIED);
        told.led_to("web");
        crossed(&told, 0, &head.open.traceparent);
        let timeline = told.timeline.unwrap();
        assert_eq!(timeline.parent().unwrap().to_string(), PARENT[36..52]);
    }
    rig.is_over().await;
}

#[tokio::test]
async fn a_stream_counts_all_its_messages() {
    let mut rig = Rig::new().await;
    let mut visitor = Visitor::connect(&rig.world).await;
    let mut asked = visitor.open("/pkg.Echo/Chat", &[], false).await;
    let (_, mut exchange) = call(&mut rig).await;
    let stats = rig.world.http.stats();
    assert_eq!((stats.requests_open, stats.grpc_open), (1, 1));
    assert_eq!(stats.websockets_open, 0);
    answer(&exchange, &[GRPC], b"", false);
    let mut got = 0;
    for end in [false, false, true] {
        asked.send.send_data(framed(b"hello"), end).unwrap();
        while got < 10 {
            match exchange.recv.part().await {
                Some(Ok(adit_link::Part::Data(data))) => got += data.bytes().len(),
                other => panic!("{other:?}"),
            }
        }
        got = 0;
        exchange.send.send_all(framed(b"hi"), false).await.unwrap();
    }
    let trailers = block(&[("grpc-status", "0")]);
    exchange.send.finish_with(trailers).unwrap();
    asked.told().await.unwrap();
    let told = rig.told().await;
    assert_eq!(told.outcome(), (200, None, 30, 21));
    assert_eq!(told.phases()[..5], CARRIED);
}

#[tokio::test]
async fn a_call_that_fails_has_the_status_that_its_visitor_got() {
    let mut rig = Rig::new().await;
    let mut visitor = Visitor::connect(&rig.world).await;
    for begun in [false, true] {
        let asked = visitor.open("/pkg.Echo/Say", &[], true).await;
        let (_, exchange) = call(&mut rig).await;
        if begun {
            answer(&exchange, &[GRPC], b"", false);
            let (parts, body, _send) = asked.head().await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
            crate::grpc_setting::rest(parts, body).await.unwrap();
        } else {
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
            asked.told().await.unwrap();
        }
        let told = rig.told().await;
        assert_eq!(told.outcome(), (200, Some("service_aborted"), 0, 0));
        assert_eq!(told.grpc_status, Some(14));
        assert_eq!(told.phases(), CARRIED);
    }
    rig.is_over().await;
}

#[tokio::test]
async fn a_call_that_passes_its_deadline_ends_in_transit() {
    let mut rig = Rig::new().await;
    let mut visitor = Visitor::connect(&rig.world).await;
    let lines = [("grpc-timeout", "50m")];
    let asked = visitor.open("/pkg.Echo/Say", &lines, true).await;
    let (_, _exchange) = call(&mut rig).await;
    asked.told().await.unwrap();
    let told = rig.told().await;
    assert_eq!(told.outcome(), (200, Some("service_timeout"), 0, 0));
    assert_eq!(told.grpc_status, Some(4));
    assert_eq!(told.phases(), CARRIED);
    assert!(told.spans()[3].end.is_some());
    // One that cannot be understood goes nowhere.
    let lines = [("grpc-timeout", "soon")];
    let asked = visitor.open("/pkg.Echo/Say", &lines, true).await;
    asked.told().await.unwrap();
    let told = rig.told().await;
    assert_eq!(
        (told.grpc_status, told.reason),
        (Some(3), Some("bad_request"))
    );
    assert_eq!(told.phases(), ["accept", "end"]);
    told.led_nowhere();
}

#[tokio::test]
async fn a_visitor_that_gives_its_call_up_has_left() {
    let mut rig = Rig::new().await;
    let mut visitor = Visitor::connect(&rig.world).await;
    let asked = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = call(&mut rig).await;
    drop(asked);
    let told = rig.told().await;
    assert_eq!(told.outcome(), (0, Some("cancelled"), 0, 0));
    assert_eq!(told.grpc_status, None);
    drop(exchange);
    rig.is_over().await;
}
