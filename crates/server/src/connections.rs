//! Bounds the connections of clients that have registered: their number per user and per client (P-1.24).

use std::{collections::HashMap, hash::Hash};

use adit_auth::{ClientId, Grant, UserName};
use adit_link::control::ChannelId;
use adit_net::reserved_descriptors;
use adit_registry::{Fence, Link};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

use crate::settings::Limits;

/// Connections of one client beyond two for each lane: a client that has lost its network opens new ones before the server
/// knows that the old ones are lost.
const SPARE: usize = 4;

/// How many connections may be open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    per_user: usize,
    per_client: usize,
}

impl Bounds {
    pub(crate) fn of(limits: &Limits) -> Self {
        let lanes = usize::try_from(limits.max_lanes.max(1)).unwrap_or(usize::MAX);
        Self {
            per_user: { limits.max_client_connections_per_user }
                .unwrap_or_else(|| reserved_descriptors() / 2),
            per_client: lanes.saturating_mul(2).saturating_add(SPARE),
        }
    }
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Crowded {
    #[error(
        "user `{user}` has {limit} connections of clients (`server.limits.max_client_connections_per_user`, by default \
         an eighth of the file descriptors)"
    )]
    OfUser { user: UserName, limit: usize },
    #[error(
        "client `{client}` has {limit} connections, which is two for each lane (`server.limits.max_lanes`) and {SPARE} \
         more"
    )]
    OfClient { client: ClientId, limit: usize },
}

/// All connections on the clients' port.
#[derive(Default)]
pub(crate) struct Connections {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<ChannelId, Connection>,
    users: HashMap<UserName, usize>,
    clients: HashMap<ClientId, usize>,
}

struct Connection {
    /// The user and the client that the connection counts for: the first that it carried.
    holder: Option<(UserName, ClientId)>,
    /// The fence of the link that used it last. A stream that ends is reported as a change.
    link: watch::Sender<Option<Fence>>,
}

/// A connection that counts for a user. Dropping this takes the count back.
pub(crate) struct Counted<'c> {
    connections: &'c Connections,
    channel: ChannelId,
    is_new: bool,
}

impl Counted<'_> {
    /// Keeps the count until the connection is closed, and stores the link that the connection carries.
    pub(crate) fn keep(mut self, link: &Link) {
        self.is_new = false;
        if let Some(open) = self.connections.state.lock().open.get(&self.channel) {
            open.link.send_replace(Some(link.fence()));
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.is_new {
            let mut state = self.connections.state.lock();
            let open = state.open.get_mut(&self.channel);
            if let Some(holder) = open.and_then(|open| open.holder.take()) {
                state.uncount(&holder);
            }
        }
    }
}

impl Connections {
    /// Adds a connection, which counts for nobody yet. The receiver has the fence of the link that used it
    /// last.
    pub(crate) fn open(&self, channel: ChannelId) -> watch::Receiver<Option<Fence>> {
        let (link, receiver) = watch::channel(None);
        let connection = Connection { holder: None, link };
        self.state.lock().open.insert(channel, connection);
        receiver
    }

    /// Removes a connection.
    pub(crate) fn close(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        if let Some(holder) = { state.open.remove(&channel) }.and_then(|open| open.holder) {
            state.uncount(&holder);
        }
    }

    /// Counts the connection for the user and the client of the grant, unless it counts already. A connection that has
    /// been closed counts no more.
    ///
    /// # Errors
    /// [`Crowded`] when the user or the client has too many.
    pub(crate) fn count(
        &self,
        channel: ChannelId,
        grant: &Grant,
        bounds: Bounds,
    ) -> Result<Counted<'_>, Crowded> {
        let mut state = self.state.lock();
        let is_new = { state.open.get(&channel) }.is_some_and(|open| open.holder.is_none());
        if is_new {
            let (user, client) = (grant.user(), grant.client());
            if count_of(&state.clients, client) >= bounds.per_client {
                return Err(Crowded::OfClient {
                    client: client.clone(),
                    limit: bounds.per_client,
                });
            }
            if count_of(&state.users, user) >= bounds.per_user {
                return Err(Crowded::OfUser {
                    user: user.clone(),
                    limit: bounds.per_user,
                });
            }
            *state.users.entry(user.clone()).or_default() += 1;
            *state.clients.entry(client.clone()).or_default() += 1;
            if let Some(open) = state.open.get_mut(&channel) {
                open.holder = Some((user.clone(), client.clone()));
            }
        }
        Ok(Counted {
            connections: self,
            channel,
            is_new,
        })
    }

    /// The number of connections that count for a user.
    pub(crate) fn counted(&self) -> usize {
        let state = self.state.lock();
        state.users.values().sum()
    }

    /// Reports that a stream of the connection has ended.
    pub(crate) fn stream_ended(&self, channel: ChannelId) {
        if let Some(open) = self.state.lock().open.get(&channel) {
            open.link.send_modify(|_| {});
        }
    }
}

impl State {
    fn uncount(&mut self, (user, client): &(UserName, ClientId)) {
        uncount(&mut self.users, user);
        uncount(&mut self.clients, client);
    }
}

fn count_of<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn uncount<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_auth::{ClientClaim, GroupId};

    use super::*;

    fn grant(user: &str, client: &str) -> Grant {
        let claim = ClientClaim {
            client_id: ClientId::parse(client).unwrap(),
            group_id: GroupId::parse("web").unwrap(),
        };
        Grant::for_link(UserName::parse(user).unwrap(), claim)
    }

    const BOUNDS: Bounds = Bounds {
        per_user: 3,
        per_client: 2,
    };

    /// Counts a new connection, which stays open.
    fn connect(connections: &Connections, user: &str, client: &str) -> Result<ChannelId, Crowded> {
        let channel = ChannelId::next();
        let _link = connections.open(channel);
        let mut counted = connections.count(channel, &grant(user, client), BOUNDS)?;
        counted.is_new = false;
        Ok(channel)
    }

    #[test]
    fn p_1_24_connections_are_bounded_per_user_and_per_client() {
        let connections = Connections::default();
        let first = connect(&connections, "ann", "a").unwrap();
        connect(&connections, "ann", "a").unwrap();
        let crowded = connect(&connections, "ann", "a").unwrap_err().to_string();
        assert!(crowded.contains("`server.limits.max_lanes`"), "{crowded}");
        connect(&connections, "ann", "b").unwrap();
        let crowded = connect(&connections, "ann", "c").unwrap_err().to_string();
        let setting = "`server.limits.max_client_connections_per_user`";
        assert!(crowded.contains(setting), "{crowded}");
        connect(&connections, "bob", "d").unwrap();
        // A further registration on a connection counts no more, and its end makes room.
        let again = connections.count(first, &grant("ann", "e"), BOUNDS);
        drop(again.ok().unwrap());
        assert!(connect(&connections, "ann", "c").is_err());
        connections.close(first);
        connect(&connections, "ann", "c").unwrap();
    }

    #[test]
    fn p_1_24_a_refused_registration_and_a_closed_connection_do_not_count() {
        let connections = Connections::default();
        let channel = ChannelId::next();
        let _link = connections.open(channel);
        drop(connections.count(channel, &grant("ann", "a"), BOUNDS));
        assert!(connections.state.lock().users.is_empty());
        connections.close(channel);
        let late = connections.count(channel, &grant("ann", "a"), BOUNDS);
        assert!(!late.ok().unwrap().is_new);
        let state = connections.state.lock();
        assert!(state.users.is_empty() && state.clients.is_empty() && state.open.is_empty());
    }
}
