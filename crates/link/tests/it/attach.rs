//! A lane that outlives its connections: attach, loss, a second attach, close.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::support::{Drops, Inbound, Pipe, config, open_on, read, response, until, write};
use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{Connection, Exchange, Failure, IncomingRequest, Lane, Reason, Retry, drive};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

struct End {
    lane: Arc<Lane>,
    budget: Budget,
    opened: mpsc::UnboundedReceiver<IncomingRequest>,
}

impl End {
    fn new(side: Side) -> Self {
        let (sender, opened) = mpsc::unbounded_channel();
        let budget = Budget::new(64 << 20);
        let inbound = Arc::new(Inbound(sender));
        let lane = Lane::reattachable(config(side), budget.clone(), inbound);
        Self {
            lane,
            budget,
            opened,
        }
    }

    /// Completed and failed requests.
    fn counts(&self) -> (u64, u64) {
        let stats = self.lane.stats().pending;
        (stats.completed, stats.failed)
    }

    fn is_empty(&self) -> bool {
        let stats = self.lane.stats();
        let left = (stats.pending.waiting, stats.mux.open, stats.mux.queued);
        left == (0, 0, 0) && stats.waiting_bytes == 0 && self.budget.used() == 0
    }
}

fn ends() -> (End, End) {
    (End::new(Side::Server), End::new(Side::Client))
}

/// Two connections joined by pipes, until they are cut.
struct Wire {
    writers: Vec<JoinHandle<()>>,
    driven: Vec<JoinHandle<Failure>>,
}

impl Wire {
    fn join(one: Connection, other: Connection) -> Self {
        let (to_other, at_other) = mpsc::channel(4);
        let (to_one, at_one) = mpsc::channel(4);
        let writers = vec![
            tokio::spawn(write(one.writer(), to_other)),
            tokio::spawn(write(other.writer(), to_one)),
        ];
        let driven = vec![
            tokio::spawn(one.drive(Pipe(at_one))),
            tokio::spawn(other.drive(Pipe(at_other))),
        ];
        Self { writers, driven }
    }

    /// Loses the connection: both ends stop writing at once.
    async fn cut(self) {
        self.writers.iter().for_each(JoinHandle::abort);
        for driven in self.driven {
            assert_eq!(driven.await.unwrap().reason, Reason::LinkLost);
        }
    }
}

/// A request of `from` that `to` serves completely.
async fn round_trip(from: &End, to: &mut End) {
    let mut visitor = open_on(&from.lane, true, None).unwrap();
    let mut service = to.opened.recv().await.unwrap().exchange;
    assert_eq!(visitor.id(), service.id());
    read(&mut service.recv).await.unwrap();
    response(&service, b"hello", true).unwrap();
    drop(service);
    let (responded, body) = read(&mut visitor.recv).await.unwrap();
    assert!(responded);
    assert_eq!(body, "hello");
}

async fn failure_of(exchange: &mut Exchange) -> Failure {
    exchange.recv.failed().await
}

#[tokio::test]
async fn p_6_4_a_lane_serves_new_requests_over_a_second_connection() {
    let (mut server, mut client) = ends();
    let wire = Wire::join(server.lane.connection(), client.lane.connection());
    round_trip(&server, &mut client).await;
    round_trip(&client, &mut server).await;
    let mut visitor = open_on(&server.lane, false, None).unwrap();
    let mut service = client.opened.recv().await.unwrap().exchange;
    response(&service, b"begin", false).unwrap();
    visitor.send.send(Bytes::from_static(b"x"), false).unwrap();
    let held = Drops::default();
    visitor.hold(held.held());
    wire.cut().await;

    // Each request fails once, and the values that it held are dropped.
    assert_eq!(failure_of(&mut visitor).await.reason, Reason::LinkLost);
    assert_eq!(failure_of(&mut service).await.reason, Reason::LinkLost);
    assert_eq!(held.count(), 1);
    assert_eq!((server.counts(), client.counts()), ((2, 1), (2, 1)));
    for end in [&server, &client] {
        until(|| end.is_empty()).await;
        assert!(!end.lane.is_attached() && !end.lane.is_closed());
        let refused = open_on(&end.lane, true, None).unwrap_err();
        assert_eq!(refused.retry(), Retry::Always, "{refused}");
    }

    let before = visitor.id();
    let (one, other) = (server.lane.attach(), client.lane.attach());
    let wire = Wire::join(one.unwrap(), other.unwrap());
    let mut running = open_on(&server.lane, false, None).unwrap();
    assert!(running.id() > before, "no id is used twice");
    let served = client.opened.recv().await.unwrap().exchange;
    // Handles of the first connection do not affect requests of the second one.
    assert!(
        visitor
            .send
            .send(Bytes::from_static(b"late"), true)
            .is_err()
    );
    drop((visitor, service));
    response(&served, b"", false).unwrap();
    round_trip(&client, &mut server).await;
    served.send.finish().unwrap();
    running.send.finish().unwrap();
    assert_eq!(read(&mut running.recv).await.unwrap(), (true, Bytes::new()));
    drop((running, served));
    for end in [&server, &client] {
        until(|| end.is_empty()).await;
        assert_eq!(end.counts(), (4, 1));
    }

    server.lane.close(&Failure::new(Reason::Draining, "over"));
    assert_eq!(server.lane.attach().unwrap_err().reason, Reason::Draining);
    for driven in wire.driven {
        driven.await.unwrap();
    }
    assert!(server.lane.is_closed() && !client.lane.is_closed());
}

#[tokio::test]
async fn a_connection_that_is_replaced_has_no_effect() {
    let (mut server, mut client) = ends();
    let first = server.lane.connection();
    let mut old_writer = first.writer();
    let (to_first, at_first) = mpsc::channel(4);
    let old_reader = tokio::spawn(first.drive(Pipe(at_first)));
    let mut visitor = open_on(&server.lane, true, None).unwrap();
    let leaves = poll_fn(|cx| old_writer.poll_batch(cx)).await;
    assert!(leaves.is_some(), "a new lane has a connection");

    // A second connection is attached while the lane still has the first one.
    let second = server.lane.attach().unwrap();
    assert_eq!(failure_of(&mut visitor).await.reason, Reason::LinkLost);
    assert_eq!(old_reader.await.unwrap().reason, Reason::LinkLost);
    drop(to_first);
    client
        .lane
        .connection()
        .detach(&Failure::new(Reason::LinkLost, "cut"));
    let wire = Wire::join(second, client.lane.attach().unwrap());
    assert!(old_writer.failure().is_some());
    let mut cx = Context::from_waker(Waker::noop());
    let _queued = open_on(&server.lane, false, None).unwrap();
    assert!(matches!(old_writer.poll_batch(&mut cx), Poll::Ready(None)));
    drop(old_writer);
    assert!(server.lane.is_attached(), "the second one goes on");
    drop(client.opened.recv().await.unwrap());
    round_trip(&client, &mut server).await;
    wire.cut().await;
}

#[tokio::test]
async fn p_6_4_a_lane_of_one_connection_is_over_with_it() {
    let (sender, _opened) = mpsc::unbounded_channel();
    let inbound = Arc::new(Inbound(sender));
    let lane = Lane::new(config(Side::Server), Budget::new(1 << 20), inbound);
    let mut visitor = open_on(&lane, true, None).unwrap();
    let (bytes, at_lane) = mpsc::channel(1);
    let driven = lane.clone();
    let driven = tokio::spawn(async move { drive(&driven, Pipe(at_lane)).await });
    drop(bytes);
    let failure = driven.await.unwrap();
    assert_eq!(failure.reason, Reason::LinkLost);
    assert_eq!(failure_of(&mut visitor).await, failure);
    assert_eq!(lane.closed(), Some(failure.clone()));
    assert_eq!(lane.attach().unwrap_err(), failure);
    assert_eq!(lane.stats().pending.failed, 1);
}
