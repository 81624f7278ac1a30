//! The header lines that a layer of a configuration may read and change.

use adit_codec::fields::is_message_control;
use http::{HeaderName, HeaderValue, header::EXPECT};

use crate::layers::layer_error::{LayerError, start_of};

/// A header that may be changed: none that frames, routes or controls a message, or ends a call of gRPC.
pub(super) fn header_name(name: &[u8]) -> Result<HeaderName, LayerError> {
    let name = any_header_name(name)?;
    let text = name.as_str();
    if is_message_control(text.as_bytes()) || name == EXPECT || text.starts_with("grpc-") {
        let name = text.to_owned();
        return Err(LayerError::ReservedHeader { name });
    }
    Ok(name)
}

/// A header that a provider of forward auth sets, or receives.
///
/// # Errors
/// An invalid name, or one that may not be changed.
pub fn header_to_copy(name: &[u8]) -> Result<HeaderName, LayerError> {
    header_name(name)
}

/// A header that is only read.
pub(super) fn any_header_name(name: &[u8]) -> Result<HeaderName, LayerError> {
    HeaderName::from_bytes(name).map_err(|_| LayerError::HeaderName {
        name: start_of(name),
    })
}

/// The value of a header.
pub(super) fn header_value(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, LayerError> {
    let is_trimmed = value.trim_ascii().len() == value.len();
    let parsed = HeaderValue::from_bytes(value).ok();
    parsed
        .filter(|_| is_trimmed)
        .ok_or_else(|| LayerError::HeaderValue {
            name: name.as_str().to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_control_a_message_are_refused() {
        for name in [
            "Host",
            "content-length",
            "TE",
            "connection",
            "expect",
            "grpc-status",
        ] {
            let error = header_name(name.as_bytes()).unwrap_err();
            let name = name.to_ascii_lowercase();
            assert_eq!(error, LayerError::ReservedHeader { name });
        }
        assert_eq!(header_name(b"X-A").unwrap(), "x-a");
        for name in ["", "a b", "a:", "\u{e4}"] {
            let error = header_name(name.as_bytes()).unwrap_err();
            assert!(matches!(error, LayerError::HeaderName { .. }), "{name}");
        }
    }

    #[test]
    fn values_have_neither_control_characters_nor_outer_blanks() {
        let name = HeaderName::from_static("x-a");
        for value in [" a", "a\t", "a\r\nb", "a\0"] {
            let error = header_value(&name, value.as_bytes()).unwrap_err();
            assert!(matches!(error, LayerError::HeaderValue { .. }), "{value:?}");
        }
        for value in ["", "a b", "\u{e4}"] {
            assert_eq!(header_value(&name, value.as_bytes()).unwrap(), value);
        }
    }
}
