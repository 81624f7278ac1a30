//! Which header fields stay on their hop, and what a connection's options say.

/// Whether a field concerns one connection only (P-3.3; RFC 9110, 7.6.1), whatever `Connection` names. `name` is in
/// lower case. `te` is among them: who keeps `te: trailers` looks at it first.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Whether a field may not stand in trailers: it would frame, route or control the message (RFC 9110, 6.5.1).
pub(crate) fn is_barred_from_trailers(name: &[u8]) -> bool {
    is_hop_by_hop(name) || matches!(name, b"content-length" | b"host" | b"trailer")
}

/// The elements of a comma-separated list, without the space around them.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a list holds `token`, whatever its case.
pub(crate) fn has_element(value: &[u8], token: &[u8]) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token))
}

/// Whether `te` allows trailers: the one member of it that passes (P-3.3).
pub(crate) fn allows_trailers(te: &[u8]) -> bool {
    elements(te).any(|element| {
        let name = element.split(|&byte| byte == b';').next().unwrap_or(b"");
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

/// A `Content-Length`: digits, or a list of the same number (RFC 9110, 8.6).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let mut length = None;
    for element in value.split(|&byte| byte == b',') {
        let element = element.trim_ascii();
        if element.is_empty() || !element.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number: u64 = std::str::from_utf8(element).ok()?.parse().ok()?;
        if length.is_some_and(|length| length != number) {
            return None;
        }
        length = Some(number);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_or_the_same_digits_again() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"42"), Some(42));
        assert_eq!(content_length(b"5, 5"), Some(5));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "+5",
            "-1",
            "5 5",
            "5,6",
            "5,",
            "0x5",
            "18446744073709551616",
            "5a",
        ] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn lists_are_read_whatever_their_case_and_space() {
        assert!(has_element(b"keep-alive,  Close", b"close"));
        assert!(!has_element(b"closed", b"close"));
        assert!(!has_element(b"", b""));
        assert_eq!(elements(b" a ,, b").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(allows_trailers(b"gzip, Trailers;q=1"));
        assert!(!allows_trailers(b"gzip"));
    }

    #[test]
    fn what_concerns_one_connection_is_known() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(is_barred_from_trailers(name.as_bytes()), "{name}");
        }
        for name in ["content-length", "host", "trailer"] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(is_barred_from_trailers(name.as_bytes()), "{name}");
        }
        assert!(!is_barred_from_trailers(b"grpc-status"));
    }
}
