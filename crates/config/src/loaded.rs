//! The result of loading: settings of a side and what goes with them.

use std::path::PathBuf;

use crate::telemetry::Telemetry;

/// The settings of a side, read and validated.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// The settings of the side itself.
    pub settings: S,
    /// The settings of its metrics, logs and traces.
    pub telemetry: Telemetry,
    /// Host names that the admin port accepts, beside its address and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The files that the settings depend on: the configuration file first, then files of tokens and certificates.
    pub files: Vec<PathBuf>,
    /// Settings that are valid and probably a mistake; to be logged.
    pub warnings: Vec<String>,
}
