//! One name of a manager.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{context::Context, first_orders::Held, wanted::Wanted};
use crate::{
    certificate::Certificate,
    name::CertName,
    schedule::{Environment, Reason, Schedule},
    status::NameStatus,
    store::{Store, StoreError, StoredRecord},
};

/// What the store has of a name.
pub(super) struct Loaded {
    pub(super) record: StoredRecord,
    pub(super) certificate: Option<Certificate>,
    /// The certificate is damaged, and missing for that reason.
    pub(super) damaged: Option<StoreError>,
    /// A part cannot be read, so that nothing is known of it.
    pub(super) unreadable: Option<StoreError>,
}

impl Loaded {
    /// Reads a name. Blocks.
    pub(super) fn read(store: &dyn Store, ca: &str, name: &CertName) -> Self {
        let (record, pem) = match (store.record(ca, name), store.certificate(ca, name)) {
            (Ok(record), Ok(pem)) => (record.unwrap_or_default(), pem),
            (Err(error), _) | (_, Err(error)) => return Self::unreadable(error),
        };
        let obtained = record.obtained.map_or(UNIX_EPOCH, from_millis);
        let read = pem.map(|pem| Certificate::from_pem(pem, name, obtained));
        let (certificate, damaged) = match read.transpose() {
            Ok(certificate) => (certificate, None),
            Err(error) => {
                let error = StoreError {
                    place: format!("the stored certificate of {name}"),
                    problem: error.to_string(),
                };
                (None, Some(error))
            }
        };
        Self {
            record,
            certificate,
            damaged,
            unreadable: None,
        }
    }

    pub(super) fn unreadable(error: StoreError) -> Self {
        Self {
            record: StoredRecord::default(),
            certificate: None,
            damaged: None,
            unreadable: Some(error),
        }
    }

    /// When the name was ordered for the first time within a period, if it was.
    pub(super) fn first_order(&self) -> Option<SystemTime> {
        self.record.first_order.map(from_millis)
    }

    /// When the name was used for the last time: its certificate was valid, or it was ordered. `None` if that is unknown.
    pub(super) fn last_use(&self) -> Option<SystemTime> {
        if self.unreadable.is_some() || self.damaged.is_some() {
            return None;
        }
        let StoredRecord {
            record,
            obtained,
            first_order,
            ..
        } = &self.record;
        let expires = { self.certificate.as_ref() }.map(|own| own.lifetime().expires);
        let orders = record.orders.iter().chain(&record.failed_validations);
        let times = { orders.copied() }.chain(record.not_before).chain(
            [*obtained, *first_order]
                .into_iter()
                .flatten()
                .map(from_millis),
        );
        Some(times.chain(expires).max().unwrap_or(UNIX_EPOCH))
    }
}

/// A name of which the store cannot be read: the guard against duplicates is unknown.
struct Unreadable {
    error: StoreError,
    read_again: SystemTime,
    tries: u32,
}

/// The state of a name.
pub(super) struct Plan {
    pub(super) schedule: Schedule,
    pub(super) certificate: Option<Certificate>,
    pub(super) last_error: Option<String>,
    /// Whether a question about the renewal window runs.
    pub(super) asking: bool,
    /// Whether the name is wanted. One that is not any more stays until its order has ended.
    pub(super) wanted: bool,
    /// Why the first order waits for those of other names.
    pub(super) held: Option<Held>,
    pub(super) owner: Arc<str>,
    /// When the name was ordered for the first time within a period.
    first_order: Option<SystemTime>,
    unreadable: Option<Unreadable>,
    /// Why nothing is ordered, whatever the schedule is.
    obstacle: Option<Arc<str>>,
}

impl Plan {
    pub(super) fn new(context: &Context, wanted: Wanted, loaded: Loaded, random: u64) -> Self {
        let Loaded {
            record,
            certificate,
            unreadable,
            ..
        } = loaded;
        let mut schedule = Schedule::new(context.policy.clone(), record.record);
        if let Some(certificate) = &certificate {
            schedule.on_certificate(certificate.lifetime(), random);
        }
        let mut plan = Self {
            schedule,
            certificate,
            last_error: record.last_error,
            asking: false,
            wanted: true,
            held: None,
            owner: Arc::default(),
            first_order: record.first_order.map(from_millis),
            unreadable: unreadable.map(|error| Unreadable {
                error,
                read_again: SystemTime::now() + context.policy.wait(0, random),
                tries: 1,
            }),
            obstacle: None,
        };
        plan.set_wanted(context, wanted);
        plan
    }

    /// The name is wanted, perhaps by another owner or under other circumstances than before.
    pub(super) fn set_wanted(&mut self, context: &Context, wanted: Wanted) {
        let Wanted {
            name,
            owner,
            obstacle,
        } = wanted;
        self.wanted = true;
        self.owner = owner;
        self.obstacle = obstacle.or_else(|| {
            let text = "a wildcard certificate can be obtained by dns-01 only: set the challenge to dns-01, or name each host";
            (!context.supports(&name)).then(|| text.into())
        });
    }

    /// The name as it is wanted, for another reading of the store.
    pub(super) fn wanted_as(&self, name: &CertName) -> Wanted {
        Wanted {
            name: name.clone(),
            owner: self.owner.clone(),
            obstacle: self.obstacle.clone(),
        }
    }

    /// When the next order is due, if there is one.
    pub(super) fn order_at(&self, now: SystemTime) -> Option<SystemTime> {
        let next = self.schedule.next_order(now).filter(|_| self.may_ask())?;
        Some(next.at)
    }

    /// When the next question about the renewal window is due, if there is one.
    pub(super) fn question_at(&self, now: SystemTime) -> Option<SystemTime> {
        let renewal = self.certificate.as_ref()?.renewal_id();
        self.schedule
            .next_question(now)
            .filter(|_| self.may_ask() && renewal.is_some())
    }

    fn may_ask(&self) -> bool {
        self.wanted && !self.asking && self.obstacle.is_none() && self.unreadable.is_none()
    }

    /// Whether the name has no certificate yet.
    pub(super) fn is_first(&self) -> bool {
        self.certificate.is_none()
    }

    pub(super) fn environment(&self) -> Environment {
        self.schedule.record().environment
    }

    /// The name is ordered for the first time within a period.
    pub(super) fn on_first_order(&mut self, now: SystemTime) {
        self.first_order = Some(now);
    }

    /// When the store is to be read again, because it could not be.
    pub(super) fn read_at(&self) -> Option<SystemTime> {
        let unreadable = self.unreadable.as_ref().filter(|_| self.wanted);
        unreadable.map(|unreadable| unreadable.read_again)
    }

    /// The store could not be read again.
    pub(super) fn on_unreadable(&mut self, context: &Context, error: StoreError, random: u64) {
        if let Some(unreadable) = &mut self.unreadable {
            let wait = context.policy.wait(unreadable.tries, random);
            unreadable.read_again = SystemTime::now() + wait;
            unreadable.tries = unreadable.tries.saturating_add(1);
            unreadable.error = error;
        }
    }

    /// What is stored of the name beside the certificate.
    pub(super) fn stored(&self) -> StoredRecord {
        let obtained = self.certificate.as_ref().map(|own| own.lifetime().obtained);
        StoredRecord {
            record: self.schedule.record().clone(),
            obtained: obtained.and_then(to_millis),
            last_error: self.last_error.clone(),
            owner: self.owner.to_string(),
            first_order: self.first_order.and_then(to_millis),
        }
    }

    /// Why the next order waits, if a quota of the CA is the reason.
    pub(super) fn quota(&self, name: &CertName, now: SystemTime) -> Option<String> {
        if let Some(held) = self.held {
            return Some(self.held_text(name, held, now));
        }
        let next = self.schedule.next_order(now)?;
        let wait = minutes(next.at, now);
        match next.reason {
            Reason::Orders => {
                let number = self.schedule.counted_orders(now);
                Some(format!(
                    "{number} certificates were ordered for {name} within the last days, and CAs refuse more for a week: the next order waits {wait} minutes; if certificates are lost at each restart, keep the state directory"
                ))
            }
            Reason::FailedValidations => Some(format!(
                "so many validations of {name} failed within the last hour that the CA would refuse more: the next one waits {wait} minutes"
            )),
            _ => None,
        }
    }

    fn held_text(&self, name: &CertName, held: Held, now: SystemTime) -> String {
        let Held {
            until,
            reason,
            names,
            period,
        } = held;
        let (of, setting) = match reason {
            Reason::OwnerNames => (format!("user `{}`", self.owner), "max_new_names_per_user"),
            _ => (
                format!("the domain {}", name.registered_domain()),
                "max_new_names_per_domain",
            ),
        };
        let (wait, hours) = (minutes(until, now), period.as_secs() / 3600);
        format!(
            "{names} names of {of} were ordered for the first time within {hours} hours (`server.https.acme.{setting}`): the order for {name} waits {wait} minutes; one wildcard certificate, by dns-01, is for many hosts"
        )
    }

    pub(super) fn status(&self, name: &CertName, now: SystemTime) -> NameStatus {
        let next = self.schedule.next_order(now);
        let next = next.filter(|_| self.obstacle.is_none() && self.unreadable.is_none());
        let mut next_attempt = next.map(|next| next.at);
        let mut reason = next.map(|next| next.reason);
        if let Some(held) = self.held {
            (next_attempt, reason) = (Some(held.until), Some(held.reason));
        }
        NameStatus {
            name: name.clone(),
            valid_until: self.schedule.lifetime().map(|lifetime| lifetime.expires),
            ordering: self.schedule.is_running(),
            supported: self.obstacle.is_none(),
            next_attempt,
            reason,
            environment: self.environment(),
            failures: self.schedule.record().failures,
            last_error: self.problem(name, now),
        }
    }

    /// What the status says: the most lasting problem.
    fn problem(&self, name: &CertName, now: SystemTime) -> Option<String> {
        if let Some(obstacle) = &self.obstacle {
            return Some(obstacle.to_string());
        }
        if let Some(unreadable) = &self.unreadable {
            return Some(unread_text(name, &unreadable.error));
        }
        self.quota(name, now).or_else(|| self.last_error.clone())
    }
}

/// Why nothing is ordered for a name whose store cannot be read.
pub(super) fn unread_text(name: &CertName, error: &StoreError) -> String {
    format!(
        "nothing is ordered for {name}, because it cannot be read how many certificates were ordered: {error}; repair the file, or remove it to start anew; it is read again"
    )
}

fn minutes(until: SystemTime, now: SystemTime) -> u64 {
    until.duration_since(now).unwrap_or_default().as_secs() / 60
}

fn to_millis(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// A time after 9999 is that of a damaged file.
fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_000))
}
