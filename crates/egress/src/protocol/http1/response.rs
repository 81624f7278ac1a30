//! The head of an answer: what it says, and how its body is framed.

use std::{mem::MaybeUninit, ops::Range};

use adit_codec::{MAX_HEAD_BYTES, MAX_HEADER_LINES};
use thiserror::Error;

use crate::fields::{content_length, elements, has_element, is_hop_by_hop};

use super::chunked::Chunked;

/// Why bytes are no answer that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// No HTTP/1 head.
    #[error("its answer is no HTTP/1 response ({0})")]
    Malformed(httparse::Error),
    /// More than the bounds of a head (P-2.10).
    #[error("the head of its answer is too long")]
    TooLong,
    /// A status below 100.
    #[error("its answer has status {0}")]
    Status(u16),
    /// Two lengths, no number, or a length beside a transfer coding: a sign of smuggling (RFC 9112, 6.3).
    #[error("its answer does not say clearly how long it is")]
    Length,
    /// Another transfer coding than `chunked`, which cannot be passed on.
    #[error("its answer has a transfer coding that was not asked for")]
    Coding,
}

/// How the body of an answer ends (RFC 9112, 6.3).
#[derive(Debug)]
pub enum Framing {
    /// After this many bytes; none for answers without a body.
    Length(u64),
    /// By itself.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// Where a header line stands in the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    name: Range<u32>,
    value: Range<u32>,
}

impl Line {
    /// Name in lower case, and value.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let slice = |range: &Range<u32>| &bytes[range.start as usize..range.end as usize];
        (slice(&self.name), slice(&self.value))
    }
}

/// What the head of an answer says.
#[derive(Debug)]
pub struct Head {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Bytes of the head.
    pub bytes: usize,
    /// How the body ends.
    pub framing: Framing,
    /// The service will keep the connection after this answer.
    pub keep_alive: bool,
    /// Where the value of its `Upgrade` stands, if it has one.
    pub upgrade: Range<usize>,
}

/// Reads a head at the start of `bytes`, which must be less than 4 GiB. Names are put into lower case where they
/// stand; `lines` gets those that cross the tunnel, in order. `to_head`: the request was `HEAD`.
///
/// `None`: it has not come whole yet.
///
/// # Errors
/// [`HeadError`]; the connection is of no use then.
pub fn parse(
    bytes: &mut [u8],
    to_head: bool,
    lines: &mut Vec<Line>,
) -> Result<Option<Head>, HeadError> {
    lines.clear();
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADER_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut slots,
    );
    let head_bytes = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
        Err(error) => return Err(HeadError::Malformed(error)),
    };
    let status = response.code.unwrap_or(0);
    if !(100..=999).contains(&status) {
        return Err(HeadError::Status(status));
    }
    let is_1_1 = response.version == Some(1);
    let base = bytes.as_ptr().addr();
    let place = |part: &[u8]| {
        let start = u32::try_from(part.as_ptr().addr() - base).unwrap_or(u32::MAX);
        start..start + u32::try_from(part.len()).unwrap_or(0)
    };
    let (mut length, mut chunked) = (None, false);
    let (mut close, mut keep) = (false, false);
    let mut named = false;
    let mut upgrade = 0..0;
    for header in response.headers.iter() {
        let name = header.name.as_bytes();
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = content_length(header.value).ok_or(HeadError::Length)?;
                match length.replace(value) {
                    // The same again says nothing new, and crosses once.
                    Some(before) if before == value => continue,
                    Some(_) => return Err(HeadError::Length),
                    None => {}
                }
                // Of a list of the same number one crosses.
                lines.push(Line {
                    name: place(name),
                    value: place(elements(header.value).next().unwrap_or(header.value)),
                });
                continue;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Coding);
                }
                chunked = true;
                continue;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                close |= has_element(header.value, b"close");
                keep |= has_element(header.value, b"keep-alive");
                named |= elements(header.value).any(|e| {
                    !e.eq_ignore_ascii_case(b"close") && !e.eq_ignore_ascii_case(b"keep-alive")
                });
                continue;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                let start = header.value.as_ptr().addr() - base;
                upgrade = start..start + header.value.len();
                continue;
            }
            2 | 10 | 16 if is_hop_by_hop(name.to_ascii_lowercase().as_slice()) => continue,
            _ => {}
        }
        lines.push(Line {
            name: place(name),
            value: place(header.value),
        });
    }
    if named {
        drop_named(bytes, &response, lines);
    }
    let framing = if to_head || status < 200 || status == 204 || status == 304 {
        Framing::Length(0)
    } else if chunked {
        if length.is_some() || !is_1_1 {
            return Err(HeadError::Length);
        }
        Framing::Chunked(Chunked::default())
    } else {
        length.map_or(Framing::Close, Framing::Length)
    };
    let keep_alive = if is_1_1 { !close } else { keep && !close };
    for line in lines.iter() {
        bytes[line.name.start as usize..line.name.end as usize].make_ascii_lowercase();
    }
    Ok(Some(Head {
        status,
        bytes: head_bytes,
        keep_alive: keep_alive && !matches!(framing, Framing::Close),
        framing,
        upgrade,
    }))
}

/// Takes out what `Connection` names (RFC 9110, 7.6.1). Rare, and not fast.
fn drop_named(bytes: &[u8], response: &httparse::Response<'_, '_>, lines: &mut Vec<Line>) {
    let options = || {
        response
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("connection"))
    };
    lines.retain(|line| {
        let (name, _) = line.of(bytes);
        // What says where the message ends is not the connection's to take away.
        name.eq_ignore_ascii_case(b"content-length")
            || !options().any(|header| has_element(header.value, name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = Option<(Head, Vec<(String, String)>)>;

    fn read(text: &str, to_head: bool) -> Result<Read, HeadError> {
        let mut bytes = text.as_bytes().to_vec();
        let mut lines = Vec::new();
        let head = parse(&mut bytes, to_head, &mut lines)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(head.map(|head| {
            let lines = lines.iter().map(|line| line.of(&bytes));
            (head, lines.map(|(n, v)| (text(n), text(v))).collect())
        }))
    }

    fn framing(text: &str) -> Result<String, HeadError> {
        read(text, false).map(|head| match head.unwrap().0.framing {
            Framing::Length(length) => length.to_string(),
            Framing::Chunked(_) => "chunked".into(),
            Framing::Close => "close".into(),
        })
    }

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let text = "HTTP/1.1 201 Made\r\nX-One: 1\r\nSet-Cookie: a\r\nset-cookie:  b \r\nContent-Length: 2\r\n\r\nhi";
        for end in 0..text.len() - 2 {
            assert!(read(&text[..end], false).unwrap().is_none(), "{end}");
        }
        let (head, lines) = read(text, false).unwrap().unwrap();
        assert_eq!(
            (head.status, head.bytes, head.keep_alive),
            (201, text.len() - 2, true)
        );
        let expected = [
            ("x-one", "1"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("content-length", "2"),
        ];
        assert_eq!(lines, expected.map(|(n, v)| (n.to_string(), v.to_string())));
    }

    #[test]
    fn the_body_is_framed_as_rfc_9112_says() {
        let answer = |head: &str| framing(&format!("HTTP/1.1 {head}\r\n\r\n"));
        assert_eq!(answer("200 OK").unwrap(), "close");
        assert_eq!(answer("200 OK\r\ncontent-length: 7").unwrap(), "7");
        assert_eq!(
            answer("200 OK\r\ncontent-length: 7\r\nContent-Length: 7").unwrap(),
            "7"
        );
        let listed = read("HTTP/1.1 200 OK\r\ncontent-length: 7, 7\r\n\r\n", false)
            .unwrap()
            .unwrap();
        assert_eq!(listed.1, [("content-length".into(), "7".into())]);
        assert_eq!(
            answer("200 OK\r\ntransfer-encoding: Chunked").unwrap(),
            "chunked"
        );
        for status in [100, 103, 204, 304] {
            assert_eq!(
                answer(&format!("{status} X\r\ncontent-length: 7")).unwrap(),
                "0"
            );
        }
        let to_head = read("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", true)
            .unwrap()
            .unwrap();
        assert!(matches!(to_head.0.framing, Framing::Length(0)));
        assert_eq!(to_head.1, [("content-length".into(), "7".into())]);
        assert_eq!(
            answer("200 OK\r\ncontent-length: 7\r\ncontent-length: 8"),
            Err(HeadError::Length)
        );
        assert_eq!(
            answer("200 OK\r\ncontent-length: x"),
            Err(HeadError::Length)
        );
        assert_eq!(
            answer("200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked"),
            Err(HeadError::Length)
        );
        assert_eq!(
            answer("200 OK\r\ntransfer-encoding: gzip, chunked"),
            Err(HeadError::Coding)
        );
        assert_eq!(
            answer("200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            Err(HeadError::Coding)
        );
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Err(HeadError::Length)
        );
    }

    #[test]
    fn a_connection_is_kept_when_both_versions_say_so() {
        let kept = |head: &str| {
            read(&format!("HTTP/{head}\r\n\r\n"), false)
                .unwrap()
                .unwrap()
                .0
                .keep_alive
        };
        assert!(kept("1.1 204 X"));
        assert!(!kept("1.1 204 X\r\nconnection: Close"));
        assert!(!kept("1.0 204 X"));
        assert!(kept("1.0 204 X\r\nconnection: Keep-Alive"));
        assert!(!kept("1.0 204 X\r\nconnection: keep-alive, close"));
        assert!(!kept("1.1 200 X"), "its end is the connection's");
    }

    #[test]
    fn what_belongs_to_the_hop_does_not_cross() {
        let (_, lines) = read(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop, content-length\r\nX-HOP: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\nX-Stay: 1\r\nContent-Length: 0\r\n\r\n",
            false,
        )
        .unwrap()
        .unwrap();
        let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-stay", "content-length"]);
    }

    #[test]
    fn what_is_no_answer_is_named() {
        assert!(matches!(
            read("SSH-2.0-OpenSSH\r\n", false),
            Err(HeadError::Malformed(_))
        ));
        assert!(matches!(
            read("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", false),
            Err(HeadError::Malformed(_))
        ));
        assert!(matches!(
            read("HTTP/1.1 099 X\r\n\r\n", false),
            Err(HeadError::Status(99))
        ));
        let many = |lines: usize| {
            read(
                &format!("HTTP/1.1 204 X\r\n{}\r\n", "a: b\r\n".repeat(lines)),
                false,
            )
        };
        assert_eq!(
            many(MAX_HEADER_LINES).unwrap().unwrap().1.len(),
            MAX_HEADER_LINES
        );
        assert!(matches!(
            many(MAX_HEADER_LINES + 1),
            Err(HeadError::TooLong)
        ));
        let start = "HTTP/1.1 204 X\r\na: ";
        let long = |length: usize| {
            read(
                &format!("{start}{}\r\n\r\n", "b".repeat(length - start.len() - 4)),
                false,
            )
        };
        assert!(long(MAX_HEAD_BYTES).unwrap().is_some());
        assert!(matches!(long(MAX_HEAD_BYTES + 1), Err(HeadError::TooLong)));
        let endless = format!("{start}{}", "b".repeat(MAX_HEAD_BYTES));
        assert!(
            read(&endless[..MAX_HEAD_BYTES - 1], false)
                .unwrap()
                .is_none()
        );
        assert!(matches!(
            read(&endless[..MAX_HEAD_BYTES], false),
            Err(HeadError::TooLong)
        ));
    }
}
