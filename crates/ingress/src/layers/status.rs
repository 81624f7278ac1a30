//! The status of a response that a layer of a configuration makes.

use http::StatusCode;

use crate::layers::layer_error::LayerError;

/// A status that the layer allows; `expected` names those.
pub(super) fn status(
    number: u32,
    is_allowed: impl Fn(u16) -> bool,
    expected: &'static str,
) -> Result<StatusCode, LayerError> {
    let allowed = u16::try_from(number)
        .ok()
        .filter(|number| is_allowed(*number));
    let status = allowed.and_then(|number| StatusCode::from_u16(number).ok());
    status.ok_or(LayerError::Status {
        status: number,
        expected,
    })
}
