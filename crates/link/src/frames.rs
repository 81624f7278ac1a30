//! The frames of HTTP/2 in the bytes of one connection (RFC 9113, 4.1).

const HEAD_BYTES: usize = 9;

/// Bytes of the preface that a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// A frame's head, without its flags and its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Payload after the head, in bytes; below 2^24.
    pub length: usize,
    /// The type of the frame.
    pub kind: u8,
}

/// Part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'b> {
    /// The head, once it is complete.
    Head(FrameHead),
    /// The next bytes of the payload after the last head; never empty.
    Payload(&'b [u8]),
}

/// Follows the frames of one direction, wherever reads split them. It makes no decision: its result for bytes that are
/// not HTTP/2 does not matter, because the parser behind it rejects them.
///
/// Cost: a few nanoseconds for each frame; payload is not copied.
#[derive(Debug, Clone)]
pub struct Frames {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Payload bytes that have not arrived yet.
    payload: usize,
}

impl Frames {
    /// Follows the bytes of a client: the preface comes first, and is reported as payload.
    pub const fn of_client() -> Self {
        Self {
            payload: PREFACE_BYTES,
            ..Self::of_server()
        }
    }

    /// Follows the bytes of a server.
    pub const fn of_server() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            payload: 0,
        }
    }

    /// Processes the next bytes, and passes the pieces of frames in them to `on_piece`.
    pub fn on_bytes<'b>(&mut self, mut bytes: &'b [u8], mut on_piece: impl FnMut(Piece<'b>)) {
        loop {
            let (payload, rest) = bytes.split_at(self.payload.min(bytes.len()));
            if !payload.is_empty() {
                self.payload -= payload.len();
                on_piece(Piece::Payload(payload));
            }
            bytes = rest;
            let taken = (HEAD_BYTES - self.have).min(bytes.len());
            if taken == 0 {
                return;
            }
            let (start, rest) = bytes.split_at(taken);
            if let Some(place) = self.head.get_mut(self.have..self.have + taken) {
                place.copy_from_slice(start);
            }
            self.have += taken;
            bytes = rest;
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.have = 0;
                self.payload = length;
                on_piece(Piece::Head(FrameHead { length, kind }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let bytes = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = [&bytes[1..], &[kind, 0, 0, 0, 0, 1]].concat();
        frame.resize(HEAD_BYTES + length, kind);
        frame
    }

    #[test]
    fn heads_are_found_wherever_reads_cut_them() {
        let frames = [
            (4, 0),
            (1, 300),
            (0, 16_384),
            (0xfe, 0),
            (8, 4),
            (0, 70_000),
        ];
        let expected: Vec<_> = frames
            .iter()
            .map(|&(kind, length)| FrameHead { length, kind })
            .collect();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, length) in frames {
            bytes.extend(frame(kind, length));
        }
        for step in [1, 2, 5, 9, 10, 24, 1_000, bytes.len()] {
            let (mut found, mut payload) = (Vec::new(), Vec::new());
            let mut frames = Frames::of_client();
            for part in bytes.chunks(step) {
                frames.on_bytes(part, |piece| match piece {
                    Piece::Head(head) => found.push(head),
                    Piece::Payload(bytes) => payload.extend_from_slice(bytes),
                });
            }
            assert_eq!(found, expected, "{step}");
            let lengths: usize = expected.iter().map(|head| head.length).sum();
            assert_eq!(payload.len(), PREFACE_BYTES + lengths, "{step}");
        }
    }
}
