//! One name of a manager.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::context::Context;
use crate::{
    certificate::Certificate,
    name::CertName,
    schedule::{Reason, Schedule},
    status::NameStatus,
    store::{Store, StoreError, StoredRecord},
};

/// What the store has of a name. Damaged parts are missing, with the errors.
pub(super) struct Loaded {
    record: StoredRecord,
    certificate: Option<Certificate>,
    pub(super) errors: Vec<StoreError>,
}

impl Loaded {
    /// Reads a name. Blocks.
    pub(super) fn read(store: &dyn Store, ca: &str, name: &CertName) -> Self {
        let mut errors = Vec::new();
        let record = store.record(ca, name).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let record = record.unwrap_or_default();
        let pem = store.certificate(ca, name).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let obtained = record.obtained.map_or(UNIX_EPOCH, |millis| {
            // A time after 9999 is that of a damaged file.
            let millis = millis.min(253_402_300_799_000);
            UNIX_EPOCH + Duration::from_millis(millis)
        });
        let certificate = pem.and_then(|pem| {
            let read = Certificate::from_pem(pem, name, obtained);
            read.map_err(|error| {
                errors.push(StoreError {
                    place: format!("the stored certificate of {name}"),
                    problem: error.to_string(),
                });
            })
            .ok()
        });
        Self {
            record,
            certificate,
            errors,
        }
    }
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
    supported: bool,
}

impl Plan {
    pub(super) fn new(context: &Context, name: &CertName, loaded: Loaded, random: u64) -> Self {
        let Loaded {
            record,
            certificate,
            ..
        } = loaded;
        let mut schedule = Schedule::new(context.policy.clone(), record.record);
        if let Some(certificate) = &certificate {
            schedule.on_certificate(certificate.lifetime(), random);
        }
        let supported = context.supports(name);
        let unsupported = || {
            "a wildcard certificate can be obtained by dns-01 only: set the challenge to dns-01, or name each host".to_owned()
        };
        Self {
            schedule,
            certificate,
            last_error: if supported {
                record.last_error
            } else {
                Some(unsupported())
            },
            asking: false,
            wanted: true,
            supported,
        }
    }

    /// When the next order is due, if there is one.
    pub(super) fn order_at(&self, now: SystemTime) -> Option<SystemTime> {
        let orders = self.supported && self.wanted && !self.asking;
        let next = self.schedule.next_order(now).filter(|_| orders)?;
        Some(next.at)
    }

    /// When the next question about the renewal window is due, if there is one.
    pub(super) fn question_at(&self, now: SystemTime) -> Option<SystemTime> {
        let asks = self.supported && self.wanted && !self.asking;
        let renewal = self.certificate.as_ref()?.renewal_id();
        self.schedule
            .next_question(now)
            .filter(|_| asks && renewal.is_some())
    }

    /// What is stored of the name beside the certificate.
    pub(super) fn stored(&self) -> StoredRecord {
        let obtained = self.certificate.as_ref().map(|own| own.lifetime().obtained);
        let obtained = obtained.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        StoredRecord {
            record: self.schedule.record().clone(),
            obtained: obtained.and_then(|at| u64::try_from(at.as_millis()).ok()),
            last_error: self.last_error.clone().filter(|_| self.supported),
        }
    }

    /// Why the next order waits, if a quota of the CA is the reason.
    pub(super) fn held(&self, name: &CertName, now: SystemTime) -> Option<String> {
        let next = self.schedule.next_order(now)?;
        let wait = next.at.duration_since(now).unwrap_or_default().as_secs() / 60;
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

    pub(super) fn status(&self, name: &CertName, now: SystemTime) -> NameStatus {
        let next = self.schedule.next_order(now).filter(|_| self.supported);
        let held = self.held(name, now).filter(|_| self.supported);
        NameStatus {
            name: name.clone(),
            valid_until: self.schedule.lifetime().map(|lifetime| lifetime.expires),
            ordering: self.schedule.is_running(),
            supported: self.supported,
            next_attempt: next.map(|next| next.at),
            reason: next.map(|next| next.reason),
            environment: self.schedule.record().environment,
            failures: self.schedule.record().failures,
            last_error: held.or_else(|| self.last_error.clone()),
        }
    }
}
