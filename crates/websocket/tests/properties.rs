//! Promises of forwarding a WebSocket, for sequences of frames and endings in any order, split anywhere:
//! - frames cross unchanged, in both directions, in order;
//! - a peer receives whole frames, unless the connection is cut; after a close frame it receives nothing;
//! - it receives the frames of the other peer from the first one on, and then at most one close frame that the relay
//!   creates;
//! - all frames of a peer that leaves between two frames, with a close frame or without, arrive;
//! - when one end has ended, the other one ends as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod carry;

use adit_websocket::{Mask, Outcome};
use carry::{Carry, Ends, Event, Frame, RESPONSE, Sizes};
use proptest::prelude::*;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let payload = prop_oneof![
        6 => 0_usize..20,
        3 => 120_usize..135,
        2 => 250_usize..700,
        1 => 65_530_usize..65_540,
    ];
    let frame = (any::<bool>(), 0_u8..8, 0_u8..16, payload, any::<u8>()).prop_map(
        |(fin, rsv, opcode, length, seed)| {
            // Close frames are generated separately.
            let opcode = if opcode == 8 { 9 } else { opcode };
            let is_control = opcode >= 8;
            let length = if is_control { length.min(125) } else { length };
            Frame {
                fin: fin || is_control,
                rsv,
                opcode,
                payload: (0..length)
                    .map(|at| (at as u8).wrapping_mul(seed))
                    .collect(),
            }
        },
    );
    prop::collection::vec(frame, 0..12)
}

/// The sizes include small numbers and 0, because nothing is sent without credit.
fn sizes() -> impl Strategy<Value = Vec<u16>> {
    let size = prop_oneof![Just(0_u16), 1_u16..4, 0_u16..256, 0_u16..20_000];
    let sizes = prop::collection::vec(size, 0..40);
    // One number is large, so that large frames are sent in reasonable time.
    (sizes, 1_000_u16..60_000).prop_map(|(mut sizes, large)| {
        sizes.push(large);
        sizes
    })
}

/// How a peer's side ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Stays,
    Close,
    CloseAndFin,
    Fin,
    FinInFrame,
    Lost,
    Unreadable,
}

fn last() -> impl Strategy<Value = Last> {
    prop::sample::select(vec![
        Last::Stays,
        Last::Stays,
        Last::Close,
        Last::CloseAndFin,
        Last::Fin,
        Last::FinInFrame,
        Last::Lost,
        Last::Unreadable,
    ])
}

fn script(end: &mut carry::End, frames: &[Frame], last: Last, masks: bool, code: u16) {
    end.sends(frames);
    match last {
        Last::Stays | Last::Close => {}
        Last::CloseAndFin | Last::Fin | Last::FinInFrame => end.ends(Ends::Fin),
        Last::Lost => end.ends(Ends::Lost),
        Last::Unreadable => {}
    }
    match last {
        Last::Close | Last::CloseAndFin => end.sends(&[Frame::close(code)]),
        Last::FinInFrame => {
            let key = masks.then_some([1, 2, 3, 4]);
            let cut = Frame {
                payload: vec![7; 10],
                ..Frame::close(0)
            };
            let cut = Frame { opcode: 2, ..cut }.bytes(key);
            end.sends_bytes(&cut[..cut.len() - 3]);
        }
        // RFC 6455, 5.1: exactly one direction is masked.
        Last::Unreadable => end.sends_bytes(&Frame::close(1000).bytes((!masks).then_some([1; 4]))),
        Last::Stays => end.responds(),
        Last::Fin | Last::Lost => {}
    }
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let event = prop::sample::select(vec![
        Event::VisitorsSideLeaves,
        Event::ServicesSideLeaves,
        Event::LinkFails,
    ]);
    prop_oneof![
        2 => Just(Vec::new()),
        3 => prop::collection::vec((0_usize..400, event), 1..3),
    ]
}

/// Checks what a peer received (`got`) of the frames `sent`, which end with `close` if they end with a close frame.
fn assert_received(
    (got, rest): &(Vec<Frame>, Vec<u8>),
    sent: &[Frame],
    close: Option<u16>,
    may_be_cut: bool,
) {
    let mut got = &got[..];
    if let [before @ .., last] = got
        && last.is_close()
    {
        let code = u16::from_be_bytes([last.payload[0], last.payload[1]]);
        let whole = before.len() == sent.len();
        assert!(
            code == 1001 || code == 1002 || (Some(code) == close && whole),
            "{code}"
        );
        assert!(rest.is_empty(), "nothing comes after a close frame");
        got = before;
    }
    assert!(
        !got.iter().any(Frame::is_close),
        "nothing comes after a close frame"
    );
    assert_eq!(
        got,
        &sent[..got.len().min(sent.len())],
        "what was sent, and nothing else"
    );
    assert!(rest.is_empty() || may_be_cut, "whole frames");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn p_9_3_frames_cut_anywhere_cross_unchanged(
        up in frames(), down in frames(), cuts in sizes(),
    ) {
        let mut carry = Carry::new();
        carry.visitor.sends(&up);
        carry.service.sends(&down);
        carry.run(&mut Sizes::new(&cuts), &[]);
        prop_assert_eq!(carry.service.frames(), (up, Vec::new()));
        prop_assert_eq!(carry.visitor.frames(), (down, Vec::new()));
        prop_assert!(!carry.visitor.relay.is_ending() && !carry.service.relay.is_ending());
    }

    #[test]
    fn p_9_6_both_ends_receive_every_ending(
        (up, down) in (frames(), frames()),
        (visitor, service) in (last(), last()),
        events in events(),
        cuts in sizes(),
    ) {
        let mut carry = Carry::new();
        script(&mut carry.visitor, &up, visitor, true, 1000);
        script(&mut carry.service, &down, service, false, 4000);
        carry.run(&mut Sizes::new(&cuts), &events);

        let close = |last| matches!(last, Last::Close | Last::CloseAndFin);
        let response = |last| (last == Last::Stays).then_some(RESPONSE);
        let code_up = close(visitor).then_some(1000);
        let code_down = close(service).then_some(4000);
        let code_up = code_up.or(response(visitor));
        let code_down = code_down.or(response(service));
        // A cut within a frame, or a reset, cuts the other hop at the same place.
        assert_received(&carry.service.frames(), &up, code_up, true);
        assert_received(&carry.visitor.frames(), &down, code_down, true);

        let undisturbed = events.is_empty();
        if undisturbed && visitor == Last::Stays && service == Last::Stays {
            prop_assert!(!carry.visitor.relay.is_ending() && !carry.service.relay.is_ending());
        } else {
            prop_assert!(carry.visitor.is_over(), "{:?}", carry.visitor.relay);
            prop_assert!(carry.service.is_over(), "{:?}", carry.service.relay);
        }
        if !undisturbed {
            return Ok(());
        }
        // A peer that stays until the other one has ended receives everything.
        if service == Last::Stays && matches!(visitor, Last::Fin | Last::Close | Last::CloseAndFin) {
            let (mut got, rest) = carry.service.frames();
            prop_assert_eq!(rest, Vec::<u8>::new());
            prop_assert_eq!(got.last().is_some_and(Frame::is_close), visitor != Last::Fin);
            got.truncate(up.len());
            prop_assert_eq!(got, up.clone());
            let outcome = if visitor == Last::Fin { Outcome::SocketLost } else { Outcome::Closed };
            prop_assert_eq!(carry.visitor.relay.outcome(), outcome);
        }
        if visitor == Last::Stays && matches!(service, Last::Fin | Last::Close | Last::CloseAndFin) {
            let (mut got, rest) = carry.visitor.frames();
            prop_assert_eq!(rest, Vec::<u8>::new());
            prop_assert_eq!(got.last().is_some_and(Frame::is_close), service != Last::Fin);
            got.truncate(down.len());
            prop_assert_eq!(got, down.clone());
            let outcome = if service == Last::Fin { Outcome::LinkEnded } else { Outcome::Closed };
            prop_assert_eq!(carry.visitor.relay.outcome(), outcome);
        }
        // P-9.4: the sender receives a close frame, and the other hop is cut.
        if visitor == Last::Unreadable && service == Last::Stays {
            prop_assert_eq!(carry.visitor.frames().0.pop(), Some(Frame::close(1002)));
            prop_assert!(!carry.service.frames().0.iter().any(Frame::is_close));
        }
        // A loss does not look like a close.
        for (lost, other) in [(visitor, &carry.service), (service, &carry.visitor)] {
            if matches!(lost, Last::Fin | Last::FinInFrame | Last::Lost) {
                let is_close = |frame: &Frame| frame.is_close() && *frame != Frame::close(1002);
                prop_assert!(!other.frames().0.iter().any(is_close));
            }
        }
    }

    #[test]
    fn p_9_6_both_ends_receive_going_away(
        up in frames(), down in frames(), by_visitors_side in any::<bool>(), turn in 0_usize..60,
        cuts in sizes(),
    ) {
        let mut carry = Carry::new();
        script(&mut carry.visitor, &up, Last::Stays, true, 0);
        script(&mut carry.service, &down, Last::Stays, false, 0);
        let event = if by_visitors_side {
            Event::VisitorsSideLeaves
        } else {
            Event::ServicesSideLeaves
        };
        carry.run(&mut Sizes::new(&cuts), &[(turn, event)]);
        prop_assert!(carry.visitor.is_over() && carry.service.is_over());
        for end in [&carry.visitor, &carry.service] {
            let (frames, rest) = end.frames();
            prop_assert_eq!(frames.last(), Some(&Frame::close(1001)));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn unmasking_inverts_masking(
        key in any::<[u8; 4]>(), bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300,
    ) {
        let mut masked = bytes.clone();
        Mask::new(key).apply(&mut masked);
        let naive: Vec<u8> = bytes.iter().enumerate().map(|(at, b)| b ^ key[at % 4]).collect();
        prop_assert_eq!(&masked, &naive);
        let mut mask = Mask::new(key);
        let cut = cut.min(masked.len());
        let (start, end) = masked.split_at_mut(cut);
        mask.apply(start);
        mask.apply(end);
        prop_assert_eq!(masked, bytes);
    }
}
