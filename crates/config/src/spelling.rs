//! Suggestions for misspelt keys.

/// The candidate that is most similar to the word and differs only by a typing error, if there is one.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // No key is this long, and the comparison below is quadratic.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let allowed = 1 + word.len() / 5;
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(word, candidate), candidate))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_typing_mistakes_have_a_suggestion() {
        let keys = ["bind_port", "bind_addr", "http"];
        assert_eq!(nearest("bind_prot", keys), Some("bind_port"));
        assert_eq!(nearest("htp", keys), Some("http"));
        assert_eq!(nearest("hxyz", keys), None);
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"b".repeat(65), ["b"; 1]), None);
    }

    #[test]
    fn case_and_underscores_are_ignored() {
        assert!(same_letters("localPort", "local_port"));
        assert!(same_letters("local-port", "local_port"));
        assert!(!same_letters("local_ports", "local_port"));
    }
}
