//! The pace of an account, for all names together.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use super::policy::Quota;

/// The first pause of all orders after the CA has refused one for its rate; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause. A name whose own limit was reached does not stop all others for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// When an account may order, whatever the name. Kept in memory only: each name keeps its own times over a restart.
#[derive(Debug, Clone)]
pub struct Pace {
    orders: Quota,
    started: VecDeque<SystemTime>,
    paused_until: Option<SystemTime>,
    /// Refusals for the rate since an order was accepted.
    refusals: u32,
}

impl Pace {
    /// An account without orders.
    #[must_use]
    pub fn new(orders: Quota) -> Self {
        Self {
            orders,
            started: VecDeque::new(),
            paused_until: None,
            refusals: 0,
        }
    }

    /// When the next order may begin; `None` if at once. A fifth of the orders is left to renewals, so that new names do not
    /// let certificates expire.
    pub fn ready_at(&mut self, now: SystemTime, is_renewal: bool) -> Option<SystemTime> {
        let Quota { most, period } = self.orders;
        let most = if is_renewal { most } else { most - most / 5 };
        while { self.started.front() }.is_some_and(|at| *at + period <= now || *at > now) {
            self.started.pop_front();
        }
        let paused = self.paused_until.filter(|until| *until > now);
        // As many must end as the new one is beyond the bound.
        let beyond = (self.started.len() + 1).saturating_sub(most);
        let full = match beyond.checked_sub(1).map(|at| self.started.get(at)) {
            Some(Some(ends)) => Some(*ends + period),
            Some(None) => Some(now + period),
            None => None,
        };
        paused.max(full)
    }

    /// An order begins.
    pub fn on_started(&mut self, now: SystemTime) {
        self.started.push_back(now);
    }

    /// The CA accepted an order.
    pub fn on_accepted(&mut self) {
        self.refusals = 0;
        self.paused_until = None;
    }

    /// The CA refused an order for its rate, until this time if it has named one. The pause lasts an hour at most,
    /// because the limit may be that of one domain.
    pub fn on_rate_limited(&mut self, until: Option<SystemTime>, now: SystemTime) {
        let pause = FIRST_PAUSE * 2_u32.pow(self.refusals.min(6));
        self.refusals = self.refusals.saturating_add(1);
        let end = now + pause.min(LONGEST_PAUSE);
        let end = until.map_or(end, |until| until.min(end).max(now));
        self.paused_until = self.paused_until.max(Some(end));
    }
}
