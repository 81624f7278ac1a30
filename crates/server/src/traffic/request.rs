//! The limits of one request: those of its tunnel, its client and its user.

use std::{sync::Arc, time::Duration};

use adit_codec::ProtocolType;
use adit_flow::Bandwidth;
use adit_ingress::{Denial, Held, Limits};
use adit_link::Pace;

use super::{
    Traffic,
    account::{Account, Begins},
    refusal::Of,
};

/// The limits of one request.
pub(super) struct RequestLimits {
    traffic: Arc<Traffic>,
    /// Those of the tunnel first: a request that it refuses costs the others nothing.
    accounts: Arc<[Arc<Account>]>,
}

impl RequestLimits {
    pub(super) fn new(traffic: Arc<Traffic>, accounts: Vec<Arc<Account>>) -> Self {
        Self {
            traffic,
            accounts: accounts.into(),
        }
    }

    fn pace(&self, to_client: bool) -> Option<Arc<dyn Pace>> {
        let accounts = self.accounts.iter().filter(|account| account.paces());
        let accounts: Vec<_> = accounts.cloned().collect();
        if accounts.is_empty() {
            return None;
        }
        Some(Arc::new(Direction {
            traffic: self.traffic.clone(),
            accounts,
            to_client,
        }))
    }
}

impl Limits for RequestLimits {
    fn admit(&self, protocol: ProtocolType, is_retry: bool) -> Result<Held, Box<Denial>> {
        let begins = match protocol {
            ProtocolType::Tcp | ProtocolType::Udp | ProtocolType::WebSocket => Begins::Connection,
            _ => Begins::Request,
        };
        let (periods, now) = (self.traffic.periods(), self.traffic.origin.elapsed());
        let mut running = Running {
            begins,
            accounts: Vec::with_capacity(self.accounts.len()),
        };
        for account in &*self.accounts {
            // The tunnel and the user are those of the first attempt, which they still count.
            if is_retry && account.of != Of::Client {
                continue;
            }
            if let Err(refusal) = account.begin(begins, &periods, now) {
                self.traffic.refusals.count(&refusal);
                return Err(Box::new(refusal.denial()));
            }
            running.accounts.push(account.clone());
        }
        for account in &running.accounts {
            account.count_request(&periods, now);
        }
        Ok(Box::new(running))
    }

    fn pace_to_client(&self) -> Option<Arc<dyn Pace>> {
        self.pace(true)
    }

    fn pace_from_client(&self) -> Option<Arc<dyn Pace>> {
        self.pace(false)
    }
}

/// A request that counts as running.
struct Running {
    begins: Begins,
    accounts: Vec<Arc<Account>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.end(self.begins);
        }
    }
}

/// The bandwidths of one direction. A chunk has a slot in each of them, and waits for the latest.
struct Direction {
    traffic: Arc<Traffic>,
    accounts: Vec<Arc<Account>>,
    to_client: bool,
}

impl Direction {
    fn bandwidths(&self) -> impl Iterator<Item = (&Account, &Bandwidth)> {
        self.accounts.iter().map(|account| {
            let bandwidth = if self.to_client {
                &account.to_client
            } else {
                &account.from_client
            };
            (&**account, bandwidth)
        })
    }
}

impl Pace for Direction {
    fn chunk_bytes(&self) -> usize {
        let all = self.bandwidths().map(|(_, one)| one.chunk_bytes());
        all.min().unwrap_or(usize::MAX)
    }

    fn reserve(&self, bytes: usize) -> Duration {
        let now = self.traffic.origin.elapsed();
        let waits = { self.bandwidths() }.map(|(account, one)| (one.reserve(bytes, now), account));
        let longest = waits.max_by_key(|(wait, _)| *wait);
        let Some((wait, account)) = longest.filter(|(wait, _)| !wait.is_zero()) else {
            return Duration::ZERO;
        };
        account.add_wait(wait);
        wait
    }

    fn give_back(&self, bytes: usize) {
        for (_, bandwidth) in self.bandwidths() {
            bandwidth.give_back(bytes);
        }
    }

    fn on_moved(&self, bytes: usize) {
        for account in &self.accounts {
            account.add_bytes(bytes);
        }
    }
}
