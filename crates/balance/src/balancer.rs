//! A policy over a fixed set of members.

use crate::{
    Member, Policy,
    fill::{less_filled, scales},
    hash::mix,
    rendezvous::Rendezvous,
    schedule::Schedule,
    sync::{Arc, AtomicU64, Ordering},
};

/// Input of one choice besides the members. [`Policy::uses_hash`] and [`Policy::uses_random`] return which of the two a
/// policy reads; the other may be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// The visitor's key: [`hash_bytes`](crate::hash_bytes) of the host, header or cookie for
    /// [`Policy::ConsistentHash`], of the address for [`Policy::IpHash`]. All 64 bits must be evenly distributed; the
    /// upper ones decide.
    pub hash: u64,
    /// Random bits for [`Policy::PowerOfTwo`], all 64 uniform.
    pub random: u64,
}

/// Counters of a balancer and its predecessors. They are exact while no choice runs; a running choice may already be
/// counted in `chosen`, with the turns that it skips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Choices that found a member.
    pub chosen: u64,
    /// Choices that found no member eligible, or no member at all.
    pub none_eligible: u64,
}

/// Chooses one member of a fixed set.
///
/// `choose` takes `&self` and runs on any number of threads at once. To change
/// the policy or the members, put [`Balancer::successor`] in its place.
#[derive(Debug)]
pub struct Balancer<Id> {
    policy: Policy,
    members: Box<[Member<Id>]>,
    plan: Plan,
    /// Shared with successors, so that neither turns nor counts are lost while
    /// some threads still hold the old balancer.
    progress: Arc<Progress>,
}

/// The part of a policy that is computed once per set of members.
#[derive(Debug)]
enum Plan {
    /// The next member in the schedule.
    Turns(Schedule),
    /// The winner of the hash.
    Rendezvous(Rendezvous),
    /// The least loaded member; among equal ones the schedule decides.
    Least(Schedule),
    TwoChoices,
}

/// Every choice takes a ticket, under every policy: the tickets count the choices, and under the policies with turns a
/// ticket is the turn. Rare events are counted separately and subtracted.
///
/// All counters use relaxed ordering: each is an independent total, and no other memory depends on it.
#[derive(Debug)]
struct Progress {
    /// The next ticket.
    tickets: AtomicU64,
    /// Tickets beyond the first of a choice.
    extra: AtomicU64,
    none_eligible: AtomicU64,
}

impl Progress {
    #[inline]
    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }
}

impl<Id> Balancer<Id> {
    /// A balancer at its first turn.
    ///
    /// # Complexity
    /// Linear, except for weights that differ under
    /// [`Policy::WeightedRoundRobin`] and [`Policy::LeastConnections`]: the
    /// length of the period (bounded by about two thousand turns more than
    /// there are members) times the number of members.
    #[must_use]
    pub fn new(policy: Policy, members: Vec<Member<Id>>) -> Self {
        Self::with_progress(
            policy,
            members,
            Arc::new(Progress {
                tickets: AtomicU64::new(0),
                extra: AtomicU64::new(0),
                none_eligible: AtomicU64::new(0),
            }),
        )
    }

    /// The balancer that replaces this one when the policy or the members
    /// change. Turns and counters continue; loads do if the members have the
    /// same handles.
    ///
    /// # Complexity
    /// The same complexity as [`Balancer::new`].
    #[must_use]
    pub fn successor(&self, policy: Policy, members: Vec<Member<Id>>) -> Self {
        Self::with_progress(policy, members, self.progress.clone())
    }

    fn with_progress(
        policy: Policy,
        mut members: Vec<Member<Id>>,
        progress: Arc<Progress>,
    ) -> Self {
        let weights: Vec<u32> = members.iter().map(Member::weight).collect();
        for (member, scale) in members.iter_mut().zip(scales(&weights)) {
            member.set_scale(scale);
        }
        let plan = match policy {
            Policy::RoundRobin => Plan::Turns(Schedule::even(members.len())),
            Policy::WeightedRoundRobin => Plan::Turns(Schedule::weighted(&weights)),
            Policy::LeastConnections => Plan::Least(Schedule::weighted(&weights)),
            Policy::ConsistentHash | Policy::IpHash => Plan::Rendezvous(Rendezvous::new(
                members.iter().map(|member| (member.key(), member.weight())),
            )),
            Policy::PowerOfTwo => Plan::TwoChoices,
        };
        Self {
            policy,
            members: members.into_boxed_slice(),
            plan,
            progress,
        }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The members, in the given order.
    #[must_use]
    pub fn members(&self) -> &[Member<Id>] {
        &self.members
    }

    /// The counters so far, those of its predecessors included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let none_eligible = read(&self.progress.none_eligible);
        let not_chosen = none_eligible + read(&self.progress.extra);
        Stats {
            chosen: read(&self.progress.tickets).saturating_sub(not_chosen),
            none_eligible,
        }
    }

    /// One member for which `eligible` holds, or `None` when it holds for none.
    ///
    /// The choice does not begin the member's load: call
    /// [`Load::begin`](crate::Load::begin) once the request is really sent
    /// there. Two threads that choose at the same moment may therefore see the
    /// same loads and make the same choice.
    ///
    /// `eligible` may be called for a member more than once. If its result
    /// changes meanwhile, the chosen member was eligible at its last call, and
    /// `None` may be returned although a member has just become eligible.
    ///
    /// # Complexity
    /// See the crate's contract; at most linear in the members.
    #[inline]
    pub fn choose(&self, draw: Draw, eligible: impl Fn(&Id) -> bool) -> Option<&Member<Id>> {
        let ticket = self.progress.ticket();
        // The most common policy is checked first.
        if let Plan::Turns(schedule) = &self.plan {
            let turn = self.members.get(schedule.member_at(ticket));
            return match turn {
                Some(member) if eligible(member.id()) => turn,
                _ => self.later_turn(schedule, eligible),
            };
        }
        self.weigh(ticket, draw, eligible)
    }

    /// A choice that is not determined by turns alone. Not inlined, so that callers contain only the code of a turn.
    #[inline(never)]
    fn weigh(
        &self,
        ticket: u64,
        draw: Draw,
        eligible: impl Fn(&Id) -> bool,
    ) -> Option<&Member<Id>> {
        match &self.plan {
            Plan::Rendezvous(rendezvous) => self.winner(rendezvous, draw.hash, eligible),
            Plan::TwoChoices => self.two_choices(draw.random, eligible),
            Plan::Least(schedule) => self.counted(self.least(schedule.member_at(ticket), eligible)),
            Plan::Turns(schedule) => self.later_turn(schedule, eligible),
        }
    }

    /// Takes tickets until one selects an eligible member. The turns of other members are skipped, so that the eligible
    /// ones keep their order and their proportions.
    #[cold]
    #[inline(never)]
    fn later_turn(
        &self,
        schedule: &Schedule,
        eligible: impl Fn(&Id) -> bool,
    ) -> Option<&Member<Id>> {
        for extra in 1..self.members.len() as u64 {
            let turn = schedule.member_at(self.progress.ticket());
            let member = self.members.get(turn);
            if let Some(member) = member.filter(|member| eligible(member.id())) {
                self.progress.extra.fetch_add(extra, Ordering::Relaxed);
                return Some(member);
            }
        }
        // An ineligible member with a large weight has most of the period, or other threads took the turns between.
        let extra = self.members.len().max(1) as u64;
        self.progress.extra.fetch_add(extra, Ordering::Relaxed);
        let lot = self.progress.ticket();
        self.counted(self.by_lot(lot, eligible))
    }

    /// Counts a choice without an eligible member.
    #[inline]
    fn counted<'a>(&self, choice: Option<&'a Member<Id>>) -> Option<&'a Member<Id>> {
        if choice.is_none() {
            self.progress.none_eligible.fetch_add(1, Ordering::Relaxed);
        }
        choice
    }

    /// A member chosen by weight alone. The ticket times the golden ratio covers the weights evenly and without bursts
    /// (Weyl's sequence).
    fn by_lot(&self, ticket: u64, eligible: impl Fn(&Id) -> bool) -> Option<&Member<Id>> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let candidates = || self.members.iter().filter(|member| eligible(member.id()));
        let total: u128 = candidates().map(|member| u128::from(member.weight())).sum();
        let fraction = ticket.wrapping_mul(GOLDEN);
        let mut mark = (u128::from(fraction) * total) >> 64;
        let mut last = None;
        for member in candidates() {
            last = Some(member);
            match mark.checked_sub(u128::from(member.weight())) {
                Some(rest) => mark = rest,
                None => break,
            }
        }
        last
    }

    /// The member with the fewest requests in flight for its weight. The scan starts at the member whose turn it is, so
    /// that equal members take turns. The first idle member ends the scan, since none can be less loaded.
    #[inline]
    fn least(&self, start: usize, eligible: impl Fn(&Id) -> bool) -> Option<&Member<Id>> {
        let (before, from) = self.members.split_at_checked(start)?;
        let (mut best, mut least) = (None, u64::MAX);
        for members in [from, before] {
            for member in members {
                let fill = member.fill();
                if fill < least && eligible(member.id()) {
                    (best, least) = (Some(member), fill);
                    if fill == 0 {
                        return best;
                    }
                }
            }
        }
        best
    }

    /// The winner of the hash; if it is not eligible, the winner among the eligible members.
    #[inline(never)]
    fn winner(
        &self,
        rendezvous: &Rendezvous,
        hash: u64,
        eligible: impl Fn(&Id) -> bool,
    ) -> Option<&Member<Id>> {
        let owner = match rendezvous.known(hash) {
            None => rendezvous.settle(hash),
            known => known,
        };
        let owner = owner.and_then(|owner| self.members.get(owner));
        if owner.is_some_and(|owner| eligible(owner.id())) {
            return owner;
        }
        let eligible = |member: &Member<Id>| eligible(member.id());
        let heir = rendezvous.heir(hash, |index| self.members.get(index).is_some_and(&eligible));
        self.counted(heir.and_then(|heir| self.members.get(heir)))
    }

    /// The less loaded of two (Mitzenmacher, 2001).
    #[inline(never)]
    fn two_choices(&self, random: u64, eligible: impl Fn(&Id) -> bool) -> Option<&Member<Id>> {
        let (first, second) = two_of(random, self.members.len());
        if let (Some(first), Some(second)) = (self.members.get(first), self.members.get(second))
            && eligible(first.id())
            && eligible(second.id())
        {
            return Some(less_filled(first, second));
        }
        // A second draw among the eligible members has two candidates; with only the eligible member of the first draw,
        // its load would not matter. It uses new bits, since the old ones depend on the first draw.
        let candidates = || self.members.iter().filter(|member| eligible(member.id()));
        let (first, second) = two_of(mix(random), candidates().count());
        let (mut one, mut other, mut last) = (None, None, None);
        for (rank, member) in candidates().enumerate() {
            if rank == first {
                one = Some(member);
            }
            if rank == second {
                other = Some(member);
            }
            last = Some(member);
        }
        self.counted(match (one, other) {
            (Some(one), Some(other)) => Some(less_filled(one, other)),
            // A member is no longer eligible since the first of the two passes.
            (one, other) => one.or(other).or(last),
        })
    }
}

/// Two different indices below `len`; the same one twice if `len` is 1.
fn two_of(random: u64, len: usize) -> (usize, usize) {
    let low = (random & 0xffff_ffff) as usize;
    let high = (random >> 32) as usize;
    let first = low.checked_rem(len).unwrap_or(0);
    let second = high.checked_rem(len.saturating_sub(1)).unwrap_or(0);
    // The second member is drawn from the others: skip the first.
    if len > 1 && second >= first {
        (first, second + 1)
    } else {
        (first, second)
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;
    use crate::Load;

    fn balancer(policy: Policy, weights: &[u32]) -> Balancer<usize> {
        let members = weights
            .iter()
            .enumerate()
            .map(|(id, &weight)| Member::new(id, id as u64, weight, Load::new()))
            .collect();
        Balancer::new(policy, members)
    }

    fn ids(balancer: &Balancer<usize>, count: usize, eligible: &[usize]) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.choose(Draw::default(), |id| eligible.contains(id)))
            .map(|member| *member.id())
            .collect()
    }

    #[test]
    fn two_places_are_distinct_and_all_pairs_occur() {
        assert_eq!(two_of(u64::MAX, 0), (0, 0));
        assert_eq!(two_of(u64::MAX, 1), (0, 0));
        assert_eq!(two_of(0, 2), (0, 1));
        assert_eq!(two_of(1, 2), (1, 0));
        assert_eq!(two_of((1 << 32) | 2, 3), (2, 1));
        assert_eq!(two_of((1 << 32) | 1, 3), (1, 2));
        assert_eq!(two_of(1 << 32, 3), (0, 2));
        assert_eq!(two_of((5 << 32) | 7, 4), (3, 2));
    }

    #[test]
    fn a_passed_over_turn_goes_to_the_next_in_order() {
        let even = balancer(Policy::RoundRobin, &[1, 1, 1]);
        assert_eq!(ids(&even, 5, &[0, 1, 2]), [0, 1, 2, 0, 1]);
        assert_eq!(ids(&even, 4, &[0, 1]), [0, 1, 0, 1]);
        assert_eq!(ids(&even, 4, &[]), []);
        assert_eq!(
            even.stats(),
            Stats {
                chosen: 9,
                none_eligible: 4
            }
        );
    }

    #[test]
    fn a_lot_falls_by_weight_among_the_eligible() {
        let set = balancer(Policy::WeightedRoundRobin, &[1_000, 4, 1]);
        let mut counts = [0_usize; 3];
        for ticket in 0..1_000 {
            counts[*set.by_lot(ticket, |id| *id != 0).unwrap().id()] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1].abs_diff(800) <= 3, "{counts:?}");
        assert!(set.by_lot(5, |_| false).is_none());
        // Fraction 0 selects the first member, the fraction just below 1 the last.
        assert_eq!(*set.by_lot(0, |_| true).unwrap().id(), 0);
        assert_eq!(*set.by_lot(0, |id| *id != 0).unwrap().id(), 1);
        // 1 x 0.618 of a total of 5 is 3.09, within the 4 of the first member; 3 x 0.618 is 0.85 of a period, 4.27,
        // beyond them.
        assert_eq!(*set.by_lot(1, |id| *id != 0).unwrap().id(), 1);
        assert_eq!(*set.by_lot(3, |id| *id != 0).unwrap().id(), 2);
    }

    #[test]
    fn turns_fall_back_to_a_draw_without_a_heavy_member() {
        let set = balancer(Policy::WeightedRoundRobin, &[1_000, 3, 1]);
        let mut counts = [0_usize; 3];
        for id in ids(&set, 400, &[1, 2]) {
            counts[id] += 1;
        }
        assert_eq!(counts[0], 0);
        assert_eq!(counts[1] + counts[2], 400);
        assert!(counts[1].abs_diff(300) <= 10, "{counts:?}");
    }

    #[test]
    fn equals_in_load_take_turns_by_weight() {
        let set = balancer(Policy::LeastConnections, &[5, 1, 1]);
        assert_eq!(ids(&set, 7, &[0, 1, 2]), [0, 0, 1, 0, 2, 0, 0]);
        let two = set.members()[0].load().clone();
        let _guards = [two.begin(), two.begin()];
        assert_eq!(ids(&set, 3, &[0, 1, 2]), [1, 1, 1]);
        let _one = set.members()[1].load().begin();
        assert_eq!(ids(&set, 2, &[0, 1, 2]), [2, 2]);
        // Two requests on a weight of 5 are less load than one on a weight of 1.
        assert_eq!(ids(&set, 7, &[0, 1]), [0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn of_two_the_one_with_more_room_wins() {
        let set = balancer(Policy::PowerOfTwo, &[2, 1]);
        let pick = |random| {
            let draw = Draw { hash: 0, random };
            *set.choose(draw, |_| true).unwrap().id()
        };
        assert_eq!((pick(0), pick(1)), (0, 0));
        let guard = set.members()[0].load().begin();
        // Both loads are equal, (1 + 1) / 2 and (0 + 1) / 1: the member drawn first is chosen.
        assert_eq!((pick(0), pick(1)), (0, 1));
        let second = set.members()[0].load().begin();
        assert_eq!((pick(0), pick(1)), (1, 1));
        drop((guard, second));
        assert_eq!((pick(0), pick(1)), (0, 0));
    }

    #[test]
    fn two_choices_stay_two_choices_when_some_are_out() {
        let set = balancer(Policy::PowerOfTwo, &[1, 1, 1, 1]);
        let _busy = set.members()[1].load().begin();
        for random in 0..64_u64 {
            let draw = Draw {
                hash: 0,
                random: mix(random),
            };
            let among = |ids: &[usize]| set.choose(draw, |id| ids.contains(id)).map(Member::id);
            assert_eq!(among(&[1, 3]), Some(&3));
            assert_eq!(among(&[1]), Some(&1));
            assert_eq!(among(&[2]), Some(&2));
            assert_eq!(among(&[]), None);
        }
    }

    #[test]
    fn a_successor_goes_on_where_the_predecessor_stood() {
        let first = balancer(Policy::RoundRobin, &[1, 1, 1]);
        assert_eq!(ids(&first, 4, &[0, 1, 2]), [0, 1, 2, 0]);
        let guard = first.members()[2].load().begin();
        let second = first.successor(Policy::RoundRobin, first.members().to_vec());
        assert_eq!(second.policy(), Policy::RoundRobin);
        assert_eq!(ids(&second, 2, &[0, 1, 2]), [1, 2]);
        assert_eq!(ids(&first, 1, &[0, 1, 2]), [0]);
        assert_eq!(second.stats().chosen, 7);
        assert_eq!(second.members()[2].load().in_flight(), 1);
        drop(guard);
        assert_eq!(second.members()[2].load().in_flight(), 0);
        let empty = second.successor(Policy::IpHash, Vec::new());
        assert_eq!(empty.policy(), Policy::IpHash);
        assert!(empty.choose(Draw::default(), |_| true).is_none());
        assert_eq!(first.stats().none_eligible, 1);
    }
}
