//! Parses the head of a response, and selects how its body is framed.

use std::{mem::MaybeUninit, ops::Range};

use adit_codec::{
    MAX_HEAD_BYTES, MAX_HEADER_LINES,
    fields::{is_hop_by_hop, list_contains, list_elements, parse_content_length},
};
use thiserror::Error;

use super::{body_framing::BodyFraming, chunked::ChunkedDecoder};

/// Why bytes are not a response that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The bytes are not a head of HTTP/1.
    #[error("the service sent an invalid HTTP/1 response: {0}")]
    Malformed(httparse::Error),
    /// The head exceeds the bounds of P-2.10.
    #[error("the head of the response exceeds {MAX_HEAD_BYTES} bytes or {MAX_HEADER_LINES} lines")]
    TooLong,
    /// The status is below 100.
    #[error("the service sent an invalid status code: {0}")]
    Status(u16),
    /// Two different lengths, an invalid one, or a length beside a transfer coding: a sign of response smuggling (RFC 9112,
    /// 6.3).
    #[error("the service sent an invalid or ambiguous Content-Length")]
    Length,
    /// A transfer coding other than `chunked`.
    #[error("the service sent an unsupported Transfer-Encoding")]
    Coding,
}

/// The position of a header line in the bytes that it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSpan {
    name: Range<u32>,
    value: Range<u32>,
}

impl LineSpan {
    /// Name in lower case, and value. `bytes` are the bytes that [`parse`] was given.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let slice = |range: &Range<u32>| &bytes[range.start as usize..range.end as usize];
        (slice(&self.name), slice(&self.value))
    }
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Length of the head.
    pub bytes: usize,
    /// How the body ends.
    pub framing: BodyFraming,
    /// Whether the service keeps the connection after this response.
    pub keep_alive: bool,
    /// The position of the value of `Upgrade`; empty if there is none.
    pub upgrade: Range<usize>,
}

/// Parses a head at the start of `bytes`, which must be less than 4 GiB. Names are put into lower case in place;
/// `lines` receives the lines that are forwarded, in order. `to_head`: whether the request was `HEAD`. Returns `None`
/// while the head is incomplete.
///
/// # Errors
/// [`HeadError`]; the connection must be closed then.
pub fn parse(
    bytes: &mut [u8],
    to_head: bool,
    lines: &mut Vec<LineSpan>,
) -> Result<Option<ResponseHead>, HeadError> {
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
    let span = |part: &[u8]| {
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
                let value = parse_content_length(header.value).ok_or(HeadError::Length)?;
                match length.replace(value) {
                    // A repeated length is forwarded once.
                    Some(before) if before == value => continue,
                    Some(_) => return Err(HeadError::Length),
                    None => {}
                }
                // Of a list that repeats one number, one element is forwarded.
                lines.push(LineSpan {
                    name: span(name),
                    value: span(list_elements(header.value).next().unwrap_or(header.value)),
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
                close |= list_contains(header.value, b"close");
                keep |= list_contains(header.value, b"keep-alive");
                named |= list_elements(header.value).any(|e| {
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
        lines.push(LineSpan {
            name: span(name),
            value: span(header.value),
        });
    }
    if named {
        drop_named(bytes, &response, lines);
    }
    let framing = if to_head || status < 200 || status == 204 || status == 304 {
        BodyFraming::Length(0)
    } else if chunked {
        if length.is_some() || !is_1_1 {
            return Err(HeadError::Length);
        }
        BodyFraming::Chunked(ChunkedDecoder::default())
    } else {
        length.map_or(BodyFraming::Close, BodyFraming::Length)
    };
    let keep_alive = if is_1_1 { !close } else { keep && !close };
    for line in lines.iter() {
        bytes[line.name.start as usize..line.name.end as usize].make_ascii_lowercase();
    }
    Ok(Some(ResponseHead {
        status,
        bytes: head_bytes,
        keep_alive: keep_alive && !matches!(framing, BodyFraming::Close),
        framing,
        upgrade,
    }))
}

/// Removes the lines that `Connection` names (RFC 9110, 7.6.1). Rare, and therefore not optimized.
fn drop_named(bytes: &[u8], response: &httparse::Response<'_, '_>, lines: &mut Vec<LineSpan>) {
    let options = || {
        response
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("connection"))
    };
    lines.retain(|line| {
        let (name, _) = line.of(bytes);
        // `Connection` must not remove the length of the message.
        name.eq_ignore_ascii_case(b"content-length")
            || !options().any(|header| list_contains(header.value, name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parsed = Option<(ResponseHead, Vec<(String, String)>)>;

    fn read(text: &str, to_head: bool) -> Result<Parsed, HeadError> {
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
            BodyFraming::Length(length) => length.to_string(),
            BodyFraming::Chunked(_) => "chunked".into(),
            BodyFraming::Close => "close".into(),
        })
    }

    #[test]
    fn a_partial_head_is_incomplete_at_every_byte() {
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
    fn the_body_is_framed_by_the_rules_of_rfc_9112() {
        let of = |head: &str| framing(&format!("HTTP/1.1 {head}\r\n\r\n"));
        assert_eq!(of("200 OK").unwrap(), "close");
        assert_eq!(of("200 OK\r\ncontent-length: 7").unwrap(), "7");
        assert_eq!(
            of("200 OK\r\ncontent-length: 7\r\nContent-Length: 7").unwrap(),
            "7"
        );
        let listed = read("HTTP/1.1 200 OK\r\ncontent-length: 7, 7\r\n\r\n", false)
            .unwrap()
            .unwrap();
        assert_eq!(listed.1, [("content-length".into(), "7".into())]);
        assert_eq!(
            of("200 OK\r\ntransfer-encoding: Chunked").unwrap(),
            "chunked"
        );
        for status in [100, 103, 204, 304] {
            assert_eq!(
                of(&format!("{status} X\r\ncontent-length: 7")).unwrap(),
                "0"
            );
        }
        let to_head = read("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", true)
            .unwrap()
            .unwrap();
        assert!(matches!(to_head.0.framing, BodyFraming::Length(0)));
        assert_eq!(to_head.1, [("content-length".into(), "7".into())]);
        assert_eq!(
            of("200 OK\r\ncontent-length: 7\r\ncontent-length: 8"),
            Err(HeadError::Length)
        );
        assert_eq!(of("200 OK\r\ncontent-length: x"), Err(HeadError::Length));
        assert_eq!(
            of("200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked"),
            Err(HeadError::Length)
        );
        assert_eq!(
            of("200 OK\r\ntransfer-encoding: gzip, chunked"),
            Err(HeadError::Coding)
        );
        assert_eq!(
            of("200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            Err(HeadError::Coding)
        );
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Err(HeadError::Length)
        );
    }

    #[test]
    fn a_connection_is_kept_by_the_rules_of_its_version() {
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
        assert!(!kept("1.1 200 X"), "the body ends with the connection");
    }

    #[test]
    fn p_3_3_hop_by_hop_lines_do_not_cross() {
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
    fn invalid_heads_have_their_error() {
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
