//! The timeouts that both sides have: of visitors and of services.

use std::time::Duration;

use adit_server::EdgeTimeouts;

use crate::{
    error::ConfigError,
    ranges::{PROGRESS, SHORTEST},
    read::Section,
};

/// Reads the timeouts towards visitors and services from `timeouts` of either side.
pub(crate) fn edge(section: &mut Section<'_>, times: &mut EdgeTimeouts) -> Result<(), ConfigError> {
    let none = Duration::ZERO;
    section.set_wait("dial", SHORTEST, &mut times.dial)?;
    section.set_wait("service", SHORTEST, &mut times.service)?;
    section.set_wait("stall", SHORTEST, &mut times.stall)?;
    section.set_wait("shortage_grace", SHORTEST, &mut times.shortage_grace)?;
    section.set_wait("head", SHORTEST, &mut times.head)?;
    section.set_wait("idle", SHORTEST, &mut times.idle)?;
    section.set_wait("session_stall", SHORTEST, &mut times.session_stall)?;
    section.set_wait("session_setup", SHORTEST, &mut times.session_setup)?;
    section.set_wait("session_keepalive", none, &mut times.session_keepalive)?;
    section.set_wait("session_close", SHORTEST, &mut times.session_close)?;
    section.set_wait("early_response", PROGRESS, &mut times.early_response)?;
    section.set_wait("continue_wait", none, &mut times.continue_wait)?;
    section.set_wait("half_close", SHORTEST, &mut times.half_close)?;
    section.set_wait("release", SHORTEST, &mut times.release)
}
