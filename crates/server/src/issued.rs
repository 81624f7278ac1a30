//! Certificates for visitors that a CA issues over ACME, for the hosts that exist.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_acme::{Answers, CertName, FileStore, Manager, NameStatus, State, Update};
use adit_ingress::layers::HttpChallenges;
use adit_tls::{Certificates, HostCertificate, Identity};
use rustls::sign::CertifiedKey;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    configuration::InForce, directory::Directory, settings::HttpsSettings, status::IssuedStatus,
};

/// How often the hosts are compared with those for which certificates are wanted.
const HOSTS_LOOK: Duration = Duration::from_millis(500);

/// The directory of a state directory with accounts and certificates.
const DIR: &str = "acme";

/// The task that obtains certificates, and the one that reports the hosts to it.
pub(crate) struct Issued {
    manager: Arc<Manager>,
    hosts: AbortHandle,
}

impl Issued {
    /// Starts the tasks on the current runtime; `None` without ACME in the settings.
    ///
    /// # Errors
    /// A text: the state directory cannot be used, the system has no trust store, or there is no runtime.
    pub(crate) fn start(
        settings: &HttpsSettings,
        state_dir: &Path,
        certificates: &Certificates,
        challenges: HttpChallenges,
        (directory, config): (Arc<Directory>, Arc<InForce>),
    ) -> Result<Option<Self>, String> {
        let Some(acme) = &settings.acme else {
            return Ok(None);
        };
        if state_dir == Path::new("") {
            return Err("another server uses the state directory".to_owned());
        }
        let store = FileStore::open(&state_dir.join(DIR)).map_err(|error| error.to_string())?;
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let answers = Listeners {
            certificates: certificates.clone(),
            challenges,
        };
        let table = certificates.clone();
        let manager = Manager::start(
            (**acme).clone(),
            Arc::new(store),
            Arc::new(answers),
            move |update| publish(&table, update),
            &runtime,
        );
        let manager = Arc::new(manager.map_err(|error| error.to_string())?);
        let reported = report_hosts(manager.clone(), directory, config, certificates.clone());
        let hosts = runtime.spawn(reported).abort_handle();
        Ok(Some(Self { manager, hosts }))
    }

    /// Ends running orders.
    pub(crate) fn stop(&self) {
        self.hosts.abort();
        self.manager.stop();
    }

    /// Waits until the orders have ended, after [`stop`](Self::stop).
    pub(crate) async fn stopped(&self) {
        self.manager.stopped().await;
    }

    pub(crate) fn status(&self) -> Vec<IssuedStatus> {
        let now = SystemTime::now();
        { self.manager.status().into_iter() }
            .map(|status| shown(status, now))
            .collect()
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        self.hosts.abort();
    }
}

/// The answers to validations, at the ports for visitors.
struct Listeners {
    certificates: Certificates,
    challenges: HttpChallenges,
}

impl Answers for Listeners {
    fn set_http01(&self, token: &str, authorization: Option<&str>) {
        match authorization {
            Some(authorization) => self.challenges.insert(token, authorization),
            None => self.challenges.remove(token),
        }
    }

    fn set_tls_alpn01(&self, host: &str, certificate: Option<Arc<CertifiedKey>>) {
        match certificate {
            Some(answer) => self
                .certificates
                .insert_challenge(host, Identity::from(answer)),
            None => self.certificates.remove_challenge(host),
        }
    }
}

fn publish(certificates: &Certificates, update: Update) {
    match update {
        Update::Available { name, certificate } => {
            match HostCertificate::new(Identity::from(certificate.certified_key())) {
                Ok(certificate) => certificates.insert(name.as_str(), certificate),
                Err(error) => {
                    tracing::error!(%name, "the certificate of a CA cannot be used: {error}");
                }
            }
        }
        Update::Withdrawn { name } => {
            certificates.remove(name.as_str());
        }
    }
}

/// Keeps the wanted names equal to the hosts of tunnels and rules. A tunnel without clients exists until its retention ends.
async fn report_hosts(
    manager: Arc<Manager>,
    directory: Arc<Directory>,
    config: Arc<InForce>,
    certificates: Certificates,
) {
    let mut look = tokio::time::interval(HOSTS_LOOK);
    let (mut wanted, mut seen) = (BTreeSet::new(), None);
    loop {
        look.tick().await;
        // Hosts change with the tunnels, given certificates and rules with the settings.
        let current = Some((directory.revision(), config.load().revision));
        if current == seen {
            continue;
        }
        seen = current;
        let hosts = hosts(&directory, &config, &certificates);
        if hosts != wanted {
            manager.want(hosts.iter().cloned());
            wanted = hosts;
        }
    }
}

/// The hosts that no given certificate is for.
fn hosts(
    directory: &Directory,
    config: &InForce,
    certificates: &Certificates,
) -> BTreeSet<CertName> {
    let tunnels = directory.hosts();
    let rules = config.load();
    let rules = rules.settings.rules.iter();
    let rules = rules.filter_map(|rule| rule.host.clone());
    let patterns = tunnels.into_iter().chain(rules);
    let names = patterns.filter(|pattern| is_public(pattern) && !certificates.is_given(pattern));
    // A pattern such as an address has no certificate.
    names
        .filter_map(|name| CertName::parse(&name).ok())
        .collect()
}

/// Whether a CA could validate the host: a tunnel without domains has one below `localhost`.
fn is_public(pattern: &str) -> bool {
    let last = pattern.rsplit('.').next().unwrap_or_default();
    !last.eq_ignore_ascii_case("localhost")
}

fn shown(status: NameStatus, now: SystemTime) -> IssuedStatus {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    };
    IssuedStatus {
        state: match status.state(now) {
            State::Pending => "pending",
            State::Valid => "valid",
            State::Expired => "expired",
            State::Unsupported => "unsupported",
        },
        name: status.name.to_string(),
        expires: status.valid_until.map(seconds),
        next_order: status.next_attempt.map(seconds),
        error: status.last_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_localhost_are_never_ordered() {
        for host in ["localhost", "web.localhost", "*.LOCALHOST"] {
            assert!(!is_public(host), "{host}");
        }
        assert!(is_public("localhost.example.com") && is_public("*.example.com"));
    }
}
