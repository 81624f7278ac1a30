//! How long a direction waits for credit. The test controls the clock.

use std::{sync::Arc, time::Duration};

use crate::support::{pair, response};
use adit_codec::ResetCode;
use adit_link::{CreditWait, Exchange, Part, Reason, SendHalf};
use bytes::Bytes;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// Sends a hundred messages of 1,000 bytes: more than three initial windows.
fn send(send: SendHalf) -> JoinHandle<SendHalf> {
    tokio::spawn(async move {
        for _ in 0..100 {
            let data = Bytes::from(vec![0; 1_000]);
            if send.send_all(data, false).await.is_err() {
                return send;
            }
        }
        let _ = send.finish();
        send
    })
}

#[tokio::test(start_paused = true)]
async fn waits_are_added_up() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    let watch = Arc::new(CreditWait::default());
    service.watch_credit(watch.clone());
    response(&service, b"", false).unwrap();
    assert_eq!(watch.waited(), None);
    let before = Instant::now();
    let download = send(service.send);
    // The pause is long enough that each window is used up while nothing is read.
    let mut pauses = 0;
    let mut held = Vec::new();
    while let Some(part) = visitor.recv.part().await {
        if let Part::Data(payload) = part.unwrap() {
            held.push(payload);
        }
        if held.len() == 26 {
            sleep(10 * SECOND).await;
            pauses += 1;
            held.clear();
        }
    }
    drop(held);
    download.await.unwrap();
    let waited = watch.waited().unwrap();
    let all = Instant::now() - before;
    assert_eq!(pauses, 3);
    assert!(waited.start >= before.into_std() && waited.end <= Instant::now().into_std());
    // The last pause caused no wait: the rest fitted into the window.
    assert!(waited.total >= 10 * SECOND, "{waited:?}");
    assert!(waited.total <= waited.end - waited.start, "{waited:?}");
    assert!(waited.total <= all, "{waited:?}");
    sleep(10 * SECOND).await;
    assert_eq!(watch.waited(), Some(waited), "it is over");
    drop((visitor, service.recv));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_lasts_is_counted_up_to_now() {
    let pair = pair();
    let (visitor, service) = pair.open(true).await;
    let watch = Arc::new(CreditWait::default());
    service.watch_credit(watch.clone());
    response(&service, b"", false).unwrap();
    let download = send(service.send);
    sleep(7 * SECOND).await;
    let waited = watch.waited().unwrap();
    assert_eq!(waited.total, waited.end - waited.start);
    assert!(waited.total > 6 * SECOND && waited.total <= 7 * SECOND);
    sleep(2 * SECOND).await;
    assert_eq!(watch.waited().unwrap().total, waited.total + 2 * SECOND);
    // When the visitor leaves, the wait ends as well.
    let Exchange { send, recv } = visitor;
    send.reset(ResetCode::Cancelled, "gone");
    drop(recv);
    let send = download.await.unwrap();
    assert_eq!(send.ready().await.unwrap_err().reason, Reason::Cancelled);
    let waited = watch.waited().unwrap();
    sleep(SECOND).await;
    assert_eq!(watch.waited(), Some(waited));
    drop((send, service.recv));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_with_enough_credit_records_no_wait() {
    let pair = pair();
    let (visitor, service) = pair.open(true).await;
    let watch = Arc::new(CreditWait::default());
    service.watch_credit(watch.clone());
    response(&service, b"", false).unwrap();
    service
        .send
        .send_all(Bytes::from(vec![0; 1_000]), true)
        .await
        .unwrap();
    assert_eq!(watch.waited(), None);
    drop((visitor, service));
    pair.settled().await;
}
