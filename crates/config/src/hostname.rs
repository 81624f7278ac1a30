//! The name of this machine, as a client id.

use std::fs;

use crate::environment::Variables;

/// The longest name that [`adit_auth::ClientId`] takes.
const LONGEST: usize = 64;

/// `HOSTNAME`, or what the system says, or `client`.
pub(crate) fn client_id(variables: &Variables) -> String {
    let file = |path| fs::read_to_string(path).ok();
    variables
        .value("HOSTNAME")
        .map(str::to_owned)
        .or_else(|| file("/proc/sys/kernel/hostname"))
        .or_else(|| file("/etc/hostname"))
        .and_then(|name| sanitized(&name))
        .unwrap_or_else(|| "client".to_owned())
}

/// With what a name may not have replaced; nothing when nothing is left.
fn sanitized(name: &str) -> Option<String> {
    let name: String = name
        .trim()
        .chars()
        .map(|c| match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_machine_is_called_the_name_is_allowed() {
        assert_eq!(
            sanitized(" office-1.lan\n").as_deref(),
            Some("office-1.lan")
        );
        assert_eq!(sanitized("Anna's Mac").as_deref(), Some("Anna-s-Mac"));
        assert_eq!(sanitized("_.-x").as_deref(), Some("x"));
        assert_eq!(sanitized("日本"), None);
        assert_eq!(sanitized(""), None);
        let long = sanitized(&"a".repeat(100));
        assert_eq!(long.as_deref().map(str::len), Some(64));
        assert!(adit_auth::ClientId::parse(&long.unwrap_or_default()).is_ok());
    }
}
