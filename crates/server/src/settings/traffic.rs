//! Limits of clients, tunnels and users (section 16 of the protocol).

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroU64},
};

use adit_auth::UserName;
use adit_quota::{Calendar, Quota};

/// The limits of one client, tunnel or user. `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// Bytes per second of payload, in each direction.
    pub max_bandwidth: Option<NonZeroU64>,
    /// Requests, TCP connections and UDP flows that begin in a second; as many may begin at once.
    pub max_requests_per_second: Option<NonZeroU32>,
    /// Requests of HTTP and calls of gRPC that run at a time. Clients have [`Limits::max_requests_per_client`] instead.
    ///
    /// [`Limits::max_requests_per_client`]: crate::Limits::max_requests_per_client
    pub max_running_requests: Option<usize>,
    /// TCP connections, WebSockets and UDP flows at a time.
    pub max_connections: Option<usize>,
    /// Tunnels of a user. Clients have [`Limits::max_tunnels_per_client`] instead.
    ///
    /// [`Limits::max_tunnels_per_client`]: crate::Limits::max_tunnels_per_client
    pub max_tunnels: Option<usize>,
    /// Bytes and requests per day and month.
    pub quota: Quota,
}

impl TrafficLimits {
    /// Whether no request is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let Self {
            max_bandwidth: None,
            max_requests_per_second: None,
            max_running_requests: None,
            max_connections: None,
            max_tunnels: _,
            quota,
        } = self
        else {
            return false;
        };
        quota.is_none()
    }
}

/// The limits of all clients, tunnels and users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficSettings {
    /// Of each client.
    pub per_client: TrafficLimits,
    /// Of each tunnel.
    pub per_tunnel: TrafficLimits,
    /// Of each user that is not in `users`.
    pub per_user: TrafficLimits,
    /// Of these users, complete: they replace those of `per_user`.
    pub users: BTreeMap<UserName, TrafficLimits>,
    /// When days and months begin.
    pub calendar: Calendar,
}

impl TrafficSettings {
    /// The limits of a user.
    #[must_use]
    pub fn of_user(&self, user: &UserName) -> &TrafficLimits {
        self.users.get(user).unwrap_or(&self.per_user)
    }

    /// Whether no request is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let per = [&self.per_client, &self.per_tunnel, &self.per_user];
        per.into_iter()
            .chain(self.users.values())
            .all(TrafficLimits::is_none)
    }

    /// Whether there is a quota.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        let per = [&self.per_client, &self.per_tunnel, &self.per_user];
        per.into_iter()
            .chain(self.users.values())
            .any(|limits| !limits.quota.is_none())
    }
}
