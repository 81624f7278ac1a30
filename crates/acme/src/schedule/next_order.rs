//! The next order: when, where and why.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Which CA an order goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// The CA whose certificates are used.
    #[default]
    Production,
    /// The CA that shows whether an order would pass. Its certificates are discarded.
    Staging,
}

/// Why the next order waits until its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The name does not have a certificate yet.
    Missing,
    /// The certificate is renewed after two thirds of its lifetime.
    Lifetime,
    /// The certificate is renewed at a time of the CA's renewal window.
    Window,
    /// The last order failed.
    Retry,
    /// So many certificates were ordered for this name that one more could reach the CA's limit.
    Orders,
    /// So many validations failed that one more could reach the CA's limit.
    FailedValidations,
    /// So many names of the owner were ordered for the first time that it has to wait with another one.
    OwnerNames,
    /// So many names of the registered domain were ordered for the first time that one more could reach the CA's limit.
    DomainNames,
}

impl Reason {
    /// The name of the reason in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Lifetime => "lifetime",
            Self::Window => "window",
            Self::Retry => "retry",
            Self::Orders => "orders",
            Self::FailedValidations => "failed_validations",
            Self::OwnerNames => "owner_names",
            Self::DomainNames => "domain_names",
        }
    }
}

/// The next order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextOrder {
    /// When it is due; in the past if it is due now.
    pub at: SystemTime,
    /// Where it goes.
    pub environment: Environment,
    /// Why it is due then.
    pub reason: Reason,
}
