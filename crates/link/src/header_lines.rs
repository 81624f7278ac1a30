//! Header maps as header lines.

use http::HeaderMap;

/// Name and value of each line of a header map, as encoders of heads take them.
pub fn header_lines(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.iter();
    lines.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}
