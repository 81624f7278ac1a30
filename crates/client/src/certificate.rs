//! Keeps the certificate of a client that has joined: requests another one on the control stream before it expires, and
//! stores what the server sends (P-1.20).
//!
//! The file is watched with the configuration: what is stored here is used by the next connection.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_link::control::ControlMessage;
use adit_proto::{CertificateRequest, CertificateResult, Roots, control::Kind};
use adit_tls::{ClientKey, Identity, Roots as ParsedRoots};
use adit_trace::Printable;
use bytes::Bytes;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::{sync::mpsc, task, time::sleep};

use crate::{
    join::kept,
    joined::{Joined, JoinedCertificate, JoinedCredential, JoinedError, JoinedTrust},
};

/// The clock is looked at this often: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Bounds of the time between two requests.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// The certificate in the file of a client that has joined.
pub(crate) struct CertificateKeeper {
    path: PathBuf,
    /// The key of the request that has no result yet.
    pending: Mutex<Option<ClientKey>>,
    /// Held while the file is changed.
    writing: Mutex<()>,
}

impl CertificateKeeper {
    pub(crate) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            pending: Mutex::new(None),
            writing: Mutex::new(()),
        })
    }

    /// Requests certificates over this control stream, each when it is due. Returns if the client has no certificate.
    ///
    /// # Cancel safety
    /// A request may have been sent.
    pub(crate) async fn run(self: Arc<Self>, control: mpsc::Sender<ControlMessage>) {
        loop {
            let keeper = self.clone();
            let read = task::spawn_blocking(move || keeper.certificate()).await;
            let wait = match read {
                Ok(Ok(Some(certificate))) => {
                    match certificate.renewal().duration_since(SystemTime::now()) {
                        Ok(due) if !due.is_zero() => due.min(LOOK),
                        _ => {
                            self.request(&control);
                            retry(&certificate)
                        }
                    }
                }
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(path = %self.path.display(), %error, "the certificate is not renewed");
                    LOOK
                }
                Err(_) => LOOK,
            };
            sleep(wait).await;
        }
    }

    /// Requests a certificate for one key, until there is a result: a late result then fits the key as well.
    fn request(&self, control: &mpsc::Sender<ControlMessage>) {
        let mut pending = self.pending.lock();
        if pending.is_none() {
            match ClientKey::generate() {
                Ok(key) => *pending = Some(key),
                Err(error) => return tracing::warn!(%error, "the certificate cannot be renewed"),
            }
        }
        let Some(key) = &*pending else { return };
        let public_key = Bytes::copy_from_slice(key.public());
        let request = Kind::CertificateRequest(CertificateRequest { public_key });
        // A full queue or a lost stream: the request is made again.
        drop(control.try_send(ControlMessage::new(0, request)));
    }

    /// Stores the certificate that the server has issued.
    pub(crate) fn on_result(self: &Arc<Self>, result: CertificateResult) {
        if let Some(error) = result.error {
            let (code, message) = (Printable(&error.code), Printable(&error.message));
            tracing::warn!(%code, "the server does not renew the certificate: {message}");
            return;
        }
        // A result that comes twice has no key any more.
        let (Some(certificate), Some(key)) = (result.certificate, self.pending.lock().take())
        else {
            return;
        };
        let certificate = kept(certificate, key.to_pem());
        let key = certificate.private_key.expose_secret().as_bytes();
        if let Err(error) = Identity::from_pem(certificate.certificate.as_bytes(), key) {
            return tracing::warn!(%error, "the server sends a certificate that cannot be used");
        }
        self.change("the certificate was renewed", move |joined| {
            joined.credential = JoinedCredential::Certificate(certificate);
            true
        });
    }

    /// Stores the certificates of the CA that the client trusts from now on. The connection on which they came has proved
    /// that it is the server's.
    pub(crate) fn on_roots(self: &Arc<Self>, roots: Roots) {
        if let Err(error) = ParsedRoots::from_pem(roots.certificates.as_bytes()) {
            return tracing::warn!(%error, "the server sends certificates of its CA that cannot be used");
        }
        self.change("the server has another CA", move |joined| {
            match &mut joined.trust {
                JoinedTrust::OwnCa(known) if *known != roots.certificates => {
                    *known = roots.certificates;
                    true
                }
                // A person has chosen another trust.
                _ => false,
            }
        });
    }

    /// Changes the file on a thread that may wait for the disk. `change` returns whether there is a change.
    fn change(
        self: &Arc<Self>,
        what: &'static str,
        change: impl FnOnce(&mut Joined) -> bool + Send + 'static,
    ) {
        let keeper = self.clone();
        task::spawn_blocking(move || {
            let _writing = keeper.writing.lock();
            let path = keeper.path.display();
            let Ok(Some(mut joined)) = Joined::read(&keeper.path) else {
                return;
            };
            if !change(&mut joined) {
                return;
            }
            match joined.write(&keeper.path) {
                Ok(()) => tracing::info!(%path, "{what}"),
                Err(error) => tracing::error!(%path, %error, "{what}, and cannot be stored"),
            }
        });
    }

    fn certificate(&self) -> Result<Option<JoinedCertificate>, JoinedError> {
        let joined = Joined::read(&self.path)?;
        Ok(joined.and_then(|joined| match joined.credential {
            JoinedCredential::Certificate(certificate) => Some(certificate),
            JoinedCredential::Key(_) => None,
        }))
    }
}

/// The time until the next request: short for certificates that live for seconds.
fn retry(certificate: &JoinedCertificate) -> Duration {
    let left = certificate
        .expires()
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    (left / 4).clamp(RETRY_LEAST, RETRY_MOST)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use adit_proto::ClientCertificate;
    use adit_tls::Authority;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn authority() -> Authority {
        Authority::generate(DAY, SystemTime::now()).unwrap()
    }

    /// The certificate of a server for this key.
    fn issued(public_key: &[u8], expires_at: u64) -> CertificateResult {
        let certificate = authority().issue_client("a", public_key, DAY, SystemTime::now());
        CertificateResult {
            certificate: Some(ClientCertificate {
                certificate: certificate.unwrap().0,
                expires_at,
            }),
            error: None,
        }
    }

    fn seconds() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    }

    fn joined(path: &Path, expires_at: u64) {
        let joined = Joined {
            client_id: None,
            server: "a.example:7000".to_owned(),
            user: "ann".to_owned(),
            trust: JoinedTrust::OwnCa(String::new()),
            credential: JoinedCredential::Certificate(JoinedCertificate {
                certificate: "old".to_owned(),
                private_key: "old".into(),
                issued_at: seconds() - 100,
                expires_at,
            }),
        };
        joined.write(path).unwrap();
    }

    async fn until(path: &Path, holds: impl Fn(&Joined) -> bool) {
        let stored = || {
            Joined::read(path)
                .unwrap()
                .is_some_and(|joined| holds(&joined))
        };
        adit_testlink::until("the file", stored).await;
    }

    #[tokio::test]
    async fn p_1_20_a_due_certificate_is_requested_and_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joined.json");
        joined(&path, seconds() + 10);
        let keeper = CertificateKeeper::new(&path);
        let (control, mut requests) = mpsc::channel(4);
        let running = tokio::spawn(keeper.clone().run(control));
        let request = requests.recv().await.unwrap();
        let Some(Kind::CertificateRequest(request)) = request.kind else {
            panic!("{request:?}")
        };
        assert_eq!(request.public_key.len(), 65);
        let expires_at = seconds() + 1_000;
        // A certificate for another key cannot be used, and does not replace the old one.
        let other = ClientKey::generate().unwrap();
        keeper.on_result(issued(other.public(), expires_at));
        let again = requests.recv().await.unwrap();
        let Some(Kind::CertificateRequest(request)) = again.kind else {
            panic!("{again:?}")
        };
        let result = issued(&request.public_key, expires_at);
        keeper.on_result(result.clone());
        until(&path, |joined| {
            matches!(&joined.credential, JoinedCredential::Certificate(one) if one.expires_at == expires_at)
        })
        .await;
        // The same result again has no key.
        keeper.on_result(result);
        assert!(keeper.pending.lock().is_none());
        running.abort();
    }

    #[tokio::test]
    async fn p_1_20_roots_are_stored_if_they_are_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joined.json");
        joined(&path, seconds() + 10);
        let keeper = CertificateKeeper::new(&path);
        let roots = |certificates: &str| Roots {
            certificates: certificates.to_owned(),
        };
        keeper.on_roots(roots("not a certificate"));
        let pem = authority().roots_pem(SystemTime::now());
        keeper.on_roots(roots(&pem));
        until(&path, |joined| {
            joined.trust == JoinedTrust::OwnCa(pem.clone())
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_with_a_key_requests_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = CertificateKeeper::new(&dir.path().join("joined.json"));
        let (control, mut requests) = mpsc::channel(4);
        keeper.run(control).await;
        assert!(requests.recv().await.is_none());
    }
}
