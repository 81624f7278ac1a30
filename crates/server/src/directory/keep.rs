//! Restores the owners of names after a restart, and releases names.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use adit_auth::{GroupId, TunnelName, UserName};

use super::Directory;
use crate::{
    names::{Claimant, Entry, Name, Record, Released},
    tunnel::{Tunnel, Vacancy},
};

impl Directory {
    /// Restores the owners of an earlier run: `users` of the settings and shared groups. A name that was in use counts
    /// as used until now, because its clients return. Returns the number of entries that cannot be read.
    pub(crate) fn restore(&self, records: Vec<Record>, users: &HashSet<UserName>) -> usize {
        let now = self.clock.at(Instant::now());
        let mut names = self.names.lock();
        let mut unreadable = 0;
        for record in records {
            let Some((name, owner, tunnel)) = read(&record) else {
                unreadable += 1;
                continue;
            };
            if !users.contains(&owner.user) && !names.is_shared(&owner.group) {
                continue;
            }
            // The clock may have been set back since then.
            let idle_since = record.idle_since.map(Duration::from_secs);
            let idle_since = idle_since.unwrap_or(now).min(now);
            names.restore(name, owner, tunnel, idle_since);
        }
        names.expire(now);
        unreadable
    }

    /// A number that changes with every change of an owner.
    pub(crate) fn owners_changed(&self) -> u64 {
        self.names.lock().changes()
    }

    /// The owners to be stored.
    pub(crate) fn owners(&self) -> Vec<Record> {
        let entries = self.names.lock().entries();
        let records = entries.iter().map(|(name, entry)| write(name, entry));
        records.collect()
    }

    /// Releases a name from its owner, a group with all names of the group, and removes the tunnels without clients that
    /// held these names. Returns the number of released names.
    ///
    /// # Errors
    /// The name is in use.
    pub(crate) fn release(&self, name: &Name, now: Instant) -> Result<usize, String> {
        let mut state = self.state.lock();
        let used = |client: &str| Err(format!("{name} is in use by {client}; end that first"));
        if matches!(name, Name::Group(_) | Name::Client(_)) {
            let names = self.names.lock();
            if names.get(name).is_some_and(|entry| entry.uses > 0) {
                return used("a connected client");
            }
        }
        let tunnels = state.tunnels().filter(|tunnel| uses(tunnel, name));
        let tunnels: Vec<_> = tunnels.cloned().collect();
        for tunnel in &tunnels {
            if let Vacancy::Served(client) = tunnel.vacancy() {
                return used(&format!(
                    "client `{client}` for tunnel `{}` of group `{}`",
                    tunnel.key.name, tunnel.key.group
                ));
            }
        }
        for tunnel in tunnels {
            let since = tunnel.orphaned().unwrap_or(now);
            self.remove(&mut state, &tunnel.key, since);
        }
        self.publish(&mut state);
        let mut names = self.names.lock();
        let mut released = usize::from(names.release(name) == Released::Free);
        if let Name::Group(group) = name {
            for name in names.idle_names_of(group) {
                released += usize::from(names.release(&name) == Released::Free);
            }
        }
        drop(names);
        self.notify_freed();
        Ok(released)
    }
}

fn uses(tunnel: &Tunnel, name: &Name) -> bool {
    match name {
        Name::Group(group) => tunnel.key.group == *group,
        Name::Client(_) => false,
        Name::Tunnel(name) => tunnel.key.name == *name,
        Name::Host(host) => tunnel.definition.hosts.contains(host),
        Name::Port(port) => tunnel.port == Some(*port),
    }
}

fn read(record: &Record) -> Option<(Name, Claimant, Option<TunnelName>)> {
    let owner = Claimant {
        user: UserName::parse(&record.user).ok()?,
        group: GroupId::parse(&record.group).ok()?,
    };
    let tunnel = match &record.tunnel {
        Some(tunnel) => Some(TunnelName::parse(tunnel).ok()?),
        None => None,
    };
    Some((Name::parse(&record.kind, &record.name).ok()?, owner, tunnel))
}

fn write(name: &Name, entry: &Entry) -> Record {
    Record {
        kind: name.kind().to_owned(),
        name: name.text(),
        user: entry.owner.user.to_string(),
        group: entry.owner.group.to_string(),
        tunnel: entry.tunnel.as_ref().map(ToString::to_string),
        idle_since: (entry.uses == 0).then_some(entry.idle_since.as_secs()),
    }
}
