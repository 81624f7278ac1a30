//! Replaces the bytes of request targets that hyper would reject (`forward/target.rs`).

use crate::forward::target::{PLACEHOLDER, is_replaced};

/// Follows the bytes of one request line, and replaces those of its target that hyper would reject.
#[derive(Debug, Default, Clone)]
pub(crate) struct RequestLine {
    part: Part,
    replaced: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Method,
    Target,
    Version,
}

impl RequestLine {
    /// Processes bytes up to the end of the line. Returns how many, and whether the line has ended.
    pub(crate) fn on_bytes(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            match (self.part, *byte) {
                (_, b'\n') => {
                    self.part = Part::Method;
                    return (index + 1, true);
                }
                (Part::Method, b' ') => self.part = Part::Target,
                (Part::Target, b' ') => self.part = Part::Version,
                (Part::Target, replaced) if is_replaced(replaced) => {
                    self.replaced.push(replaced);
                    *byte = PLACEHOLDER;
                }
                _ => {}
            }
        }
        (bytes.len(), false)
    }

    /// The bytes that were replaced in the line that has ended.
    pub(crate) fn take_replaced(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replaced)
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::forward::target::Target;

    /// The line as hyper reads it, and the replaced bytes, when the line arrives in pieces of `step` bytes.
    fn follow(line: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
        let mut line = line.to_vec();
        let mut watch = RequestLine::default();
        let mut ended = false;
        for piece in line.chunks_mut(step) {
            assert!(!ended);
            let (taken, end) = watch.on_bytes(piece);
            assert_eq!(taken, piece.len());
            ended = end;
        }
        assert!(ended);
        (line, watch.take_replaced())
    }

    #[test]
    fn every_byte_of_a_target_is_restored() {
        let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
        let target = [b"/", &all[..], b"?", &all[..]].concat();
        for target in [&target[..], b"/?key=\"a\"", b"/caf\xe9", b"/^^", b"/a#b"] {
            let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
            for step in [1, 7, line.len()] {
                let (seen, replaced) = follow(&line, step);
                assert_eq!(seen.len(), line.len());
                let uri = &seen[4..4 + target.len()];
                let uri = Uri::try_from(uri).unwrap();
                let found = Target::new(&uri, &replaced).unwrap();
                assert_eq!(found.as_bytes(), target);
            }
        }
    }

    #[test]
    fn only_the_target_of_a_line_is_changed() {
        let (seen, replaced) = follow(b"G\"T /a HTTP\"1.1\r\n", 3);
        assert_eq!(
            (&seen[..], &replaced[..]),
            (&b"G\"T /a HTTP\"1.1\r\n"[..], &b""[..])
        );
    }
}
