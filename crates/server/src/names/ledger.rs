//! The owners of names, without clock and file.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use adit_auth::{GroupId, TunnelName, UserName};
use adit_router::{HostPattern, ShardedMap};

use self::from_top::FromTop;
use super::name::Name;
use crate::settings::SharedGroup;

/// A user that claims a name for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) user: UserName,
    pub(crate) group: GroupId,
}

/// The entry of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: Claimant,
    /// The tunnel that uses the name, or used it last; `None` for a group or a client.
    pub(crate) tunnel: Option<TunnelName>,
    /// Number of tunnels or links that use it.
    pub(crate) uses: usize,
    /// The time when the last use of the name ended.
    pub(crate) idle_since: Duration,
}

/// The result of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Released {
    /// The name has no owner any more.
    Free,
    /// The name had no owner.
    Unknown,
    /// Something uses the name.
    InUse,
}

/// Owners of names. Times are durations since one start, the same for all calls.
///
/// Promises: a name passes from one owner to another only when nothing uses it and the retention is over, or it was
/// released, or its owner keeps more unused names than one user may.
#[derive(Debug)]
pub(crate) struct Ledger {
    retention: Duration,
    max_idle_per_user: usize,
    shared: HashMap<GroupId, Vec<UserName>>,
    entries: ShardedMap<Name, Entry>,
    /// Unused names by their owner, in the order of their last use.
    idle: HashMap<UserName, BTreeSet<(Duration, Name)>>,
    /// Number of wildcards among the names; if there is none, the hosts above a name need no lookup.
    wildcards: usize,
    /// The hosts among the names, so that those below a name are beside each other.
    hosts: BTreeMap<FromTop, HostPattern>,
    /// Counts the changes that the file must store.
    changes: u64,
}

impl Ledger {
    pub(crate) fn new(
        retention: Duration,
        max_idle_per_user: usize,
        shared: &[SharedGroup],
    ) -> Self {
        let shared = shared.iter();
        Self {
            retention,
            max_idle_per_user,
            shared: shared
                .map(|shared| (shared.group.clone(), shared.users.clone()))
                .collect(),
            entries: ShardedMap::default(),
            idle: HashMap::new(),
            wildcards: 0,
            hosts: BTreeMap::new(),
            changes: 0,
        }
    }

    /// Whether the settings exclude the claimant from its group.
    pub(crate) fn is_shared_without(&self, claimant: &Claimant) -> bool {
        let users = self.shared.get(&claimant.group);
        users.is_some_and(|users| !users.contains(&claimant.user))
    }

    /// Whether users share the group.
    pub(crate) fn is_shared(&self, group: &GroupId) -> bool {
        self.shared.contains_key(group)
    }

    /// Names of a shared group belong to the group, other names to their user.
    fn is_same_owner(&self, one: &Claimant, other: &Claimant) -> bool {
        let shared = |claimant: &Claimant| self.is_shared(&claimant.group);
        match (shared(one), shared(other)) {
            (false, false) => one.user == other.user,
            (true, true) => one.group == other.group,
            _ => false,
        }
    }

    /// The entry of a name if it belongs to another owner.
    pub(crate) fn conflict(&self, name: &Name, claimant: &Claimant) -> Option<&Entry> {
        let entry = self.entries.get(name)?;
        let is_own = self.is_same_owner(&entry.owner, claimant);
        (!is_own || self.is_shared_without(claimant)).then_some(entry)
    }

    /// The claim of another owner to a host: to the host itself, to a wildcard above it, or, for a wildcard, to the name
    /// below which it matches or to a host below it.
    ///
    /// # Cost
    /// A look-up for each label; for a wildcard also one for each known host below it, up to the first of another owner.
    pub(crate) fn host_conflict(
        &self,
        host: &HostPattern,
        claimant: &Claimant,
    ) -> Option<(Name, &Entry)> {
        let find = |name: Name| {
            let entry = self.conflict(&name, claimant)?;
            Some((name, entry))
        };
        let above = || {
            let mut above = host.wildcards_above();
            above.find_map(|host| find(Name::Host(host)))
        };
        find(Name::Host(host.clone()))
            .or_else(|| host.base().and_then(|base| find(Name::Host(base))))
            .or_else(|| (self.wildcards > 0).then(above).flatten())
            .or_else(|| {
                let mut below = self.hosts_below(host);
                below.find_map(|host| find(Name::Host(host.clone())))
            })
    }

    /// The hosts that a wildcard matches, and the wildcards of which it matches every host.
    fn hosts_below(&self, wildcard: &HostPattern) -> impl Iterator<Item = &HostPattern> {
        let below = wildcard.is_wildcard().then(|| FromTop::below(wildcard));
        let hosts = below.map(|range| self.hosts.range(range));
        hosts.into_iter().flatten().map(|(_, host)| host)
    }

    /// Whether another owner has the name.
    pub(crate) fn is_foreign(&self, name: &Name, claimant: &Claimant) -> bool {
        self.conflict(name, claimant).is_some()
    }

    /// How much longer an unused name is kept.
    pub(crate) fn kept_for(&self, entry: &Entry, now: Duration) -> Option<Duration> {
        (entry.uses == 0)
            .then(|| (entry.idle_since + self.retention).saturating_sub(now))
            .filter(|left| !left.is_zero())
    }

    /// Counts one more use of a name that belongs to the claimant or has no owner.
    pub(crate) fn hold(&mut self, name: &Name, claimant: &Claimant, tunnel: Option<&TunnelName>) {
        let Some(entry) = self.entries.get_mut(name) else {
            let entry = Entry {
                owner: claimant.clone(),
                tunnel: tunnel.cloned(),
                uses: 1,
                idle_since: Duration::ZERO,
            };
            self.insert(name.clone(), entry);
            return;
        };
        if entry.uses == 0 {
            forget_idle(&mut self.idle, &entry.owner.user, entry.idle_since, name);
            entry.owner = claimant.clone();
            entry.tunnel = tunnel.cloned();
            self.changes += 1;
        }
        entry.uses += 1;
    }

    /// [`Ledger::end_use`] by an owner; has no effect on a name of another owner.
    pub(crate) fn end_use_by(&mut self, name: &Name, owner: &Claimant, since: Duration) {
        let entry = self.entries.get(name);
        if entry.is_some_and(|entry| self.is_same_owner(&entry.owner, owner)) {
            self.end_use(name, since);
        }
    }

    /// Changes the retention, the bound of unused names per user, and the shared groups.
    pub(crate) fn set_config(
        &mut self,
        retention: Duration,
        max_idle_per_user: usize,
        shared: &[SharedGroup],
    ) {
        self.retention = retention;
        self.max_idle_per_user = max_idle_per_user;
        self.shared = shared
            .iter()
            .map(|shared| (shared.group.clone(), shared.users.clone()))
            .collect();
    }

    /// Ends one use; after the last one the name has been unused since `since`.
    pub(crate) fn end_use(&mut self, name: &Name, since: Duration) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if entry.uses == 0 {
            return;
        }
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        entry.idle_since = since;
        self.changes += 1;
        let user = entry.owner.user.clone();
        self.keep_idle(user, since, name.clone());
    }

    fn insert(&mut self, name: Name, entry: Entry) {
        if let Name::Host(host) = &name {
            self.wildcards += usize::from(host.is_wildcard());
            self.hosts.insert(FromTop::of(host), host.clone());
        }
        self.entries.insert(name, entry);
        self.changes += 1;
    }

    fn keep_idle(&mut self, user: UserName, since: Duration, name: Name) {
        let idle = self.idle.entry(user).or_default();
        idle.insert((since, name));
        if idle.len() > self.max_idle_per_user
            && let Some((_, oldest)) = idle.pop_first()
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, name: &Name) {
        if self.entries.remove(name).is_some() {
            if let Name::Host(host) = name {
                self.wildcards -= usize::from(host.is_wildcard());
                self.hosts.remove(&FromTop::of(host));
            }
            self.changes += 1;
        }
    }

    /// Takes a name from its owner, unless something uses it.
    pub(crate) fn release(&mut self, name: &Name) -> Released {
        match self.entries.get(name) {
            None => Released::Unknown,
            Some(entry) if entry.uses > 0 => Released::InUse,
            Some(entry) => {
                forget_idle(&mut self.idle, &entry.owner.user, entry.idle_since, name);
                self.remove(name);
                Released::Free
            }
        }
    }

    /// The unused names of a group, without the group's own name.
    pub(crate) fn idle_names_of(&self, group: &GroupId) -> Vec<Name> {
        let names = self.idle.values().flatten();
        names
            .filter(|(_, name)| {
                let entry = self.entries.get(name);
                entry.is_some_and(|entry| entry.owner.group == *group)
            })
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// Removes names that were unused for the retention. Returns their number.
    pub(crate) fn expire(&mut self, now: Duration) -> usize {
        let mut expired = Vec::new();
        self.idle.retain(|_, idle| {
            while let Some((since, _)) = idle.first()
                && *since + self.retention <= now
                && let Some((_, name)) = idle.pop_first()
            {
                expired.push(name);
            }
            !idle.is_empty()
        });
        for name in &expired {
            self.remove(name);
        }
        expired.len()
    }

    /// Restores a name from before a restart: nothing uses it yet.
    pub(crate) fn restore(
        &mut self,
        name: Name,
        owner: Claimant,
        tunnel: Option<TunnelName>,
        idle_since: Duration,
    ) {
        if self.entries.get(&name).is_some() {
            return;
        }
        let user = owner.user.clone();
        let entry = Entry {
            owner,
            tunnel,
            uses: 0,
            idle_since,
        };
        self.insert(name.clone(), entry);
        self.keep_idle(user, idle_since, name);
    }

    /// All entries as they are now; later changes do not change them.
    pub(crate) fn entries(&self) -> ShardedMap<Name, Entry> {
        self.entries.clone()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }
}

fn forget_idle(
    idle: &mut HashMap<UserName, BTreeSet<(Duration, Name)>>,
    user: &UserName,
    since: Duration,
    name: &Name,
) {
    if let Some(names) = idle.get_mut(user) {
        names.remove(&(since, name.clone()));
        if names.is_empty() {
            idle.remove(user);
        }
    }
}

mod from_top;
#[cfg(test)]
mod tests;
