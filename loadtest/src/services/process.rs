//! The services as a separate process, so that their cost can be measured separately.

use std::path::Path;

use super::Addresses;
use crate::process::{Process, ProcessError};

/// A process of this program that runs the services.
#[derive(Debug)]
pub(crate) struct Hosted {
    /// The addresses of the services.
    pub(crate) addresses: Addresses,
    /// The process.
    pub(crate) process: Process,
}

impl Hosted {
    /// Starts the process on free ports of loopback.
    ///
    /// # Errors
    /// Returns a [`ProcessError`].
    pub(crate) async fn start(dir: &Path) -> Result<Self, ProcessError> {
        let program = std::env::current_exe().map_err(|source| ProcessError::Spawn {
            program: "adit-loadtest".into(),
            source,
        })?;
        let mut process = Process::start("service", &program, &["serve", "--json"], &[], dir)?;
        let line = async |process: &Process| serde_json::from_str(&process.first_line()?).ok();
        let addresses = process.until("line with its addresses", line).await?;
        Ok(Self { addresses, process })
    }
}
