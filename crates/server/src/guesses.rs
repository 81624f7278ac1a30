//! Bounds how often credentials can be guessed from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::newcomers::Network;

/// Addresses that are remembered. Beyond them those are forgotten that may guess again soonest.
const MOST_NETWORKS: usize = 16_384;

/// Wrong credentials by the address that they came from.
///
/// Each address may present a number of wrong credentials at once, and regains one after each interval: the generic cell
/// rate algorithm (ITU-T I.371, appendix A), which needs one time for an address.
pub(crate) struct Guesses {
    state: Mutex<State>,
}

struct State {
    burst: u32,
    interval: Duration,
    /// When all guesses of an address are regained.
    full_at: HashMap<Network, Instant>,
}

impl Guesses {
    /// Each address has `per_minute` guesses, which are regained within a minute.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            state: Mutex::new(State {
                burst: per_minute,
                interval: interval(per_minute),
                full_at: HashMap::new(),
            }),
        }
    }

    /// Changes the number of guesses.
    pub(crate) fn set_rate(&self, per_minute: u32) {
        let mut state = self.state.lock();
        (state.burst, state.interval) = (per_minute, interval(per_minute));
    }

    /// Whether the address may present a credential.
    ///
    /// # Errors
    /// The time after which it may.
    pub(crate) fn check(&self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let state = self.state.lock();
        let Some(full_at) = state.full_at.get(&Network::of(peer)) else {
            return Ok(());
        };
        // One guess is left as long as at most all but one are being regained.
        let most = state.interval * state.burst.saturating_sub(1);
        let excess = full_at.saturating_duration_since(now).saturating_sub(most);
        if excess.is_zero() {
            Ok(())
        } else {
            Err(excess)
        }
    }

    /// Counts a wrong credential.
    pub(crate) fn count(&self, peer: IpAddr, now: Instant) {
        let mut state = self.state.lock();
        if state.full_at.len() >= MOST_NETWORKS {
            state.forget(now);
        }
        let interval = state.interval;
        let full_at = state.full_at.entry(Network::of(peer)).or_insert(now);
        *full_at = (*full_at).max(now) + interval;
    }
}

impl State {
    /// Forgets the addresses that have regained everything, or else the half that regains it soonest.
    fn forget(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= MOST_NETWORKS {
            let mut times: Vec<_> = self.full_at.values().copied().collect();
            let (_, median, _) = times.select_nth_unstable(MOST_NETWORKS / 2);
            let median = *median;
            self.full_at.retain(|_, full_at| *full_at > median);
        }
    }
}

fn interval(per_minute: u32) -> Duration {
    Duration::from_secs(60) / per_minute.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_address_regains_its_guesses_one_by_one() {
        let guesses = Guesses::new(6);
        let now = Instant::now();
        for _ in 0..6 {
            assert_eq!(guesses.check(ip(1), now), Ok(()));
            guesses.count(ip(1), now);
        }
        assert_eq!(guesses.check(ip(1), now), Err(Duration::from_secs(10)));
        assert_eq!(guesses.check(ip(2), now), Ok(()));
        let later = now + Duration::from_secs(10);
        assert_eq!(guesses.check(ip(1), later), Ok(()));
        guesses.count(ip(1), later);
        assert!(guesses.check(ip(1), later).is_err());
        let rested = now + Duration::from_secs(70);
        for _ in 0..6 {
            assert_eq!(guesses.check(ip(1), rested), Ok(()));
            guesses.count(ip(1), rested);
        }
        assert!(guesses.check(ip(1), rested).is_err());
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let guesses = Guesses::new(10);
        let now = Instant::now();
        for number in 0..3 * MOST_NETWORKS {
            let address = std::net::Ipv6Addr::from_bits((number as u128) << 64);
            guesses.count(address.into(), now);
            assert!(guesses.state.lock().full_at.len() <= MOST_NETWORKS);
        }
        // One that guesses most often is remembered longest.
        for _ in 0..10 {
            guesses.count(ip(1), now);
        }
        for number in 0..MOST_NETWORKS {
            let address = std::net::Ipv6Addr::from_bits((number as u128) << 65 | 1);
            guesses.count(address.into(), now);
        }
        assert!(guesses.check(ip(1), now).is_err());
    }

    #[test]
    fn a_changed_rate_applies_at_once() {
        let guesses = Guesses::new(1);
        let now = Instant::now();
        guesses.count(ip(1), now);
        assert!(guesses.check(ip(1), now).is_err());
        guesses.set_rate(60);
        assert_eq!(guesses.check(ip(1), now + Duration::from_secs(1)), Ok(()));
    }
}
