//! Choosing a member: the naive design (a locked cursor, a vector filtered for each choice, hashing modulo), and the
//! designs of others: an atomic cursor, nginx's smooth weighted round robin, a scan of relaxed counters, ketama,
//! tower's two choices.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use adit_balance::{Balancer, Draw, InFlight, Load as OurLoad, Member, Policy};
use pingora_ketama::{Bucket, Continuum};
use tower::{Service, balance::p2c::Balance, discover::ServiceList, load::Load};

use crate::{case::Role, dice::mix};

/// A running request; it ends when it is dropped.
#[derive(Debug)]
pub enum Running {
    /// Counted by the balancer of this project.
    Ours(InFlight),
    /// Counted by a plain counter.
    Counted(Counted),
}

/// A request of a plain counter.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn begin(counter: &Arc<AtomicUsize>) -> Running {
        counter.fetch_add(1, Ordering::Relaxed);
        Running::Counted(Self(Arc::clone(counter)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A way to choose among members of the given weights.
pub trait Choose: Send + Sync + 'static {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;

    /// Creates a chooser for a policy.
    fn new(policy: Policy, weights: &[usize]) -> Self;
    /// Chooses any member except `out`, and starts a request on it.
    fn choose(&self, draw: Draw, out: usize) -> Option<(usize, Running)>;
}

/// The balancer of this project.
pub struct Ours(Balancer<usize>);

impl Choose for Ours {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn new(policy: Policy, weights: &[usize]) -> Self {
        let member = |(id, &weight): (usize, &usize)| {
            let weight = u32::try_from(weight).unwrap_or(u32::MAX);
            Member::new(id, mix(id as u64), weight, OurLoad::new())
        };
        let members = weights.iter().enumerate().map(member).collect();
        Self(Balancer::new(policy, members))
    }

    #[inline]
    fn choose(&self, draw: Draw, out: usize) -> Option<(usize, Running)> {
        let member = self.0.choose(draw, move |&id| id != out)?;
        Some((*member.id(), Running::Ours(member.load().begin())))
    }
}

fn counters(weights: &[usize]) -> Vec<Arc<AtomicUsize>> {
    weights.iter().map(|_| Arc::default()).collect()
}

/// A cursor that every choice advances over a fixed list of members. It ignores weights.
pub struct AtomicCursor {
    cursor: AtomicUsize,
    members: Vec<Arc<AtomicUsize>>,
}

impl Choose for AtomicCursor {
    const NAME: &'static str = "atomic_cursor";
    const ROLE: Role = Role::Rival;

    fn new(_: Policy, weights: &[usize]) -> Self {
        Self {
            cursor: AtomicUsize::new(0),
            members: counters(weights),
        }
    }

    #[inline]
    fn choose(&self, _: Draw, out: usize) -> Option<(usize, Running)> {
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        let among =
            (0..self.members.len()).map(|step| (start.wrapping_add(step)) % self.members.len());
        let id = { among }.find(|&id| id != out)?;
        Some((id, Counted::begin(&self.members[id])))
    }
}

/// nginx's smooth weighted round robin: each choice adds to every member its weight and subtracts the sum of all
/// weights from the chosen member.
pub struct Smooth {
    current: Mutex<Vec<isize>>,
    weights: Vec<isize>,
    members: Vec<Arc<AtomicUsize>>,
}

impl Choose for Smooth {
    const NAME: &'static str = "nginx_smooth";
    const ROLE: Role = Role::Rival;

    fn new(_: Policy, weights: &[usize]) -> Self {
        Self {
            current: Mutex::new(vec![0; weights.len()]),
            weights: weights.iter().map(|&weight| weight.cast_signed()).collect(),
            members: counters(weights),
        }
    }

    #[inline]
    fn choose(&self, _: Draw, out: usize) -> Option<(usize, Running)> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut best, mut total) = (None, 0);
        for (id, &weight) in self.weights.iter().enumerate() {
            if id == out {
                continue;
            }
            current[id] += weight;
            total += weight;
            if best.is_none_or(|best: usize| current[id] > current[best]) {
                best = Some(id);
            }
        }
        let id = best?;
        current[id] -= total;
        drop(current);
        Some((id, Counted::begin(&self.members[id])))
    }
}

/// Reads each counter once and chooses the least loaded member relative to its weight; of equal members, the first.
pub struct Scan {
    weights: Vec<usize>,
    members: Vec<Arc<AtomicUsize>>,
}

impl Choose for Scan {
    const NAME: &'static str = "scan";
    const ROLE: Role = Role::Rival;

    fn new(_: Policy, weights: &[usize]) -> Self {
        Self {
            weights: weights.to_vec(),
            members: counters(weights),
        }
    }

    #[inline]
    fn choose(&self, _: Draw, out: usize) -> Option<(usize, Running)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (id, (counter, &weight)) in self.members.iter().zip(&self.weights).enumerate() {
            let load = counter.load(Ordering::Relaxed);
            if id != out && best.is_none_or(|(_, least, of)| load * of < least * weight) {
                best = Some((id, load, weight));
            }
        }
        let (id, ..) = best?;
        Some((id, Counted::begin(&self.members[id])))
    }
}

/// A continuum of points, as in nginx and memcached clients (`pingora-ketama`).
pub struct Ketama {
    continuum: Continuum,
    members: Vec<Arc<AtomicUsize>>,
}

impl Choose for Ketama {
    const NAME: &'static str = "pingora_ketama";
    const ROLE: Role = Role::Rival;

    #[allow(clippy::cast_possible_truncation)] // few members, small weights
    fn new(_: Policy, weights: &[usize]) -> Self {
        let bucket = |(id, &weight): (usize, &usize)| {
            // The port is the id, because the continuum returns addresses.
            let node = SocketAddr::from((Ipv4Addr::new(10, 0, 0, id as u8), id as u16));
            Bucket::new(node, weight as u32)
        };
        let buckets: Vec<_> = weights.iter().enumerate().map(bucket).collect();
        Self {
            continuum: Continuum::new(&buckets),
            members: counters(weights),
        }
    }

    #[inline]
    fn choose(&self, draw: Draw, out: usize) -> Option<(usize, Running)> {
        let key = draw.hash.to_le_bytes();
        let ids = { self.continuum.node_iter(&key) }.map(|node| usize::from(node.port()));
        let id = { ids }.find(|&id| id != out)?;
        Some((id, Counted::begin(&self.members[id])))
    }
}

/// A member for tower; its load is the number of its running requests divided by its weight.
pub struct Node {
    id: usize,
    weight: usize,
    running: Arc<AtomicUsize>,
}

impl Service<()> for Node {
    type Response = (usize, Running);
    type Error = Infallible;
    type Future = Ready<Result<(usize, Running), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok((self.id, Counted::begin(&self.running))))
    }
}

impl Load for Node {
    type Metric = usize;

    fn load(&self) -> usize {
        // The load is in 64ths, because the metric is an integer.
        self.running.load(Ordering::Relaxed) * 64 / self.weight
    }
}

/// tower's balancer of two random choices, behind a lock because it needs `&mut self`.
pub struct TowerP2c(Mutex<Balance<ServiceList<Vec<Node>>, ()>>);

impl Choose for TowerP2c {
    const NAME: &'static str = "tower_p2c";
    const ROLE: Role = Role::Rival;

    fn new(_: Policy, weights: &[usize]) -> Self {
        let node = |(id, &weight): (usize, &usize)| Node {
            id,
            weight,
            running: Arc::default(),
        };
        let nodes = weights.iter().enumerate().map(node).collect();
        Self(Mutex::new(Balance::new(ServiceList::new(nodes))))
    }

    /// `out` is ignored: tower would have removed that member from the list.
    #[inline]
    fn choose(&self, _: Draw, _: usize) -> Option<(usize, Running)> {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cx = Context::from_waker(Waker::noop());
        match balance.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => {}
            _ => return None,
        }
        let mut chosen = std::pin::pin!(balance.call(()));
        match chosen.as_mut().poll(&mut cx) {
            Poll::Ready(chosen) => chosen.ok(),
            Poll::Pending => None,
        }
    }
}

/// The naive design, for every policy.
pub struct First {
    policy: Policy,
    naive: Naive,
}

impl Choose for First {
    const NAME: &'static str = "naive";
    const ROLE: Role = Role::Naive;

    fn new(policy: Policy, weights: &[usize]) -> Self {
        Self {
            policy,
            naive: Naive::new(weights),
        }
    }

    #[inline]
    fn choose(&self, draw: Draw, out: usize) -> Option<(usize, Running)> {
        let eligible = |id| id != out;
        let chosen = match self.policy {
            Policy::RoundRobin => self.naive.round_robin(eligible),
            Policy::WeightedRoundRobin => self.naive.weighted(eligible),
            Policy::LeastConnections => self.naive.least(eligible),
            Policy::ConsistentHash | Policy::IpHash => self.naive.modulo(draw.hash, eligible),
            Policy::PowerOfTwo => self.naive.random(draw.random, eligible),
        }?;
        Some((chosen.id, Counted::begin(&chosen.in_flight)))
    }
}

/// A backend with its requests in flight.
#[derive(Debug)]
pub struct Backend {
    /// The index of the backend in the list.
    pub id: usize,
    /// The weight relative to the other backends.
    pub weight: usize,
    /// The requests in flight.
    pub in_flight: Arc<AtomicUsize>,
}

/// Backends and one cursor behind a lock.
#[derive(Debug)]
pub struct Naive {
    backends: Vec<Backend>,
    cursor: Mutex<usize>,
}

impl Naive {
    /// Backends of the given weights.
    #[must_use]
    pub fn new(weights: &[usize]) -> Self {
        Self {
            backends: weights
                .iter()
                .enumerate()
                .map(|(id, &weight)| Backend {
                    id,
                    weight,
                    in_flight: Arc::default(),
                })
                .collect(),
            cursor: Mutex::new(0),
        }
    }

    /// Collects the eligible backends and takes the next one.
    pub fn round_robin(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among = self.among(eligible);
        let turn = self.turn();
        among.get(turn.checked_rem(among.len())?).copied()
    }

    /// Lists every eligible backend as often as its weight and takes the next one of the list.
    pub fn weighted(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among: Vec<&Backend> = self
            .among(eligible)
            .into_iter()
            .flat_map(|backend| std::iter::repeat_n(backend, backend.weight))
            .collect();
        let turn = self.turn();
        among.get(turn.checked_rem(among.len())?).copied()
    }

    /// Takes the first backend with the fewest requests, whatever the weights.
    pub fn least(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        self.among(eligible)
            .into_iter()
            .min_by_key(|backend| backend.in_flight.load(Ordering::SeqCst))
    }

    /// Takes the backend at the hash modulo the number of eligible backends.
    pub fn modulo(&self, hash: u64, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among = self.among(eligible);
        let place = hash.checked_rem(among.len() as u64)?;
        among.get(usize::try_from(place).ok()?).copied()
    }

    /// Takes a random backend, and ignores load.
    pub fn random(&self, dice: u64, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        self.modulo(dice, eligible)
    }

    fn among(&self, eligible: impl Fn(usize) -> bool) -> Vec<&Backend> {
        self.backends
            .iter()
            .filter(|backend| eligible(backend.id))
            .collect()
    }

    fn turn(&self) -> usize {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = *cursor;
        *cursor = cursor.wrapping_add(1);
        turn
    }
}
