//! Arbitrary bytes as frames, between arbitrary calls, at both ends: nothing may panic, and all borrowed bytes are
//! returned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use adit_codec::{RequestId, ResetCode, Side};
use adit_flow::Budget;
use adit_mux::{Config, Sendable};
use bytes::Bytes;
use support::*;

/// Reads values from an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self) -> Bytes {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }
}

fn play(side: Side, input: &[u8]) {
    let mut config = Config::new(side);
    config.initial_window = 300;
    config.max_requests = 4;
    config.max_resets_per_tick = 3;
    let budget = Budget::new(1000);
    let mut end = End::with_budget(config, budget.clone());
    let mut input = Input(input);
    let mut events = Vec::new();
    let mut last = 0;
    while let Some(op) = input.byte() {
        let value = u64::from(op / 16);
        let id = RequestId::new(value);
        let mut feed =
            |end: &mut End, frame: Bytes| end.receiver.handle_frame(frame, &mut events).is_ok();
        let lives = match op % 16 {
            0 => feed(&mut end, input.bytes()),
            // The bytes have a valid prefix, so that the envelope is read.
            1 | 2 => feed(&mut end, framed(&input.bytes())),
            // The bytes have a valid id before them.
            3 | 4 => {
                let rest = input.bytes();
                feed(&mut end, framed(&[&[0x08, op / 16][..], &rest].concat()))
            }
            5 => {
                last = side.peer().first_id().value().max(last + 2);
                let message = opening(last, &input.bytes(), op > 127);
                end.try_feed([message]).1.is_ok()
            }
            6 => {
                end.open(b"", op > 127);
                true
            }
            7 => {
                let _ = end
                    .mux
                    .respond(id, response_head(200, &input.bytes()), op > 127);
                true
            }
            8 | 9 => {
                if let Ok(Sendable::Now(bytes)) = end.mux.sendable(id) {
                    let mut data = input.bytes();
                    data.truncate(bytes);
                    end.mux.send(id, data, op > 127).unwrap();
                }
                true
            }
            10 => {
                end.mux.consume(id, input.byte().unwrap_or(0).into());
                true
            }
            11 => {
                end.mux.stop_sending(id, ResetCode::Cancelled);
                true
            }
            12 => {
                end.mux.reset(id, ResetCode::Internal, "fuzz");
                true
            }
            13 => {
                end.mux.tick();
                let _ = end.mux.send_trailers(id, Default::default());
                true
            }
            _ => {
                // The sent bytes are always a sequence of whole messages.
                end.sent();
                true
            }
        };
        if !lives {
            break;
        }
    }
    end.mux.close();
    end.sent();
    assert_eq!(end.mux.stats().queued, 0);
    drop(end);
    assert_eq!(budget.used(), 0);
}

#[test]
fn any_bytes_as_frames() {
    bolero::check!().for_each(|input: &[u8]| {
        play(Side::Server, input);
        play(Side::Client, input);
    });
}
