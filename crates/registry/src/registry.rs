//! All links, by session, client and channel.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_auth::{ClientId, Grant, InstanceKey, LinkKey, UserName};
use adit_balance::Load;
use adit_flow::Gate;
use adit_link::{
    Failure, Lane, Reason,
    control::{ChannelId, ControlMessage},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{
    config::Config,
    error::{RegisterError, StreamError},
    link::{Link, LinkId, Streams},
};

/// Control messages that may wait for a client. A client that does not read them loses further ones, and synchronizes
/// by revision.
const CONTROL_QUEUE: usize = 64;

/// Receives the changes of membership: links that become routable, and links that are no longer routable. It is called
/// without a lock, after each change, and possibly by several threads at once: use the values of [`Link::is_routable`]
/// and [`Link::is_ended`] at the time of the call.
pub trait MembershipObserver: Send + Sync {
    /// The link's first data stream is open.
    fn link_up(&self, link: &Arc<Link>);
    /// The link accepts no more requests: its last data stream is gone, or it drains.
    fn link_down(&self, link: &Arc<Link>);
    /// The link has ended.
    fn link_gone(&self, link: &Arc<Link>);
}

/// Counters and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links now.
    pub links: usize,
    /// Channels that carried a registration, now.
    pub channels: usize,
    /// Registrations so far.
    pub registered: u64,
    /// Links that a newer epoch took over.
    pub taken_over: u64,
    /// Registrations refused for their name.
    pub refused: u64,
}

#[derive(Default)]
struct Index {
    sessions: HashMap<LinkKey, Arc<Link>>,
    clients: HashMap<ClientId, Arc<Link>>,
    /// The number of clients of each user that has any; draining ones count.
    users: HashMap<UserName, usize>,
    channels: HashMap<ChannelId, Vec<LinkKey>>,
}

impl Index {
    /// Refuses a client beyond the bounds. One that takes over (`replaces`) is checked as well, and the old link, which it
    /// replaces, does not count.
    fn check_bounds(
        &self,
        grant: &Grant,
        replaces: bool,
        config: &Config,
    ) -> Result<(), RegisterError> {
        let replaced = usize::from(replaces);
        let user = grant.user();
        let of_user = self.users.get(user).copied().unwrap_or_default();
        let of_user = of_user.saturating_sub(replaced);
        if let Some(limit) = grant.max_clients()
            && of_user >= usize::try_from(limit).unwrap_or(usize::MAX)
        {
            return Err(RegisterError::TooManyClientsOfUser {
                user: user.clone(),
                limit,
            });
        }
        if self.clients.len().saturating_sub(replaced) >= config.max_clients {
            return Err(RegisterError::TooManyClients {
                limit: config.max_clients,
            });
        }
        if of_user >= config.max_clients_per_user {
            return Err(RegisterError::ShareOfUser {
                user: user.clone(),
                limit: config.max_clients_per_user,
            });
        }
        Ok(())
    }

    fn uncount(&mut self, user: &UserName) {
        if let Some(count) = self.users.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }
}

/// The live links.
pub struct Registry {
    config: Mutex<Config>,
    observer: Arc<dyn MembershipObserver>,
    index: Mutex<Index>,
    next_epoch: AtomicU64,
    next_link: AtomicU64,
    registered: AtomicU64,
    taken_over: AtomicU64,
    refused: AtomicU64,
}

/// A registration that was accepted.
#[derive(Debug)]
pub struct Registered {
    /// The link; not routable yet.
    pub link: Arc<Link>,
}

/// Keeps a lane in its link; dropping it removes the lane.
pub struct LaneGuard {
    registry: Weak<Registry>,
    link: Arc<Link>,
    lane: Arc<Lane>,
}

/// The server's end of a control stream; dropping it removes the stream from its link.
pub struct ControlGuard {
    registry: Weak<Registry>,
    link: Arc<Link>,
    turn: u64,
}

impl Registry {
    /// An empty registry.
    pub fn new(config: Config, observer: Arc<dyn MembershipObserver>) -> Arc<Self> {
        Arc::new(Self {
            next_epoch: AtomicU64::new(config.first_epoch),
            config: Mutex::new(config),
            observer,
            index: Mutex::default(),
            next_link: AtomicU64::new(1),
            registered: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Registers a client whose credential has been verified. An older link of the same instance ends at once; one of
    /// another instance is probed first (P-1.8).
    ///
    /// # Errors
    /// [`RegisterError`] when the name is held or there are too many clients.
    ///
    /// # Cancel safety
    /// Nothing is changed if it is dropped before it returns.
    pub async fn register(
        self: &Arc<Self>,
        grant: Grant,
        instance: InstanceKey,
        session: LinkKey,
        (channel, peer): (ChannelId, SocketAddr),
        lanes: u32,
    ) -> Result<Registered, RegisterError> {
        let config = self.config();
        let link = Arc::new(Link {
            id: LinkId(self.next_link.fetch_add(1, Ordering::Relaxed)),
            session,
            grant,
            instance,
            epoch: AtomicU64::new(0),
            channel,
            peer,
            permits: Gate::shared(
                config.max_requests_per_client,
                config.max_waiting,
                config.shares,
            ),
            load: Load::new(),
            capabilities: OnceLock::new(),
            draining: AtomicBool::new(false),
            authorized_at: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            streams: Mutex::new(Streams {
                lanes: vec![None; lanes.max(1) as usize],
                control: None,
                control_turn: 0,
                channel_open: true,
                ended: false,
                setup: None,
            }),
            fenced: watch::Sender::new(false),
        });
        let mut silent = None;
        loop {
            let holder = match self.try_insert(&link, &config, silent)? {
                None => break,
                Some(holder) => holder,
            };
            // Another instance holds the name. Probe it; then try again, since the holder may have changed in between.
            let lane = holder.lane();
            let responds = match lane {
                Some(lane) => lane.probe(config.takeover_probe).await,
                None => false,
            };
            if responds {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(RegisterError::ClientIdTaken {
                    client: link.grant.client().clone(),
                });
            }
            silent = Some(holder.id);
        }
        self.registered.fetch_add(1, Ordering::Relaxed);
        self.forget_unless_opened(&link, config.setup);
        Ok(Registered { link })
    }

    /// Inserts the link. Returns the holder of the name instead when that is another instance and not known to be silent.
    fn try_insert(
        self: &Arc<Self>,
        link: &Arc<Link>,
        config: &Config,
        silent: Option<LinkId>,
    ) -> Result<Option<Arc<Link>>, RegisterError> {
        let client = link.grant.client();
        let old = {
            let mut index = self.index.lock();
            let old = index.clients.get(client).cloned();
            if let Some(old) = &old {
                if old.grant.user() != link.grant.user() {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(RegisterError::OtherUser {
                        client: client.clone(),
                    });
                }
                if old.instance != link.instance && silent != Some(old.id) {
                    return Ok(Some(old.clone()));
                }
            }
            if let Err(error) = index.check_bounds(&link.grant, old.is_some(), config) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            let epoch = self.next_epoch.fetch_add(1, Ordering::Relaxed);
            link.epoch.store(epoch, Ordering::Relaxed);
            if index.clients.insert(client.clone(), link.clone()).is_none() {
                let count = index.users.entry(link.grant.user().clone());
                *count.or_default() += 1;
            }
            index.sessions.insert(link.session, link.clone());
            let on_channel = index.channels.entry(link.channel).or_default();
            on_channel.push(link.session);
            old
        };
        if let Some(old) = old {
            self.taken_over.fetch_add(1, Ordering::Relaxed);
            let failure = Failure::new(Reason::LinkLost, "a newer session took over");
            self.remove(&old, &failure);
            old.fenced.send_replace(true);
        }
        Ok(None)
    }

    /// Removes a session whose first data stream does not open in time (P-1.6). The task ends with the link or its first
    /// data stream, so registrations in a loop leave no tasks.
    fn forget_unless_opened(self: &Arc<Self>, link: &Arc<Link>, setup: Duration) {
        let registry = Arc::downgrade(self);
        let forgotten = Arc::downgrade(link);
        let task = tokio::spawn(async move {
            tokio::time::sleep(setup).await;
            if let (Some(registry), Some(link)) = (registry.upgrade(), forgotten.upgrade()) {
                let failure = Failure::new(Reason::LinkLost, "no data stream was opened");
                registry.remove(&link, &failure);
            }
        });
        let mut streams = link.streams.lock();
        if streams.ended {
            // A newer registration has replaced this session already.
            task.abort();
        } else {
            streams.setup = Some(task.abort_handle());
        }
    }

    /// Adds a lane to the link of a session; `make` is called if the session is live.
    ///
    /// # Errors
    /// [`StreamError`] when the session is not live or the lane number is not valid.
    pub fn open_lane(
        self: &Arc<Self>,
        session: LinkKey,
        number: u32,
        make: impl FnOnce(&Arc<Link>) -> Arc<Lane>,
    ) -> Result<(Arc<Lane>, LaneGuard), StreamError> {
        let link = self.session(session)?;
        let lane = make(&link);
        let (old, came_up) = {
            let mut streams = link.streams.lock();
            if streams.ended {
                return Err(StreamError::StaleSession);
            }
            let lanes = u32::try_from(streams.lanes.len()).unwrap_or(u32::MAX);
            let was_routable = streams.is_routable();
            let Some(slot) = streams.lanes.get_mut(number as usize) else {
                return Err(StreamError::NoSuchLane {
                    lane: number,
                    lanes,
                });
            };
            let old = slot.replace(lane.clone());
            if let Some(setup) = streams.setup.take() {
                setup.abort();
            }
            (old, !was_routable)
        };
        if let Some(old) = old {
            let failure = Failure::new(Reason::LinkLost, "a new data stream replaced this one");
            old.close(&failure);
        }
        if came_up {
            self.observer.link_up(&link);
        }
        let guard = LaneGuard {
            registry: Arc::downgrade(self),
            link,
            lane: lane.clone(),
        };
        Ok((lane, guard))
    }

    /// Adds a control stream to the link of a session. The receiver has the messages of the server, and ends with the
    /// link.
    ///
    /// # Errors
    /// [`StreamError::StaleSession`] when the session is not live.
    pub fn open_control(
        self: &Arc<Self>,
        session: LinkKey,
    ) -> Result<(ControlGuard, mpsc::Receiver<ControlMessage>), StreamError> {
        let link = self.session(session)?;
        let (sender, receiver) = mpsc::channel(CONTROL_QUEUE);
        let turn = {
            let mut streams = link.streams.lock();
            if streams.ended {
                return Err(StreamError::StaleSession);
            }
            streams.control = Some(sender);
            streams.control_turn += 1;
            streams.control_turn
        };
        let control = ControlGuard {
            registry: Arc::downgrade(self),
            link,
            turn,
        };
        Ok((control, receiver))
    }

    /// The link of a session.
    ///
    /// # Errors
    /// [`StreamError::StaleSession`] when the session is not live.
    pub fn session(&self, session: LinkKey) -> Result<Arc<Link>, StreamError> {
        let index = self.index.lock();
        let link = index.sessions.get(&session).cloned();
        link.ok_or(StreamError::StaleSession)
    }

    /// A channel was lost: a session that was registered on it ends if it has no other stream left (P-1.7).
    pub fn channel_closed(&self, channel: ChannelId) {
        let links: Vec<_> = {
            let mut index = self.index.lock();
            let sessions = index.channels.remove(&channel).unwrap_or_default();
            sessions
                .iter()
                .filter_map(|session| index.sessions.get(session).cloned())
                .collect()
        };
        for link in links {
            let idle = {
                let mut streams = link.streams.lock();
                streams.channel_open = false;
                streams.is_idle()
            };
            if idle {
                self.remove(&link, &channel_ended(&link));
            }
        }
    }

    /// Whether a session that still lives was registered on the channel.
    pub fn is_channel_used(&self, channel: ChannelId) -> bool {
        self.index.lock().channels.contains_key(&channel)
    }

    /// The client is leaving: no new requests to it (P-6.6).
    pub fn drain(&self, link: &Arc<Link>) {
        if !link.draining.swap(true, Ordering::Relaxed) {
            self.observer.link_down(link);
        }
    }

    /// Every link.
    pub fn links(&self) -> Vec<Arc<Link>> {
        let mut links: Vec<_> = self.index.lock().clients.values().cloned().collect();
        links.sort_by_key(|link| link.id);
        links
    }

    /// Ends one link: its requests fail, and its streams end.
    pub fn end(&self, link: &Arc<Link>, failure: &Failure) {
        self.remove(link, failure);
    }

    /// Changes bounds and times. Existing links keep their permits, with the new limit; a session that waits for its
    /// first data stream keeps its time.
    pub fn set_config(&self, config: Config) {
        for link in self.links() {
            let permits = link.permits();
            permits.reconfigure(
                config.max_requests_per_client,
                config.max_waiting,
                config.shares,
            );
        }
        *self.config.lock() = config;
    }

    fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// Ends every link.
    pub fn close(&self, failure: &Failure) {
        for link in self.links() {
            self.remove(&link, failure);
        }
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let index = self.index.lock();
        Stats {
            links: index.sessions.len(),
            channels: index.channels.len(),
            registered: self.registered.load(Ordering::Relaxed),
            taken_over: self.taken_over.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn stream_gone(&self, link: &Arc<Link>) {
        let over = {
            let streams = link.streams.lock();
            !streams.channel_open && streams.is_idle()
        };
        if over {
            self.remove(link, &channel_ended(link));
        }
    }

    fn remove(&self, link: &Arc<Link>, failure: &Failure) {
        {
            let mut index = self.index.lock();
            index.sessions.remove(&link.session);
            if index
                .clients
                .get(link.grant.client())
                .is_some_and(|held| held.id == link.id)
            {
                index.clients.remove(link.grant.client());
                index.uncount(link.grant.user());
            }
            if let Some(sessions) = index.channels.get_mut(&link.channel) {
                sessions.retain(|session| *session != link.session);
                if sessions.is_empty() {
                    index.channels.remove(&link.channel);
                }
            }
        }
        if link.end(failure) {
            log_end(link, failure);
            self.observer.link_down(link);
            self.observer.link_gone(link);
        }
    }
}

/// Logs one line for each link that ends, for every cause.
fn log_end(link: &Link, failure: &Failure) {
    let grant = link.grant();
    tracing::info!(
        client = %grant.client(),
        group = %grant.group(),
        epoch = link.epoch(),
        peer = %link.peer(),
        reason = failure.reason.as_str(),
        "client disconnected: {}",
        failure.detail
    );
}

/// The reason of a link without streams: it has no requests that could fail with it.
fn channel_ended(link: &Link) -> Failure {
    if link.is_draining() {
        Failure::new(Reason::Draining, "the client left after a drain")
    } else {
        Failure::new(Reason::LinkLost, "the connection of the client was lost")
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        let went_down = {
            let mut streams = self.link.streams.lock();
            let slot = streams.lanes.iter_mut().find(|slot| {
                slot.as_ref()
                    .is_some_and(|lane| Arc::ptr_eq(lane, &self.lane))
            });
            let was_there = slot.map(|slot| *slot = None).is_some();
            was_there && !streams.is_routable()
        };
        if let Some(registry) = self.registry.upgrade() {
            if went_down {
                registry.observer.link_down(&self.link);
            }
            registry.stream_gone(&self.link);
        }
    }
}

impl ControlGuard {
    /// The link that the control stream belongs to.
    pub const fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for ControlGuard {
    fn drop(&mut self) {
        {
            let mut streams = self.link.streams.lock();
            if streams.control_turn == self.turn {
                streams.control = None;
            }
        }
        if let Some(registry) = self.registry.upgrade() {
            registry.stream_gone(&self.link);
        }
    }
}
