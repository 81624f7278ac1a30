//! Hostile bytes: no panic, no more output than input, and the same outcome however they are split.
//!
//! With an engine (`cargo bolero test`) these are fuzz targets; without one they run a bounded number of times.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod carry;

use adit_websocket::{FrameError, FrameHead, Inbound, Piece, is_key};
use carry::{Carry, Ends, Frame, Sizes};

/// All frames that can be read, each with its whole payload, and how reading ended.
fn read(
    bytes: &[u8],
    masked: bool,
    cuts: &mut Sizes,
) -> (Vec<(FrameHead, Vec<u8>)>, Option<FrameError>) {
    let mut inbound = Inbound::new(masked);
    let mut frames: Vec<(FrameHead, Vec<u8>)> = Vec::new();
    let mut at = 0;
    loop {
        match inbound.next(cuts.next().max(1)) {
            Ok(Some(Piece::Frame(head, data))) => {
                assert!(data.len() as u64 <= head.length);
                frames.push((head, data.to_vec()));
            }
            Ok(Some(Piece::Data(data))) => {
                let (head, payload) = frames.last_mut().unwrap();
                payload.extend(&data);
                assert!(payload.len() as u64 <= head.length);
            }
            Ok(None) if at == bytes.len() => return (frames, None),
            Ok(None) => {
                assert!(inbound.is_empty());
                let count = cuts.next().max(1).min(bytes.len() - at);
                let mut piece = bytes[at..at + count].to_vec();
                at += count;
                inbound.unmask(&mut piece);
                inbound.on_bytes(piece.into());
            }
            Err(error) => return (frames, Some(error)),
        }
    }
}

#[test]
fn cuts_change_nothing() {
    bolero::check!()
        .with_type::<(bool, Vec<u8>, Vec<u8>)>()
        .for_each(|(masked, bytes, cuts)| {
            let cuts: Vec<u16> = cuts.iter().copied().map(u16::from).collect();
            let whole = read(bytes, *masked, &mut Sizes::new(&[255]));
            let cut = read(bytes, *masked, &mut Sizes::new(&cuts));
            // A head waits for the start of its payload, however it was split.
            assert_eq!(whole, cut);
            let out: usize = whole.0.iter().map(|(_, payload)| 2 + payload.len()).sum();
            assert!(out <= bytes.len());
            // Frames are written as they were read, except for the mask.
            if !masked {
                let mut again = Vec::new();
                for (head, payload) in &whole.0 {
                    again.extend(head.encode(None).as_ref());
                    again.extend(payload);
                }
                assert!(bytes.starts_with(&again));
            }
        });
}

#[test]
fn a_hostile_peer_ends_only_its_own_websocket() {
    bolero::check!()
        .with_type::<(bool, Vec<u8>, Vec<u8>)>()
        .for_each(|(is_visitor, bytes, cuts)| {
            let mut carry = Carry::new();
            let (hostile, other) = if *is_visitor {
                (&mut carry.visitor, &mut carry.service)
            } else {
                (&mut carry.service, &mut carry.visitor)
            };
            // The mask bit is valid more often than by chance.
            let mut bytes = bytes.clone();
            if let Some(second) = bytes.get_mut(1) {
                *second = *second & 0x7f | if *is_visitor { 0x80 } else { 0 };
            }
            hostile.sends_bytes(&bytes);
            hostile.ends(Ends::Fin);
            other.sends(&[Frame::close(1000)]);
            let mut sizes: Vec<u16> = cuts.iter().copied().map(u16::from).collect();
            sizes.push(255);
            carry.run(&mut Sizes::new(&sizes), &[]);
            assert!(carry.visitor.is_over() && carry.service.is_over());
        });
}

#[test]
fn keys() {
    bolero::check!().for_each(|input: &[u8]| {
        if is_key(input) {
            assert_eq!(input.len(), 24);
        }
    });
}
