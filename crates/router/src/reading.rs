//! Paths that services read differently.
//!
//! Rules compare the bytes of a path, and the same bytes reach the service, which may resolve dot segments, decode
//! percent-encoding, merge slashes, take a backslash for a slash, or drop the parameters of a segment (`;v=1`). A path
//! that becomes that of another rule by any of these would avoid the rule, and its layers.
//!
//! One reading, with all of these steps, decides for every service: a prefix is written in its plain form
//! ([`PathPrefix`](crate::PathPrefix)), so a rule that matches the bytes matches every reading, and a rule that matches
//! a reading with some of the steps matches the one with all. Two paths have no such reading and are refused as they
//! are: with a dot segment, as services resolve it before or after the other steps; and with an encoded slash in the
//! parameters of a segment, which ends them or is dropped with them.

use thiserror::Error;

/// Why a request does not select one rule: a service may read its path as that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnclearPath {
    /// A segment is `.` or `..`.
    #[error(
        "the path has a segment `.` or `..`, as it is or percent-encoded, and rules by path apply to this host; send the path that it leads to"
    )]
    DotSegment,
    /// A slash or backslash follows the `;` of a segment.
    #[error(
        "the path has an encoded slash or a backslash after a `;`, and rules by path apply to this host; send the path without them"
    )]
    SlashInParameter,
    /// The path contains a `#`.
    #[error(
        "the path contains `#`, and rules by path apply to this host; send it percent-encoded (%23)"
    )]
    Fragment,
    /// Another rule applies to the path that a service may read.
    #[error(
        "a service may read the path as one to which another rule applies; send it without empty segments, backslashes, `;` and characters that are percent-encoded without need"
    )]
    OtherRule,
}

/// The path as a service may read it; `None` if it reads the bytes as they are. `path` has no query.
pub(crate) fn other_reading(path: &str) -> Result<Option<String>, UnclearPath> {
    if is_plain(path) {
        return Ok(None);
    }
    if path.contains('#') {
        return Err(UnclearPath::Fragment);
    }
    let mut reading = String::with_capacity(path.len());
    let mut decoded = String::new();
    for written in path.split('/') {
        decoded.clear();
        decode(written, &mut decoded);
        if let Some((_, parameters)) = decoded.split_once(';')
            && parameters.contains(['/', '\\'])
        {
            return Err(UnclearPath::SlashInParameter);
        }
        for segment in decoded.split(['/', '\\']) {
            let segment = segment.split_once(';').map_or(segment, |(name, _)| name);
            match segment {
                "" => {}
                "." | ".." => return Err(UnclearPath::DotSegment),
                _ => {
                    reading.push('/');
                    reading.push_str(segment);
                }
            }
        }
    }
    if reading.is_empty() || path.ends_with('/') {
        reading.push('/');
    }
    Ok((reading != path).then_some(reading))
}

/// Whether the path certainly has one reading. Nearly every path is; the others are read more closely.
fn is_plain(path: &str) -> bool {
    let mut after_slash = false;
    path.bytes().all(|byte| {
        let is_plain = match byte {
            b'%' | b'\\' | b';' | b'#' | 0x80.. => false,
            b'/' | b'.' => !after_slash,
            _ => true,
        };
        after_slash = byte == b'/';
        is_plain
    })
}

/// Decodes what need not be encoded, also where it is encoded more than once, and encodes the bytes that must be. The
/// digits of what remains are in upper case.
///
/// # Complexity
/// Linear: each step beyond the first of a byte makes the text shorter.
fn decode(written: &str, into: &mut String) {
    for character in written.chars() {
        if character.is_ascii() {
            into.push(character);
            while let Some((length, byte)) = encoded_end(into) {
                into.truncate(into.len().saturating_sub(length));
                if is_decoded(byte) {
                    into.push(char::from(byte));
                } else {
                    push_encoded(byte, into);
                    break;
                }
            }
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                push_encoded(byte, into);
            }
        }
    }
}

/// The length and the byte of the encoding that a text ends with: `%61`, or `%2561`, which is encoded twice.
fn encoded_end(text: &str) -> Option<(usize, u8)> {
    let bytes = text.as_bytes();
    let (before, digits) = bytes.split_last_chunk::<2>()?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
    if before.ends_with(b"%25") {
        Some((5, value))
    } else if before.ends_with(b"%") {
        Some((3, value))
    } else {
        None
    }
}

/// Whether a byte is decoded. A `%` is not: what follows would become another encoding; `?` and `#` have no place in a
/// path.
fn is_decoded(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#')
}

fn push_encoded(byte: u8, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    into.push('%');
    for digit in [byte >> 4, byte & 15] {
        if let Some(digit) = DIGITS.get(usize::from(digit)) {
            into.push(char::from(*digit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_has_one_reading() {
        for path in [
            "/",
            "",
            "*",
            "/a",
            "/a/",
            "/a/b.c/d",
            "/.well-known/x",
            "/a/.../b",
            "/..a",
            "/a%20b",
            "/%C3%A9",
            "/100%25",
            "/a%3Fb",
            "/a%",
            "/a%2",
            "/a%zz",
            "/@scope/x",
            "/a=b,c",
        ] {
            assert_eq!(other_reading(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn one_reading_takes_all_steps() {
        for (path, reading) in [
            ("//admin", "/admin"),
            ("/a///b//", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/%2561dmin", "/admin"),
            ("/%25252561dmin", "/admin"),
            ("/admin%2fx", "/admin/x"),
            ("/admin%5Cx", "/admin/x"),
            ("\\admin", "/admin"),
            ("/admin;x", "/admin"),
            ("/admin%3bx=1/y;z", "/admin/y"),
            ("/;/admin", "/admin"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%7Ea%40b", "/~a@b"),
            ("//", "/"),
        ] {
            assert_eq!(other_reading(path), Ok(Some(reading.into())), "{path}");
        }
    }

    #[test]
    fn paths_without_one_reading_are_refused() {
        for path in [
            "/x/../admin",
            "/./admin",
            "/x/%2e%2E/admin",
            "/x/.%2e/admin",
            "/..;/admin",
            "/..;x=y/admin",
            "/x%2f..%2fadmin",
            "/x\\..\\admin",
            "/x/%252e%252e/admin",
            "/..",
            "/.",
            "/a/..%3b/b",
        ] {
            assert_eq!(other_reading(path), Err(UnclearPath::DotSegment), "{path}");
        }
        for path in ["/a;%2fz/b", "/a;\\z/b", "/a%3b%5cz", "/a;%252fz"] {
            assert_eq!(
                other_reading(path),
                Err(UnclearPath::SlashInParameter),
                "{path}"
            );
        }
        assert_eq!(other_reading("/a#/../admin"), Err(UnclearPath::Fragment));
    }

    #[test]
    fn a_long_path_is_read_in_linear_time() {
        // Each `25` makes the encoding before it shorter by one level.
        let path = format!("/%{}61", "25".repeat(30_000));
        assert_eq!(other_reading(&path), Ok(Some("/a".into())));
    }
}
