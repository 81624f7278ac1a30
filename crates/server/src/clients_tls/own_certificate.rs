//! A certificate of the server's own CA, and when both are replaced.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_tls::{
    Authority, AuthorityError, ClientCertificates, Fingerprint, Issued, Roots, ServerTls, TlsName,
};

use super::{ca_file::CaFile, error::TlsSetupError};
use crate::settings::OwnCaSettings;

/// After a failed replacement, the next attempt.
const RETRY: Duration = Duration::from_secs(60);

/// A clock that goes back by less than this is corrected, not wrong.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// The server's own CA, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCaStatus {
    /// The fingerprint of its newest certificate.
    pub fingerprint: Fingerprint,
    /// The file with the certificates that clients trust.
    pub file: PathBuf,
    /// When its newest certificate expires.
    pub ca_expires: SystemTime,
    /// When the server's certificate expires.
    pub certificate_expires: SystemTime,
}

/// The CA and its replacement.
#[derive(Clone)]
struct OwnCa {
    file: CaFile,
    authority: Arc<Authority>,
    fingerprint: Fingerprint,
    /// When the CA is replaced.
    renewal: SystemTime,
}

/// The certificate in force, with the CA that has issued it.
pub(crate) struct OwnCertificate {
    settings: OwnCaSettings,
    bind_ip: IpAddr,
    ca: OwnCa,
    tls: ServerTls,
    issued: SystemTime,
    expires: SystemTime,
    /// When the certificate is replaced.
    renewal: SystemTime,
}

impl OwnCertificate {
    /// Issues a certificate by the CA of the state directory, or by a new one.
    pub(super) fn issue(
        settings: OwnCaSettings,
        bind_ip: IpAddr,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<Self, TlsSetupError> {
        let file = CaFile::in_dir(state_dir);
        let authority = file.load(settings.ca_lifetime, now)?;
        let mut ca = OwnCa::new(file, authority)?;
        match ca.rotate_if_due(settings.ca_lifetime, now) {
            // The public file may have been removed, or have a generation that has expired since.
            Ok(false) => ca.file.publish(&ca.authority, now)?,
            Ok(true) => {}
            Err(error) if now < ca.authority.expires() => {
                tracing::error!(%error, "the server's own CA cannot be replaced");
            }
            Err(error) => return Err(error),
        }
        Self::by(ca, settings, bind_ip, now)
    }

    /// Issues a certificate with other settings, by the same CA.
    pub(super) fn with_settings(
        &self,
        settings: OwnCaSettings,
        now: SystemTime,
    ) -> Result<Self, TlsSetupError> {
        Self::by(self.ca.clone(), settings, self.bind_ip, now)
    }

    fn by(
        ca: OwnCa,
        settings: OwnCaSettings,
        bind_ip: IpAddr,
        now: SystemTime,
    ) -> Result<Self, TlsSetupError> {
        let names = names(&settings, bind_ip);
        let (tls, expires) = ca.certify(&names, settings.certificate_lifetime, now)?;
        Ok(Self {
            renewal: ca.renewal_of_certificate(now, expires),
            settings,
            bind_ip,
            ca,
            tls,
            issued: now,
            expires,
        })
    }

    pub(super) fn settings(&self) -> &OwnCaSettings {
        &self.settings
    }

    pub(super) fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Issues a certificate to a client, in PEM.
    pub(super) fn issue_client(
        &self,
        id: &str,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<(String, SystemTime), AuthorityError> {
        let lifetime = self.settings.certificate_lifetime;
        { &self.ca.authority }.issue_client(id, public_key, lifetime, now)
    }

    /// The certificates of the CA that clients trust, in PEM.
    pub(super) fn roots_pem(&self, now: SystemTime) -> String {
        self.ca.authority.roots_pem(now)
    }

    pub(super) fn status(&self) -> OwnCaStatus {
        OwnCaStatus {
            fingerprint: self.ca.fingerprint,
            file: self.ca.file.public().to_owned(),
            ca_expires: self.ca.authority.expires(),
            certificate_expires: self.expires,
        }
    }

    /// Replaces the CA if it is due, and then the certificate with the next call of
    /// [`certify_if_due`](Self::certify_if_due). Returns whether it was. After an error, it is not due for a minute.
    pub(super) fn rotate_if_due(&mut self, now: SystemTime) -> Result<bool, TlsSetupError> {
        let is_rotated = self.ca.rotate_if_due(self.settings.ca_lifetime, now)?;
        if is_rotated {
            self.renewal = now;
        }
        Ok(is_rotated)
    }

    /// Replaces the certificate if it is due, and returns whether it was. After an error, it is not due for a minute.
    pub(super) fn certify_if_due(&mut self, now: SystemTime) -> Result<bool, TlsSetupError> {
        // A certificate that was issued while the clock was ahead may not be valid yet.
        let is_of_the_future = now + CLOCK_STEP < self.issued;
        if now < self.renewal && !is_of_the_future {
            return Ok(false);
        }
        (self.renewal, self.issued) = (now + RETRY, now);
        let names = names(&self.settings, self.bind_ip);
        let lifetime = self.settings.certificate_lifetime;
        let (tls, expires) = self.ca.certify(&names, lifetime, now)?;
        self.renewal = self.ca.renewal_of_certificate(now, expires);
        (self.tls, self.expires) = (tls, expires);
        tracing::info!(ca = %self.ca.fingerprint, ?expires, "the server has a new certificate for clients");
        Ok(true)
    }
}

impl OwnCa {
    fn new(file: CaFile, authority: Authority) -> Result<Self, TlsSetupError> {
        let fingerprint = authority.fingerprint();
        Ok(Self {
            fingerprint: fingerprint.map_err(|error| file.authority(error))?,
            renewal: two_thirds(authority.begins(), authority.expires()),
            authority: authority.into(),
            file,
        })
    }

    /// Replaces the CA if it is due, and returns whether it was. It is stored before it is used.
    fn rotate_if_due(
        &mut self,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<bool, TlsSetupError> {
        if now < self.renewal {
            return Ok(false);
        }
        self.renewal = now + RETRY;
        let rotated = self.authority.rotate(lifetime, now);
        let rotated = rotated.map_err(|error| self.file.authority(error))?;
        self.file.store(&rotated, now)?;
        *self = Self::new(self.file.clone(), rotated)?;
        Ok(true)
    }

    /// The generations of the CA that are valid: certificates of clients may be of any.
    fn roots(&self, now: SystemTime) -> Result<Roots, TlsSetupError> {
        let roots = Roots::from_pem(self.authority.roots_pem(now).as_bytes());
        roots.map_err(|error| {
            self.file
                .authority(AuthorityError::Certificate(error.to_string()))
        })
    }

    fn certify(
        &self,
        names: &[TlsName],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(ServerTls, SystemTime), TlsSetupError> {
        let issued = self.authority.issue_server(names, lifetime, now);
        let Issued { identity, expires } = issued.map_err(|error| self.file.authority(error))?;
        let clients = ClientCertificates::OfOwnCa(self.roots(now)?);
        Ok((ServerTls::new(identity, clients)?, expires))
    }

    /// A certificate that ends with its CA is replaced with it: another one would end at the same time.
    fn renewal_of_certificate(&self, issued: SystemTime, expires: SystemTime) -> SystemTime {
        if expires == self.authority.expires() {
            expires
        } else {
            two_thirds(issued, expires)
        }
    }
}

/// The time after two thirds of a lifetime.
fn two_thirds(begins: SystemTime, expires: SystemTime) -> SystemTime {
    let lifetime = expires.duration_since(begins).unwrap_or_default();
    begins + lifetime / 3 * 2
}

/// The names of the settings, loopback, and the address that the server is bound to.
fn names(settings: &OwnCaSettings, bind_ip: IpAddr) -> Vec<TlsName> {
    let mut names = settings.names.clone();
    let mut others = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !bind_ip.is_unspecified() {
        others.push(bind_ip.to_string());
    }
    for other in others.iter().filter_map(|other| TlsName::parse(other).ok()) {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn issue(dir: &Path, now: SystemTime) -> Result<OwnCertificate, TlsSetupError> {
        let any = "0.0.0.0".parse().unwrap();
        OwnCertificate::issue(OwnCaSettings::default(), any, dir, now)
    }

    fn own(dir: &Path, now: SystemTime) -> OwnCertificate {
        issue(dir, now).unwrap()
    }

    /// Replaces what is due, and returns whether the certificate is another one.
    fn renew(own: &mut OwnCertificate, now: SystemTime) -> bool {
        own.rotate_if_due(now).unwrap();
        own.certify_if_due(now).unwrap()
    }

    fn trusted(status: &OwnCaStatus) -> usize {
        let trusted = fs::read_to_string(&status.file).unwrap();
        trusted.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn a_restart_keeps_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (first, second) = (own(dir.path(), now), own(dir.path(), now));
        assert_eq!(first.status().fingerprint, second.status().fingerprint);
        assert_ne!(first.tls, second.tls, "the certificate is a new one");
    }

    #[test]
    fn a_certificate_is_replaced_after_two_thirds_of_its_lifetime() {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let mut own = own(dir.path(), start);
        let (first, ca) = (own.tls.clone(), own.status().fingerprint);
        assert!(!renew(&mut own, start + 59 * DAY));
        assert_eq!(own.tls, first);
        assert!(renew(&mut own, start + 60 * DAY));
        assert_ne!(own.tls, first);
        assert_eq!(own.status().fingerprint, ca);
        assert!(!renew(&mut own, start + 61 * DAY));
    }

    #[test]
    fn a_ca_is_replaced_after_two_thirds_of_its_lifetime() {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let mut certificate = own(dir.path(), start);
        let first = certificate.status();
        let later = start + 2_434 * DAY;
        assert!(renew(&mut certificate, later));
        let second = certificate.status();
        assert_ne!(first.fingerprint, second.fingerprint);
        assert_eq!(trusted(&second), 2);
        let restarted = own(dir.path(), later).status();
        assert_eq!(restarted.fingerprint, second.fingerprint);
        // The first generation has expired.
        let expired = own(dir.path(), start + 3_651 * DAY).status();
        assert_eq!(expired.fingerprint, second.fingerprint);
        assert_eq!(trusted(&expired), 1);
    }

    /// The lifetime of the settings is that of the next CA.
    #[test]
    fn a_changed_lifetime_does_not_replace_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let first = own(dir.path(), start);
        for days in [100, 36_500] {
            let settings = OwnCaSettings {
                ca_lifetime: days * DAY,
                ..OwnCaSettings::default()
            };
            let mut changed = first.with_settings(settings, start).unwrap();
            assert!(!renew(&mut changed, start + 59 * DAY));
            assert_eq!(changed.status().fingerprint, first.status().fingerprint);
        }
    }

    /// The certificate is replaced in time even if the CA cannot be.
    #[test]
    fn a_ca_that_cannot_be_stored_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let mut own = own(dir.path(), start);
        let first = own.tls.clone();
        let ca = own.status().fingerprint;
        // A directory at the place of the file: it cannot be replaced, not even by root.
        let file = dir.path().join("tls/ca.json");
        let content = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let later = start + 2_434 * DAY;
        assert!(own.rotate_if_due(later).is_err());
        assert!(own.certify_if_due(later).unwrap());
        assert_ne!(own.tls, first);
        assert_eq!(own.status().fingerprint, ca);
        own.rotate_if_due(later + RETRY / 2)
            .expect("not every second");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, content).unwrap();
        assert!(renew(&mut own, later + RETRY));
        assert_ne!(own.status().fingerprint, ca);
    }

    #[test]
    fn a_clock_that_was_ahead_is_corrected() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut own = own(dir.path(), now + 2 * DAY);
        let first = own.tls.clone();
        assert!(renew(&mut own, now));
        assert_ne!(own.tls, first);
        assert!(!renew(&mut own, now - CLOCK_STEP / 2));
    }

    #[test]
    fn a_damaged_or_lost_ca_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        own(dir.path(), now);
        let file = dir.path().join("tls/ca.json");
        let refused = || issue(dir.path(), now).err().unwrap();
        let with_mode = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        with_mode(0o620);
        assert!(matches!(refused(), TlsSetupError::Shared { .. }));
        with_mode(0o644);
        own(dir.path(), now);
        fs::write(&file, "{").unwrap();
        let error = refused();
        assert!(matches!(error, TlsSetupError::Authority { .. }), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "{");
        fs::remove_file(&file).unwrap();
        let error = refused();
        assert!(matches!(error, TlsSetupError::Lost { .. }), "{error}");
        assert!(!file.exists());
        fs::remove_file(dir.path().join("tls/ca.crt")).unwrap();
        own(dir.path(), now);
    }
}
