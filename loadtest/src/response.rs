//! Parses the head of an HTTP/1.1 response: the few fields that a generator needs.

/// The properties of a response that the generator needs before the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// The length of the body.
    pub(crate) length: u64,
    /// The connection must not be used again.
    pub(crate) close: bool,
    /// The offset of the body in the buffer.
    pub(crate) end: usize,
}

/// The generator cannot measure this response: it is not HTTP/1.1, or it has no content-length, so that a truncated
/// body would look complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Parses a head from the start of `bytes`; returns `None` until the head is complete.
///
/// # Errors
/// Returns [`Unreadable`] when the generator cannot measure the response.
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
        // Lengths are compared first: comparing every name would cost more than the rest of this function.
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
    // Interim responses and responses with these two statuses never have a body (RFC 9112, 6.3).
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
