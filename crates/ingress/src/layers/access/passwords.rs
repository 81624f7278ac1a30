//! Checks passwords: few at a time, away from the data threads, and each only once in a while.
//!
//! A check takes memory and processor time by design, so that it is a way to use up both. The number of checks that run
//! and wait is bounded, in all, for each layer and for each address; layers take turns; requests with the same credentials
//! share one check, and its answer; and a verified
//! answer is kept for [`VERIFIED_FOR`]. Its key is a hash with a secret key over the identity of the layer and the
//! credentials: an answer holds for the users and hashes of that layer in that list, and for no other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use adit_net::HostNetwork;
use parking_lot::Mutex;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use crate::layers::access::{recent::Recent, turns::Turns};

/// How long a verified answer is kept.
const VERIFIED_FOR: Duration = Duration::from_secs(60);
/// Verified answers that are kept.
const MAX_VERIFIED: usize = 16 * 1024;

/// Bounds of the checks of passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordBounds {
    /// Checks at a time.
    pub running: usize,
    /// Credentials that are checked or wait for it. A quarter of them may be of one address, and those of one layer leave room
    /// for those of others.
    pub waiting: usize,
    /// The longest wait for a check.
    pub wait: Duration,
}

impl Default for PasswordBounds {
    fn default() -> Self {
        Self {
            running: 2,
            waiting: 64,
            wait: Duration::from_secs(5),
        }
    }
}

/// A layer may have this many times the room that is left for all (dynamic thresholds: Choudhury and Hahne, "Dynamic Queue
/// Length Thresholds for Shared-Memory Packet Switches", 1998).
const PART_OF_REST: usize = 3;

/// Credentials at one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    layer: u64,
    hash: [u8; 32],
}

/// Too many credentials are being checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy;

/// The checks of passwords of a process.
#[derive(Debug)]
pub(super) struct Passwords {
    bounds: PasswordBounds,
    secret: [u8; 32],
    running: Arc<Turns>,
    checks: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Until when an answer holds.
    verified: Recent<Key, Instant>,
    pending: HashMap<Key, Pending>,
    pending_of: HashMap<Share, usize>,
}

/// What has a share of the credentials that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Layer(u64),
    Address(HostNetwork),
}

/// A check that runs or waits.
#[derive(Debug)]
struct Pending {
    answer: Arc<Answer>,
    /// The address that counts it.
    network: HostNetwork,
    /// The requests that wait for it.
    requests: usize,
}

/// The answer that all requests with the same credentials wait for.
#[derive(Debug)]
struct Answer {
    /// Busy, if there was no room until `until`.
    checked: OnceCell<Result<bool, Busy>>,
    until: Instant,
}

/// The share of one request in a check.
struct Waiting<'p> {
    passwords: &'p Passwords,
    key: Key,
    answer: Arc<Answer>,
}

impl Passwords {
    pub(super) fn new(bounds: PasswordBounds) -> Self {
        Self {
            bounds,
            secret: rand::random(),
            running: Turns::new(bounds.running),
            checks: AtomicU64::new(0),
            state: Mutex::new(State {
                verified: Recent::new(),
                pending: HashMap::new(),
                pending_of: HashMap::new(),
            }),
        }
    }

    /// The key of credentials at the layer with this identity.
    pub(super) fn key(&self, layer: &[u8; 32], user: &[u8], password: &[u8]) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(layer);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user);
        hasher.update(password);
        let [a, b, c, d, e, f, g, h, ..] = *layer;
        Key {
            layer: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            hash: *hasher.finalize().as_bytes(),
        }
    }

    /// Whether the credentials were verified a short while ago.
    pub(super) fn is_verified(&self, key: &Key) -> bool {
        let mut state = self.state.lock();
        match state.verified.get_mut(key) {
            Some(until) if Instant::now() < *until => true,
            Some(_) => {
                state.verified.remove(key);
                false
            }
            None => false,
        }
    }

    /// The number of checks so far.
    pub(super) fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Checks credentials on a thread for blocking work. `check` takes the time.
    ///
    /// # Errors
    /// [`Busy`], at once or after the longest wait.
    ///
    /// # Cancel safety
    /// Yes. A check that runs is completed, and counts as running until then.
    pub(super) async fn verify<F>(
        &self,
        key: Key,
        network: HostNetwork,
        check: F,
    ) -> Result<bool, Busy>
    where
        F: FnOnce() -> bool + Send + 'static,
    {
        let waiting = self.begin(key, network)?;
        let answer = &waiting.answer;
        // All that wait get the first answer, also that there is no room: one after the other, each would wait again.
        let checked = answer.checked.get_or_init(|| async {
            let turn = timeout_at(answer.until, self.running.take(key.layer)).await;
            let turn = turn.map_err(|_| Busy)?;
            self.checks.fetch_add(1, Ordering::Relaxed);
            let checked = tokio::task::spawn_blocking(move || {
                let is_right = check();
                drop(turn);
                is_right
            });
            checked.await.map_err(|_| Busy)
        });
        let is_right = (*checked.await)?;
        if is_right {
            let until = Instant::now() + VERIFIED_FOR;
            let verified = &mut self.state.lock().verified;
            verified.insert(key, until);
            if verified.len() > MAX_VERIFIED {
                verified.forget_oldest();
            }
        }
        Ok(is_right)
    }

    fn begin(&self, key: Key, network: HostNetwork) -> Result<Waiting<'_>, Busy> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let pending = state.pending.len();
        let answer = match state.pending.entry(key) {
            Entry::Occupied(mut pending) => {
                let pending = pending.get_mut();
                pending.requests += 1;
                pending.answer.clone()
            }
            Entry::Vacant(vacant) => {
                let of = |share| state.pending_of.get(&share).copied().unwrap_or(0);
                let shares = [Share::Layer(key.layer), Share::Address(network)];
                let left = self.bounds.waiting.saturating_sub(pending);
                let [of_layer, of_network] = shares.map(of);
                if of_layer >= left.saturating_mul(PART_OF_REST)
                    || of_network >= (self.bounds.waiting / 4).max(1)
                {
                    return Err(Busy);
                }
                for share in shares {
                    *state.pending_of.entry(share).or_default() += 1;
                }
                let answer = Arc::new(Answer {
                    checked: OnceCell::new(),
                    until: Instant::now() + self.bounds.wait,
                });
                vacant.insert(Pending {
                    answer: answer.clone(),
                    network,
                    requests: 1,
                });
                answer
            }
        };
        Ok(Waiting {
            passwords: self,
            key,
            answer,
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.passwords.state.lock();
        let state = &mut *state;
        let Entry::Occupied(mut pending) = state.pending.entry(self.key) else {
            return;
        };
        pending.get_mut().requests -= 1;
        if pending.get().requests > 0 {
            return;
        }
        let network = pending.remove().network;
        for share in [Share::Layer(self.key.layer), Share::Address(network)] {
            if let Entry::Occupied(mut of_share) = state.pending_of.entry(share) {
                *of_share.get_mut() -= 1;
                if *of_share.get() == 0 {
                    of_share.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicUsize, mpsc};

    use futures_util::future::join_all;

    use super::*;

    const BOUNDS: PasswordBounds = PasswordBounds {
        running: 2,
        waiting: 8,
        wait: Duration::from_secs(5),
    };

    fn network(last: u8) -> HostNetwork {
        HostNetwork::of([192, 0, 2, last].into())
    }

    #[tokio::test(start_paused = true)]
    async fn verified_answers_hold_for_a_minute_and_wrong_ones_do_not() {
        let passwords = Passwords::new(BOUNDS);
        let key = passwords.key(&[1; 32], b"alice", b"right");
        assert!(passwords.verify(key, network(1), || true).await.unwrap());
        assert!(passwords.is_verified(&key));
        tokio::time::advance(VERIFIED_FOR - Duration::from_millis(1)).await;
        assert!(passwords.is_verified(&key));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!passwords.is_verified(&key));
        assert!(!passwords.verify(key, network(1), || false).await.unwrap());
        assert!(!passwords.is_verified(&key));
        assert_eq!(passwords.checks(), 2);
        let state = passwords.state.lock();
        assert!(state.pending.is_empty() && state.pending_of.is_empty());
    }

    /// An answer at one layer says nothing about another one, nor do the parts of credentials run together.
    #[test]
    fn keys_differ_by_layer_user_and_password() {
        let passwords = Passwords::new(BOUNDS);
        let key = |layer: u8, user: &str, password: &str| {
            passwords.key(&[layer; 32], user.as_bytes(), password.as_bytes())
        };
        let one = key(1, "alice", "right");
        assert_eq!(one, key(1, "alice", "right"));
        for other in [
            key(2, "alice", "right"),
            key(1, "alic", "eright"),
            key(1, "alice", "wrong"),
            Passwords::new(BOUNDS).key(&[1; 32], b"alice", b"right"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[tokio::test]
    async fn requests_with_the_same_credentials_share_a_check() {
        let passwords = Passwords::new(BOUNDS);
        let key = passwords.key(&[1; 32], b"alice", b"right");
        let requests = (0..50).map(|_| passwords.verify(key, network(1), || true));
        let answers = join_all(requests).await;
        assert!(
            answers
                .into_iter()
                .all(|answer| answer.is_ok_and(|right| right))
        );
        assert_eq!(passwords.checks(), 1);
    }

    #[tokio::test]
    async fn checks_are_bounded_in_all_and_by_address() {
        let passwords = Arc::new(Passwords::new(BOUNDS));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let mut tasks = Vec::new();
        let mut begin = |last: u8, number: u8| {
            let passwords = passwords.clone();
            let (running, most, held) = (running.clone(), most.clone(), held.clone());
            tasks.push(tokio::spawn(async move {
                // A layer for each address: one layer leaves room for others.
                let key = passwords.key(&[last; 32], &[number], b"a");
                let check = move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    let _ = held.lock().recv();
                    running.fetch_sub(1, Ordering::SeqCst);
                    false
                };
                passwords.verify(key, network(last), check).await.is_ok()
            }));
        };
        // Two of each address wait, eight in all.
        for number in 0..10 {
            begin(number / 2, number);
        }
        begin(0, 100);
        let pending = || passwords.state.lock().pending.len();
        while pending() < 8 {
            tokio::task::yield_now().await;
        }
        for _ in 0..8 {
            release.send(()).unwrap();
        }
        let answers = join_all(tasks).await;
        let answered = answers
            .into_iter()
            .filter(|answer| *answer.as_ref().unwrap());
        assert_eq!(answered.count(), 8);
        assert!(most.load(Ordering::SeqCst) <= 2);
        let state = passwords.state.lock();
        assert!(state.pending.is_empty() && state.pending_of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn p_15_6_a_flood_at_one_layer_leaves_room_for_others() {
        let passwords = Passwords::new(PasswordBounds {
            waiting: 64,
            ..BOUNDS
        });
        let mut waiting = Vec::new();
        let mut begin = |layer: u8, number: u8| {
            let key = passwords.key(&[layer; 32], &[number], b"a");
            let begun = passwords.begin(key, network(number));
            begun.is_ok_and(|begun| {
                waiting.push(begun);
                true
            })
        };
        for layer in 1..=4 {
            let admitted = (0..100).filter(|number| begin(layer, *number)).count();
            assert!((1..=48).contains(&admitted), "{layer}: {admitted}");
        }
        drop(waiting);
        let state = passwords.state.lock();
        assert!(state.pending.is_empty() && state.pending_of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn p_15_6_requests_with_the_same_credentials_wait_once() {
        let passwords = Passwords::new(BOUNDS);
        // Two checks of others never end.
        let _running = [
            passwords.running.take(9).await,
            passwords.running.take(9).await,
        ];
        let key = passwords.key(&[1; 32], b"alice", b"right");
        let begun = Instant::now();
        let requests = (0..50).map(|_| passwords.verify(key, network(1), || true));
        assert!(join_all(requests).await.iter().all(Result::is_err));
        assert_eq!(begun.elapsed(), BOUNDS.wait);
        assert!(passwords.state.lock().pending.is_empty());
    }
}
