//! Loads the settings of a server, and logs warnings about settings.

use adit_config::{Loaded, environment, load_server};
use adit_server::Settings;

use crate::{cli, report::Failed};

/// The settings of a command line, with file and environment.
///
/// # Errors
/// Their errors.
pub fn load(command: &cli::Server) -> Result<Loaded<Settings>, Failed> {
    load_server(
        command.config.as_deref(),
        environment(),
        &command.overrides(),
    )
    .map_err(Failed::config)
}

/// Logs settings that are valid and probably a mistake.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|text| tracing::warn!("{text}"));
}
