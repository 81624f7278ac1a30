//! TLS of the clients' port: the certificate in force, and its replacement before it expires.
//!
//! A certificate of the configuration is replaced with the configuration. A certificate of the server's own CA is issued at
//! the start and kept in memory; it and the CA are replaced after two thirds of their lifetimes. The CA is stored in the
//! state directory: `tls/ca.json` with its key, and `tls/ca.crt`, which clients trust.

mod ca_file;
mod error;
mod own_certificate;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use adit_tls::{Acceptor, AuthorityError, ServerTls};
use parking_lot::Mutex;

use self::own_certificate::OwnCertificate;
pub use self::{error::TlsSetupError, own_certificate::OwnCaStatus};
use crate::{
    settings::{OwnCaSettings, TunnelTls},
    status::TlsStatus,
};

/// TLS of the clients' port.
pub(crate) struct ClientsTls {
    acceptor: Acceptor,
    addr: SocketAddr,
    /// Empty: none.
    state_dir: PathBuf,
    own: Mutex<Option<OwnCertificate>>,
}

/// A configuration that is ready to be applied.
pub(crate) enum Prepared {
    /// Clear text.
    Off,
    /// A certificate of the configuration.
    Certificate(ServerTls),
    /// A new certificate of the server's own CA.
    Own(Box<OwnCertificate>),
    /// The certificate of the server's own CA that is in force.
    Unchanged,
}

impl ClientsTls {
    /// TLS for connections to `addr`.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub(crate) fn start(
        tls: &TunnelTls,
        addr: SocketAddr,
        state_dir: &Path,
    ) -> Result<Self, TlsSetupError> {
        let clients = Self {
            acceptor: Acceptor::new(None),
            addr,
            state_dir: state_dir.to_owned(),
            own: Mutex::new(None),
        };
        let prepared = clients.prepare(tls)?;
        clients.warn_of_clear_text(&prepared);
        clients.apply(prepared);
        Ok(clients)
    }

    /// Handshakes with clients.
    pub(crate) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// Makes what the configuration needs: reads or creates the CA, issues a certificate. The CA in force is not read again.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub(crate) fn prepare(&self, tls: &TunnelTls) -> Result<Prepared, TlsSetupError> {
        match tls {
            TunnelTls::Certificate(tls) => Ok(Prepared::Certificate(tls.clone())),
            tls if tls.is_off(self.addr) => Ok(Prepared::Off),
            TunnelTls::OwnCa(settings) => self.prepare_own(settings.clone()),
            TunnelTls::Auto | TunnelTls::Off => self.prepare_own(OwnCaSettings::default()),
        }
    }

    fn prepare_own(&self, settings: OwnCaSettings) -> Result<Prepared, TlsSetupError> {
        let now = SystemTime::now();
        let own = match &*self.own.lock() {
            Some(current) if *current.settings() == settings => return Ok(Prepared::Unchanged),
            Some(current) => current.with_settings(settings, now)?,
            None if self.state_dir.as_os_str().is_empty() => return Err(TlsSetupError::NoStateDir),
            None => OwnCertificate::issue(settings, self.addr.ip(), &self.state_dir, now)?,
        };
        Ok(Prepared::Own(Box::new(own)))
    }

    /// Applies it to connections from now on.
    pub(crate) fn apply(&self, prepared: Prepared) {
        let was_off = self.acceptor.is_off();
        let mut own = self.own.lock();
        match prepared {
            Prepared::Unchanged => {}
            Prepared::Off => {
                *own = None;
                self.acceptor.replace(None);
                if !was_off {
                    self.warn_of_clear_text(&Prepared::Off);
                }
            }
            Prepared::Certificate(tls) => {
                *own = None;
                self.acceptor.replace(Some(tls));
            }
            Prepared::Own(new) => {
                self.acceptor.replace(Some(new.tls().clone()));
                if own.is_none() {
                    let fingerprint = new.status().fingerprint;
                    tracing::info!(%fingerprint, "clients connect over TLS with the server's own CA");
                }
                *own = Some(*new);
            }
        }
    }

    fn warn_of_clear_text(&self, prepared: &Prepared) {
        if matches!(prepared, Prepared::Off) && !self.addr.ip().is_loopback() {
            tracing::warn!(
                clients = %self.addr,
                "the connections of clients are not encrypted: remove `tls: off` from the server and from the clients"
            );
        }
    }

    /// Replaces the certificate of the server's own CA, and the CA, if it is time. A failure is logged, and tried again
    /// after a minute; what is in force stays. Returns the certificates that clients trust, if they have changed.
    ///
    /// # Cost
    /// Comparisons of times, except when something is replaced: then some milliseconds, which includes writing to the disk.
    pub(crate) fn renew(&self, now: SystemTime) -> Option<String> {
        let mut own = self.own.lock();
        let current = own.as_mut()?;
        let is_rotated = current.rotate_if_due(now).unwrap_or_else(|error| {
            let expires = current.status().ca_expires;
            tracing::error!(%error, ?expires, "the server's own CA cannot be replaced");
            false
        });
        match current.certify_if_due(now) {
            Ok(true) => self.acceptor.replace(Some(current.tls().clone())),
            Ok(false) => {}
            Err(error) => {
                let expires = current.status().certificate_expires;
                tracing::error!(%error, ?expires, "the certificate for clients cannot be replaced");
            }
        }
        is_rotated.then(|| current.roots_pem(now))
    }

    /// Issues a certificate to a client, for its key and for the id of its credential. `None`: the server has no CA of its
    /// own.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub(crate) fn issue_client(
        &self,
        id: &str,
        public_key: &[u8],
        now: SystemTime,
    ) -> Option<Result<(String, SystemTime), AuthorityError>> {
        let own = self.own.lock();
        own.as_ref()
            .map(|own| own.issue_client(id, public_key, now))
    }

    /// The certificates of the server's own CA that clients trust, in PEM; empty: it has none.
    pub(crate) fn roots_pem(&self, now: SystemTime) -> String {
        let own = self.own.lock();
        own.as_ref()
            .map(|own| own.roots_pem(now))
            .unwrap_or_default()
    }

    /// The state of TLS.
    pub(crate) fn status(&self) -> TlsStatus {
        let own = self.own_ca();
        let mode = match (&own, self.acceptor.is_off()) {
            (Some(_), _) => "own_ca",
            (None, true) => "off",
            (None, false) => "certificate",
        };
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        TlsStatus {
            mode,
            ca_fingerprint: own.as_ref().map(|own| own.fingerprint.to_string()),
            ca_expires: own.as_ref().map(|own| seconds(own.ca_expires)),
            certificate_expires: own.as_ref().map(|own| seconds(own.certificate_expires)),
        }
    }

    /// The server's own CA, if it is in use.
    pub(crate) fn own_ca(&self) -> Option<OwnCaStatus> {
        self.own.lock().as_ref().map(OwnCertificate::status)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn start(tls: &TunnelTls, dir: &Path) -> Result<ClientsTls, TlsSetupError> {
        ClientsTls::start(tls, ([0, 0, 0, 0], 7000).into(), dir)
    }

    /// Applies a changed configuration, and returns the mode.
    fn change(clients: &ClientsTls, tls: &TunnelTls) -> &'static str {
        clients.apply(clients.prepare(tls).unwrap());
        clients.status().mode
    }

    #[test]
    fn a_server_beyond_loopback_has_its_own_ca() {
        let dir = tempfile::tempdir().unwrap();
        let clients = start(&TunnelTls::Auto, dir.path()).unwrap();
        assert_eq!(clients.status().mode, "own_ca");
        let ca = clients.status().ca_fingerprint;
        // A reload needs neither the files nor a new certificate.
        let expires = clients.status().certificate_expires;
        fs::remove_dir_all(dir.path().join("tls")).unwrap();
        assert_eq!(change(&clients, &TunnelTls::Auto), "own_ca");
        assert_eq!(clients.status().certificate_expires, expires);
        assert_eq!(clients.status().ca_fingerprint, ca);
        assert!(!dir.path().join("tls").exists());
    }

    #[test]
    fn a_changed_lifetime_keeps_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let clients = start(&TunnelTls::Auto, dir.path()).unwrap();
        let first = clients.status();
        let settings = OwnCaSettings {
            certificate_lifetime: Duration::from_secs(3600),
            ..OwnCaSettings::default()
        };
        assert_eq!(change(&clients, &TunnelTls::OwnCa(settings)), "own_ca");
        let second = clients.status();
        assert_eq!(first.ca_fingerprint, second.ca_fingerprint);
        assert!(second.certificate_expires < first.certificate_expires);
    }

    #[test]
    fn tls_can_be_turned_off_and_on() {
        let dir = tempfile::tempdir().unwrap();
        let clients = start(&TunnelTls::Off, dir.path()).unwrap();
        assert_eq!(clients.status().mode, "off");
        assert_eq!(change(&clients, &TunnelTls::Auto), "own_ca");
        let ca = clients.status().ca_fingerprint;
        assert_eq!(change(&clients, &TunnelTls::Off), "off");
        assert_eq!(change(&clients, &TunnelTls::Auto), "own_ca");
        assert_eq!(clients.status().ca_fingerprint, ca);
    }

    #[test]
    fn an_own_ca_needs_a_state_directory() {
        let error = start(&TunnelTls::Auto, Path::new("")).err().unwrap();
        assert!(matches!(error, TlsSetupError::NoStateDir), "{error}");
        let loopback = ([127, 0, 0, 1], 7000).into();
        let clear = ClientsTls::start(&TunnelTls::Auto, loopback, Path::new("")).unwrap();
        assert_eq!(clear.status().mode, "off");
    }
}
