//! Decodes the chunked transfer coding (RFC 9112, 7.1) in place.
//!
//! `ingress` has a second state machine for this coding (`framing`): it follows the bytes beside hyper, skips payload
//! instead of moving it, keeps no trailers, and accepts where hyper does. One state machine for both would have to
//! distinguish the two sides at each byte of a size; the bounds of P-3.9 are the same in both.

use std::ops::Range;

use adit_codec::{HeaderBlock, MAX_HEADER_LINES, fields::is_message_control};
use thiserror::Error;

/// The most digits of a chunk's size, leading zeros included (P-3.9): those of 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;
/// The most bytes after the size in its line: blanks and extensions, which are ignored (P-3.9).
const MAX_EXTENSION_BYTES: u64 = 4 * 1024;
/// The most such bytes of one body, in addition to as many as the body has payload: a long stream of small chunks may
/// have a short extension each, and the work stays proportional to the payload (P-3.9).
const MAX_EXTENSIONS_BYTES: u64 = 16 * 1024;
/// The most bytes of trailers; encoded for the tunnel they stay below the bound of a head (P-2.10).
const MAX_TRAILER_BYTES: usize = 32 * 1024;

/// Why bytes are not a valid chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkedError {
    /// The size is not a hexadecimal number, or is not followed by a line end.
    #[error("invalid chunk size")]
    Size,
    /// The size has more than 64 bits, leading zeros included.
    #[error("chunk size with more than {MAX_SIZE_DIGITS} digits")]
    TooLarge,
    /// The chunk is not followed by a line end.
    #[error("chunk longer than its size")]
    Overrun,
    /// The bytes after a size, or those after all sizes of the body, exceed their bound.
    #[error("chunk extensions too long")]
    Extension,
    /// The trailers are not header lines, or are longer than allowed.
    #[error("invalid trailers")]
    Trailers,
}

/// What a piece of the coded body contained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The range of the payload after decoding.
    pub payload: Range<usize>,
    /// Bytes that belong to the body; fewer than the length of the piece only at the end of the body.
    pub consumed: usize,
    /// Number of chunks, or parts of them.
    pub chunks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The start of a line after the last chunk.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// Decodes one body, which may be split anywhere.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The size while it is read; then the bytes of the chunk that have not arrived yet.
    remaining: u64,
    digits: u8,
    /// Bytes after the size of this chunk.
    extension_bytes: u64,
    /// Bytes after the sizes of all chunks before it.
    extensions_bytes: u64,
    payload_bytes: u64,
    trailers: Vec<u8>,
    trailer_lines: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self {
            state: State::Start,
            remaining: 0,
            digits: 0,
            extension_bytes: 0,
            extensions_bytes: 0,
            payload_bytes: 0,
            trailers: Vec::new(),
            trailer_lines: 0,
        }
    }
}

impl ChunkedDecoder {
    /// Decodes the next piece. The payload of all its chunks is moved after that of the first one, so that it is
    /// contiguous; a single chunk, or a part of one, is not moved.
    ///
    /// # Errors
    /// [`ChunkedError`]; the connection must be closed then.
    ///
    /// # Complexity
    /// Linear; allocates for trailers only.
    pub fn decode(&mut self, data: &mut [u8]) -> Result<Decoded, ChunkedError> {
        let mut payload = 0..0;
        let mut at = 0;
        let mut chunks = 0;
        while at < data.len() && self.state != State::Done {
            if self.state == State::Data {
                chunks += 1;
                let here =
                    (data.len() - at).min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                if payload.is_empty() {
                    payload = at..at + here;
                } else {
                    data.copy_within(at..at + here, payload.end);
                    payload.end += here;
                }
                at += here;
                self.remaining -= here as u64;
                self.payload_bytes += here as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.step(data[at])?;
            at += 1;
        }
        Ok(Decoded {
            payload,
            consumed: at,
            chunks,
        })
    }

    /// Whether the last chunk and the trailers have been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers, without fields that are not allowed in trailers.
    ///
    /// # Errors
    /// [`ChunkedError::Trailers`] if they are not valid header lines.
    pub fn take_trailers(&mut self) -> Result<Option<HeaderBlock>, ChunkedError> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.trailers);
        bytes.extend_from_slice(b"\r\n");
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
        let Ok(httparse::Status::Complete((_, lines))) =
            httparse::parse_headers(&bytes, &mut lines)
        else {
            return Err(ChunkedError::Trailers);
        };
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.name.to_ascii_lowercase(), line.value))
            .filter(|(name, _)| !is_message_control(name.as_bytes()))
            .collect();
        let block: HeaderBlock = lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), *value))
            .collect();
        Ok((!block.is_empty()).then_some(block))
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkedError> {
        self.state = match (self.state, byte) {
            (State::Start, _) => {
                self.remaining = u64::from(hex(byte).ok_or(ChunkedError::Size)?);
                self.digits = 1;
                self.extensions_bytes += std::mem::take(&mut self.extension_bytes);
                State::Size
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => {
                self.count_extension()?;
                State::SizeSpace
            }
            (State::Size | State::SizeSpace, b';') => {
                self.count_extension()?;
                State::Extension
            }
            (State::Size | State::SizeSpace | State::Extension, b'\r') => State::SizeLf,
            (State::Size, _) => {
                let digit = hex(byte).ok_or(ChunkedError::Size)?;
                if self.digits == MAX_SIZE_DIGITS {
                    return Err(ChunkedError::TooLarge);
                }
                self.digits += 1;
                self.remaining = self.remaining << 4 | u64::from(digit);
                State::Size
            }
            (State::Extension, b'\n') => return Err(ChunkedError::Size),
            (State::Extension, _) => {
                self.count_extension()?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.remaining == 0 => State::Line,
            (State::SizeLf, b'\n') => State::Data,
            (State::SizeSpace | State::SizeLf, _) => return Err(ChunkedError::Size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Data | State::DataCr | State::DataLf, _) => return Err(ChunkedError::Overrun),
            (State::Line, b'\r') => State::EndLf,
            (State::Line, _) => {
                self.trailer_lines += 1;
                self.push_trailer(byte)?;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, _) => {
                self.push_trailer(byte)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => {
                self.trailers.extend_from_slice(b"\r\n");
                State::Line
            }
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerLf | State::EndLf | State::Done, _) => {
                return Err(ChunkedError::Trailers);
            }
        };
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), ChunkedError> {
        self.extension_bytes += 1;
        let all = self.extensions_bytes + self.extension_bytes;
        if self.extension_bytes > MAX_EXTENSION_BYTES
            || all > MAX_EXTENSIONS_BYTES + self.payload_bytes
        {
            return Err(ChunkedError::Extension);
        }
        Ok(())
    }

    fn push_trailer(&mut self, byte: u8) -> Result<(), ChunkedError> {
        if self.trailers.len() >= MAX_TRAILER_BYTES || self.trailer_lines > MAX_HEADER_LINES {
            return Err(ChunkedError::Trailers);
        }
        self.trailers.push(byte);
        Ok(())
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a body in pieces of `step` bytes. Returns the payload, the number of bytes of the body, and the decoder.
    fn run(coded: &[u8], step: usize) -> Result<(Vec<u8>, usize, ChunkedDecoder), ChunkedError> {
        let mut decoder = ChunkedDecoder::default();
        let (mut payload, mut consumed) = (Vec::new(), 0);
        for piece in coded.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            payload.extend_from_slice(&piece[decoded.payload]);
            consumed += decoded.consumed;
            if decoder.is_done() {
                break;
            }
            assert_eq!(decoded.consumed, piece.len());
        }
        Ok((payload, consumed, decoder))
    }

    #[test]
    fn a_body_decodes_the_same_however_it_is_split() {
        let coded = b"5\r\nhello\r\n1 ;a=\"b\"\r\n \r\n0A;x\r\n0123456789\r\n00\r\nX-A: 1\r\ncontent-length: 9\r\nx-b:2\r\n\r\nrest";
        for step in 1..=coded.len() {
            let (payload, consumed, mut decoder) = run(coded, step).unwrap();
            assert_eq!(payload, b"hello 0123456789", "step {step}");
            assert_eq!(consumed, coded.len() - 4);
            assert!(decoder.is_done());
            let trailers = decoder.take_trailers().unwrap().unwrap();
            let lines: Vec<_> = trailers.lines().collect();
            assert_eq!(lines, [(&b"x-a"[..], &b"1"[..]), (&b"x-b"[..], &b"2"[..])]);
        }
    }

    #[test]
    fn one_chunk_stays_in_place_and_several_become_one_run() {
        let mut one = *b"5\r\nhello\r\n";
        assert_eq!(
            ChunkedDecoder::default().decode(&mut one).unwrap(),
            Decoded {
                payload: 3..8,
                consumed: 10,
                chunks: 1,
            }
        );
        let mut two = *b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
        let mut decoder = ChunkedDecoder::default();
        let decoded = decoder.decode(&mut two).unwrap();
        assert_eq!(&two[decoded.payload], b"abc");
        assert!(decoder.is_done());
        assert_eq!(decoder.take_trailers(), Ok(None));
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let coded = b"1\r\na\r\n0\r\n\r\n";
        for end in 0..coded.len() {
            assert!(!run(&coded[..end], 64).unwrap().2.is_done(), "{end}");
        }
    }

    #[test]
    fn invalid_bodies_have_their_error() {
        let fault = |coded: &[u8]| run(coded, 7).err();
        for bad in [
            "g", "\r\n", " 1", "1g", "1 1", "1\n", "1;a\n", "-1", "0x1", "1\r\r", "1 g",
        ] {
            assert_eq!(fault(bad.as_bytes()), Some(ChunkedError::Size), "{bad:?}");
        }
        assert_eq!(fault(b"fffffffffffffffff"), Some(ChunkedError::TooLarge));
        assert_eq!(fault(b"ffffffffffffffff\r\n"), None);
        assert_eq!(fault(b"1\r\nab"), Some(ChunkedError::Overrun));
        assert_eq!(fault(b"1\r\na\rb"), Some(ChunkedError::Overrun));
        assert_eq!(fault(b"0\r\na: b\rc"), Some(ChunkedError::Trailers));
        assert_eq!(fault(b"0\r\n\rc"), Some(ChunkedError::Trailers));
        let (_, _, mut decoder) = run(b"0\r\nno colon\r\n\r\n", 64).unwrap();
        assert_eq!(decoder.take_trailers(), Err(ChunkedError::Trailers));
    }

    #[test]
    fn p_3_9_chunk_size_has_at_most_sixteen_digits() {
        for digit in ["0", "1", "f"] {
            for step in [1, 7, 64] {
                let most = digit.repeat(16);
                assert_eq!(run(most.as_bytes(), step).err(), None, "{digit}");
                let more = digit.repeat(17);
                let error = run(more.as_bytes(), step).err();
                assert_eq!(error, Some(ChunkedError::TooLarge), "{digit}");
                let second = format!("1\r\nx\r\n{more}");
                let error = run(second.as_bytes(), step).err();
                assert_eq!(error, Some(ChunkedError::TooLarge), "{digit}");
            }
        }
        let (payload, ..) = run(b"0000000000000001\r\nx\r\n0\r\n\r\n", 64).unwrap();
        assert_eq!(payload, b"x");
    }

    #[test]
    fn p_3_9_blanks_and_extensions_of_a_chunk_are_bounded() {
        let extended = |filler: &str, bytes: u64| {
            let filled = filler.repeat(usize::try_from(bytes).unwrap());
            let coded = format!("0{}\r\n\r\n", &filled[..usize::try_from(bytes).unwrap()]);
            run(coded.as_bytes(), 1000).err()
        };
        for filler in [" ", "\t", ";x"] {
            let most = MAX_EXTENSION_BYTES;
            assert_eq!(extended(filler, most), None, "{filler:?}");
            let error = extended(filler, most + 1);
            assert_eq!(error, Some(ChunkedError::Extension), "{filler:?}");
        }
    }

    #[test]
    fn p_3_9_extensions_of_a_body_are_bounded_by_its_payload() {
        let body = |chunks: usize, extension: usize, payload: usize| {
            let extension = format!(";{}", "x".repeat(extension - 1));
            let chunk = format!("{payload:x}{extension}\r\n{}\r\n", "y".repeat(payload));
            run((chunk.repeat(chunks) + "0\r\n\r\n").as_bytes(), 1000).err()
        };
        let start = usize::try_from(MAX_EXTENSIONS_BYTES).unwrap();
        assert_eq!(body(4, start / 4, 1), None);
        assert_eq!(body(5, start / 4, 1), Some(ChunkedError::Extension));
        // As many bytes of extensions as of payload, and then more.
        assert_eq!(body(4 * start / 10, 10, 10), None);
        assert_eq!(body(4 * start / 10, 10, 5), Some(ChunkedError::Extension));
    }

    #[test]
    fn trailers_are_bounded() {
        let trailed = |lines: usize, line: &str| {
            let coded = ["0\r\n", &line.repeat(lines), "\r\n"].concat();
            let (_, _, mut decoder) = run(coded.as_bytes(), 1000)?;
            decoder
                .take_trailers()
                .map(|trailers| trailers.map_or(0, |t| t.len()))
        };
        assert_eq!(trailed(MAX_HEADER_LINES, "a: b\r\n"), Ok(MAX_HEADER_LINES));
        assert_eq!(
            trailed(MAX_HEADER_LINES + 1, "a: b\r\n"),
            Err(ChunkedError::Trailers)
        );
        let long = format!("a: {}\r\n", "b".repeat(MAX_TRAILER_BYTES));
        assert_eq!(trailed(1, &long), Err(ChunkedError::Trailers));
    }
}
