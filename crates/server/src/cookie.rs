//! Cookies of a request.

/// The value of a cookie in the header lines of a request, if it is there.
pub(crate) fn cookie<'h>(lines: impl Iterator<Item = &'h [u8]>, name: &str) -> &'h [u8] {
    lines
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .unwrap_or_default()
}
