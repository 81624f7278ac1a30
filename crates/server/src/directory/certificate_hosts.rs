//! The hosts for which the server shows certificates, and what stands in the way of obtaining one.

use std::sync::Arc;

use adit_acme::{CertName, Settings as AcmeSettings, Validation};
use adit_auth::TunnelName;
use adit_registry::Link;

use super::{Directory, state::State};
use crate::{definition::Definition, public_name::is_public, tunnel::TunnelKey};

/// A host of a tunnel whose visitors find a certificate of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateHost {
    /// A host, or a wildcard pattern.
    pub(crate) host: String,
    /// The user that the tunnel belongs to.
    pub(crate) user: Arc<str>,
    /// The tunnel requests certificates (P-14.10).
    pub(crate) is_requested: bool,
    /// The certificate is for a port of the tunnel, not for that of HTTPS.
    pub(crate) is_for_port: bool,
}

impl Directory {
    /// The hosts of all tunnels whose TLS ends at the server. A passed-through connection is opened by its service, which has
    /// the certificate.
    pub(crate) fn certificate_hosts(&self) -> Vec<CertificateHost> {
        let state = self.state.lock();
        let mut hosts = Vec::new();
        for tunnel in state.tunnels() {
            let definition = &tunnel.definition;
            if !definition.is_http() && !definition.terminates() {
                continue;
            }
            let user: Arc<str> = tunnel.owner.user.to_string().into();
            hosts.extend(definition.hosts.iter().map(|host| CertificateHost {
                host: host.to_string(),
                user: user.clone(),
                is_requested: definition.obtains_certificates,
                is_for_port: definition.terminates(),
            }));
        }
        hosts
    }

    /// Why a certificate of the server for this host would not be shown, or why a CA could not validate the host: its TLS is
    /// passed through to a service.
    pub(crate) fn certificate_obstacle(
        &self,
        host: &str,
        is_for_port: bool,
        validation: &Validation,
    ) -> Option<String> {
        // No tunnel has a host with this label: only a wildcard hides all hosts of another one.
        let any = { host.strip_prefix("*.") }.map(|above| format!("_.{above}"));
        if !self.passes_through(any.as_deref().unwrap_or(host)) {
            return None;
        }
        match validation {
            Validation::TlsAlpn01 if is_for_port => Some(format!(
                "a tunnel of `type: tls` has the host {host} on the port for HTTPS, where the CA would validate it: use another `server.https.acme.challenge`"
            )),
            _ if is_for_port => None,
            _ => Some(format!(
                "the TLS of {host} is passed through to the service of a tunnel of `type: tls`: no visitor would see a certificate of the server"
            )),
        }
    }

    /// Why no certificates are obtained for an accepted tunnel that requests them (P-14.10). Empty: they are, or the
    /// configuration has them.
    pub(super) fn certificate_note(&self, state: &State, link: &Link, name: &str) -> String {
        let Ok(name) = TunnelName::parse(name) else {
            return String::new();
        };
        let group = link.grant().group().clone();
        let tunnel = state.get(&TunnelKey { group, name });
        tunnel.map_or_else(String::new, |tunnel| self.note_of(&tunnel.definition))
    }

    fn note_of(&self, definition: &Definition) -> String {
        const IN_VAIN: &str = "`ssl_cert: auto` has no effect";
        let config = self.config.load();
        let Some(https) = &config.https else {
            return format!("{IN_VAIN}: the server has no HTTPS (`server.https`)");
        };
        if definition.hosts.is_empty() {
            return format!(
                "{IN_VAIN}: the tunnel has no `domain`, and certificates are for hosts"
            );
        }
        let hosts = definition.hosts.iter().map(ToString::to_string);
        let missing: Vec<_> = hosts
            .filter(|host| !https.certificates.is_given(host))
            .collect();
        if missing.is_empty() {
            return String::new();
        }
        let Some(acme) = &https.acme else {
            return format!(
                "{IN_VAIN}: the server obtains no certificates (`server.https.acme` is not set)"
            );
        };
        let problem = |host: &String| {
            if !is_public(host) {
                return Some(format!(
                    "no CA issues a certificate for {host}: set `domain` to a public name"
                ));
            }
            self.problem(host, definition.terminates(), acme)
        };
        // A tunnel without domains has a host below `localhost` beside that of the server's domain.
        let public: Vec<_> = missing.iter().filter(|host| is_public(host)).collect();
        let first = match public.as_slice() {
            [] => missing.iter().find_map(problem),
            public => public.iter().find_map(|host| problem(host)),
        };
        first.map_or_else(String::new, |problem| {
            format!("`ssl_cert: auto`: no certificate is obtained: {problem}")
        })
    }

    fn problem(&self, host: &str, is_for_port: bool, acme: &AcmeSettings) -> Option<String> {
        match CertName::parse(host) {
            Err(error) => Some(error.to_string()),
            Ok(name) if name.is_wildcard() && !matches!(acme.validation, Validation::Dns01(_)) => {
                Some(format!(
                    "{host} is a wildcard, for which the server needs `server.https.acme.challenge: dns-01`"
                ))
            }
            Ok(_) => self.certificate_obstacle(host, is_for_port, &acme.validation),
        }
    }
}
