//! A member of a balancer.

use crate::Load;

/// A link of a group or a backend of an upstream.
#[derive(Clone, Debug)]
pub struct Member<Id> {
    id: Id,
    key: u64,
    weight: u32,
    /// The load that one request adds, relative to the other members of its balancer.
    scale: u32,
    load: Load,
}

impl<Id> Member<Id> {
    /// A member with the name `id`.
    ///
    /// `key` stands for the member under the hash policies: derive it with [`hash_bytes`](crate::hash_bytes) from a
    /// name that stays the same after restarts, so that every server sends a visitor to the same member. Of two members
    /// with the same key, the later one in the list receives no requests while the earlier one is eligible.
    ///
    /// A `weight` of 0 counts as 1: a member that should receive no requests must be left out of the list, or be
    /// ineligible.
    #[must_use]
    pub fn new(id: Id, key: u64, weight: u32, load: Load) -> Self {
        Self {
            id,
            key,
            weight: weight.max(1),
            scale: 1,
            load,
        }
    }

    /// The caller's name for the member.
    #[must_use]
    #[inline]
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The key of the member under the hash policies.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The share of the member relative to the others, at least 1.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    pub(crate) fn set_scale(&mut self, scale: u32) {
        self.scale = scale;
    }

    /// The load of the member relative to its weight and the other members of its balancer. Cannot overflow: see
    /// [`scales`](crate::fill::scales).
    #[inline]
    pub(crate) fn fill(&self) -> u64 {
        (self.load.in_flight() as u64).wrapping_mul(u64::from(self.scale))
    }

    /// The requests in flight to the member; begin one with [`Load::begin`] when the member is chosen.
    #[must_use]
    #[inline]
    pub fn load(&self) -> &Load {
        &self.load
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_member_gives_back_what_it_was_made_of() {
        let load = Load::new();
        let member = Member::new("a", 7, 3, load.clone());
        assert_eq!((*member.id(), member.key(), member.weight()), ("a", 7, 3));
        let guard = member.load().begin();
        assert_eq!(load.in_flight(), 1);
        drop(guard);
        assert_eq!(Member::new("b", 0, 0, load).weight(), 1);
    }
}
