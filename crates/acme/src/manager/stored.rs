//! What is stored of names, wanted or not: it is read at the start, and removed when it is of no more use.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::{
    context::Context,
    first_orders::FirstOrders,
    plan::Loaded,
    shared::{Publish, Update},
};
use crate::{name::CertName, store::StoreError};

/// How often what is stored is looked through.
const LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// The most names of one look: what is left is found by the next one.
const MOST_NAMES: usize = 100_000;

/// The stored certificates that are published before their names are wanted.
pub(super) struct Stored {
    until: BTreeMap<CertName, SystemTime>,
    look_at: SystemTime,
}

impl Stored {
    /// Reads the store: publishes the certificates that are valid, and counts the first orders. Blocks.
    pub(super) fn read(
        context: &Context,
        first_orders: &mut FirstOrders,
        publish: &Publish,
        now: SystemTime,
    ) -> Self {
        let mut stored = Self {
            until: BTreeMap::new(),
            look_at: now,
        };
        let (store, ca) = context.store();
        let names = store.names(ca, context.settings.max_names);
        let names = names.unwrap_or_else(|error| {
            tracing::error!("the stored certificates cannot be listed: {error}");
            Vec::new()
        });
        for name in names {
            let loaded = Loaded::read(store, ca, &name);
            if let Some(error) = loaded.damaged.as_ref().or(loaded.unreadable.as_ref()) {
                tracing::warn!(%name, "{error}");
                continue;
            }
            if let Some(at) = loaded.first_order() {
                first_orders.add(&name, &loaded.record.owner, at, now);
                if loaded.record.record.orders.is_empty() {
                    first_orders.on_not_issued(&name);
                }
            }
            let valid = { loaded.certificate }.filter(|own| now < own.lifetime().expires);
            if let Some(certificate) = valid {
                let until = certificate.lifetime().expires;
                stored.until.insert(name.clone(), until);
                publish(Update::Available { name, certificate });
            }
        }
        stored
    }

    /// The name has a plan now, which publishes and withdraws its certificate.
    pub(super) fn adopted(&mut self, name: &CertName) {
        self.until.remove(name);
    }

    /// Withdraws the certificates that have expired. Returns when the next one does, or the store is to be looked through.
    pub(super) fn withdraw_expired(&mut self, publish: &Publish, now: SystemTime) -> SystemTime {
        self.until.retain(|name, until| {
            let is_valid = now < *until;
            if !is_valid {
                publish(Update::Withdrawn { name: name.clone() });
            }
            is_valid
        });
        let next = self.until.values().min().copied();
        next.map_or(self.look_at, |next| next.min(self.look_at))
    }

    /// Removes what has expired and was not used for long, once a day. Returns how many names it was of.
    pub(super) async fn tidy(
        &mut self,
        context: &Context,
        used: impl FnOnce() -> BTreeSet<CertName>,
        now: SystemTime,
    ) -> Result<usize, StoreError> {
        if now < self.look_at {
            return Ok(0);
        }
        self.look_at = now + LOOK;
        let (used, keep) = (used(), context.settings.keep_unused);
        let removed = context.with_store(move |store, ca| {
            let mut removed = 0;
            for name in store.names(ca, MOST_NAMES)? {
                if used.contains(&name) {
                    continue;
                }
                let last_use = Loaded::read(store, ca, &name).last_use();
                if last_use.is_some_and(|at| at + keep < now) {
                    store.remove(ca, &name)?;
                    removed += 1;
                }
            }
            Ok(removed)
        });
        removed.await.unwrap_or(Ok(0))
    }
}
