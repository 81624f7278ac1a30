//! One relay, step by step: what it sends to the link, and what it waits for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_websocket::{FrameError, FrameHead, Outcome, POLICY_VIOLATION, Relay, ResetCause, ToLink};
use bytes::Bytes;

type Visitor = Relay<Vec<u8>>;

fn head(opcode: u8, length: u64) -> FrameHead {
    FrameHead {
        fin: true,
        rsv: 0,
        opcode,
        length,
    }
}

const KEY: [u8; 4] = [1, 2, 4, 8];

/// A visitor's frame.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let payload = payload.iter().zip(KEY.iter().cycle());
    let payload: Vec<u8> = payload.map(|(byte, key)| byte ^ key).collect();
    [&[0x80 | opcode, 0x80 | length], &KEY[..], &payload].concat()
}

fn reads(relay: &mut Visitor, bytes: &[u8]) {
    assert!(relay.wants_bytes());
    let mut bytes = bytes.to_vec();
    relay.unmask(&mut bytes);
    relay.on_bytes(bytes.into());
}

fn written(relay: &mut Visitor) -> Vec<u8> {
    let mut out = vec![0; 1 << 17];
    let count = relay.outbound().copy_to(&mut out);
    relay.on_written(count);
    out.truncate(count);
    out
}

fn frame(head: FrameHead, data: &'static [u8]) -> Option<ToLink> {
    Some(ToLink::Frame(head, Bytes::from_static(data)))
}

fn data(data: &'static [u8]) -> Option<ToLink> {
    Some(ToLink::Data(Bytes::from_static(data)))
}

#[test]
fn p_9_5_nothing_is_sent_without_credit() {
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &[masked(1, b"abc"), masked(9, b"")].concat());
    assert_eq!(relay.to_link(0), None);
    assert!(!relay.wants_bytes(), "what has been read goes first");
    assert_eq!(relay.to_link(2), frame(head(1, 3), b"ab"));
    assert_eq!(relay.to_link(0), None);
    assert_eq!(relay.to_link(2), data(b"c"));
    assert_eq!(relay.to_link(0), None, "an empty frame costs, too");
    assert_eq!(relay.to_link(1), frame(head(9, 0), b""));
    assert_eq!(relay.to_link(1), None);
    assert!(relay.wants_bytes() && !relay.reads_freely() && !relay.is_ending());
}

#[test]
fn p_9_6_our_close_frame_needs_credit_like_any_other() {
    let mut relay = Visitor::to_visitor();
    relay.go_away();
    assert_eq!(written(&mut relay), [0x88, 2, 0x03, 0xe9]);
    assert_eq!(relay.to_link(0), None);
    assert_eq!(relay.to_link(1), frame(FrameHead::CLOSE, &[0x03]));
    assert_eq!(relay.to_link(0), None);
    assert_eq!(relay.to_link(9), data(&[0xe9]));
    assert_eq!(relay.to_link(9), None, "sent once");
    assert!(relay.is_ending() && !relay.is_settled() && !relay.may_shut_down());
    // Reading takes no credit now, and nothing is forwarded.
    assert!(relay.wants_bytes() && relay.reads_freely());
    reads(&mut relay, &masked(2, b"late"));
    assert_eq!(relay.to_link(0), None);
    assert!(relay.wants_bytes());
    relay.on_frame(&head(2, 4), b"la".to_vec());
    relay.on_data(b"te".to_vec());
    assert_eq!(written(&mut relay), b"");
    // Both have responded.
    reads(&mut relay, &masked(8, &[0x03, 0xe9]));
    assert_eq!(relay.to_link(0), None);
    assert!(!relay.may_shut_down());
    relay.on_frame(&FrameHead::CLOSE, vec![0x03, 0xe9]);
    assert!(relay.may_shut_down() && relay.is_closed());
    assert_eq!(relay.to_link(0), Some(ToLink::End));
    assert_eq!(relay.to_link(9), None);
    assert!(!relay.is_settled());
    relay.on_link_end();
    assert!(relay.is_settled());
    assert_eq!(relay.outcome(), Outcome::WentAway);
}

#[test]
fn p_9_6_our_close_frame_is_sent_between_two_frames() {
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(2, b"abcd")[..8]);
    assert_eq!(relay.to_link(9), frame(head(2, 4), b"ab"));
    relay.on_frame(&head(2, 3), b"x".to_vec());
    relay.go_away();
    relay.go_away();
    assert_eq!(relay.to_link(9), None);
    assert_eq!(written(&mut relay), [0x82, 3, b'x']);
    relay.on_data(b"yz".to_vec());
    assert_eq!(written(&mut relay), [b'y', b'z', 0x88, 2, 0x03, 0xe9]);
    assert!(!relay.reads_freely());
    reads(&mut relay, &[b'c' ^ KEY[2], b'd' ^ KEY[3]]);
    assert_eq!(relay.to_link(9), data(b"cd"));
    assert_eq!(relay.to_link(9), frame(FrameHead::CLOSE, &[0x03, 0xe9]));
}

#[test]
fn a_peer_that_closes_receives_no_going_away() {
    type Event = fn(&mut Visitor);
    let events: [Event; 3] = [
        Relay::on_socket_end,
        Relay::on_link_end,
        Relay::on_link_failed,
    ];
    for event in events {
        let mut relay = Visitor::to_visitor();
        event(&mut relay);
        relay.go_away();
        assert!(relay.outbound().is_empty());
        assert_ne!(relay.outcome(), Outcome::WentAway);
        let output = relay.to_link(9);
        assert!(matches!(output, None | Some(ToLink::End)), "{output:?}");
    }
}

#[test]
fn p_9_4_only_the_sender_of_invalid_frames_receives_a_close() {
    let mut relay = Visitor::to_visitor();
    reads(
        &mut relay,
        &[masked(1, b"a"), vec![0x81, 0x01, b'b']].concat(),
    );
    assert_eq!(relay.to_link(9), frame(head(1, 1), b"a"));
    // A frame is being written to the visitor: the close frame waits for its end, and the reset for the close frame.
    relay.on_frame(&head(2, 2), b"x".to_vec());
    assert_eq!(relay.to_link(9), None);
    assert!(relay.is_ending() && relay.wants_link() && !relay.wants_bytes());
    relay.on_data(b"y".to_vec());
    relay.on_frame(&head(2, 2), b"zz".to_vec());
    assert_eq!(
        relay.to_link(0),
        Some(ToLink::Reset(ResetCause::Unreadable(FrameError::Unmasked)))
    );
    assert_eq!(
        written(&mut relay),
        [0x82, 2, b'x', b'y', 0x88, 2, 0x03, 0xea]
    );
    assert!(relay.is_settled() && relay.may_shut_down() && !relay.is_aborted());
    assert!(!relay.wants_link());
    assert_eq!(relay.outcome(), Outcome::Unreadable(FrameError::Unmasked));
}

#[test]
fn p_9_7_a_flood_receives_1008_the_other_end_a_reset() {
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(2, b""));
    assert_eq!(relay.to_link(9), frame(head(2, 0), b""));
    reads(&mut relay, &masked(2, b""));
    relay.on_flood();
    let why = ResetCause::Unreadable(FrameError::WithoutContent);
    assert_eq!(relay.to_link(9), Some(ToLink::Reset(why)));
    let [high, low] = POLICY_VIOLATION.to_be_bytes();
    assert_eq!(written(&mut relay), [0x88, 2, high, low]);
    assert!(relay.is_settled() && !relay.wants_bytes());
}

#[test]
fn frames_that_wait_for_the_socket_are_bounded() {
    let mut relay = Visitor::to_visitor();
    for _ in 0..16 {
        assert!(relay.wants_link());
        relay.on_frame(&head(2, 0), Vec::new());
    }
    assert!(!relay.wants_link());
    relay.on_written(2);
    assert!(relay.wants_link());
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&head(2, 1 << 20), vec![0; 60_000]);
    assert!(relay.wants_link());
    relay.on_data(vec![0; 60_000]);
    assert!(!relay.wants_link());
}

#[test]
fn p_9_6_a_lost_socket_is_an_end_or_a_reset() {
    let lost = |bytes: &[u8], end: bool| {
        let mut relay = Visitor::to_visitor();
        reads(&mut relay, bytes);
        while relay.to_link(9).is_some() {}
        if end {
            relay.on_socket_end();
        } else {
            relay.on_socket_lost();
        }
        assert!(relay.is_ending() && !relay.wants_bytes());
        assert_eq!(relay.outcome(), Outcome::SocketLost);
        (relay.to_link(0), relay.is_settled(), relay.may_shut_down())
    };
    let reset = Some(ToLink::Reset(ResetCause::SocketLost));
    let whole = masked(1, b"a");
    assert_eq!(lost(&whole, true), (Some(ToLink::End), false, true));
    assert_eq!(lost(&whole, false), (reset.clone(), true, true));
    let half = &masked(1, b"ab")[..7];
    assert_eq!(lost(half, true), (reset.clone(), true, true));
    assert_eq!(lost(half, false), (reset, true, true));
    // A head that has not been forwarded does not count as a frame.
    assert_eq!(
        lost(&masked(1, b"a")[..6], true),
        (Some(ToLink::End), false, true)
    );
    assert_eq!(lost(&[0x81], true), (Some(ToLink::End), false, true));
}

#[test]
fn p_9_6_a_close_frame_gets_a_response_while_its_peer_reads() {
    let mut relay = Visitor::to_visitor();
    reads(
        &mut relay,
        &[masked(8, &[3, 232]), masked(1, b"late")].concat(),
    );
    assert_eq!(relay.to_link(9), frame(FrameHead::CLOSE, &[3, 232]));
    assert_eq!(relay.to_link(9), None, "RFC 6455, 5.5.1: discarded");
    assert!(!relay.is_ending(), "that may take its time");
    // The visitor ends its direction, and still reads.
    relay.on_socket_end();
    assert_eq!(relay.to_link(9), None);
    assert!(relay.is_ending() && !relay.may_shut_down());
    relay.on_frame(&head(1, 1), b"x".to_vec());
    relay.on_frame(&FrameHead::CLOSE, vec![3, 232]);
    assert_eq!(relay.to_link(0), Some(ToLink::End));
    assert_eq!(written(&mut relay), [0x81, 1, b'x', 0x88, 2, 3, 232]);
    assert!(relay.may_shut_down());
    assert_eq!(relay.outcome(), Outcome::Closed);

    // The far end sends nothing more: no response arrives.
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(8, b""));
    assert_eq!(relay.to_link(9), frame(head(8, 0), b""));
    relay.on_link_end();
    assert_eq!(relay.to_link(0), Some(ToLink::End));
    assert!(relay.is_settled() && relay.may_shut_down());
}

#[test]
fn p_9_6_all_frames_of_a_lost_far_end_arrive() {
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&head(1, 1), b"x".to_vec());
    relay.on_link_end();
    assert_eq!(relay.to_link(9), None, "it has not been written yet");
    assert!(!relay.may_shut_down() && relay.is_ending());
    assert_eq!(written(&mut relay), [0x81, 1, b'x']);
    assert!(relay.may_shut_down());
    assert_eq!(relay.to_link(0), Some(ToLink::End));
    assert!(relay.is_settled() && !relay.is_aborted());
    assert_eq!(relay.outcome(), Outcome::LinkEnded);
    // While a frame is being sent to the far end, the other direction can only be reset.
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(1, b"ab")[..7]);
    assert_eq!(relay.to_link(9), frame(head(1, 2), b"a"));
    relay.on_link_end();
    let reset = Some(ToLink::Reset(ResetCause::LinkEnded));
    assert_eq!(relay.to_link(9), reset);
    // After its close frame the far end may leave, whether or not the visitor responds.
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&FrameHead::CLOSE, vec![3, 232]);
    relay.on_link_end();
    assert_eq!(written(&mut relay).len(), 4);
    assert_eq!(relay.to_link(9), None);
    assert!(!relay.may_shut_down() && relay.is_ending());
    reads(&mut relay, &masked(8, &[3, 232]));
    assert_eq!(relay.to_link(9), frame(FrameHead::CLOSE, &[3, 232]));
    assert_eq!(relay.to_link(9), Some(ToLink::End));
    assert!(relay.may_shut_down() && relay.is_settled());
    assert_eq!(relay.outcome(), Outcome::Closed);
}

#[test]
fn p_6_4_a_failed_link_cuts_peers_without_a_close_frame() {
    let mut relay = Visitor::to_visitor();
    relay.on_link_failed();
    assert!(relay.is_aborted() && relay.is_settled() && !relay.wants_bytes());
    assert_eq!(
        (relay.to_link(9), relay.outcome()),
        (None, Outcome::LinkFailed)
    );
    // The socket of a peer that has received a close frame is shut down in order.
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&FrameHead::CLOSE, vec![3, 232]);
    relay.on_link_failed();
    assert!(!relay.is_aborted() && !relay.may_shut_down());
    assert_eq!(written(&mut relay).len(), 4);
    assert!(relay.may_shut_down());
    assert_eq!(relay.outcome(), Outcome::Closed);
    // When a frame has been sent in part, the socket is cut.
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&head(1, 2), b"x".to_vec());
    relay.go_away();
    relay.on_link_failed();
    assert!(
        !relay.is_aborted(),
        "what came before is still written (P-6.2)"
    );
    assert_eq!(written(&mut relay), [0x81, 2, b'x']);
    assert!(relay.is_aborted());
}

#[test]
fn p_6_2_bytes_before_a_socket_loss_are_forwarded() {
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(1, b"a"));
    relay.on_socket_lost();
    assert!(!relay.wants_bytes() && relay.is_ending() && !relay.is_settled());
    assert_eq!(relay.to_link(0), None, "it waits for credit");
    assert_eq!(relay.to_link(9), frame(head(1, 1), b"a"));
    assert_eq!(
        relay.to_link(0),
        Some(ToLink::Reset(ResetCause::SocketLost))
    );
    assert!(relay.is_aborted());
}

/// A write consumes the error of a reset: reads return the bytes before it, and then an end.
#[test]
fn p_6_2_bytes_before_a_failed_write_are_still_read() {
    let mut relay = Visitor::to_visitor();
    relay.on_frame(&head(1, 1), b"x".to_vec());
    relay.on_socket_write_failed();
    assert!(relay.outbound().is_empty() && relay.wants_bytes() && relay.is_ending());
    relay.on_frame(&head(1, 1), b"y".to_vec());
    assert!(relay.outbound().is_empty());
    reads(&mut relay, &masked(1, b"a"));
    assert_eq!(relay.to_link(9), frame(head(1, 1), b"a"));
    assert_eq!(relay.to_link(9), None, "there may be more");
    relay.on_socket_end();
    assert_eq!(
        relay.to_link(0),
        Some(ToLink::Reset(ResetCause::SocketLost))
    );
    assert_eq!(relay.outcome(), Outcome::SocketLost);
}

#[test]
fn p_6_2_a_link_that_accepts_nothing_may_still_send() {
    let mut relay = Visitor::to_visitor();
    reads(&mut relay, &masked(1, b"a"));
    relay.on_link_send_closed();
    assert_eq!(relay.to_link(9), None);
    assert!(relay.wants_link() && !relay.wants_bytes());
    relay.on_frame(&head(1, 1), b"x".to_vec());
    relay.on_link_failed();
    assert!(!relay.is_aborted());
    assert_eq!(written(&mut relay), [0x81, 1, b'x']);
    assert!(relay.is_aborted());
}

#[test]
fn frames_to_a_service_are_masked() {
    let mut relay: Relay<Vec<u8>> = Relay::to_service(|| [1, 2, 3, 4]);
    assert!(relay.masks() && !Visitor::to_visitor().masks());
    relay.on_frame(&head(1, 4), vec![0; 3]);
    relay.on_data(vec![0]);
    relay.go_away();
    let expected = [
        &[0x81, 0x84, 1, 2, 3, 4, 1, 2, 3, 4][..],
        &[0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2],
    ];
    assert_eq!(written(&mut relay), expected.concat());
    // Frames from the visitor are not forwarded any more.
    relay.on_bytes(Bytes::from_static(&[0x81, 0x81, 0, 0, 0, 0, b'x']));
    while let Some(out) = relay.to_link(9) {
        assert!(!matches!(out, ToLink::Data(_)), "{out:?}");
    }
    assert_eq!(relay.outcome(), Outcome::WentAway, "what came first");
}
