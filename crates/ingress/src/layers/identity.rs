//! Headers by which a service learns who the visitor is. Only adit sets them.

use http::HeaderName;

/// The name of the user that a layer has verified (P-15.5).
pub(super) const USER: HeaderName = HeaderName::from_static("adit-user");

/// Whether a header of a visitor could be taken for [`USER`]: programs that pass headers as variables do not tell a
/// hyphen from an underscore.
pub(super) fn could_be(name: &HeaderName, identity: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (name, identity) = (name.as_str().as_bytes(), identity.as_str().as_bytes());
    let mut bytes = name.iter().zip(identity);
    name.len() == identity.len() && bytes.all(|(one, other)| plain(*one) == plain(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_are_hyphens() {
        for (name, could) in [
            ("adit-user", true),
            ("adit_user", true),
            ("adit-users", false),
            ("x-adit-user", false),
        ] {
            assert_eq!(
                could_be(&HeaderName::from_static(name), &USER),
                could,
                "{name}"
            );
        }
    }
}
