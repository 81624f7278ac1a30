//! A tunnel: its definition, and the clients that serve it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use adit_auth::{ClientId, GroupId, TunnelName};
use adit_balance::{Balancer, Draw, Member, hash_bytes};
use adit_codec::ProtocolType;
use adit_ingress::{
    Layers,
    layers::{Access, LayerList},
};
use adit_registry::{Link, LinkId};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{definition::Definition, names::Claimant, port::PortKey};

/// The key of a tunnel: group and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TunnelKey {
    pub(crate) group: GroupId,
    pub(crate) name: TunnelName,
}

struct Serving {
    link: Arc<Link>,
    weight: u32,
    live: bool,
}

struct Members {
    serving: Vec<Serving>,
    /// When the tunnel lost its last client.
    orphaned: Option<Instant>,
    /// The last client has drained and is not expected to return.
    drained: bool,
}

/// Whether another tunnel may take the names of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// This client serves the tunnel.
    Served(ClientId),
    /// The last client of the tunnel has drained, or drains.
    Left,
    /// The last client of the tunnel was lost, and may be reconnecting.
    Lost,
}

/// A tunnel and its clients. The definition never changes: a change creates a new value.
pub(crate) struct Tunnel {
    pub(crate) key: TunnelKey,
    pub(crate) name: Arc<str>,
    /// Identifies the tunnel where permits are shared.
    pub(crate) number: u64,
    running: AtomicUsize,
    pub(crate) definition: Definition,
    /// The layers of the definition. Destinations share this one list, by which a retry recognizes it.
    pub(crate) layers: Layers,
    /// The user and the group that the tunnel's names belong to.
    pub(crate) owner: Claimant,
    /// The public port that the tunnel holds.
    pub(crate) port: Option<PortKey>,
    members: Mutex<Members>,
    balancer: ArcSwap<Balancer<Arc<Link>>>,
    /// Wakes visitors that wait for a client.
    pub(crate) changed: Notify,
}

/// A request of a tunnel, from its permit to its end.
pub(crate) struct RunningRequest(Arc<Tunnel>);

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tunnel {
    /// Counts a request until the returned value is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> RunningRequest {
        self.running.fetch_add(1, Ordering::Relaxed);
        RunningRequest(self.clone())
    }

    /// Number of running requests.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// A tunnel that has been without clients since `now`.
    pub(crate) fn new(
        key: TunnelKey,
        owner: Claimant,
        definition: Definition,
        access: &Arc<Access>,
        port: Option<PortKey>,
        now: Instant,
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let layers = LayerList {
            layers: &definition.layers,
            place: &format!("tunnel {}/{}", key.group, key.name),
            access,
        };
        Self {
            name: key.name.as_str().into(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            running: AtomicUsize::new(0),
            balancer: ArcSwap::from_pointee(Balancer::new(definition.policy, Vec::new())),
            members: Mutex::new(Members {
                serving: Vec::new(),
                orphaned: Some(now),
                drained: false,
            }),
            key,
            owner,
            layers: layers.list(),
            definition,
            port,
            changed: Notify::new(),
        }
    }

    /// Adds a link, which replaces older links of the same client. It receives requests once it is live. A link that
    /// has ended, or that a newer one has replaced, is not added, because nothing would remove it. Returns whether the
    /// link serves the tunnel now.
    pub(crate) fn join(&self, link: &Arc<Link>, weight: u32) -> bool {
        let mut members = self.members.lock();
        let client = link.grant().client();
        let is_late = |serving: &Serving| {
            serving.link.grant().client() == client && serving.link.epoch() > link.epoch()
        };
        // The end of a link is followed by `leave`, under the lock that is held here.
        if link.is_ended() || members.serving.iter().any(is_late) {
            return false;
        }
        members
            .serving
            .retain(|serving| serving.link.grant().client() != client);
        members.serving.push(Serving {
            link: link.clone(),
            weight,
            live: link.is_routable(),
        });
        members.orphaned = None;
        self.rebuild(&members);
        true
    }

    /// Checks whether the link accepts requests now. The state at this moment counts, not a report: reports of two
    /// threads may arrive in either order.
    pub(crate) fn refresh(&self, link: LinkId) {
        let mut members = self.members.lock();
        let mut changed = false;
        for serving in &mut members.serving {
            if serving.link.id() == link {
                let live = serving.link.is_routable();
                changed |= std::mem::replace(&mut serving.live, live) != live;
            }
        }
        if changed {
            self.rebuild(&members);
        }
    }

    /// Removes a link. Returns whether it served the tunnel.
    pub(crate) fn leave(&self, link: &Link, now: Instant) -> bool {
        let mut members = self.members.lock();
        let before = members.serving.len();
        members
            .serving
            .retain(|serving| serving.link.id() != link.id());
        let was_there = members.serving.len() != before;
        if was_there {
            if members.serving.is_empty() {
                members.orphaned = Some(now);
                members.drained = link.is_draining();
            }
            self.rebuild(&members);
        }
        was_there
    }

    /// The time at which the tunnel lost its last client.
    pub(crate) fn orphaned(&self) -> Option<Instant> {
        self.members.lock().orphaned
    }

    /// The links that serve the tunnel.
    pub(crate) fn links(&self) -> Vec<LinkId> {
        let members = self.members.lock();
        members
            .serving
            .iter()
            .map(|serving| serving.link.id())
            .collect()
    }

    /// A client that serves it and does not drain, other than `other_than`.
    pub(crate) fn holder(&self, other_than: Option<&ClientId>) -> Option<ClientId> {
        let members = self.members.lock();
        members
            .serving
            .iter()
            .filter(|serving| !serving.link.is_draining())
            .map(|serving| serving.link.grant().client())
            .find(|client| Some(*client) != other_than)
            .cloned()
    }

    /// Whether the tunnel has no client because the last one has drained, or drains, which is not an incident.
    pub(crate) fn has_been_left(&self) -> bool {
        self.vacancy() == Vacancy::Left
    }

    /// Whether another tunnel may take the names of this one.
    pub(crate) fn vacancy(&self) -> Vacancy {
        let members = self.members.lock();
        let mut serving = members.serving.iter();
        match serving.find(|serving| !serving.link.is_draining()) {
            Some(serving) => Vacancy::Served(serving.link.grant().client().clone()),
            None if !members.serving.is_empty() || members.drained => Vacancy::Left,
            None => Vacancy::Lost,
        }
    }

    /// Whether the tunnel has clients, and none of them supports this protocol.
    pub(crate) fn lacks(&self, protocol: ProtocolType) -> bool {
        let members = self.members.lock();
        let mut live = members.serving.iter().filter(|serving| serving.live);
        let mut some = false;
        let none = live.all(|serving| {
            some = true;
            !serving.link.supports(protocol.as_str())
        });
        some && none
    }

    pub(crate) fn clients(&self) -> Vec<ClientId> {
        let members = self.members.lock();
        members
            .serving
            .iter()
            .filter(|serving| serving.live)
            .map(|serving| serving.link.grant().client().clone())
            .collect()
    }

    /// A client for the next request, among those for which `eligible` holds.
    pub(crate) fn choose(
        &self,
        draw: Draw,
        eligible: impl Fn(&Arc<Link>) -> bool,
    ) -> Option<(Arc<Link>, adit_balance::InFlight)> {
        let balancer = self.balancer.load();
        let member = balancer.choose(draw, eligible)?;
        Some((member.id().clone(), member.load().begin()))
    }

    pub(crate) fn choices(&self) -> adit_balance::Stats {
        self.balancer.load().stats()
    }

    /// Replaces the set of members; the order of turns and the load of each member are kept.
    fn rebuild(&self, members: &Members) {
        let mut live: Vec<_> = members
            .serving
            .iter()
            .filter(|serving| serving.live)
            .collect();
        // Clients are in the order of names, not of arrival: a client that returns has the same turns and keys as
        // before.
        live.sort_by(|a, b| a.link.grant().client().cmp(b.link.grant().client()));
        let live = live
            .into_iter()
            .map(|serving| {
                let client = serving.link.grant().client().as_str();
                let key = hash_bytes(client.as_bytes());
                Member::new(
                    serving.link.clone(),
                    key,
                    serving.weight,
                    serving.link.load().clone(),
                )
            })
            .collect();
        let next = self.balancer.load().successor(self.definition.policy, live);
        self.balancer.store(Arc::new(next));
        self.changed.notify_waiters();
    }
}
