//! Requests whose link is lost, and whose client comes back (P-7.2).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, atomic::Ordering};

use adit_codec::ResetCode;
use adit_ingress::Direction;
use adit_link::{Failure, Reason};
use tokio::sync::Notify;

mod world;

use world::{Link, World, config, destination, director, hello, service, standard_layers, within};

/// One client: its link is lost or refuses, and the next one comes when the test says so.
async fn world(refuses: Option<ResetCode>) -> (World, Link, Arc<Notify>) {
    let first = Link::new(service(move |_, exchange| async move {
        match refuses {
            Some(code) => exchange.send.reset(code, "not here"),
            None => exchange.send.closed().await,
        }
    }));
    let next = Link::new(service(hello));
    let back = Arc::new(Notify::new());
    let (link, returns) = (first.clone(), back.clone());
    let director = director(move |_, avoid| {
        if avoid.is_empty() {
            return Direction::Go(destination(&link, 1));
        }
        assert_eq!(avoid, [1]);
        let (next, returns) = (next.clone(), returns.clone());
        Direction::Wait(Box::pin(async move {
            returns.notified().await;
            returns.notify_one();
            Ok(destination(&next, 2))
        }))
    });
    let world = World::assemble(config(), standard_layers(), director).await;
    (world, first, back)
}

fn request(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// Sends requests, loses their link, and brings the client back when all have been directed anew.
async fn answers(
    world: &World,
    first: &Link,
    back: &Notify,
    method: &str,
    count: usize,
) -> Vec<String> {
    let request = request(method);
    let asked = || world.director.asked.lock().unwrap().len();
    let losing = async {
        while first.far.open_requests() < count {
            tokio::task::yield_now().await;
        }
        first.lane.close(&Failure::new(Reason::LinkLost, "cut"));
        while asked() < 2 * count && method == "GET" {
            tokio::task::yield_now().await;
        }
        back.notify_one();
    };
    let all = (0..count).map(|_| world.raw(request.as_bytes()));
    let all = futures_util::future::join_all(all);
    let (answers, ()) = within(async { tokio::join!(all, losing) }).await;
    answers.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn safe_requests_of_lost_link_wait_for_its_client() {
    let (world, first, back) = world(None).await;
    // However many they are: the budget is for other retries.
    world.director.retries_left.store(0, Ordering::Relaxed);
    let answers = answers(&world, &first, &back, "GET", 50).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(world.http.stats().retries, 50);
}

#[tokio::test]
async fn unsafe_request_of_lost_link_gets_502_at_once() {
    let (world, first, back) = world(None).await;
    let answers = answers(&world, &first, &back, "DELETE", 1).await;
    assert!(
        answers[0].contains("adit-reason: link_lost\r\n"),
        "{}",
        answers[0]
    );
}

#[tokio::test]
async fn request_of_leaving_client_waits_and_refused_one_does_not() {
    for (code, status) in [(ResetCode::Draining, "200"), (ResetCode::Refused, "502")] {
        let (world, _, back) = world(Some(code)).await;
        if code == ResetCode::Draining {
            back.notify_one();
        }
        let answer = world.raw(request("GET").as_bytes()).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
