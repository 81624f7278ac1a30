//! The result of loading: the settings of a side and related values.

use std::path::PathBuf;

use crate::telemetry::Telemetry;

/// The validated settings of a side.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// The settings of the side itself.
    pub settings: S,
    /// The settings of the side's metrics, logs and traces.
    pub telemetry: Telemetry,
    /// Host names that the admin port accepts, besides its address and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The files that the settings depend on: the configuration file first, then files of tokens and certificates.
    pub files: Vec<PathBuf>,
    /// Warnings to be logged: settings that are valid and probably a mistake.
    pub warnings: Vec<String>,
}
