//! Accounts by name, a bounded number.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use adit_quota::Periods;
use parking_lot::RwLock;

use super::account::Account;

/// The most accounts of a table. Clients choose their names: above it, those that nothing uses and that were used longest
/// ago are dropped, a sixteenth at a time.
const MOST: usize = 65_536;

/// An account that nothing uses, and that has used nothing in its periods, is kept this long, in seconds: its rates have
/// recovered by then.
const KEPT_UNUSED: u64 = 60;

pub(super) struct Table<K> {
    accounts: RwLock<HashMap<K, Arc<Account>>>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        let accounts = RwLock::default();
        Self { accounts }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    /// The account of a name; a new one if there is none.
    pub(super) fn find(
        &self,
        key: &K,
        now: Duration,
        account: impl FnOnce() -> Account,
    ) -> Arc<Account> {
        if let Some(account) = self.accounts.read().get(key) {
            return account.clone();
        }
        let mut accounts = self.accounts.write();
        if accounts.len() >= MOST {
            make_room(&mut accounts);
        }
        let account = accounts.entry(key.clone()).or_insert_with(|| {
            let account = account();
            account.touch(now);
            Arc::new(account)
        });
        account.clone()
    }

    pub(super) fn for_each(&self, mut each: impl FnMut(&K, &Account)) {
        for (key, account) in &*self.accounts.read() {
            each(key, account);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.accounts.read().len()
    }

    /// Drops accounts that nothing uses and that have used nothing in the current periods.
    pub(super) fn forget_unused(&self, periods: &Periods, now: Duration) {
        let is_unused = |account: &Arc<Account>| {
            is_idle(account)
                && now.as_secs().saturating_sub(account.last_used()) > KEPT_UNUSED
                && account.usage(periods).is_unused(periods)
        };
        if self.accounts.read().values().any(is_unused) {
            self.accounts
                .write()
                .retain(|_, account| !is_unused(account));
        }
    }
}

/// Whether no request has the account.
fn is_idle(account: &Arc<Account>) -> bool {
    Arc::strong_count(account) == 1
}

fn make_room<K: Clone + Eq + Hash>(accounts: &mut HashMap<K, Arc<Account>>) {
    let idle = accounts.iter().filter(|(_, account)| is_idle(account));
    let mut idle: Vec<_> = idle
        .map(|(key, account)| (account.last_used(), key.clone()))
        .collect();
    idle.sort_by_key(|(used, _)| *used);
    for (_, key) in idle.into_iter().take(MOST / 16) {
        accounts.remove(&key);
    }
}
