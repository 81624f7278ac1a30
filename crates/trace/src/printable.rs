//! Text of a peer, for a terminal or a log.

use std::fmt::{self, Write as _};

/// Characters of the longest text that is not cut.
const LONGEST: usize = 512;

/// Text of a peer, safe to show: characters that move a cursor, end a line or change the direction of writing are
/// escaped as in Rust (`\n`, `\u{1b}`), and a text of more than 512 characters is cut and ends in `…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// Whether the text is shown unchanged.
    pub fn is_plain(&self) -> bool {
        // A character has at least one byte.
        self.0.len() <= LONGEST && !self.0.chars().any(is_active)
    }
}

/// Whether a terminal or a viewer of logs may act on the character instead of showing it: C0, DEL and C1; line and
/// paragraph separators; marks, embeddings, overrides and isolates of bidirectional text.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            return f.write_str(self.0);
        }
        for (index, c) in self.0.chars().enumerate() {
            if index == LONGEST {
                return f.write_char('…');
            }
            if is_active(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_moves_a_cursor_or_ends_a_line() {
        let shown = Printable("a\u{1b}[2J\u{7}b\r\nc\u{9b}\u{7f}\u{202e}\u{2028}").to_string();
        assert_eq!(
            shown,
            "a\\u{1b}[2J\\u{7}b\\r\\nc\\u{9b}\\u{7f}\\u{202e}\\u{2028}"
        );
        assert!(Printable(&shown).is_plain());
        for code in (0..0xa0).chain(0x2000..0x2070) {
            let c = char::from_u32(code).unwrap();
            let shown = Printable(c.encode_utf8(&mut [0; 4])).to_string();
            assert!(!shown.chars().any(char::is_control), "{code:x}");
        }
    }

    #[test]
    fn plain_text_of_every_script_is_shown_as_it_is() {
        for text in ["", "https://web.example/a?b", "größer 日本語 עברית", "\\n"] {
            assert!(Printable(text).is_plain());
            assert_eq!(Printable(text).to_string(), text);
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "é".repeat(LONGEST + 1);
        let shown = Printable(&long).to_string();
        assert_eq!(shown.chars().count(), LONGEST + 1);
        assert!(shown.ends_with("é…"));
        let fits = "é".repeat(LONGEST);
        assert_eq!(Printable(&fits).to_string(), fits);
    }
}
