//! Loads the settings of a server, and logs warnings about settings.

use adit_config::{Loaded, environment, load_server};
use adit_server::Settings;

use crate::{cli, report::Failed};

/// Loads the settings of a command line, with file and environment.
///
/// # Errors
/// A file cannot be read, or a setting is invalid.
pub fn load(command: &cli::Server) -> Result<Loaded<Settings>, Failed> {
    load_server(
        command.config.as_deref(),
        environment(),
        &command.overrides(),
    )
    .map_err(Failed::config)
}

/// Logs warnings about settings that are valid but probably a mistake.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|text| tracing::warn!("{text}"));
}
