//! Converts bytes to lower-case hexadecimal text and back, without a table that is indexed by a secret.

use std::fmt::Write;

/// The position of the first byte that is not hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotHex {
    pub(crate) at: usize,
}

pub(crate) fn append(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
}

/// Fills `bytes` from pairs of digits; the caller has checked the length.
pub(crate) fn decode(text: &[u8], bytes: &mut [u8]) -> Result<(), NotHex> {
    for (index, (pair, byte)) in text.chunks(2).zip(bytes).enumerate() {
        for (offset, digit) in pair.iter().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                b'A'..=b'F' => digit - b'A' + 10,
                _ => {
                    return Err(NotHex {
                        at: index * 2 + offset,
                    });
                }
            };
            // Two digits replace the byte.
            *byte = (*byte << 4) + value;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_decoded_as_encoded() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut text = String::from("0x");
        append(&mut text, &bytes);
        assert!(text.starts_with("0x000102"));
        assert!(text.ends_with("fdfeff"));
        for text in [text.to_lowercase(), text.to_uppercase()] {
            let mut back = [9; 256];
            assert_eq!(decode(&text.as_bytes()[2..], &mut back), Ok(()));
            assert_eq!(back[..], bytes[..]);
        }
    }

    #[test]
    fn other_characters_are_rejected_with_their_position() {
        for wrong in [b'/', b':', b'@', b'G', b'`', b'g', 0, 255] {
            for at in 0..6 {
                let mut text = *b"a0B1c2";
                text[at] = wrong;
                assert_eq!(decode(&text, &mut [0; 3]), Err(NotHex { at }));
            }
        }
    }
}
