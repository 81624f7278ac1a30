//! Loads the settings of a server, and logs what is doubtful in settings.

use adit_config::{Loaded, environment, load_server};
use adit_server::Settings;

use crate::{cli, report::Failed};

/// The settings that a command line leads to.
///
/// # Errors
/// What is wrong with them.
pub fn load(command: &cli::Server) -> Result<Loaded<Settings>, Failed> {
    load_server(
        command.config.as_deref(),
        environment(),
        &command.overrides(),
    )
    .map_err(Failed::config)
}

/// Logs what works and is probably not meant so.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|text| tracing::warn!("{text}"));
}
