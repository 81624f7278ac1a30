//! Header lines as text.

use adit_codec::HeaderBlock;

pub(crate) type Lines<'l> = &'l [(&'l str, &'l str)];

pub(crate) fn lines<'l>(lines: Lines<'l>) -> impl Iterator<Item = (&'l [u8], &'l [u8])> {
    lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))
}

pub fn block(of: &[(&str, &str)]) -> HeaderBlock {
    lines(of).collect()
}

/// The lines of a block; a byte that is not ASCII is shown as the character of its number.
pub fn block_text(block: &HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect();
    block.lines().map(|(n, v)| (text(n), text(v))).collect()
}
