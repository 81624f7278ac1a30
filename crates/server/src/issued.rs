//! Certificates for visitors that a CA issues over ACME, for the hosts that exist.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_acme::{
    Answers, CertName, FileStore, Manager, NameStatus, State, Stats, Update, Validation, Wanted,
};
use adit_ingress::layers::HttpChallenges;
use adit_tls::{Certificates, HostCertificate, Identity};
use rustls::sign::CertifiedKey;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    configuration::InForce,
    directory::Directory,
    public_name::is_public,
    settings::{AcmeHosts, HttpsSettings},
    status::{IssuanceStatus, IssuedStatus},
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
    /// Puts the stored certificates in force, and starts the tasks on the current runtime; `None` without ACME in the settings.
    ///
    /// # Cost
    /// Blocks for the file system.
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
        let hosts = Hosts {
            directory,
            config,
            certificates: certificates.clone(),
            validation: acme.validation.clone(),
        };
        let reported = report_hosts(manager.clone(), hosts);
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

    /// The orders so far, by their outcome.
    pub(crate) fn issuance(&self) -> IssuanceStatus {
        issuance(&self.manager.stats())
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

/// Where the hosts are.
struct Hosts {
    directory: Arc<Directory>,
    config: Arc<InForce>,
    certificates: Certificates,
    validation: Validation,
}

/// Keeps the wanted names equal to the hosts of tunnels and rules. A tunnel without clients exists until its retention ends.
async fn report_hosts(manager: Arc<Manager>, hosts: Hosts) {
    let mut look = tokio::time::interval(HOSTS_LOOK);
    let (mut wanted, mut seen) = (BTreeMap::new(), None);
    loop {
        look.tick().await;
        // Hosts change with the tunnels, given certificates and rules with the settings.
        let current = Some((hosts.directory.revision(), hosts.config.load().revision));
        if current == seen {
            continue;
        }
        seen = current;
        let now = hosts.wanted();
        if now != wanted {
            manager.want(now.values().cloned());
            wanted = now;
        }
    }
}

impl Hosts {
    /// The names of hosts for which no given certificate is.
    fn wanted(&self) -> BTreeMap<CertName, Wanted> {
        let config = self.config.load();
        let settings = &config.settings;
        let which = { settings.https.as_ref() }.map_or_else(Default::default, |own| own.acme_hosts);
        let is_chosen = |is_requested: bool| match which {
            AcmeHosts::All => true,
            AcmeHosts::Asked => is_requested,
        };
        let mut names = BTreeMap::new();
        // Those of rules are first: they are the administrator's, also if a tunnel has them.
        let rules = settings.rules.iter().filter_map(|rule| rule.host.clone());
        for host in rules.filter(|_| is_chosen(false)) {
            self.add(&mut names, &host, Arc::default(), false);
        }
        let tunnels = self.directory.certificate_hosts().into_iter();
        for host in tunnels.filter(|host| is_chosen(host.is_requested)) {
            self.add(&mut names, &host.host, host.user, host.is_for_port);
        }
        names
    }

    /// Adds the name of a host. A pattern such as an address has no certificate. Of two for a host, one without an obstacle
    /// precedes.
    fn add(
        &self,
        names: &mut BTreeMap<CertName, Wanted>,
        host: &str,
        owner: Arc<str>,
        is_for_port: bool,
    ) {
        if !is_public(host) || self.certificates.is_given(host) {
            return;
        }
        let Ok(name) = CertName::parse(host) else {
            return;
        };
        let obstacle =
            { &self.directory }.certificate_obstacle(host, is_for_port, &self.validation);
        let wanted = Wanted {
            name: name.clone(),
            owner,
            obstacle: obstacle.map(Into::into),
        };
        match names.get(&name) {
            Some(known) if known.obstacle.is_none() || wanted.obstacle.is_some() => {}
            _ => drop(names.insert(name, wanted)),
        }
    }
}

fn issuance(stats: &Stats) -> IssuanceStatus {
    IssuanceStatus {
        issued: stats.issued,
        staging_passed: stats.staging_passed,
        validation: stats.failed_validation,
        refused: stats.failed_refused,
        unreachable: stats.failed_unreachable,
        rate_limited: stats.failed_rate_limited,
        local: stats.failed_local,
        names_left_out: stats.names_ignored,
    }
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
