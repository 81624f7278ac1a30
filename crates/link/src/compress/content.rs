//! Content that is compressed already and not compressed again (P-13.6).

/// Media types of content that is compressed. Those of office programs are archives.
const COMPRESSED: &[&[u8]] = &[
    b"application/gzip",
    b"application/java-archive",
    b"application/pdf",
    b"application/vnd.android.package-archive",
    b"application/vnd.rar",
    b"application/x-7z-compressed",
    b"application/x-bzip2",
    b"application/x-gzip",
    b"application/x-rar-compressed",
    b"application/x-xz",
    b"application/x-zip-compressed",
    b"application/zip",
    b"application/zstd",
    b"font/woff",
    b"font/woff2",
];

/// Prefixes of media types of content that is compressed.
const COMPRESSED_KINDS: &[&[u8]] = &[
    b"application/vnd.oasis.opendocument.",
    b"application/vnd.openxmlformats-officedocument.",
    b"audio/",
    b"image/",
    b"video/",
];

/// Exceptions to the prefixes.
const PLAIN: &[&[u8]] = &[
    b"image/bmp",
    b"image/svg+xml",
    b"image/x-icon",
    b"audio/wav",
];

/// Whether the payload of an HTTP message or a gRPC call with these header lines may shrink. The names may be in upper
/// or lower case.
pub fn is_compressible<'a>(lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    lines.into_iter().all(|(name, value)| {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"content-encoding") || is(b"grpc-encoding") {
            is_plain_encoding(value)
        } else if is(b"content-type") {
            is_plain_type(value)
        } else {
            true
        }
    })
}

fn is_plain_encoding(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.is_empty() || value.eq_ignore_ascii_case(b"identity")
}

fn is_plain_type(value: &[u8]) -> bool {
    let end = value.iter().position(|&byte| byte == b';');
    let kind = value[..end.unwrap_or(value.len())].trim_ascii();
    let is = |other: &&[u8]| kind.eq_ignore_ascii_case(other);
    let begins = |start: &&[u8]| {
        kind.get(..start.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(start))
    };
    PLAIN.iter().any(is) || !(COMPRESSED.iter().any(is) || COMPRESSED_KINDS.iter().any(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> bool {
        let plain = [
            (&b"server"[..], &b"gzip"[..]),
            (b"accept-encoding", b"gzip"),
        ];
        is_compressible(
            plain
                .into_iter()
                .chain([(name.as_bytes(), value.as_bytes())]),
        )
    }

    #[test]
    fn p_13_6_encoded_content_is_not_compressed_again() {
        for name in ["content-encoding", "Content-Encoding", "grpc-encoding"] {
            for value in ["gzip", "br", "zstd", " deflate", "gzip, identity"] {
                assert!(!of(name, value), "{name}: {value}");
            }
            for value in ["", "identity", " Identity "] {
                assert!(of(name, value), "{name}: {value}");
            }
        }
    }

    #[test]
    fn p_13_6_compressed_media_are_not_compressed_again() {
        for value in [
            "image/png",
            "IMAGE/jpeg; q=1",
            "video/mp4",
            "audio/ogg",
            "application/zip",
            " application/gzip ;x",
            "font/woff2",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ] {
            assert!(!of("content-type", value), "{value}");
        }
        for value in [
            "",
            "text/html; charset=utf-8",
            "application/json",
            "application/grpc+proto",
            "text/event-stream",
            "application/octet-stream",
            "image/svg+xml",
            "imagery/png",
            "image",
            "application/zipper",
            "font/ttf",
        ] {
            assert!(of("content-type", value), "{value}");
        }
    }

    #[test]
    fn p_13_6_content_without_a_type_is_compressible() {
        assert!(is_compressible([]));
        assert!(of("x-content-encoding", "gzip"));
    }
}
