//! Publishing the routes of announced tunnels in three designs: a table that is built anew from all texts for each
//! tunnel, which is the naive design; a plain map that is copied once for each announcement; and the design of this
//! project.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use adit_router::{HostPattern, Query, Rule, Table, normalize_host};

use crate::case::Role;

/// A tunnel with its hosts.
#[derive(Debug, Clone)]
pub struct Announced {
    /// The hosts as clients write them.
    pub hosts: [String; 2],
    /// The target that a lookup returns.
    pub target: usize,
}

/// The routes that visitors read, and the tunnels that the routes are built from.
pub trait Routes: Sized {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;

    /// A directory without tunnels.
    fn empty() -> Self;

    /// Adds the tunnels of one client, and removes as many of the oldest tunnels when there are more than `most`.
    /// Afterwards visitors read the new routes.
    fn announce(&mut self, coming: Vec<Announced>, most: usize);

    /// Adds many tunnels before visitors read anything.
    fn announce_all(&mut self, coming: Vec<Announced>) {
        self.announce(coming, usize::MAX);
    }

    /// Returns the target of a host.
    fn find(&self, host: &str) -> Option<usize>;
}

type Plain = HashMap<Arc<str>, usize>;

fn find_in(routes: &Plain, host: &str) -> Option<usize> {
    let host = normalize_host(host).ok()?;
    routes.get(&*host).copied()
}

/// The naive design: for each tunnel, it reads every text again and builds a new table.
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

/// Reads each text once, and copies the whole map for each announcement.
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

/// The design of this project: it adds and removes rules one by one, and publishes a copy that shares the unchanged
/// rules.
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
        let found = self.current.route(&Query::new(Some(host), "/")).ok()??;
        Some(*found.target())
    }
}
