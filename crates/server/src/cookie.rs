//! Cookies of a request.

/// The value of a cookie in the lines of a request, or nothing.
pub(crate) fn cookie<'h>(lines: impl Iterator<Item = &'h [u8]>, name: &str) -> &'h [u8] {
    lines
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .unwrap_or_default()
}
