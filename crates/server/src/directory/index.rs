//! Which link serves which tunnels. It has a lock of its own, held for a few steps, because links change on the data
//! threads while a long announcement is processed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use adit_auth::TunnelName;
use adit_registry::{Link, LinkId};

use crate::tunnel::{Tunnel, TunnelKey};

/// Tunnels are added to and removed from their links, and become orphans or have clients again, under the one lock of
/// this index.
#[derive(Default)]
pub(super) struct Index {
    links: HashMap<LinkId, HashMap<TunnelName, Arc<Tunnel>>>,
    /// Tunnels without clients; the one without clients for longest is first.
    orphans: BTreeSet<(Instant, TunnelKey)>,
}

impl Index {
    /// The tunnels of a link.
    pub(super) fn of_link(&self, link: LinkId) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.links.get(&link).into_iter().flat_map(HashMap::values)
    }

    /// The number of tunnels other than this one that a link serves.
    pub(super) fn others(&self, link: LinkId, than: &str) -> usize {
        let Some(tunnels) = self.links.get(&link) else {
            return 0;
        };
        tunnels.len() - usize::from(tunnels.contains_key(than))
    }

    /// Adds a link to a tunnel, unless the link has ended. Then the tunnel counts as an orphan, so that it is removed
    /// after the retention.
    pub(super) fn join(&mut self, tunnel: &Arc<Tunnel>, link: &Arc<Link>, weight: u32) {
        let since = tunnel.orphaned();
        // The end of a link takes this lock after the link has ended: either it finds the entry, or the link is not
        // added here.
        if tunnel.join(link, weight) {
            let tunnels = self.links.entry(link.id()).or_default();
            tunnels.insert(tunnel.key.name.clone(), Arc::clone(tunnel));
            if let Some(since) = since {
                self.orphans.remove(&(since, tunnel.key.clone()));
            }
        } else if let Some(since) = since {
            self.orphans.insert((since, tunnel.key.clone()));
        }
    }

    /// Removes a link from one tunnel. Returns whether it served that.
    pub(super) fn leave(&mut self, tunnel: &Tunnel, link: &Link, now: Instant) -> bool {
        if !tunnel.leave(link, now) {
            return false;
        }
        if let Some(tunnels) = self.links.get_mut(&link.id()) {
            tunnels.remove(&tunnel.key.name);
            if tunnels.is_empty() {
                self.links.remove(&link.id());
            }
        }
        self.add_orphan(tunnel);
        true
    }

    /// Removes a link from all of its tunnels.
    pub(super) fn leave_all(&mut self, link: &Link, now: Instant) {
        for tunnel in self.links.remove(&link.id()).into_iter().flatten() {
            let (_, tunnel) = tunnel;
            if tunnel.leave(link, now) {
                self.add_orphan(&tunnel);
            }
        }
    }

    /// Keeps a tunnel that no link serves, until the retention is over.
    pub(super) fn add_orphan(&mut self, tunnel: &Tunnel) {
        if let Some(since) = tunnel.orphaned() {
            self.orphans.insert((since, tunnel.key.clone()));
        }
    }

    /// Removes a tunnel from the index.
    pub(super) fn forget(&mut self, tunnel: &Arc<Tunnel>) {
        for link in tunnel.links() {
            let Some(tunnels) = self.links.get_mut(&link) else {
                continue;
            };
            let known = tunnels.get(&tunnel.key.name);
            if known.is_some_and(|known| Arc::ptr_eq(known, tunnel)) {
                tunnels.remove(&tunnel.key.name);
                if tunnels.is_empty() {
                    self.links.remove(&link);
                }
            }
        }
        if let Some(since) = tunnel.orphaned() {
            self.orphans.remove(&(since, tunnel.key.clone()));
        }
    }

    /// The tunnel that has been without clients for the longest time, and the number of such tunnels.
    pub(super) fn oldest_orphan(&self) -> Option<(Instant, TunnelKey, usize)> {
        let (since, key) = self.orphans.first()?;
        Some((*since, key.clone(), self.orphans.len()))
    }

    /// Removes the entry of a tunnel that has been removed already.
    pub(super) fn drop_orphan(&mut self, since: Instant, key: TunnelKey) {
        self.orphans.remove(&(since, key));
    }
}
