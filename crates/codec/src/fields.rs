//! Rules of HTTP header fields that both ends of the tunnel apply: which fields stay on their hop, and how list values and
//! lengths are read.

/// Whether a field concerns one connection only (P-3.3; RFC 9110, 7.6.1). `name` is in lower case.
///
/// Includes `te`: callers that forward `te: trailers` must check it before this filter. The fields that `connection` names
/// are hop-by-hop as well; finding those is up to the caller.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
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

/// Whether a field frames, routes or controls its message. Such a field is not allowed in trailers (RFC 9110, 6.5.1), and
/// settings may not replace it. `name` is in lower case.
pub fn is_message_control(name: &[u8]) -> bool {
    is_hop_by_hop(name) || matches!(name, b"content-length" | b"host" | b"trailer")
}

/// The elements of a comma-separated list (RFC 9110, 5.6.1), without the whitespace around them; empty ones are skipped.
pub fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a comma-separated list has the element `token`; case is ignored.
pub fn list_contains(value: &[u8], token: &[u8]) -> bool {
    list_elements(value).any(|element| element.eq_ignore_ascii_case(token))
}

/// Parses a `content-length`: a number, or a list that repeats one number (RFC 9110, 8.6). `None` for any other value.
pub fn parse_content_length(value: &[u8]) -> Option<u64> {
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
    fn content_length_is_one_number_or_its_repetition() {
        assert_eq!(parse_content_length(b"0"), Some(0));
        assert_eq!(parse_content_length(b"42"), Some(42));
        assert_eq!(parse_content_length(b"5, 5"), Some(5));
        assert_eq!(
            parse_content_length(b"18446744073709551615"),
            Some(u64::MAX)
        );
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
            assert_eq!(parse_content_length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn lists_ignore_case_whitespace_and_empty_elements() {
        assert!(list_contains(b"keep-alive,  Close", b"close"));
        assert!(!list_contains(b"closed", b"close"));
        assert!(!list_contains(b"", b""));
        assert_eq!(list_elements(b" a ,, b").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(list_contains(b"gzip, Trailers", b"trailers"));
        assert!(!list_contains(b"gzip", b"trailers"));
    }

    #[test]
    fn p_3_3_hop_by_hop_fields_are_those_of_the_protocol() {
        let protocol = include_str!("../../../docs/protocol.md");
        let clause = { protocol.lines() }
            .find(|line| line.starts_with("- **P-3.3**"))
            .unwrap();
        let (hop_by_hop, others) = clause.split_once(" do not cross").unwrap();
        let names = |text: &str| -> Vec<String> {
            let quoted = text.split('`').skip(1).step_by(2);
            let fields = quoted.filter(|name| *name != "trailers");
            fields.map(str::to_ascii_lowercase).collect()
        };
        let documented = names(hop_by_hop);
        assert_eq!(documented.len(), 6, "{clause}");
        for name in &documented {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(is_message_control(name.as_bytes()), "{name}");
        }
        assert_eq!(names(others), ["content-length"]);
        assert!(!is_hop_by_hop(b"content-length"));
    }

    #[test]
    fn message_control_fields_are_not_allowed_in_trailers() {
        // RFC 9110, 6.5.1 forbids framing, routing and controls; the others of these are end-to-end.
        for name in ["content-length", "host", "trailer"] {
            assert!(is_message_control(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "etag", "digest", "expires", "keep", "hosts"] {
            assert!(!is_message_control(name.as_bytes()), "{name}");
        }
    }
}
