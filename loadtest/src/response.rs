//! Reads the head of an HTTP/1.1 response: the few fields a generator needs.

/// What the generator wants to know of a response before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// How long the body is.
    pub(crate) length: u64,
    /// The connection is not to be used again.
    pub(crate) close: bool,
    /// Where in the buffer the body begins.
    pub(crate) end: usize,
}

/// The response is not one that this generator can measure: not HTTP/1.1, or
/// without a content-length, so that a cut body would look like a whole one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Reads a head from the start of `bytes`; `None` until it is complete.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, Unreadable> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| std::str::from_utf8(code).ok())
        .and_then(|code| code.parse::<u16>().ok())
        .ok_or(Unreadable)?;
    let mut length = None;
    let mut close = false;
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        // Compared by length first: comparing every name would cost more
        // than the rest of this function.
        match line.iter().position(|byte| *byte == b':') {
            Some(14) if line[..14].eq_ignore_ascii_case(b"content-length") => {
                let value = std::str::from_utf8(line[15..].trim_ascii()).map_err(|_| Unreadable)?;
                length = Some(value.parse().map_err(|_| Unreadable)?);
            }
            Some(10) if line[..10].eq_ignore_ascii_case(b"connection") => {
                close = line[11..].trim_ascii().eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    // Interim responses and these two never have a body (RFC 9112, 6.3).
    let length = if matches!(status, 100..200 | 204 | 304) {
        0
    } else {
        length.ok_or(Unreadable)?
    };
    Ok(Some(Head {
        status,
        length,
        close,
        end: end + 4,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_complete() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nbody";
        let head = Head {
            status: 200,
            length: 12,
            close: true,
            end: whole.len() - 4,
        };
        assert_eq!(parse(whole), Ok(Some(head)));
        assert_eq!(parse(&whole[..whole.len() - 5]), Ok(None));
    }

    #[test]
    fn a_body_of_unknown_length_is_refused() {
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Err(Unreadable)
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
            Err(Unreadable)
        );
        assert_eq!(
            parse(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n"),
            Err(Unreadable)
        );
    }

    #[test]
    fn responses_without_a_body_need_no_length() {
        let head = parse(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.length, head.close), (100, 0, false));
        assert_eq!(
            parse(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap()
                .unwrap()
                .length,
            0
        );
    }
}
