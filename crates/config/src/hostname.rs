//! The name of this machine, as a client id.

use crate::environment::Variables;

/// The longest valid [`adit_auth::ClientId`].
const LONGEST: usize = 64;

/// The client id of these variables: the chosen one, or that of this machine.
#[must_use]
pub fn default_client_id(variables: impl IntoIterator<Item = (String, String)>) -> String {
    let variables = Variables::new(variables);
    let chosen = variables.value("ADIT__CLIENT__CLIENT_ID");
    chosen.map_or_else(|| client_id(&variables), str::to_owned)
}

/// The value of `HOSTNAME`, or the name of the system, or `client`.
pub(crate) fn client_id(variables: &Variables) -> String {
    let system = || {
        let names = rustix::system::uname();
        Some(names.nodename().to_string_lossy().into_owned())
    };
    variables
        .value("HOSTNAME")
        .map(str::to_owned)
        .or_else(system)
        .and_then(|name| sanitized(&name))
        .unwrap_or_else(|| "client".to_owned())
}

/// The name, in which characters that a client id must not contain are replaced; `None` if it is empty then.
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
    fn every_machine_name_becomes_a_valid_id() {
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
