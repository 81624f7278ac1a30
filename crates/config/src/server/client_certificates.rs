//! The entry of `auth` with `method: mtls`: certificates of a CA of the users, each of which names its user.

use adit_auth::{CertificateRules, CertificateUser, Scopes, UserName};

use crate::{
    error::ConfigError,
    key_names::{self, NO_OTHER_KEYS},
    read::{Item, Section},
    scopes,
};

/// Reads the entry, without its `method`.
pub(super) fn read(auth: &mut Section<'_>) -> Result<CertificateRules, ConfigError> {
    let mut rules = CertificateRules {
        user: user(auth)?,
        ..CertificateRules::default()
    };
    if let Some(item) = auth.item("users") {
        for item in item.list("users")? {
            let (user, scopes) = of_user(&item)?;
            if rules.users.contains_key(&user) {
                return Err(item.error(format!("the user {user} is listed twice")));
            }
            rules.users.insert(user, scopes);
        }
    }
    auth.finish(&key_names::CLIENT_CERTIFICATES)?;
    Ok(rules)
}

/// Which name of a certificate is its user.
fn user(auth: &mut Section<'_>) -> Result<CertificateUser, ConfigError> {
    let prefix = match auth.item("uri_prefix") {
        Some(item) => Some(item.text("the beginning of URIs")?.to_owned()),
        None => None,
    };
    let from = match auth.item("user_from") {
        Some(item) => match (item.text("`cn`, `san_dns` or `san_uri`")?, &prefix) {
            ("cn", _) => CertificateUser::CommonName,
            ("san_dns", _) => CertificateUser::DnsName,
            ("san_uri", Some(prefix)) if !prefix.is_empty() => CertificateUser::Uri {
                prefix: prefix.clone(),
            },
            ("san_uri", _) => {
                return Err(auth
                    .missing("uri_prefix", "what precedes the name of the user in a URI")
                    .with_help("for example `uri_prefix: spiffe://example.com/client/`"));
            }
            _ => {
                return Err(item.error("expected `cn`, `san_dns` or `san_uri`"));
            }
        },
        None => CertificateUser::default(),
    };
    if prefix.is_some() && !matches!(from, CertificateUser::Uri { .. }) {
        return Err(auth.conflict(
            &["uri_prefix"],
            "`uri_prefix` is for `user_from: san_uri` only",
        ));
    }
    Ok(from)
}

/// A user, and what it may use at most: a name, or a section.
fn of_user(item: &Item<'_>) -> Result<(UserName, Scopes), ConfigError> {
    if item.is_text() {
        return Ok((item.parse::<UserName>("a user name")?, Scopes::default()));
    }
    let mut section = item.section()?;
    let user = section.item("user");
    let user = user.ok_or_else(|| section.missing("user", "the name of a user"))?;
    let scopes = match section.item("scopes") {
        Some(item) => scopes::read(&item)?,
        None => Scopes::default(),
    };
    section.finish(&NO_OTHER_KEYS)?;
    Ok((user.parse::<UserName>("a user name")?, scopes))
}
