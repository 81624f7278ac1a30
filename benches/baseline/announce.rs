//! Publishing the routes of announced tunnels: made anew of all texts for each tunnel, as first written; a plain map, copied
//! once for each announcement; ours.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use adit_router::{HostPattern, Query, Rule, Table, normalize_host};

use crate::case::Role;

/// A tunnel by its hosts.
#[derive(Debug, Clone)]
pub struct Announced {
    /// As clients write them.
    pub hosts: [String; 2],
    /// What is found.
    pub target: usize,
}

/// The routes that visitors read, and the tunnels that they come from.
pub trait Routes: Sized {
    /// Its name.
    const NAME: &'static str;
    /// What it is to the comparison.
    const ROLE: Role;

    /// Without tunnels.
    fn empty() -> Self;

    /// The tunnels of one client come, and as many of the oldest go when there are more than `most`. Afterwards visitors
    /// read the new routes.
    fn announce(&mut self, coming: Vec<Announced>, most: usize);

    /// Many tunnels come before visitors read anything.
    fn announce_all(&mut self, coming: Vec<Announced>) {
        self.announce(coming, usize::MAX);
    }

    /// The target of a host.
    fn find(&self, host: &str) -> Option<usize>;
}

type Plain = HashMap<Arc<str>, usize>;

fn find_in(routes: &Plain, host: &str) -> Option<usize> {
    let host = normalize_host(host).ok()?;
    routes.get(&*host).copied()
}

/// Every text read again, and a new table, for each tunnel.
#[derive(Debug)]
pub struct MadeAnew {
    tunnels: VecDeque<Announced>,
    current: Arc<Plain>,
}

impl MadeAnew {
    fn publish(&mut self) {
        let mut routes = Plain::new();
        for tunnel in &self.tunnels {
            for host in &tunnel.hosts {
                let pattern: HostPattern = host.parse().unwrap();
                routes.insert(pattern.name().into(), tunnel.target);
            }
        }
        self.current = Arc::new(routes);
    }
}

impl Routes for MadeAnew {
    const NAME: &'static str = "made_anew";
    const ROLE: Role = Role::Naive;

    fn empty() -> Self {
        Self {
            tunnels: VecDeque::new(),
            current: Arc::default(),
        }
    }

    fn announce(&mut self, coming: Vec<Announced>, most: usize) {
        for tunnel in coming {
            if self.tunnels.len() >= most {
                self.tunnels.pop_front();
            }
            self.tunnels.push_back(tunnel);
            self.publish();
        }
    }

    fn announce_all(&mut self, coming: Vec<Announced>) {
        self.tunnels.extend(coming);
        self.publish();
    }

    fn find(&self, host: &str) -> Option<usize> {
        find_in(&self.current, host)
    }
}

/// Texts read once, and the whole map copied for each announcement.
#[derive(Debug)]
pub struct Copied {
    tunnels: VecDeque<[HostPattern; 2]>,
    current: Arc<Plain>,
}

impl Routes for Copied {
    const NAME: &'static str = "copied";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self {
            tunnels: VecDeque::new(),
            current: Arc::default(),
        }
    }

    fn announce(&mut self, coming: Vec<Announced>, most: usize) {
        let mut routes = Plain::clone(&self.current);
        for tunnel in coming {
            if self.tunnels.len() >= most
                && let Some(oldest) = self.tunnels.pop_front()
            {
                for host in &oldest {
                    routes.remove(host.name());
                }
            }
            let hosts = tunnel
                .hosts
                .map(|host| host.parse::<HostPattern>().unwrap());
            for host in &hosts {
                routes.insert(host.name().into(), tunnel.target);
            }
            self.tunnels.push_back(hosts);
        }
        self.current = Arc::new(routes);
    }

    fn find(&self, host: &str) -> Option<usize> {
        find_in(&self.current, host)
    }
}

/// Rules added and removed one by one, and a copy that shares the others.
#[derive(Debug)]
pub struct Ours {
    tunnels: VecDeque<(usize, [HostPattern; 2])>,
    next: usize,
    table: Table<usize>,
    current: Arc<Table<usize>>,
}

impl Routes for Ours {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn empty() -> Self {
        Self {
            tunnels: VecDeque::new(),
            next: 0,
            table: Table::default(),
            current: Arc::default(),
        }
    }

    fn announce(&mut self, coming: Vec<Announced>, most: usize) {
        for tunnel in coming {
            if self.tunnels.len() >= most
                && let Some((first, hosts)) = self.tunnels.pop_front()
            {
                for (number, host) in (first..).zip(&hosts) {
                    self.table.remove(number, Some(host), None);
                }
            }
            let hosts = tunnel
                .hosts
                .map(|host| host.parse::<HostPattern>().unwrap());
            for (number, host) in (self.next..).zip(&hosts) {
                let mut rule = Rule::new(tunnel.target);
                rule.host = Some(host.clone());
                self.table.insert(number, rule).unwrap();
            }
            self.tunnels.push_back((self.next, hosts));
            self.next += 2;
        }
        self.current = Arc::new(self.table.clone());
    }

    fn find(&self, host: &str) -> Option<usize> {
        let found = self.current.route(&Query::new(Some(host), "/"))?;
        Some(*found.target())
    }
}
