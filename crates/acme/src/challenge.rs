//! What this machine presents to a CA that validates a name.
//!
//! The tables are shared with the listeners: the HTTP port asks [`Challenges::http01`], the resolver of certificates asks
//! [`Challenges::tls_alpn01`]. A CA validates from several places at once; every question is answered until the order ends.

mod tls_alpn;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use rustls::{server::ClientHello, sign::CertifiedKey};

pub(crate) use tls_alpn::challenge_certificate;

/// The protocol of tls-alpn-01 (RFC 8737, 6.2). A listener that answers it offers it in its configuration, and closes the
/// connection after the handshake.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// Where a CA looks for the answer of http-01 (RFC 8555, 8.3).
pub const HTTP01_PATH: &str = "/.well-known/acme-challenge/";

/// The longest token that is looked up, in bytes. A token of 128 random bits has 22 characters.
const LONGEST_TOKEN: usize = 256;

/// Where the answers to running validations are shown: [`Challenges`], or tables of the listeners themselves. There are at most
/// as many answers as orders run at a time.
pub trait Answers: Send + Sync + 'static {
    /// Answers requests of the token with this key authorization (RFC 8555, 8.3), or no more.
    fn set_http01(&self, token: &str, authorization: Option<&str>);

    /// Presents this certificate for the host to visitors that offer [`ACME_TLS_ALPN`] and no other protocol (RFC 8737, 3), or
    /// no more. A verifier does not accept the certificate, because it has a critical extension.
    fn set_tls_alpn01(&self, host: &str, certificate: Option<Arc<CertifiedKey>>);
}

/// The answers to running validations. Cheap to clone; all clones share the answers.
///
/// # Cost
/// A read lock and a lookup, for requests of ACME's path and for handshakes of ACME's protocol alone.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Tables>);

#[derive(Default)]
struct Tables {
    http01: RwLock<HashMap<Box<str>, Arc<str>>>,
    tls_alpn01: RwLock<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

/// How a resolver answers a handshake.
#[derive(Debug, Clone)]
pub enum AlpnAnswer {
    /// The visitor is not a CA that validates: choose a certificate by its name.
    Visitor,
    /// The visitor is a CA that validates this name: answer with this certificate.
    Challenge(Arc<CertifiedKey>),
    /// The visitor offers ACME's protocol alone, but no order of this name runs: end the handshake.
    NoChallenge,
}

impl Challenges {
    /// Tables without answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The body of the response to a request of this path, for http-01. `None` if the path is another one or has an unknown
    /// token: pass the request on then, because a service may obtain certificates of its own. Answer before anything else
    /// that the host or the path would select, such as a redirect to HTTPS, with status 200 and
    /// `content-type: application/octet-stream`.
    #[must_use]
    pub fn http01(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(HTTP01_PATH)?;
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        self.0.http01.read().get(token).cloned()
    }

    /// The answer to a handshake. A challenge certificate is presented only to a visitor that offers ACME's protocol and no
    /// other (RFC 8737, 3), so that no browser ever receives one.
    #[must_use]
    pub fn tls_alpn01(&self, hello: &ClientHello<'_>) -> AlpnAnswer {
        let offered = hello.alpn().into_iter().flatten();
        self.tls_alpn01_of(hello.server_name(), offered)
    }

    /// As [`tls_alpn01`](Self::tls_alpn01), with the name and the protocols that a visitor offers.
    pub fn tls_alpn01_of<'a>(
        &self,
        name: Option<&str>,
        mut offered: impl Iterator<Item = &'a [u8]>,
    ) -> AlpnAnswer {
        if offered.next() != Some(ACME_TLS_ALPN) || offered.next().is_some() {
            return AlpnAnswer::Visitor;
        }
        let table = self.0.tls_alpn01.read();
        let name = name.map(str::to_ascii_lowercase);
        match name.and_then(|name| table.get(&*name).cloned()) {
            Some(key) => AlpnAnswer::Challenge(key),
            None => AlpnAnswer::NoChallenge,
        }
    }
}

impl Answers for Challenges {
    fn set_http01(&self, token: &str, authorization: Option<&str>) {
        set(&self.0.http01, token, authorization.map(Arc::from));
    }

    fn set_tls_alpn01(&self, host: &str, certificate: Option<Arc<CertifiedKey>>) {
        set(&self.0.tls_alpn01, host, certificate);
    }
}

fn set<V>(table: &RwLock<HashMap<Box<str>, V>>, key: &str, value: Option<V>) {
    let mut table = table.write();
    match value {
        Some(value) => drop(table.insert(key.into(), value)),
        None => drop(table.remove(key)),
    }
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges")
            .field("http01", &self.0.http01.read().len())
            .field("tls_alpn01", &self.0.tls_alpn01.read().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http01_answers_its_token_until_the_order_ends() {
        let challenges = Challenges::new();
        let path = "/.well-known/acme-challenge/token";
        challenges.set_http01("token", Some("token.thumb"));
        assert_eq!(challenges.http01(path).as_deref(), Some("token.thumb"));
        assert!(
            challenges
                .http01("/.well-known/acme-challenge/other")
                .is_none()
        );
        assert!(challenges.http01("/.well-known/acme-challenge/").is_none());
        assert!(challenges.http01("/token").is_none());
        let long = format!("{path}{}", "x".repeat(100_000));
        assert!(challenges.http01(&long).is_none());
        challenges.set_http01("token", None);
        assert!(challenges.http01(path).is_none());
    }

    #[test]
    fn acme_tls_1_is_answered_only_on_exact_alpn() {
        let challenges = Challenges::new();
        let certificate = challenge_certificate("a.example.com", &[7; 32]).unwrap();
        challenges.set_tls_alpn01("a.example.com", Some(Arc::new(certificate)));
        let answer = |name: &str, offered: &[&[u8]]| {
            let offered: Vec<&[u8]> = offered.to_vec();
            challenges.tls_alpn01_of(Some(name), offered.into_iter())
        };
        let acme: &[u8] = b"acme-tls/1";
        assert!(matches!(
            answer("a.example.com", &[acme]),
            AlpnAnswer::Challenge(_)
        ));
        assert!(matches!(
            answer("A.example.COM", &[acme]),
            AlpnAnswer::Challenge(_)
        ));
        assert!(matches!(
            answer("b.example.com", &[acme]),
            AlpnAnswer::NoChallenge
        ));
        let (h2, other): (&[u8], &[u8]) = (b"h2", b"acme-tls/12");
        for offered in [
            vec![],
            vec![h2],
            vec![acme, h2],
            vec![h2, acme],
            vec![other],
        ] {
            let answer = answer("a.example.com", &offered);
            assert!(matches!(answer, AlpnAnswer::Visitor), "{offered:?}");
        }
        let none = challenges.tls_alpn01_of(None, std::iter::once(acme));
        assert!(matches!(none, AlpnAnswer::NoChallenge));
    }
}
