//! What somebody may have meant.

/// The candidate that is a slip of the pen away, if there is one.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // Nobody misspells a key this long, and the comparison below is quadratic.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let allowed = 1 + word.len() / 5;
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether two words differ only in case and underscores: `localPort`, `local-port` and `local_port`.
pub(crate) fn same_letters(one: &str, other: &str) -> bool {
    let letters = |word: &str| {
        word.chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .map(|c| c.to_ascii_lowercase())
            .collect::<String>()
    };
    letters(one) == letters(other)
}

/// How many letters must be added, removed or replaced (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_book() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("flaw", "lawn"), 2);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_slips_are_answered() {
        let keys = ["bind_port", "bind_addr", "http"];
        assert_eq!(nearest("bind_prot", keys), Some("bind_port"));
        assert_eq!(nearest("htp", keys), Some("http"));
        assert_eq!(nearest("hxyz", keys), None);
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"b".repeat(65), ["b"; 1]), None);
    }

    #[test]
    fn case_and_underscores_are_not_letters() {
        assert!(same_letters("localPort", "local_port"));
        assert!(same_letters("local-port", "local_port"));
        assert!(!same_letters("local_ports", "local_port"));
    }
}
