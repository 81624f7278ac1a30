//! Calls that end before their time: deadlines and visitors who leave (P-8.3).

use std::time::{Duration, Instant};

use adit_codec::ResetCode;
use adit_ingress::Direction;
use adit_link::{Failure, Part, Reason, SendHalf};
use h2::Reason as Code;

use crate::{
    carried::{answer, grpc},
    setting::{Visitor, framed, rest, scripted, send_all},
    world::{World, config, director, standard_layers, within},
};

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const SOON: [(&str, &str); 1] = [("grpc-timeout", "100m")];

/// Waits until the exchange is over for this direction.
async fn over(send: &SendHalf) -> Failure {
    within(async {
        loop {
            match send.ready().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(failure) => return failure,
            }
        }
    })
    .await
}

#[tokio::test]
async fn p_8_3_at_the_deadline_the_visitor_is_told_and_the_client_too() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    for end in [true, false] {
        let start = Instant::now();
        let call = visitor.open("/pkg.Echo/Say", &SOON, end).await;
        let (head, exchange) = grpc(&mut opened).await;
        assert!(head.timeout.unwrap() <= Duration::from_millis(100));
        let told = call.told().await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert_eq!(told.verdict(), ("4", "service_timeout"));
        let text = "the call was not over within its 100ms";
        assert_eq!(told.trailer("grpc-message"), Some(text));
        assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
    }
    world.settle().await;
    assert_eq!(world.http.stats().failed(Reason::ServiceTimeout), 2);
}

#[tokio::test]
async fn p_8_3_the_deadline_stands_behind_the_head_of_the_answer() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &SOON, end).await;
        let (_, exchange) = grpc(&mut opened).await;
        answer(&exchange.send, &[GRPC], &framed(b"one"), false);
        let (parts, body, _send) = call.head().await;
        let told = rest(parts, body).await.unwrap();
        assert_eq!(told.body, framed(b"one"));
        assert_eq!(told.verdict(), ("4", "service_timeout"));
        assert!(told.trailers.is_some());
        assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
    }
    world.settle().await;
}

/// hyper asks for nothing while the visitor takes nothing; the service must not go on for that.
#[tokio::test]
async fn p_8_3_the_deadline_stands_for_a_visitor_who_reads_nothing() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &SOON, true).await;
    let (_, exchange) = grpc(&mut opened).await;
    answer(&exchange.send, &[GRPC], b"", false);
    let (parts, body, _send) = call.head().await;
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
    // What it was sent until then is there, and why there is no more.
    let told = rest(parts, body).await.unwrap();
    assert!(told.body.len() >= 64 * 1024 - 1);
    assert_eq!(told.verdict(), ("4", "service_timeout"));
    drop(exchange);
    world.settle().await;
}

#[tokio::test]
async fn p_8_3_the_deadline_stands_while_a_client_is_waited_for() {
    let waiting = director(|_, _| Direction::Wait(Box::pin(std::future::pending())));
    let world = World::assemble(config(), standard_layers(), waiting).await;
    let mut visitor = Visitor::connect(&world).await;
    for timeout in ["100m", "0S"] {
        let headers = [("grpc-timeout", timeout)];
        let told = visitor.call("/pkg.Echo/Say", &headers, b"").await;
        assert_eq!(told.verdict(), ("4", "service_timeout"), "{timeout}");
    }
    world.settle().await;
}

#[tokio::test]
async fn p_8_3_an_answer_in_time_is_not_touched() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &SOON, true).await;
    let (_, exchange) = grpc(&mut opened).await;
    answer(&exchange.send, &[GRPC], &framed(b"one"), true);
    let (parts, body, _send) = call.head().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = rest(parts, body).await.unwrap();
    assert_eq!(told.body, framed(b"one"));
    drop(exchange);
    world.settle().await;
    assert_eq!(world.links[0].lane.stats().pending.completed, 1);
}

#[tokio::test]
async fn p_8_3_a_visitor_who_cancels_resets_the_request() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let mut cancelled = 0;
    for answered in [false, true] {
        for end in [true, false] {
            let mut call = visitor.open("/pkg.Echo/Say", &[], end).await;
            let (_, mut exchange) = grpc(&mut opened).await;
            if answered {
                answer(&exchange.send, &[GRPC], &framed(b"one"), false);
                let (parts, body, mut send) = call.head().await;
                send.send_reset(Code::CANCEL);
                drop((parts, body));
            } else {
                call.send.send_reset(Code::CANCEL);
            }
            assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
            let failure = within(exchange.recv.part()).await.unwrap().unwrap_err();
            assert_eq!(failure.reason, Reason::Cancelled);
            cancelled += 1;
        }
    }
    // A connection that goes takes all its calls along.
    let mut running = Vec::new();
    for end in [true, false] {
        let call = visitor.open("/pkg.Echo/Say", &[], end).await;
        let (_, exchange) = grpc(&mut opened).await;
        running.push((call, exchange));
    }
    drop(visitor);
    for (call, exchange) in running {
        drop(call);
        assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
        cancelled += 1;
    }
    world.settle().await;
    let stats = world.links[0].lane.stats().pending;
    assert_eq!(stats.cancelled, cancelled);
    assert_eq!(world.http.stats().failed(Reason::Cancelled), cancelled);
}

/// A visitor who has stopped reading keeps what it was sent in the connection's buffers: the call ends all the same.
#[tokio::test]
async fn p_8_3_a_cancelled_call_does_not_wait_for_what_is_unread() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = grpc(&mut opened).await;
    answer(&exchange.send, &[GRPC], b"", false);
    let (_, body, mut send) = call.head().await;
    let message = framed(&vec![1; 64 * 1024]);
    let sending = async { while exchange.send.send_all(message.clone(), false).await.is_ok() {} };
    let full = tokio::time::timeout(Duration::from_millis(200), sending);
    full.await.unwrap_err();
    send.send_reset(Code::CANCEL);
    assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
    drop((body, exchange));
    world.settle().await;
}

#[tokio::test]
async fn p_8_1_a_service_that_ends_first_ends_the_call() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let (_, mut exchange) = grpc(&mut opened).await;
    send_all(&mut call.send, framed(b"one"), false).await;
    let Some(Ok(Part::Data(_))) = within(exchange.recv.part()).await else {
        panic!("no payload");
    };
    answer(&exchange.send, &[GRPC, ("grpc-status", "8")], b"", true);
    // As a client does that has its answer (P-3.6).
    exchange.recv.stop(ResetCode::Cancelled);
    let told = call.told().await.unwrap();
    assert_eq!(told.verdict(), ("8", ""));
    drop(exchange.send);
    world.settle().await;
    assert_eq!(world.http.stats().failures, [0; Reason::ALL.len()]);
}

#[tokio::test]
async fn p_8_4_messages_before_a_service_breaks_off_arrive_before_the_status() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    for _ in 0..10 {
        let call = visitor.open("/pkg.Echo/Say", &[], true).await;
        let (_, exchange) = grpc(&mut opened).await;
        answer(&exchange.send, &[GRPC], b"", false);
        let message = framed(&vec![1; 20_000]);
        exchange
            .send
            .send_all(message.clone(), false)
            .await
            .unwrap();
        exchange.send.abort(ResetCode::ServiceAborted, "broke off");
        let (parts, body, _send) = call.head().await;
        let told = rest(parts, body).await.unwrap();
        assert_eq!(told.body, message);
        assert_eq!(told.verdict(), ("14", "service_aborted"));
    }
    world.settle().await;
}
