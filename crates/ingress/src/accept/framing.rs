//! Follows the requests in the bytes of an HTTP/1 connection, for facts that hyper does not report.
//!
//! hyper accepts a request with both `content-length` and `transfer-encoding`, and drops the former. The RFC allows that
//! (RFC 9112, 6.1), and request smuggling depends on it, so it is rejected here; but the request from hyper does not show
//! it. This state machine reads the same bytes as hyper: it counts heads, notes for each chunked head whether it had a
//! length as well, and knows whether a request has been read to its end.
//!
//! It also replaces and keeps the bytes of request targets that hyper would reject ([`RequestLine`]).
//!
//! hyper does not bound the zeros in front of a chunk's size and the blanks after it. The line is bounded here (P-3.9).
//! hyper bounds the extensions of a body, and its trailers, to 16 KiB each.
//!
//! `egress` has a second state machine for the chunked coding (`protocol/http1/chunked.rs`): it decodes in place, moves
//! payload, keeps trailers and is as strict as the RFC. This one skips payload, keeps nothing, also follows heads, and
//! must accept everything that hyper accepts. One state machine for both would have to distinguish the two sides at
//! each byte of a size; the bounds of P-3.9 are the same in both.
//!
//! Bytes that it cannot parse lead to the state `Lost`, in which all further chunked requests are rejected, so that
//! none passes because hyper parses it differently.

use thiserror::Error;

use crate::{
    accept::request_line::RequestLine,
    forward::connection::{Chunked, HeadNote, Replaced},
};

/// Digits of a chunk's size: those of the largest 64-bit number.
const MAX_SIZE_DIGITS: u8 = 16;
/// Bytes after the size in its line: blanks and extensions, which have no meaning.
const MAX_EXTENSION_BYTES: u32 = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The position is between two requests. Empty lines are skipped here (RFC 9112, 2.2).
    Start,
    RequestLine,
    LineStart,
    Name,
    Value,
    /// The value of `content-length`.
    Length,
    /// A carriage return at the start of a line.
    BlankLine,
    Sized(u64),
    ChunkSize(u64, u8),
    /// The size, and the number of bytes after it.
    ChunkExtension(u64, u32),
    /// Bytes left of the chunk, including the line end after it.
    ChunkData(u64),
    TrailerStart,
    Trailer,
    TrailerBlankLine,
    Lost,
}

/// The reason for which bytes are not passed to hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BadChunk {
    #[error("chunk size with more than {MAX_SIZE_DIGITS} digits")]
    Digits,
    #[error("chunk size line with more than {MAX_EXTENSION_BYTES} bytes after the size")]
    Extension,
}

/// The position from which bytes are not passed to hyper, and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) at: usize,
    pub(crate) why: BadChunk,
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const UPGRADE: &[u8] = b"upgrade";

/// Follows the requests of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    state: State,
    /// The start of the line, in lower case: long enough to recognize the field names.
    line: [u8; 18],
    line_len: usize,
    length: Option<u64>,
    chunked: bool,
    heads: u64,
    /// Complete heads when the last byte of a body arrived.
    heads_with_content: u64,
    /// Chunks whose size has been read; the count wraps.
    chunks: usize,
    request_line: RequestLine,
    /// The head offers an upgrade. Bytes after it may be of another protocol, and are not changed.
    upgrade: bool,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Start,
            line: [0; 18],
            line_len: 0,
            length: None,
            chunked: false,
            heads: 0,
            heads_with_content: 0,
            chunks: 0,
            request_line: RequestLine::default(),
            upgrade: false,
        }
    }

    /// Whether the bytes so far are complete requests.
    pub(crate) const fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Whether a head has begun and is not complete.
    pub(crate) const fn is_in_head(&self) -> bool {
        matches!(
            self.state,
            State::RequestLine
                | State::LineStart
                | State::Name
                | State::Value
                | State::Length
                | State::BlankLine
        )
    }

    /// Complete heads so far.
    pub(crate) const fn heads(&self) -> u64 {
        self.heads
    }

    /// Number of the last head, from 1, whose body has begun to arrive; 0 if none has.
    pub(crate) const fn heads_with_content(&self) -> u64 {
        self.heads_with_content
    }

    /// Chunks that have begun so far; the count wraps.
    pub(crate) const fn chunks(&self) -> usize {
        self.chunks
    }

    /// Called when all requests so far have their responses: the connection still carries HTTP/1.
    pub(crate) const fn on_all_responded(&mut self) {
        self.upgrade = false;
    }

    /// Whether these bytes would complete the request that has begun. `None` if that is unknown.
    pub(crate) fn is_completed_by(&self, bytes: &mut [u8]) -> Option<bool> {
        let mut after = self.clone();
        // Rejected bytes end in the state `Lost`.
        let _ = after.on_bytes(bytes, |_| {});
        match after.state {
            State::Lost => None,
            _ => {
                let is_in_next = after.is_in_head() || after.heads > self.heads;
                Some(after.is_between_requests() || is_in_next)
            }
        }
    }

    /// Reads the next bytes, and replaces those of request targets that hyper would reject.
    ///
    /// # Errors
    /// [`Refused`]: hyper must not read the bytes from there on.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &mut [u8],
        mut note: impl FnMut(HeadNote),
    ) -> Result<(), Refused> {
        let total = bytes.len();
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if matches!(self.state, State::Sized(_) | State::ChunkSize(..)) {
                self.heads_with_content = self.heads;
            }
            let taken = match self.state {
                State::RequestLine if !self.upgrade => {
                    let (taken, ended) = self.request_line.on_bytes(rest);
                    if ended {
                        self.state = State::LineStart;
                        let bytes = self.request_line.take_replaced();
                        if !bytes.is_empty() {
                            let head = self.heads;
                            note(HeadNote::Replaced(Replaced { head, bytes }));
                        }
                    }
                    taken
                }
                State::Sized(left) => {
                    let (taken, left) = skip(left, rest.len());
                    self.state = if left == 0 {
                        State::Start
                    } else {
                        State::Sized(left)
                    };
                    taken
                }
                State::ChunkData(left) => {
                    let (taken, left) = skip(left, rest.len());
                    self.state = if left == 0 {
                        State::ChunkSize(0, 0)
                    } else {
                        State::ChunkData(left)
                    };
                    taken
                }
                State::Value | State::Trailer | State::RequestLine | State::ChunkExtension(..) => {
                    self.on_rest_of_line(rest)
                }
                State::Lost => return Ok(()),
                _ => {
                    self.on_byte(byte, &mut note);
                    1
                }
            };
            let why = match self.state {
                State::ChunkSize(_, digits) if digits > MAX_SIZE_DIGITS => Some(BadChunk::Digits),
                State::ChunkExtension(_, length) if length > MAX_EXTENSION_BYTES => {
                    Some(BadChunk::Extension)
                }
                _ => None,
            };
            if let Some(why) = why {
                self.state = State::Lost;
                let at = total - rest.len();
                return Err(Refused { at, why });
            }
            rest = std::mem::take(&mut rest)
                .get_mut(taken..)
                .unwrap_or_default();
        }
        Ok(())
    }

    /// Skips to the end of the line.
    fn on_rest_of_line(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if let State::ChunkExtension(_, length) = &mut self.state {
            *length = length.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
            if *length > MAX_EXTENSION_BYTES {
                return taken;
            }
        }
        if end.is_some() {
            self.state = match self.state {
                State::Trailer => State::TrailerStart,
                State::ChunkExtension(0, _) => State::TrailerStart,
                State::ChunkExtension(size, _) => {
                    self.chunks = self.chunks.wrapping_add(1);
                    State::ChunkData(size.saturating_add(2))
                }
                _ => State::LineStart,
            };
        }
        taken
    }

    fn on_byte(&mut self, byte: u8, note: &mut impl FnMut(HeadNote)) {
        self.state = match (self.state, byte) {
            (State::Start, b'\r' | b'\n') => State::Start,
            (State::Start, _) => {
                self.length = None;
                self.chunked = false;
                State::RequestLine
            }
            (State::LineStart, b'\r') => State::BlankLine,
            (State::LineStart | State::BlankLine, b'\n') => self.on_head(note),
            (State::LineStart, b':') => State::Lost,
            (State::LineStart, _) => {
                self.line[0] = byte.to_ascii_lowercase();
                self.line_len = 1;
                State::Name
            }
            (State::Name, b':') => match &self.line[..self.line_len] {
                CONTENT_LENGTH => {
                    self.length = Some(0);
                    State::Length
                }
                TRANSFER_ENCODING => {
                    self.chunked = true;
                    State::Value
                }
                UPGRADE => {
                    self.upgrade = true;
                    State::Value
                }
                _ => State::Value,
            },
            (State::Name, b'\n') => State::Lost,
            (State::Name, _) => {
                // One byte more than the longest of the names, so that a longer one is recognized.
                if let Some(place) = self.line.get_mut(self.line_len) {
                    *place = byte.to_ascii_lowercase();
                    self.line_len += 1;
                }
                State::Name
            }
            (State::Length, b' ' | b'\t' | b'\r') => State::Length,
            (State::Length, b'\n') => State::LineStart,
            (State::Length, b'0'..=b'9') => {
                let digit = u64::from(byte - b'0');
                let more = |length: u64| length.checked_mul(10)?.checked_add(digit);
                self.length = self.length.and_then(more);
                if self.length.is_some() {
                    State::Length
                } else {
                    State::Lost
                }
            }
            // Sixteen digits are 64 bits.
            (State::ChunkSize(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                State::ChunkSize(size << 4 | digit, digits + 1)
            }
            (State::ChunkSize(size, _), b'\r' | b';' | b' ' | b'\t') => {
                State::ChunkExtension(size, 0)
            }
            (State::TrailerStart, b'\r') => State::TrailerBlankLine,
            (State::TrailerStart | State::TrailerBlankLine, b'\n') => State::Start,
            (State::TrailerStart, _) => State::Trailer,
            _ => State::Lost,
        };
    }

    fn on_head(&mut self, note: &mut impl FnMut(HeadNote)) -> State {
        let head = self.heads;
        self.heads += 1;
        if self.chunked {
            let has_length = self.length.is_some();
            note(HeadNote::Chunked(Chunked { head, has_length }));
            return if has_length {
                State::Lost
            } else {
                State::ChunkSize(0, 0)
            };
        }
        match self.length {
            None | Some(0) => State::Start,
            Some(length) => State::Sized(length),
        }
    }
}

/// How many of `have` bytes belong to the `left` ones, and how many are left after them.
fn skip(left: u64, have: usize) -> (usize, u64) {
    match usize::try_from(left) {
        Ok(left) if left <= have => (left, 0),
        _ => (have, left - have as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after `bytes`, read in pieces of `step`.
    fn after(bytes: &str, step: usize) -> (Framing, Vec<Chunked>) {
        let mut framing = Framing::new();
        let mut chunked = Vec::new();
        for part in bytes.as_bytes().to_vec().chunks_mut(step) {
            let followed = framing.on_bytes(part, |noted| match noted {
                HeadNote::Chunked(head) => chunked.push(head),
                HeadNote::Replaced(_) => panic!("all of these targets are plain"),
            });
            followed.unwrap();
        }
        (framing, chunked)
    }

    #[test]
    fn every_byte_leads_to_the_expected_state() {
        let head = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n";
        let all = format!("{head}hello, world");
        for end in 0..=all.len() {
            let (framing, _) = after(&all[..end], 1);
            let skipped = end <= 2;
            let is_whole = end == all.len();
            assert_eq!(framing.is_between_requests(), skipped || is_whole, "{end}");
            assert_eq!(framing.is_in_head(), !skipped && end < head.len(), "{end}");
            assert_eq!(framing.heads(), u64::from(end >= head.len()), "{end}");
        }
    }

    #[test]
    fn heads_with_content_are_counted() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let get = "GET / HTTP/1.1\r\n\r\n";
        for (bytes, with_content) in [
            (sized.to_owned(), 0),
            (format!("{sized}h"), 1),
            (format!("{sized}hi{get}"), 1),
            (format!("{get}{chunked}"), 0),
            (format!("{get}{chunked}0"), 2),
            (format!("{get}{chunked}0\r\n\r\n{get}"), 2),
        ] {
            let (framing, _) = after(&bytes, 3);
            assert_eq!(framing.heads_with_content(), with_content, "{bytes:?}");
        }
    }

    #[test]
    fn chunked_bodies_end_at_the_line_end_behind_them() {
        let table = [
            ("0\r\n\r\n", true),
            ("0\r\nx: y\r\nz: \r\n\r\n", true),
            ("0\n\n", false),
            ("A\r\n0123456789\r\n0\r\n\r\n", true),
            ("a ; ext\r\n0123456789\r\n00\r\n\r\n", true),
            ("1\r\n\r\r\n0\r\n\r\n", true),
            ("1\r\nx\r\n", false),
            ("0\r\n", false),
            ("0\r\nx: y\r\n", false),
            ("g\r\n", false),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", true),
            ("ffffffffffffffff\r\nx", false),
        ];
        for (body, whole) in table {
            let all = format!("POST / HTTP/1.1\r\ntransfer-ENCODING: chunked\r\n\r\n{body}");
            for step in [1, 3, all.len()] {
                let (framing, chunked) = after(&all, step);
                assert_eq!(framing.is_between_requests(), whole, "{body:?}");
                let only = Chunked {
                    head: 0,
                    has_length: false,
                };
                assert_eq!(chunked, [only]);
            }
        }
    }

    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// The position of the first byte that is not passed on, and the reason; read in pieces of `step`.
    fn refused(body: &str, step: usize) -> Option<(usize, BadChunk)> {
        let mut framing = Framing::new();
        let all = format!("{CHUNKED}{body}");
        let mut before = 0;
        for part in all.into_bytes().chunks_mut(step) {
            if let Err(Refused { at, why }) = framing.on_bytes(part, |_| ()) {
                let mut end = *b"0\r\n\r\n";
                assert_eq!(framing.on_bytes(&mut end, |_| ()), Ok(()));
                assert!(!framing.is_between_requests(), "it stays lost");
                return Some((before + at, why));
            }
            before += part.len();
        }
        None
    }

    /// P-3.9: a chunk size with more than 16 digits is rejected at the seventeenth.
    #[test]
    fn chunk_size_of_seventeen_digits_is_rejected_at_the_last() {
        let start = CHUNKED.len();
        for digit in ["0", "1", "f"] {
            for behind in ["", "\r\n", "00000000"] {
                let body = digit.repeat(17) + behind;
                for step in [1, 7, 1000] {
                    let expected = Some((start + 16, BadChunk::Digits));
                    assert_eq!(refused(&body, step), expected, "{body:?}");
                    assert_eq!(refused(&digit.repeat(16), step), None);
                    // Each chunk has its own line.
                    let second = format!("1\r\nx\r\n{body}");
                    let expected = Some((start + 6 + 16, BadChunk::Digits));
                    assert_eq!(refused(&second, step), expected, "{second:?}");
                }
            }
        }
    }

    /// P-3.9: blanks and extensions after a chunk size are rejected above their bound.
    #[test]
    fn blanks_and_extensions_behind_a_chunk_size_are_bounded() {
        let most = MAX_EXTENSION_BYTES as usize;
        for filler in [" ", "\t", ";a=b"] {
            let filled = filler.repeat(most / filler.len());
            // The end of the line counts as part of the line.
            let line = |length: usize| format!("1 {}\r\nx\r\n0\r\n\r\n", &filled[..length]);
            for step in [1, 1000, 10_000] {
                assert_eq!(refused(&line(most - 2), step), None, "{filler:?}");
                let (at, why) = refused(&line(most - 1), step).unwrap();
                assert_eq!(why, BadChunk::Extension);
                assert!(at >= CHUNKED.len(), "the head is passed on: {at}");
            }
        }
    }

    #[test]
    fn unread_bytes_may_complete_a_request() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe";
        for (read, unread, completes) in [
            (sized, "ll", Some(false)),
            (sized, "llo", Some(true)),
            (sized, "lloGET / HT", Some(true)),
            (
                sized,
                "lloPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
                Some(true),
            ),
            (chunked, "llo\r\n0\r\n", Some(false)),
            (chunked, "llo\r\n0\r\n\r\n", Some(true)),
            (chunked, "llo\r\nx\r\n", None),
        ] {
            let (framing, _) = after(read, read.len());
            assert_eq!(
                framing.is_completed_by(&mut unread.to_owned().into_bytes()),
                completes,
                "{unread:?}"
            );
        }
    }

    #[test]
    fn longer_and_shorter_names_are_different_names() {
        for (name, is_chunked) in [
            ("transfer-encoding", true),
            ("Transfer-Encoding", true),
            ("transfer-encodings", false),
            ("transfer-encoding-x", false),
            ("transfer-encodin", false),
            ("x-transfer-encoding", false),
            ("content-length", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{name}: 0\r\n\r\n");
            assert_eq!(after(&head, 1).1.len(), usize::from(is_chunked), "{name}");
        }
        for (name, has_length) in [
            ("content-length", true),
            ("CONTENT-length", true),
            ("content-lengths", false),
            ("content-lengt", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n{name}:5\r\n\r\n");
            let (framing, chunked) = after(&head, 1);
            assert_eq!(chunked[0].has_length, has_length, "{name}");
            assert!(!framing.is_between_requests());
        }
    }

    /// The bytes that hyper reads, and the replaced bytes of each head.
    fn seen(bytes: &str, step: usize) -> (String, Vec<(u64, String)>) {
        let mut framing = Framing::new();
        let mut replaced = Vec::new();
        let mut bytes = bytes.as_bytes().to_vec();
        for part in bytes.chunks_mut(step) {
            let followed = framing.on_bytes(part, |noted| {
                if let HeadNote::Replaced(Replaced { head, bytes }) = noted {
                    replaced.push((head, String::from_utf8(bytes).unwrap()));
                }
            });
            followed.unwrap();
        }
        (String::from_utf8(bytes).unwrap(), replaced)
    }

    #[test]
    fn replaced_bytes_belong_to_the_target_of_their_head() {
        let head = "Host: \"a\"\r\nContent-Length: 9\r\n\r\nGET /\"<> ";
        let all = format!(
            "GET /\"a\" HTTP/1.1\r\n\r\nPOST /<b> HTTP/1.1\r\n{head}GET /c HTTP/1.1\r\n\r\nGET /` HTTP/1.1\r\n\r\n"
        );
        let expected = all
            .replacen("/\"a\"", "/^a^", 1)
            .replacen("/<b>", "/^b^", 1)
            .replacen("/`", "/^", 1);
        for step in [1, 3, all.len()] {
            let (seen, replaced) = seen(&all, step);
            assert_eq!(seen, expected);
            let known = [(0, "\"\"".into()), (1, "<>".into()), (3, "`".into())];
            assert_eq!(replaced, known);
        }
    }

    #[test]
    fn bytes_behind_an_upgrade_are_not_changed() {
        let all = "GET /\" HTTP/1.1\r\nUpgrade: x\r\n\r\nGET /\" \" \"\n";
        let (seen, replaced) = seen(all, 5);
        assert_eq!(seen, all.replacen('"', "^", 1));
        assert_eq!(replaced, [(0, "\"".into())]);
        let mut framing = Framing::new();
        let mut head = *b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n";
        framing.on_bytes(&mut head, |_| {}).unwrap();
        framing.on_all_responded();
        let mut next = *b"GET /< HTTP/1.1\r\n";
        framing.on_bytes(&mut next, |_| {}).unwrap();
        assert_eq!(&next, b"GET /^ HTTP/1.1\r\n");
    }

    #[test]
    fn malformed_bytes_never_make_a_complete_request() {
        for bytes in [
            "GET / HTTP/1.1\r\n: x\r\n\r\n",
            "GET / HTTP/1.1\r\nx\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n",
            "GET / HTTP/1.1\r\nx: y\r\n\rz\r\n",
        ] {
            let all = format!("{bytes}GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
            let (framing, chunked) = after(&all, 5);
            assert!(!framing.is_between_requests(), "{bytes:?}");
            assert_eq!(chunked, [], "{bytes:?}");
        }
    }
}
