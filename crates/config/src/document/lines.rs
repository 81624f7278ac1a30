//! Lines and columns of a text.

use crate::error::Origin;

/// Finds lines and columns of a text. Built once for each text, because every node needs it.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(newlines).collect(),
        }
    }

    /// Line and column, from 1, of a byte.
    fn place(&self, byte: usize) -> (usize, usize) {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.starts.partition_point(|&start| start <= end);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..end).unwrap_or_default();
        (line, 1 + before.chars().count())
    }

    pub(super) fn origin(&self, byte: usize) -> Origin {
        let (line, column) = self.place(byte);
        Origin::place(line, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let lines = Lines::new("aé\nbc\n");
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(1), (1, 2));
        // An offset inside a character has the column of that character.
        assert_eq!(lines.place(2), (1, 2));
        assert_eq!(lines.place(3), (1, 3));
        assert_eq!(lines.place(4), (2, 1));
        assert_eq!(lines.place(6), (2, 3));
        assert_eq!(lines.place(7), (3, 1));
        assert_eq!(lines.place(99), (3, 1));
    }
}
