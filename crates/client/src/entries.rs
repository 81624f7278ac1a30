//! Client entries: listeners on this side that lead to upstreams of the server (F08).
//!
//! An entry is like a public entry with another director: its visitors are served by `ingress` with the same layers,
//! and their requests are opened on the existing link of the client. Entries are added and removed while the client
//! runs ([`Entries::apply`]); visitors of a removed entry are served to their end.

mod director;
mod listening;
mod visitors;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use adit_auth::NameError;
use adit_flow::Gate;
use adit_ingress::layers;
use adit_net::{BindError, bind};
use adit_trace::Observer;
use thiserror::Error;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::TaskTracker;

use self::{
    director::Route,
    listening::{AcceptLimits, Listening, Service},
    visitors::{Shares, Visitors},
};
use crate::{
    links::{CurrentLink, Links},
    settings::{EntrySettings, Settings},
    status::EntryStatus,
    sync::lock,
};

/// Why an entry cannot be opened.
#[derive(Debug, Error)]
pub enum EntryError {
    /// The address is in use, not permitted, or not one of this machine.
    #[error("client.entries[{index}].listen (entry `{name}`): {error}")]
    Bind {
        /// The position of the entry in the list, from 0.
        index: usize,
        /// The name of the entry.
        name: String,
        /// The reason, and how to solve the problem.
        error: BindError,
    },
    /// The address is bound and the socket cannot be used.
    #[error("client.entries[{index}].listen (entry `{name}`): {error}")]
    Socket {
        /// The position of the entry in the list, from 0.
        index: usize,
        /// The name of the entry.
        name: String,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The client's own names are invalid.
    #[error(transparent)]
    Names(#[from] NameError),
}

/// The entries of a client.
pub(crate) struct Entries {
    /// The entries in the order of the settings.
    current: Mutex<Vec<Entry>>,
    /// The links on which requests are opened.
    pub(crate) links: Arc<Links>,
    shares: Shares,
    max_requests: usize,
    limits: AcceptLimits,
    tracker: TaskTracker,
    next_listener: AtomicU32,
    next_entry: AtomicU64,
}

struct Entry {
    settings: EntrySettings,
    /// Why the upstream of the entry cannot be used, by the server's list of upstreams.
    error: Option<String>,
    visitors: Visitors,
    drain: watch::Sender<bool>,
    listening: Arc<Listening>,
}

impl Entries {
    /// Binds the addresses of the settings. Visitors that connect after this call wait to be accepted.
    ///
    /// # Errors
    /// [`EntryError`] of the first entry that cannot be opened.
    pub(crate) fn bind(
        settings: &Settings,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, EntryError> {
        let limits = &settings.limits;
        let shares = adit_flow::Shares {
            tunnel_percent: limits.tunnel_share_percent,
            visitor_percent: limits.visitor_share_percent,
        };
        let entries = Self {
            current: Mutex::default(),
            links: Arc::new(Links::default()),
            shares: Shares {
                permits: Gate::shared(limits.max_requests, limits.max_waiting, shares),
                via: layers::Via::new(rand::random()),
                access: layers::Access::new(layers::AccessBounds::default()),
                observer: observer.clone(),
            },
            max_requests: limits.max_requests,
            limits: AcceptLimits::new(),
            tracker: TaskTracker::new(),
            next_listener: AtomicU32::new(0),
            next_entry: AtomicU64::new(0),
        };
        entries.follow(settings)?;
        Ok(entries)
    }

    /// Starts tasks on `runtime` that accept on all listeners, until the entries drain.
    pub(crate) fn accept(&self, runtime: &Handle) {
        for entry in &*lock(&self.current) {
            self.accept_on(&entry.listening, runtime);
        }
    }

    fn accept_on(&self, listening: &Arc<Listening>, runtime: &Handle) {
        let accept = listening.clone();
        runtime.spawn(accept.accept(self.tracker.clone(), self.limits.clone()));
    }

    /// Applies changed settings: unchanged entries stay as they are, the others are opened, replaced or closed. An
    /// address that is still used stays bound.
    ///
    /// # Errors
    /// [`EntryError`] of the first entry that cannot be opened; nothing has changed then.
    pub(crate) fn apply(&self, settings: &Settings, runtime: &Handle) -> Result<(), EntryError> {
        for listening in self.follow(settings)? {
            self.accept_on(&listening, runtime);
        }
        Ok(())
    }

    /// Prepares the entries of the settings. Returns the new listeners.
    fn follow(&self, settings: &Settings) -> Result<Vec<Arc<Listening>>, EntryError> {
        let mut current = lock(&self.current);
        let mut opened = Vec::new();
        let mut next = Vec::new();
        for (index, wanted) in settings.entries.iter().enumerate() {
            let known = current.iter().find(|entry| entry.settings == *wanted);
            if let Some(known) = known {
                next.push(Next::Kept(
                    known.settings.name.clone(),
                    known.listening.clone(),
                ));
                continue;
            }
            let number = self.next_entry.fetch_add(1, Ordering::Relaxed);
            let route = Route::new(wanted, settings, self.links.clone())?;
            let visitors = Visitors::new((wanted, number), settings, &self.shares, route);
            let drain = watch::Sender::new(false);
            let service = Service {
                visitors: visitors.clone(),
                drain: drain.subscribe(),
            };
            let is_taken =
                |entry: &Entry| next.iter().any(|next| next.listens_on(&entry.listening));
            let mut before = current.iter();
            let bound = before.find(|entry| entry.is_bound_for(wanted) && !is_taken(entry));
            let (listening, handover) = match bound {
                Some(bound) => (bound.listening.clone(), Some(service)),
                None => {
                    let listening = self.open((index, wanted), service)?;
                    opened.push(listening.clone());
                    (listening, None)
                }
            };
            next.push(Next::Opened(
                Entry {
                    settings: wanted.clone(),
                    error: None,
                    visitors,
                    drain,
                    listening,
                },
                handover,
            ));
        }
        // After this point no step can fail.
        let mut before = std::mem::take(&mut *current);
        for entry in next {
            match entry {
                Next::Kept(name, _) => {
                    let index = before.iter().position(|entry| entry.settings.name == name);
                    current.extend(index.map(|index| before.swap_remove(index)));
                }
                Next::Opened(entry, handover) => {
                    if let Some(service) = handover {
                        entry.listening.hand_to(service);
                    }
                    current.push(entry);
                }
            }
        }
        for gone in before {
            let listening = &gone.listening;
            let mut still = current.iter();
            if !still.any(|entry| Arc::ptr_eq(&entry.listening, listening)) {
                listening.stop();
            }
            gone.drain.send_replace(true);
        }
        Ok(opened)
    }

    fn open(
        &self,
        (index, wanted): (usize, &EntrySettings),
        service: Service,
    ) -> Result<Arc<Listening>, EntryError> {
        let name = || wanted.name.clone();
        let socket = bind(wanted.listen).map_err(|error| EntryError::Bind {
            index,
            name: name(),
            error,
        })?;
        let number = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let listening = Listening::new(socket, wanted.listen, number, service);
        listening.map_err(|error| EntryError::Socket {
            index,
            name: name(),
            error,
        })
    }

    /// Called when a link is up, on which `max_requests` may be open at a time; 0 if the server states none.
    pub(crate) fn link_up(&self, link: CurrentLink, max_requests: u32) {
        let theirs = match max_requests {
            0 => usize::MAX,
            theirs => usize::try_from(theirs).unwrap_or(usize::MAX),
        };
        // Requests that the server would refuse (P-2.9) wait here.
        let permits = self.max_requests.min(theirs);
        self.shares.permits.set_permits(permits);
        self.links.up(link);
    }

    /// Compares the entries with the upstreams that the server defines.
    pub(crate) fn check(&self, upstreams: &[String]) {
        for entry in &mut *lock(&self.current) {
            let upstream = entry.settings.upstream.as_str();
            let missing = !upstreams.iter().any(|known| known == upstream);
            let text = format!(
                "the server defines no upstream `{upstream}`, or the scopes of this client do not allow it"
            );
            if missing {
                tracing::warn!(entry = entry.settings.name, "{text}");
            }
            entry.error = missing.then_some(text);
        }
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.current).is_empty()
    }

    /// Accepts no more visitors; those that are being served finish.
    pub(crate) fn drain(&self) {
        for entry in &*lock(&self.current) {
            entry.listening.stop();
            entry.drain.send_replace(true);
        }
        if !self.links.is_up() {
            self.links.over();
        }
        self.tracker.close();
    }

    /// Whether no visitor is being served.
    pub(crate) fn is_idle(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Connections of visitors.
    pub(crate) fn visitors(&self) -> usize {
        self.tracker.len()
    }

    pub(crate) fn status(&self) -> Vec<EntryStatus> {
        lock(&self.current).iter().map(Entry::status).collect()
    }
}

/// One entry of the next configuration.
enum Next {
    /// An unchanged entry: its name, and its listener.
    Kept(String, Arc<Listening>),
    /// A new entry, and the service for its visitors if it takes over a bound address.
    Opened(Entry, Option<Service>),
}

impl Next {
    fn listens_on(&self, listening: &Arc<Listening>) -> bool {
        let (Self::Kept(_, own) | Self::Opened(Entry { listening: own, .. }, _)) = self;
        Arc::ptr_eq(own, listening)
    }
}

impl Entry {
    /// Whether the entry's listener can serve for `wanted`.
    fn is_bound_for(&self, wanted: &EntrySettings) -> bool {
        let is_free_choice = wanted.listen.port() == 0;
        self.listening.configured == wanted.listen
            && (!is_free_choice || self.settings.name == wanted.name)
    }

    fn addr(&self) -> SocketAddr {
        self.listening.addr
    }

    fn status(&self) -> EntryStatus {
        let mut status = EntryStatus {
            name: self.settings.name.clone(),
            kind: self.settings.kind.as_str(),
            listen: self.addr().to_string(),
            upstream: self.settings.upstream.to_string(),
            error: self.error.clone(),
            connections_open: 0,
            requests_open: 0,
            requests: 0,
            failures: BTreeMap::new(),
        };
        self.visitors.count(&mut status);
        status
    }
}

#[cfg(test)]
mod tests {
    use adit_trace::NoObserver;

    use super::*;
    use crate::settings::{EntryKind, TrustedProxies};

    fn entry(name: &str, listen: SocketAddr, upstream: &str) -> EntrySettings {
        EntrySettings {
            name: name.into(),
            kind: EntryKind::Tcp,
            listen,
            upstream: upstream.parse().unwrap(),
            compression: None,
            trusted_proxies: TrustedProxies::default(),
            layers: Vec::new(),
        }
    }

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    struct Bed {
        entries: Entries,
        settings: Settings,
    }

    impl Bed {
        fn new(entries: Vec<EntrySettings>) -> Self {
            let settings = Settings {
                entries,
                ..Settings::example()
            };
            let observer: Arc<dyn Observer> = Arc::new(NoObserver);
            let entries = Entries::bind(&settings, &observer).unwrap();
            entries.accept(&Handle::current());
            Self { entries, settings }
        }

        fn apply(&mut self, entries: Vec<EntrySettings>) -> Result<(), EntryError> {
            self.settings.entries = entries;
            self.entries.apply(&self.settings, &Handle::current())
        }

        fn addr(&self, name: &str) -> SocketAddr {
            let status = self.entries.status();
            let mut found = status.iter().filter(|entry| entry.name == name);
            found.next().unwrap().listen.parse().unwrap()
        }

        fn upstream(&self, name: &str) -> String {
            let status = self.entries.status();
            let mut found = status.iter().filter(|entry| entry.name == name);
            found.next().unwrap().upstream.clone()
        }
    }

    async fn is_closed(addr: SocketAddr) {
        // The task of the listener closes it the next time it runs.
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn entries_come_and_go_and_the_others_stay() {
        let mut bed = Bed::new(vec![entry("a", any(), "one"), entry("b", any(), "two")]);
        let (a, b) = (bed.addr("a"), bed.addr("b"));
        bed.apply(vec![entry("c", any(), "one"), entry("a", any(), "one")])
            .unwrap();
        assert_eq!(bed.addr("a"), a);
        is_closed(b).await;
        tokio::net::TcpStream::connect(bed.addr("c")).await.unwrap();
        assert_eq!(
            bed.entries.status()[0].name,
            "c",
            "in the order of the file"
        );
        bed.apply(Vec::new()).unwrap();
        is_closed(a).await;
        assert!(bed.entries.is_empty());
    }

    #[tokio::test]
    async fn a_changed_entry_keeps_its_address_bound() {
        let mut bed = Bed::new(vec![entry("a", any(), "one")]);
        let addr = bed.addr("a");
        bed.apply(vec![entry("a", any(), "two")]).unwrap();
        assert_eq!((bed.addr("a"), bed.upstream("a")), (addr, "two".into()));
        // An entry with the same address, now with its port number, is a different entry, and cannot be bound twice.
        assert!(bed.apply(vec![entry("a", addr, "one")]).is_err());
        tokio::net::TcpStream::connect(addr).await.unwrap();
    }

    #[tokio::test]
    async fn two_entries_exchange_their_addresses() {
        let free = || {
            let socket = std::net::TcpListener::bind(any()).unwrap();
            socket.local_addr().unwrap()
        };
        let (one, two) = (free(), free());
        let mut bed = Bed::new(vec![entry("a", one, "up"), entry("b", two, "down")]);
        bed.apply(vec![entry("a", two, "up"), entry("b", one, "down")])
            .unwrap();
        assert_eq!((bed.addr("a"), bed.addr("b")), (two, one));
    }

    #[tokio::test]
    async fn a_failed_bind_changes_nothing() {
        let mut bed = Bed::new(vec![entry("a", any(), "one")]);
        let addr = bed.addr("a");
        let taken = std::net::TcpListener::bind(any()).unwrap();
        let occupied = taken.local_addr().unwrap();
        let next = vec![entry("new", any(), "one"), entry("b", occupied, "one")];
        let error = bed.apply(next).unwrap_err();
        assert!(
            matches!(error, EntryError::Bind { index: 1, .. }),
            "{error}"
        );
        drop(taken);
        assert_eq!(bed.entries.status().len(), 1);
        assert_eq!(bed.addr("a"), addr);
        tokio::net::TcpStream::connect(addr).await.unwrap();
    }
}
