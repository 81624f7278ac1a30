//! A stream that loses its connection and is attached to another one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::task::{Context, Poll, Waker};

use adit_codec::Side;
use adit_flow::Budget;
use adit_mux::{Attachment, Config, Event, Mux, OpenError, ReceiveError, Receiver};
use bytes::Bytes;
use support::{framed, opening, request_head};

const PEER: [u64; 2] = [1, 3];

fn frame(id: u64) -> Bytes {
    use prost::Message as _;
    framed(&opening(id, b"", false).encode_to_vec())
}

#[test]
fn p_6_4_a_stream_without_a_connection_holds_nothing() {
    let budget = Budget::new(1 << 20);
    let mux = Mux::new(Config::new(Side::Server), budget.clone());
    let mut receiver = Receiver::new(mux.clone(), Attachment::FIRST);
    let mut events = Vec::new();
    receiver.handle_frame(frame(PEER[0]), &mut events).unwrap();
    assert!(matches!(events[..], [Event::Opened { .. }]));
    let first = mux
        .open(request_head(b""), false, |_| true)
        .unwrap()
        .unwrap();
    mux.send(first, Bytes::from_static(b"waits"), false)
        .unwrap();
    assert!(mux.send_control(Bytes::from_static(b"control")));
    assert_eq!(mux.stats().open, 2);

    mux.detach();
    let stats = mux.stats();
    assert_eq!((stats.open, stats.queued, budget.used()), (0, 0, 0));
    let mut cx = Context::from_waker(Waker::noop());
    let transmit = mux.poll_transmit(Attachment::FIRST, &mut cx);
    assert!(matches!(transmit, Poll::Ready(None)), "{transmit:?}");
    let refused = mux.open(request_head(b""), false, |_| true);
    assert!(matches!(refused, Err(OpenError::Closed)), "{refused:?}");
    assert!(!mux.send_control(Bytes::new()));
    // Calls with an id of the lost connection have no effect.
    assert!(mux.send(first, Bytes::new(), true).is_err());

    let second = mux.attach();
    assert_ne!(second, Attachment::FIRST);
    let late = receiver.handle_frame(frame(PEER[1]), &mut events);
    assert!(matches!(late, Err(ReceiveError::Detached)), "{late:?}");
    let mut receiver = Receiver::new(mux.clone(), second);
    events.clear();
    // The peer's ids continue: one that it used on the first connection is late (P-2.5).
    for id in PEER {
        receiver.handle_frame(frame(id), &mut events).unwrap();
    }
    assert!(matches!(&events[..], [Event::Opened { id, .. }] if id.value() == PEER[1]));
    assert_eq!(mux.stats().late, 1);
    let next = mux.open(request_head(b""), true, |_| true).unwrap();
    assert!(next.unwrap() > first);
    let transmit = mux.poll_transmit(Attachment::FIRST, &mut cx);
    assert!(matches!(transmit, Poll::Ready(None)), "{transmit:?}");
    let transmit = mux.poll_transmit(second, &mut cx);
    assert!(matches!(transmit, Poll::Ready(Some(_))), "{transmit:?}");
}
