//! Requests whose link is lost, and whose client returns (P-7.2).

use std::sync::{Arc, atomic::Ordering};

use adit_codec::ResetCode;
use adit_ingress::Direction;
use adit_link::{Failure, Reason};
use adit_testlink::{HttpEntry, Link, Route, exchanges::hello, http_config, within};
use tokio::sync::Notify;

/// An entry with one client: its link is lost or refuses, and the next link opens when the test notifies it.
fn entry(refuses: Option<ResetCode>) -> (HttpEntry, Link, Arc<Notify>) {
    let first = Link::serving(move |_, exchange| async move {
        match refuses {
            Some(code) => exchange.send.reset(code, "not here"),
            None => exchange.send.closed().await,
        }
    });
    let next = Link::serving(hello);
    let back = Arc::new(Notify::new());
    let (link, returns) = (first.clone(), back.clone());
    let route = Route::director(&[], move |_, avoid| {
        if avoid.is_empty() {
            return link.direction(1);
        }
        // A lost link is not excluded: its client may return on the same link (P-1.7).
        assert_eq!(avoid, [u64::from(refuses.is_some())]);
        let (next, returns) = (next.clone(), returns.clone());
        Direction::Wait(Box::pin(async move {
            returns.notified().await;
            returns.notify_one();
            Ok(next.destination(2))
        }))
    });
    let entry = route.http(http_config());
    (entry, first, back)
}

fn request(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// Sends requests, loses their link, and lets the client return when all requests have been directed again.
async fn responses(
    entry: &HttpEntry,
    first: &Link,
    back: &Notify,
    method: &str,
    count: usize,
) -> Vec<String> {
    let request = request(method);
    let directed = || entry.director.calls();
    let losing = async {
        while first.far.open_requests() < count {
            tokio::task::yield_now().await;
        }
        first.near.close(&Failure::new(Reason::LinkLost, "cut"));
        while directed() < 2 * count && method == "GET" {
            tokio::task::yield_now().await;
        }
        back.notify_one();
    };
    let all = (0..count).map(|_| entry.raw(&request));
    let all = futures_util::future::join_all(all);
    let (responses, ()) = within(async { tokio::join!(all, losing) }).await;
    responses.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(start_paused = true)]
async fn safe_requests_of_lost_link_wait_for_its_client() {
    let (entry, first, back) = entry(None);
    // The number of such retries is not limited: the budget is for other retries.
    entry.director.retries_left.store(0, Ordering::Relaxed);
    let responses = responses(&entry, &first, &back, "GET", 50).await;
    for response in responses {
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
    assert_eq!(entry.stats().retries, 50);
}

#[tokio::test(start_paused = true)]
async fn unsafe_request_of_lost_link_gets_502_at_once() {
    let (entry, first, back) = entry(None);
    let responses = responses(&entry, &first, &back, "DELETE", 1).await;
    assert!(
        responses[0].contains("adit-reason: link_lost\r\n"),
        "{}",
        responses[0]
    );
}

#[tokio::test(start_paused = true)]
async fn request_of_leaving_client_waits_and_refused_one_does_not() {
    for (code, status) in [(ResetCode::Draining, "200"), (ResetCode::Refused, "502")] {
        let (entry, _, back) = entry(Some(code));
        if code == ResetCode::Draining {
            back.notify_one();
        }
        let response = entry.raw(request("GET")).await.unwrap();
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
    }
}
