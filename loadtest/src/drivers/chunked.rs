//! Removes the chunked coding of a body (RFC 9112, 7.1), in pieces of any size.

use crate::failure::{Failed, Failure};

/// The length limit of a line: sizes and trailers are short.
const LINE_LIMIT_BYTES: usize = 1_024;

/// The position of the next byte in the coding.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    line: Vec<u8>,
    /// The remaining bytes of the chunk.
    left: u64,
    /// The next bytes are the end of the line after a chunk.
    after: bool,
}

fn wrong(text: &str) -> Failed {
    Failed::new(Failure::Unreadable, text)
}

impl Chunked {
    /// Appends the content of the chunks in `bytes` to `body`.
    ///
    /// # Errors
    /// Returns an error when the coding is invalid, or when the body has ended: the bodies that are read here are
    /// endless.
    pub(super) fn take(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> Result<(), Failed> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                body.extend_from_slice(&bytes[..here]);
                self.left -= here as u64;
                self.after = self.left == 0;
                bytes = &bytes[here..];
                continue;
            }
            let byte = bytes[0];
            bytes = &bytes[1..];
            if byte != b'\n' {
                if self.line.len() == LINE_LIMIT_BYTES {
                    return Err(wrong("a line too long between chunks"));
                }
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.trim_ascii_end();
            if std::mem::take(&mut self.after) {
                if !line.is_empty() {
                    return Err(wrong("a chunk longer than its length"));
                }
                continue;
            }
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let digits = std::str::from_utf8(digits).map_err(|_| wrong("no size of a chunk"))?;
            self.left =
                u64::from_str_radix(digits.trim(), 16).map_err(|_| wrong("no size of a chunk"))?;
            if self.left == 0 {
                return Err(Failed::new(Failure::Cut, "the stream ended"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_do_not_matter() {
        let coded = b"5\r\nhello\r\nA;x=y\r\n, world!!!\r\n1\r\n.\r\n";
        for size in 1..=coded.len() {
            let (mut chunked, mut body) = (Chunked::default(), Vec::new());
            for piece in coded.chunks(size) {
                chunked.take(piece, &mut body).unwrap();
            }
            assert_eq!(body, b"hello, world!!!.", "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for coded in ["x\r\n", "\r\n", "2\r\nabc\r\n", "0\r\n\r\n", "-1\r\n"] {
            let taken = Chunked::default().take(coded.as_bytes(), &mut Vec::new());
            assert!(taken.is_err(), "{coded:?}");
        }
        let long = vec![b'1'; LINE_LIMIT_BYTES + 1];
        assert!(Chunked::default().take(&long, &mut Vec::new()).is_err());
    }
}
