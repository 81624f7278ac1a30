//! Public ports: listening sockets that follow the snapshot.
//!
//! An announcement binds the port of its tunnel ([`Ports::bind`], [`Ports::pick`]), so that its result can name the
//! holder of the port or the error of the system. Then the listeners follow each new snapshot ([`Ports::follow`]):
//! ports in the snapshot are listened on, all others are closed. A port that passes from one tunnel to another stays
//! open with the connections that wait to be accepted.

use std::{
    collections::HashMap,
    future::Future,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket},
    sync::{Arc, Weak},
    time::Duration,
};

use adit_ingress::Udp;
use adit_net::{BindError, Listener, bind, bind_udp, reserved_descriptors};
use adit_router::ShardedMap;
use parking_lot::Mutex;
use tokio::{
    net::UdpSocket,
    runtime::Handle,
    sync::{Notify, watch},
};

use crate::{
    port::{Port, PortKey, Transport},
    settings::PortRanges,
    threads::Acceptor,
    tunnel::Tunnel,
};

/// The dynamic ports (RFC 6335, section 6) without those that Linux uses for outgoing connections. The server prefers
/// them when it chooses a port.
const DYNAMIC: std::ops::RangeInclusive<u16> = 61_000..=u16::MAX;

/// Ports that are tried when the server chooses one. Each costs a few system calls.
const MAX_TRIES: usize = 1_000;

/// The pause between attempts to bind a UDP port that is not free yet, and the number of failures after which one is
/// logged.
const REBIND_PAUSE: Duration = Duration::from_millis(10);
const REBIND_TRIES: usize = 100;

/// The pause after a bound socket could not be used.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// The values that the listening tasks need. The tasks own them, so that they are dropped with their runtime.
pub(crate) struct PortContext {
    /// The runtime that accepts connections.
    pub(crate) accepting: Handle,
    pub(crate) acceptor: Acceptor,
    pub(crate) udp: Arc<Udp>,
    pub(crate) drain: watch::Receiver<bool>,
}

enum Socket {
    Tcp(StdListener),
    Udp(StdSocket),
}

/// A bound port, or one that is about to be closed.
struct Listening {
    /// The newest snapshot contains the port.
    wanted: bool,
    /// Session timeout of UDP flows.
    session_timeout: Duration,
    /// The socket, until a task listens on it.
    idle: Option<Socket>,
    /// Wakes the listening task when a field above has changed.
    changed: Arc<Notify>,
}

struct State {
    context: Weak<PortContext>,
    listening: HashMap<PortKey, Listening>,
    allowed: PortRanges,
    /// The server drains: nothing is bound any more.
    closed: bool,
}

/// The public ports of a server.
pub(crate) struct Ports {
    ip: IpAddr,
    /// Ports at most: half of the descriptors that visitors must leave free.
    most: usize,
    state: Mutex<State>,
}

/// Why a port could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("the server is stopping")]
    Closed,
    #[error(
        "port {number} is not allowed for tunnels on this server; allowed: {allowed} \
         (`server.limits.allow_ports`)"
    )]
    NotAllowed { number: u16, allowed: PortRanges },
    #[error(
        "the tunnels of this server hold {limit} ports, which is an eighth of the file descriptors; raise `ulimit -n`"
    )]
    TooMany { limit: usize },
    #[error("the server found no free port among {allowed} (`server.limits.allow_ports`)")]
    NoneFree { allowed: PortRanges },
}

impl Ports {
    pub(crate) fn new(ip: IpAddr, allowed: PortRanges) -> Arc<Self> {
        Self::bounded(ip, allowed, reserved_descriptors() / 2)
    }

    fn bounded(ip: IpAddr, allowed: PortRanges, most: usize) -> Arc<Self> {
        Arc::new(Self {
            ip,
            most,
            state: Mutex::new(State {
                allowed,
                context: Weak::new(),
                listening: HashMap::new(),
                closed: false,
            }),
        })
    }

    /// Changes the ports that tunnels may hold. Tunnels keep their ports.
    pub(crate) fn set_allowed(&self, allowed: PortRanges) {
        self.state.lock().allowed = allowed;
    }

    /// Starts to serve the bound ports, and all later ones.
    pub(crate) fn start(self: &Arc<Self>, context: &Arc<PortContext>) {
        let mut state = self.state.lock();
        state.context = Arc::downgrade(context);
        let bound: Vec<_> = state.listening.keys().copied().collect();
        self.serve_idle(&mut state, &bound);
    }

    /// Binds a port, unless it is bound already. It is closed again unless the next snapshot has it.
    ///
    /// # Errors
    /// [`PortError`].
    pub(crate) fn bind(&self, key: PortKey) -> Result<(), PortError> {
        let mut state = self.state.lock();
        if !state.allowed.contains(key.number) {
            return Err(PortError::NotAllowed {
                number: key.number,
                allowed: state.allowed.clone(),
            });
        }
        self.bind_locked(&mut state, key)
    }

    /// Binds a free port among those that are `eligible`. The same `seed` selects the same port if it is free, so that
    /// a tunnel has the same port after a restart of the server.
    ///
    /// # Errors
    /// [`PortError`].
    pub(crate) fn pick(
        &self,
        transport: Transport,
        seed: impl Hash,
        eligible: impl Fn(PortKey) -> bool,
    ) -> Result<PortKey, PortError> {
        let mut state = self.state.lock();
        let allowed = state.allowed.clone();
        let dynamic = allowed.within(&DYNAMIC);
        let ranges = [&dynamic, &allowed].into_iter();
        let seed = {
            // The hash is the same in each run of one build; it may differ in another build.
            let mut hasher = std::hash::DefaultHasher::new();
            seed.hash(&mut hasher);
            hasher.finish()
        };
        let candidates = ranges.flat_map(|ranges| {
            let count = u64::try_from(ranges.count()).unwrap_or(u64::MAX);
            let first = seed.checked_rem(count).unwrap_or_default();
            ranges.from_index(usize::try_from(first).unwrap_or_default())
        });
        let keys = candidates.map(|number| PortKey { transport, number });
        let mut tries = 0;
        for key in keys {
            if state.listening.contains_key(&key) || !eligible(key) {
                continue;
            }
            if tries == MAX_TRIES {
                break;
            }
            tries += 1;
            match self.bind_locked(&mut state, key) {
                Ok(()) => return Ok(key),
                Err(PortError::Bind(BindError::InUse { .. } | BindError::Forbidden { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Err(PortError::NoneFree {
            allowed: allowed.clone(),
        })
    }

    fn bind_locked(&self, state: &mut State, key: PortKey) -> Result<(), PortError> {
        if state.closed {
            return Err(PortError::Closed);
        }
        if state.listening.contains_key(&key) {
            return Ok(());
        }
        if state.listening.len() >= self.most {
            return Err(PortError::TooMany { limit: self.most });
        }
        let addr = self.addr(key);
        let socket = match key.transport {
            Transport::Tcp => Socket::Tcp(bind(addr)?),
            Transport::Udp => Socket::Udp(bind_udp(addr)?),
        };
        state.listening.insert(
            key,
            Listening {
                wanted: false,
                session_timeout: Duration::ZERO,
                idle: Some(socket),
                changed: Arc::new(Notify::new()),
            },
        );
        Ok(())
    }

    const fn addr(&self, key: PortKey) -> SocketAddr {
        SocketAddr::new(self.ip, key.number)
    }

    /// Listens on those ports among `changed` that the snapshot has, and closes the others.
    pub(crate) fn follow(
        self: &Arc<Self>,
        held: &ShardedMap<PortKey, Arc<Tunnel>>,
        changed: &[PortKey],
    ) {
        let mut state = self.state.lock();
        let closed = state.closed;
        for key in changed {
            let Some(listening) = state.listening.get_mut(key) else {
                continue;
            };
            let tunnel = held.get(key).filter(|_| !closed);
            let was = (listening.wanted, listening.session_timeout);
            listening.wanted = tunnel.is_some();
            if let Some(tunnel) = tunnel {
                listening.session_timeout = tunnel.definition.session_timeout;
            }
            if was != (listening.wanted, listening.session_timeout) {
                listening.changed.notify_one();
            }
            // A port without a listening task is closed here, the others by their tasks.
            if !listening.wanted && listening.idle.is_some() {
                state.listening.remove(key);
            }
        }
        self.serve_idle(&mut state, changed);
    }

    fn serve_idle(self: &Arc<Self>, state: &mut State, changed: &[PortKey]) {
        let Some(context) = state.context.upgrade() else {
            return;
        };
        for key in changed {
            let listening = state.listening.get_mut(key).filter(|one| one.wanted);
            let Some(listening) = listening else {
                continue;
            };
            let Some(socket) = listening.idle.take() else {
                continue;
            };
            let task = PortTask {
                ports: self.clone(),
                key: *key,
                changed: listening.changed.clone(),
                context: context.clone(),
            };
            tracing::info!(
                port = key.number,
                transport = key.transport.as_str(),
                "port opened"
            );
            match socket {
                Socket::Tcp(listener) => drop(context.accepting.spawn(task.serve_tcp(listener))),
                // A UDP port is processed by the one thread that reads it, so ports are assigned to the threads in
                // turn.
                Socket::Udp(socket) => {
                    let runtime = context.acceptor.next_runtime(&context.accepting);
                    drop(runtime.spawn(task.serve_udp(socket)));
                }
            }
        }
    }

    /// Closes all listening sockets. Running UDP flows continue until their runtime ends.
    pub(crate) fn close(self: &Arc<Self>) {
        let bound: Vec<_> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.listening.keys().copied().collect()
        };
        self.follow(&ShardedMap::default(), &bound);
    }

    /// Number of bound ports.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().listening.len()
    }
}

/// The task of one public port.
struct PortTask {
    ports: Arc<Ports>,
    key: PortKey,
    changed: Arc<Notify>,
    context: Arc<PortContext>,
}

impl PortTask {
    async fn serve_tcp(self, listener: StdListener) {
        let listener = match Listener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(port = self.key.number, %error, "the listening socket cannot be used");
                self.ports.state.lock().listening.remove(&self.key);
                return;
            }
        };
        let port = Port::Tunnel(self.key.number);
        let acceptor = &self.context.acceptor;
        let accepting = acceptor.accept_on(listener, port);
        loop {
            let assign = |visitor| acceptor.assign(visitor, port);
            accepting.run(self.changed.notified(), assign).await;
            let mut state = self.ports.state.lock();
            let wanted = state.listening.get(&self.key).is_some_and(|one| one.wanted);
            if !wanted {
                // The socket is closed under the lock, so that the next announcement finds the port free.
                drop(accepting);
                state.listening.remove(&self.key);
                break;
            }
        }
        self.log_closed();
    }

    async fn serve_udp(self, socket: StdSocket) {
        let mut socket = Some(socket);
        while let Some(bound) = socket.take() {
            match (UdpSocket::from_std(bound), self.session_timeout()) {
                (Ok(bound), Some(timeout)) => {
                    let served = self
                        .context
                        .udp
                        .clone()
                        .serve(bound, timeout, self.drained());
                    tokio::select! {
                        () = served => self.pause().await,
                        () = self.stale(timeout) => {}
                    }
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    tracing::error!(port = self.key.number, %error, "the socket cannot be used");
                    self.pause().await;
                }
            }
            if *self.context.drain.borrow() {
                return;
            }
            socket = self.rebind().await;
        }
        self.log_closed();
    }

    /// Waits before the next attempt, because a failed socket would fail again at once. During a drain it does not
    /// wait.
    async fn pause(&self) {
        if !*self.context.drain.borrow() {
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    /// The session timeout of flows; `None` when the port is to be closed.
    fn session_timeout(&self) -> Option<Duration> {
        let state = self.ports.state.lock();
        let listening = state.listening.get(&self.key)?;
        listening.wanted.then_some(listening.session_timeout)
    }

    /// Completes when the port must be closed, or served with other settings. A drain does not complete it: flows
    /// continue.
    async fn stale(&self, timeout: Duration) {
        loop {
            self.changed.notified().await;
            let goes_on = self.session_timeout() == Some(timeout) || *self.context.drain.borrow();
            if !goes_on {
                return;
            }
        }
    }

    fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut drain = self.context.drain.clone();
        async move {
            let _ = drain.wait_for(|drain| *drain).await;
        }
    }

    /// Binds the port again, if the snapshot still has it. Ended flows release the old socket a moment later; until the
    /// port is free it stays in the table, so that an announcement in the meantime uses it.
    async fn rebind(&self) -> Option<StdSocket> {
        tokio::task::yield_now().await;
        let mut tries = 0;
        loop {
            let bound = bind_udp(self.ports.addr(self.key));
            {
                let mut state = self.ports.state.lock();
                let wanted = state.listening.get(&self.key).is_some_and(|one| one.wanted);
                match bound {
                    Ok(socket) if wanted => return Some(socket),
                    Err(_) if wanted || tries < REBIND_TRIES => {}
                    // The socket is stored under the lock, as above.
                    bound => {
                        drop(bound);
                        state.listening.remove(&self.key);
                        return None;
                    }
                }
                tries += 1;
                if tries == REBIND_TRIES {
                    tracing::error!(
                        port = self.key.number,
                        "the port was taken by another process"
                    );
                }
            }
            tokio::time::sleep(REBIND_PAUSE).await;
        }
    }

    fn log_closed(&self) {
        let (port, transport) = (self.key.number, self.key.transport.as_str());
        tracing::info!(port, transport, "port closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-16.9
    #[test]
    fn p_16_9_the_ports_of_all_tunnels_are_bounded() {
        let ip = std::net::Ipv4Addr::LOCALHOST.into();
        let ports = Ports::bounded(ip, PortRanges::default(), 2);
        let pick = || ports.pick(Transport::Tcp, "tunnel", |_| true);
        let first = pick().unwrap();
        pick().unwrap();
        let full = pick().unwrap_err();
        assert!(matches!(full, PortError::TooMany { limit: 2 }), "{full}");
        // A port that is bound already is no further one, and one that is closed makes room.
        ports.bind(first).unwrap();
        ports.follow(&ShardedMap::default(), &[first]);
        pick().unwrap();
    }
}
