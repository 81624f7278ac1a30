//! The frames that are written on an HTTP/2 connection, for requests that h2 refuses by itself.
//!
//! h2 hands a malformed request to nobody: it resets the stream, or ends the connection. Nothing else here ends a stream
//! with `PROTOCOL_ERROR`.

const HEAD_BYTES: usize = 9;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;

/// Follows frames, wherever writes cut them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The head of the frame, and what is looked at of its payload.
    start: [u8; HEAD_BYTES + 8],
    have: usize,
    /// Payload that is not looked at.
    skip: usize,
}

impl Frames {
    /// Takes bytes that have been written. Gives the number of frames among them that refuse a malformed request.
    pub(crate) fn on_written(&mut self, mut bytes: &[u8]) -> u64 {
        let mut refused = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            let wanted = self.wanted();
            let taken = (wanted - self.have).min(bytes.len());
            let (start, rest) = bytes.split_at(taken);
            if let Some(place) = self.start.get_mut(self.have..self.have + taken) {
                place.copy_from_slice(start);
            }
            self.have += taken;
            bytes = rest;
            // The head says how much of the payload is wanted as well.
            if self.have < self.wanted() {
                continue;
            }
            refused += u64::from(self.is_refusal());
            self.skip = self.length().saturating_sub(self.have - HEAD_BYTES);
            self.have = 0;
        }
        refused
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.start;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn wanted(&self) -> usize {
        let kind = self.start[3];
        match (self.have < HEAD_BYTES, kind, self.length()) {
            (false, RST_STREAM, 4..) => HEAD_BYTES + 4,
            (false, GOAWAY, 8..) => HEAD_BYTES + 8,
            _ => HEAD_BYTES,
        }
    }

    /// Of a frame whose start is there: whether its code refuses a request.
    fn is_refusal(&self) -> bool {
        let Some(code) = self.start.get(self.have.saturating_sub(4)..self.have) else {
            return false;
        };
        let code = code
            .iter()
            .fold(0, |code, byte| code << 8 | u32::from(*byte));
        self.have > HEAD_BYTES && matches!(code, PROTOCOL_ERROR | COMPRESSION_ERROR)
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
            let mut watch = Frames::default();
            let refused: u64 = all.chunks(step).map(|part| watch.on_written(part)).sum();
            assert_eq!(refused, expected, "{step}");
        }
    }
}
