//! Flows of datagrams on two lanes: which datagrams each end drops, without an effect on other requests (section 11).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::support::{
    End, Inbound, Pair, Pipe, config, open_on, pair, read, response, until, write,
};
use adit_codec::{Open, ProtocolType, ResetCode, Side, UdpOpenHead, accepted};
use adit_flow::Budget;
use adit_link::{
    Exchange, IncomingRequest, Lane, Part, Reason, TransportError, TransportReader, drive,
};
use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes that may wait at the receiver of one flow.
const ROOM: usize = 1 << 20;

fn open_flow(lane: &Arc<Lane>) -> Exchange {
    let open: Open<&str> = Open {
        tunnel: "dns",
        ..Open::default()
    };
    let local = "0.0.0.0:53";
    let head = UdpOpenHead { open: &open, local }.encode().unwrap();
    lane.open(head, false, None).unwrap()
}

/// A flow that is open on both ends.
async fn flow(pair: &Pair) -> (Exchange, Exchange) {
    let opened = open_flow(&pair.server.lane);
    let theirs = pair.client.accept().await;
    let response = accepted(ProtocolType::Udp);
    theirs.send.respond(response, false).unwrap();
    (opened, theirs)
}

fn send(exchange: &Exchange, data: impl Into<Bytes>) {
    exchange.send.send_datagram(data.into()).unwrap();
}

async fn receive(exchange: &mut Exchange) -> Bytes {
    loop {
        let part = tokio::time::timeout(Duration::from_secs(20), exchange.recv.part());
        match part.await.expect("nothing comes") {
            Some(Ok(Part::Datagram(data))) => return data,
            Some(Ok(Part::Response(_))) => {}
            part => panic!("no datagram: {part:?}"),
        }
    }
}

/// Waits until the peer has received all messages that were sent.
async fn delivered(from: &End, to: &End) {
    until(|| {
        let (sent, got) = (from.lane.mux().stats(), to.lane.mux().stats());
        sent.queued == 0 && sent.messages_sent == got.messages_received
    })
    .await;
}

#[tokio::test]
async fn p_11_1_datagrams_cross_whole_in_order_both_ways() {
    let pair = pair();
    let (mut visitor, mut service) = flow(&pair).await;
    for length in [0, 1, 2_048, 2_049, 65_507, 0] {
        let data = Bytes::from(vec![length as u8; length]);
        send(&visitor, data.clone());
        assert_eq!(receive(&mut service).await, data);
        send(&service, data.clone());
        assert_eq!(receive(&mut visitor).await, data);
    }
    visitor.send.finish().unwrap();
    assert!(service.recv.part().await.is_none());
    service.send.finish().unwrap();
    assert!(visitor.recv.part().await.is_none());
    drop((visitor, service));
    pair.settled().await;
    assert_eq!(pair.server.lane.stats().pending.completed, 1);
    assert_eq!(pair.client.lane.stats().pending.completed, 1);
}

#[tokio::test]
async fn p_11_3_a_full_receiver_drops_and_counts_new_datagrams() {
    let pair = pair();
    let (visitor, mut service) = flow(&pair).await;
    // Each datagram costs its bytes and 256.
    let fit = ROOM / 1024;
    for n in 0..fit + 10 {
        send(&visitor, vec![n as u8; 768]);
        if n % 100 == 0 {
            delivered(&pair.server, &pair.client).await;
        }
    }
    delivered(&pair.server, &pair.client).await;
    let stats = pair.client.lane.stats();
    assert_eq!(
        (stats.datagrams_dropped, stats.mux.datagrams_dropped),
        (10, 0)
    );
    // Datagrams have no credit, so the request does not count as stalled; nor do they keep frames beyond their own
    // bytes.
    assert_eq!(stats.waiting_bytes, 0);
    assert!(stats.pinned_bytes <= ROOM, "{stats:?}");
    // Another request on the same lane does not wait.
    let ours = pair.server.open(true, None).unwrap();
    let theirs = pair.client.accept().await;
    response(&theirs, b"here", true).unwrap();
    let mut ours = ours;
    let (responded, body) = read(&mut ours.recv).await.unwrap();
    assert!(responded && body == "here");
    // The first datagrams have arrived; reading them makes room for new ones.
    for n in 0..20 {
        assert_eq!(receive(&mut service).await, vec![n; 768]);
    }
    for n in 0..20 {
        send(&visitor, vec![200 + n; 768]);
    }
    for n in 20..fit {
        assert_eq!(receive(&mut service).await, vec![n as u8; 768]);
    }
    for n in 0..20 {
        assert_eq!(receive(&mut service).await, vec![200 + n; 768]);
    }
    assert_eq!(pair.client.lane.stats().datagrams_dropped, 10);
    drop((visitor, service, ours, theirs));
    pair.settled().await;
}

#[tokio::test]
async fn p_11_3_empty_datagrams_that_wait_are_not_free() {
    let pair = pair();
    let (visitor, mut service) = flow(&pair).await;
    let fit = ROOM / 256;
    for n in 0..fit + 7 {
        send(&visitor, Bytes::new());
        if n % 100 == 0 {
            delivered(&pair.server, &pair.client).await;
        }
    }
    delivered(&pair.server, &pair.client).await;
    assert_eq!(pair.client.lane.stats().datagrams_dropped, 7);
    for _ in 0..fit {
        assert_eq!(receive(&mut service).await, Bytes::new());
    }
}

#[tokio::test]
async fn p_6_2_waiting_datagrams_are_dropped_with_their_flow() {
    let pair = pair();
    let (visitor, service) = flow(&pair).await;
    for _ in 0..100 {
        send(&visitor, vec![1; 1000]);
        send(&service, vec![2; 65_507]);
    }
    visitor.send.reset(ResetCode::Limit, "it made room");
    drop(visitor.recv);
    let Exchange { send, mut recv } = service;
    // The failure is returned before parts that have not been read.
    let failure = loop {
        match recv.part().await {
            Some(Ok(_)) => {}
            Some(Err(failure)) => break failure,
            None => panic!("it looks whole"),
        }
    };
    assert_eq!(failure.reason, Reason::Limit);
    assert_eq!(failure.detail, "it made room");
    assert!(send.send_datagram(Bytes::new()).is_err());
    drop((send, recv));
    pair.settled().await;
}

/// A lane whose transport is stuck: opening, sending and dropping continue. When the transport continues, the newest
/// datagrams are sent, and the messages of other requests with them.
#[tokio::test]
async fn p_11_2_a_blocked_writer_drops_the_oldest_datagrams_only() {
    let (inbound, _) = mpsc::unbounded_channel();
    // The datagrams have fewer bytes than the bound of a receiver, so that it drops nothing.
    let each = 100 * 1024;
    let mut near = config(Side::Server);
    near.mux.max_queued_datagrams = each;
    let near = Lane::new(near, Budget::new(0), Arc::new(Inbound(inbound)));
    let (inbound, mut opened) = mpsc::unbounded_channel();
    let far = Lane::new(
        config(Side::Client),
        Budget::new(0),
        Arc::new(Inbound(inbound)),
    );

    let flows: Vec<_> = (0..3).map(|_| open_flow(&near)).collect();
    const SENT: u32 = 1_000;
    for n in 0..SENT {
        for flow in &flows {
            let mut data = n.to_be_bytes().to_vec();
            data.resize(1_200, n as u8);
            send(flow, data);
        }
    }
    let stats = near.stats().mux;
    let kept = u64::from(SENT) * 3 - stats.datagrams_dropped;
    assert_eq!(stats.queued, kept * (1_200 + adit_flow::MESSAGE_COST));
    assert!(
        stats.queued <= 3 * each && stats.queued > 3 * (each - 1_200 - adit_flow::MESSAGE_COST),
        "{stats:?}"
    );
    // Another request may send at once.
    let other = open_on(&near, false, None).unwrap();
    let allowed = other.send.ready().await.unwrap();
    other.send.send(vec![7; allowed].into(), true).unwrap();

    // The transport continues.
    let (to_far, at_far) = mpsc::channel(1);
    let (to_near, at_near) = mpsc::channel(1);
    let lanes = [
        (near.clone(), at_near, to_far),
        (far.clone(), at_far, to_near),
    ];
    for (lane, at, to) in lanes {
        tokio::spawn(write(lane.outbound(), to));
        tokio::spawn(async move { drive(&lane, Pipe(at)).await });
    }
    let mut theirs = VecDeque::new();
    for _ in 0..4 {
        let IncomingRequest { exchange, .. } = opened.recv().await.unwrap();
        theirs.push_back(exchange);
    }
    let (_, body) = read(&mut theirs.pop_back().unwrap().recv).await.unwrap();
    assert_eq!(body, vec![7; allowed]);
    let mut arrived = 0;
    for service in &mut theirs {
        let mut next = None;
        loop {
            let data = receive(service).await;
            let n = u32::from_be_bytes(data[..4].try_into().unwrap());
            assert_eq!(data.len(), 1_200);
            assert!(data[4..].iter().all(|&byte| byte == n as u8));
            // The newest datagrams, without a gap.
            assert_eq!(n, *next.get_or_insert(n));
            arrived += 1;
            if n == SENT - 1 {
                break;
            }
            next = Some(n + 1);
        }
    }
    assert_eq!(arrived + far.stats().datagrams_dropped, kept);
    assert_eq!(far.stats().datagrams_dropped, 0);
}

/// Returns all batches that a lane sends, at once.
struct All(VecDeque<Bytes>);

impl TransportReader for All {
    fn poll_bytes(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        match self.0.pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(bytes))),
            None => Poll::Pending,
        }
    }
}

/// Regression: a transport with much to read, because it was stuck or the thread was busy, was read to its end before
/// any flow could take its datagrams, so all but the first ones were dropped.
#[tokio::test]
async fn p_11_3_a_busy_reader_yields_to_the_flows() {
    let (inbound, _) = mpsc::unbounded_channel();
    let near = config(Side::Server);
    let near = Lane::new(near, Budget::new(0), Arc::new(Inbound(inbound)));
    let (inbound, mut opened) = mpsc::unbounded_channel();
    let far = Lane::new(
        config(Side::Client),
        Budget::new(0),
        Arc::new(Inbound(inbound)),
    );
    let flow = open_flow(&near);
    let mut outbound = near.outbound();
    let mut frames = VecDeque::new();
    const SENT: usize = 10_000;
    for n in 0..SENT {
        send(&flow, vec![n as u8; 1_000]);
        if n % 50 == 49 {
            let mut cx = Context::from_waker(Waker::noop());
            let Poll::Ready(Some(batch)) = outbound.poll_batch(&mut cx) else {
                panic!("nothing to send");
            };
            frames.extend(batch.into_segments());
        }
    }
    assert_eq!(near.stats().mux.datagrams_dropped, 0);
    assert!(frames.iter().map(Bytes::len).sum::<usize>() > 9 * ROOM);
    let driven = far.clone();
    tokio::spawn(async move { drive(&driven, All(frames)).await });
    let mut theirs = opened.recv().await.unwrap().exchange;
    for n in 0..SENT {
        assert_eq!(receive(&mut theirs).await, vec![n as u8; 1_000]);
    }
    assert_eq!(far.stats().datagrams_dropped, 0);
}
