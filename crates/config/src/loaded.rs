//! The result of loading: settings of a side and what goes with them.

use crate::telemetry::Telemetry;

/// What was read, and checked.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// Of the side itself.
    pub settings: S,
    /// Of what is told of it.
    pub telemetry: Telemetry,
    /// Host names under which the admin port answers, beside its address and `localhost`.
    pub admin_hosts: Vec<String>,
    /// What works and is probably not meant so. To be logged.
    pub warnings: Vec<String>,
}
