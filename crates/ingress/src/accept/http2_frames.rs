//! Follows the frames that are written on an HTTP/2 connection, to find requests that h2 rejects itself.
//!
//! h2 does not report a malformed request: it resets the stream, or ends the connection. No other code here ends a stream
//! with `PROTOCOL_ERROR`.

use adit_link::frames::{Frames, Piece};

const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CODE_BYTES: usize = 4;
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;

/// Finds the frames that reject a request, in writes of any size.
#[derive(Debug)]
pub(crate) struct Refusals {
    frames: Frames,
    /// Payload bytes before the error code of the frame that have not been written yet.
    before: usize,
    /// Bytes of the error code that have not been written yet.
    left: usize,
    code: u32,
}

impl Refusals {
    pub(crate) const fn new() -> Self {
        Self {
            frames: Frames::of_server(),
            before: 0,
            left: 0,
            code: 0,
        }
    }

    /// Reads written bytes. Returns the number of frames among them that reject a malformed request.
    pub(crate) fn on_written(&mut self, bytes: &[u8]) -> u64 {
        let Self {
            frames,
            before,
            left,
            code,
        } = self;
        let mut refused = 0;
        frames.on_bytes(bytes, |piece| match piece {
            Piece::Head(head) => {
                *code = 0;
                (*before, *left) = match (head.kind, head.length) {
                    (RST_STREAM, CODE_BYTES..) => (0, CODE_BYTES),
                    // The code is after the id of the last stream.
                    (GOAWAY, 8..) => (4, CODE_BYTES),
                    _ => (0, 0),
                };
            }
            Piece::Payload(payload) if *left > 0 => {
                let skipped = payload.len().min(*before);
                *before -= skipped;
                for byte in payload.iter().skip(skipped).take(*left) {
                    *code = *code << 8 | u32::from(*byte);
                    *left -= 1;
                }
                let is_refusal = matches!(*code, PROTOCOL_ERROR | COMPRESSION_ERROR);
                refused += u64::from(*left == 0 && is_refusal);
            }
            Piece::Payload(_) => {}
        });
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn only_resets_and_ends_for_malformed_requests_are_counted() {
        let code = |code: u32| code.to_be_bytes();
        let goaway = |code: u32| [[0, 0, 0, 1], code.to_be_bytes()].concat();
        let frames = [
            (frame(0, &frame(3, &code(1))), 0),
            (frame(4, &[]), 0),
            (frame(3, &code(1)), 1),
            (frame(3, &code(8)), 0),
            (frame(1, &[3; 300]), 0),
            (frame(7, &goaway(0)), 0),
            (frame(7, &[&goaway(9)[..], b"why"].concat()), 1),
            (frame(3, &code(1)), 1),
            (frame(0, &[7; 20_000]), 0),
            (frame(3, &code(1)), 1),
        ];
        let all: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
        let expected: u64 = frames.iter().map(|(_, refused)| refused).sum();
        for step in [1, 5, 9, 13, 1_000, all.len()] {
            let mut watch = Refusals::new();
            let refused: u64 = all.chunks(step).map(|part| watch.on_written(part)).sum();
            assert_eq!(refused, expected, "{step}");
        }
    }
}
