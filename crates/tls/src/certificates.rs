//! The certificates that a server shows to visitors, by host.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::RwLock;

use crate::{
    client_hello::ClientHello,
    host_certificate::{HostCertificate, HostName},
    identity::Identity,
};

/// The certificates for visitors, by host. Clones share them. They can be replaced at any time: a change applies to the next
/// handshake.
///
/// There are two sources: certificates *given* by the configuration, replaced all at once, and certificates *issued* at run
/// time, one for each host. A given certificate precedes an issued one for the same name; an exact name precedes a wildcard.
/// Without a certificate for a host, a given certificate serves if it was marked as the default.
///
/// # Cost
/// A choice takes a lock for reading, and looks up two names in each of two tables.
#[derive(Clone, Default)]
pub struct Certificates(Arc<RwLock<State>>);

#[derive(Default)]
struct State {
    given: Table,
    default: Option<Arc<HostCertificate>>,
    issued: Table,
    /// The answers to challenges of `acme-tls/1` (RFC 8737), by host.
    challenges: HashMap<Box<str>, Identity>,
}

/// Certificates by the names in them. Several for one name have different kinds of keys, in the order of preference.
#[derive(Default)]
struct Table {
    exact: HashMap<Box<str>, Vec<Arc<HostCertificate>>>,
    /// By the name without `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<HostCertificate>>>,
}

/// What a server shows to a visitor.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// A certificate.
    Certificate(Arc<HostCertificate>),
    /// The answer to a challenge: the connection carries nothing else.
    Challenge(Identity),
    /// Nothing: no certificate is for the name.
    Nothing,
}

impl Certificates {
    /// No certificates.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the given certificates. For a name that several have, the first one that a visitor supports is chosen. The
    /// default is for visitors that name no host, or one that no certificate is for.
    pub fn give(
        &self,
        certificates: &[Arc<HostCertificate>],
        default: Option<Arc<HostCertificate>>,
    ) {
        let mut given = Table::default();
        for certificate in certificates {
            for name in certificate.host_names() {
                given.entry(name).push(certificate.clone());
            }
        }
        let mut state = self.0.write();
        state.given = given;
        state.default = default;
    }

    /// Adds an issued certificate for `name`, a host or `*.` and a host, or replaces the one for it. The other names in the
    /// certificate have no effect.
    pub fn insert(&self, name: &str, certificate: HostCertificate) {
        let name = HostName::parse(name);
        if let Some(name) = &name {
            *self.0.write().issued.entry(name) = vec![Arc::new(certificate)];
        }
    }

    /// Removes the issued certificate for `name`. Returns whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let mut state = self.0.write();
        match HostName::parse(name) {
            Some(HostName::Exact(name)) => state.issued.exact.remove(&name).is_some(),
            Some(HostName::Wildcard(above)) => state.issued.wildcard.remove(&above).is_some(),
            None => false,
        }
    }

    /// Answers challenges of `acme-tls/1` for `host` with this certificate, until it is removed.
    pub fn insert_challenge(&self, host: &str, answer: Identity) {
        let host = host.to_ascii_lowercase().into();
        self.0.write().challenges.insert(host, answer);
    }

    /// Answers no more challenges for `host`.
    pub fn remove_challenge(&self, host: &str) {
        let host = host.to_ascii_lowercase();
        self.0.write().challenges.remove(&*host);
    }

    /// The certificate for a host; not the default.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<Arc<HostCertificate>> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let state = self.0.read();
        [&state.given, &state.issued]
            .into_iter()
            .find_map(|table| table.find(&host, |_| true))
    }

    /// Whether there is a certificate for every host that the pattern matches: a host, or `*.` and a host.
    #[must_use]
    pub fn is_for(&self, pattern: &str) -> bool {
        self.of_pattern(pattern, |_| true).is_some()
    }

    /// A certificate for every host that the pattern matches, of those that fit if there are any; not the default.
    pub(crate) fn of_pattern(
        &self,
        pattern: &str,
        fits: impl Fn(&HostCertificate) -> bool,
    ) -> Option<Arc<HostCertificate>> {
        let name = HostName::parse(pattern)?;
        let state = self.0.read();
        let mut tables = [&state.given, &state.issued].into_iter();
        tables.find_map(|table| match &name {
            HostName::Exact(host) => table.find(host, &fits),
            HostName::Wildcard(above) => best(table.wildcard.get(above)?, &fits),
        })
    }

    /// Whether a given certificate is for every host that the pattern matches, so that none has to be issued.
    #[must_use]
    pub fn is_given(&self, pattern: &str) -> bool {
        let state = self.0.read();
        match HostName::parse(pattern) {
            Some(HostName::Exact(host)) => state.given.find(&host, |_| true).is_some(),
            Some(HostName::Wildcard(above)) => state.given.wildcard.contains_key(&above),
            None => false,
        }
    }

    /// The certificates, each once: those given in the order of their first names, then those issued.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<HostCertificate>> {
        let state = self.0.read();
        let mut all: Vec<Arc<HostCertificate>> = Vec::new();
        let tables = [&state.given, &state.issued].into_iter();
        let named = tables.flat_map(|table| table.exact.values().chain(table.wildcard.values()));
        for one in named.flatten().chain(&state.default) {
            if !all.iter().any(|known| Arc::ptr_eq(known, one)) {
                all.push(one.clone());
            }
        }
        all.sort_by_key(|one| one.names().next());
        all
    }

    /// The choice for a visitor (P-14.1, P-14.3).
    pub(crate) fn choose(&self, hello: &ClientHello) -> Choice {
        let state = self.0.read();
        let host = hello.server_name();
        if hello.is_challenge() {
            let answer = host.and_then(|host| state.challenges.get(host));
            return answer.map_or(Choice::Nothing, |answer| Choice::Challenge(answer.clone()));
        }
        let fits = |one: &HostCertificate| one.can_sign(hello);
        let named = host.and_then(|host| {
            { [&state.given, &state.issued].into_iter() }.find_map(|table| table.find(host, fits))
        });
        named
            .or_else(|| state.default.clone())
            .map_or(Choice::Nothing, Choice::Certificate)
    }
}

impl Table {
    fn entry(&mut self, name: &HostName) -> &mut Vec<Arc<HostCertificate>> {
        match name {
            HostName::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostName::Wildcard(above) => self.wildcard.entry(above.clone()).or_default(),
        }
    }

    /// The certificate for a host in lower case: the first that fits, or else the first.
    fn find(
        &self,
        host: &str,
        fits: impl Fn(&HostCertificate) -> bool,
    ) -> Option<Arc<HostCertificate>> {
        let above = host.split_once('.').map(|(_, above)| above);
        let exact = self.exact.get(host);
        best(exact.or_else(|| self.wildcard.get(above?))?, fits)
    }
}

/// The first certificate that fits, or else the first.
fn best(
    of_name: &[Arc<HostCertificate>],
    fits: impl Fn(&HostCertificate) -> bool,
) -> Option<Arc<HostCertificate>> {
    let best = of_name.iter().find(|one| fits(one));
    best.or(of_name.first()).cloned()
}

impl HostCertificate {
    /// Whether its key can make a signature that the visitor accepts.
    pub(crate) fn can_sign(&self, hello: &ClientHello) -> bool {
        let key = &self.identity().certified().key;
        key.choose_scheme(hello.schemes()).is_some()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.read();
        f.debug_struct("Certificates")
            .field("given", &state.given.exact.len())
            .field("issued", &state.issued.exact.len())
            .field("challenges", &state.challenges.len())
            .finish_non_exhaustive()
    }
}
