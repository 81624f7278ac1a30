//! Certificates of a CA of the users: which name in one is its user, and which users have one (P-1.23).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::{CertificateNames, DenialReason, Scopes, UserName};

/// Which name in a certificate is that of its user. The certificate must have exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CertificateUser {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The DNS name, in lower case.
    DnsName,
    /// What follows this prefix in the URI that begins with it.
    Uri {
        /// The prefix.
        prefix: String,
    },
}

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateRules {
    /// The name that is the user.
    pub user: CertificateUser,
    /// Users that have certificates, besides those of the records, and what they may use at most.
    pub users: BTreeMap<UserName, Scopes>,
}

/// The rules and the CAs in force.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    user: CertificateUser,
    users: BTreeMap<UserName, Arc<Scopes>>,
    cas: HashSet<[u8; 32]>,
    id: [u8; 32],
}

impl Certificates {
    pub(crate) fn new(rules: &CertificateRules, cas: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let users = rules.users.iter();
        let users = users.map(|(user, scopes)| (user.clone(), Arc::new(scopes.clone())));
        Self {
            user: rules.user.clone(),
            users: users.collect(),
            cas: cas.into_iter().collect(),
            id: rules.user.id(),
        }
    }

    /// Identifies the rule by which a certificate has a user.
    pub(crate) const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    pub(crate) fn trusts(&self, ca: &[u8; 32]) -> bool {
        self.cas.contains(ca)
    }

    /// The users of the configuration.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserName> {
        self.users.keys()
    }

    /// What the configuration allows a user; `None`: it does not have the user.
    pub(crate) fn scopes(&self, user: &UserName) -> Option<&Arc<Scopes>> {
        self.users.get(user)
    }

    /// The user that a certificate names.
    ///
    /// # Errors
    /// [`DenialReason::CertificateName`].
    pub(crate) fn user_of(&self, names: &CertificateNames) -> Result<UserName, DenialReason> {
        let one = |found: Vec<&str>| match found[..] {
            [one] => Some(one.to_owned()),
            _ => None,
        };
        let name = match &self.user {
            CertificateUser::CommonName => one(texts(&names.common_names).collect()),
            CertificateUser::DnsName => {
                one(texts(&names.dns_names).collect()).map(|name| name.to_ascii_lowercase())
            }
            CertificateUser::Uri { prefix } => {
                let uris = texts(&names.uris);
                one(uris.filter_map(|uri| uri.strip_prefix(&**prefix)).collect())
            }
        };
        let name = name.ok_or(DenialReason::CertificateName)?;
        UserName::parse(&name).map_err(|_| DenialReason::CertificateName)
    }
}

fn texts(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str)
}

impl CertificateUser {
    fn id(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("adit 2026 user of a certificate");
        match self {
            Self::CommonName => hasher.update(b"cn"),
            Self::DnsName => hasher.update(b"san_dns"),
            Self::Uri { prefix } => hasher.update(b"san_uri ").update(prefix.as_bytes()),
        };
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CertificateNames {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        CertificateNames {
            common_names: texts(&["alice"]),
            dns_names: texts(&["Laptop.Example.com"]),
            uris: texts(&["https://example.com/", "spiffe://example.com/client/bob"]),
            ..CertificateNames::default()
        }
    }

    fn user_of(user: CertificateUser, names: &CertificateNames) -> Option<String> {
        let rules = CertificateRules {
            user,
            ..CertificateRules::default()
        };
        let found = Certificates::new(&rules, []).user_of(names).ok();
        found.map(|user| user.to_string())
    }

    fn uri(prefix: &str) -> CertificateUser {
        let prefix = prefix.to_owned();
        CertificateUser::Uri { prefix }
    }

    #[test]
    fn one_name_of_the_certificate_is_the_user() {
        let user = |rule| user_of(rule, &names()).unwrap_or_default();
        assert_eq!(user(CertificateUser::CommonName), "alice");
        assert_eq!(user(CertificateUser::DnsName), "laptop.example.com");
        assert_eq!(user(uri("spiffe://example.com/client/")), "bob");
        assert_eq!(user(uri("spiffe://example.org/")), "");
        // What is left must be a name: no part of a path.
        assert_eq!(user(uri("spiffe://example.com/")), "");
    }

    #[test]
    fn a_certificate_with_two_names_has_no_user() {
        let mut two = names();
        two.common_names.push("root".to_owned());
        two.dns_names.push("other.example.com".to_owned());
        two.uris.push("spiffe://example.com/client/root".to_owned());
        for rule in [
            CertificateUser::CommonName,
            CertificateUser::DnsName,
            uri("spiffe://example.com/client/"),
        ] {
            assert_eq!(user_of(rule.clone(), &two), None);
            assert_eq!(user_of(rule, &CertificateNames::default()), None);
        }
    }
}
