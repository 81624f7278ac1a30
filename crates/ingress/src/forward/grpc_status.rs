//! Failures as statuses of gRPC (P-8.4).

use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use uuid::Uuid;

use crate::forward::headers::{REASON, REQUEST_ID, request_id};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a client that retries by itself may do so (grpc/proposal, A6, "Pushback").
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The response to a failure: trailers only.
pub(crate) fn render(failure: &Failure, uuid: &Uuid) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(trailers(failure, uuid));
    response
}

/// The trailers for a failure behind the head of a response.
pub(crate) fn trailers(failure: &Failure, uuid: &Uuid) -> HeaderMap {
    let reason = failure.reason;
    let mut trailers = HeaderMap::with_capacity(5);
    trailers.insert(STATUS, u16::from(reason.grpc_status()).into());
    let text: &str = if failure.public_detail().is_empty() {
        reason.as_str()
    } else {
        failure.public_detail()
    };
    // Percent-encoded text is always a valid value.
    if let Ok(message) = HeaderValue::try_from(percent_encoded(text)) {
        trailers.insert(MESSAGE, message);
    }
    trailers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    trailers.insert(REQUEST_ID, request_id(uuid));
    if matches!(reason, Reason::NoClient | Reason::Limit) {
        trailers.insert(PUSHBACK, HeaderValue::from_static("1000"));
    }
    trailers
}

/// The status in trailers, or in a head that has the trailers as well.
pub(crate) fn status_of(trailers: &HeaderMap) -> Option<u16> {
    trailers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The encoding of `grpc-message`: visible ASCII and space unchanged, the UTF-8 bytes of all else as `%XX`.
fn percent_encoded(text: &str) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_4_messages_are_percent_encoded() {
        assert_eq!(percent_encoded("Hello, `web` ~"), "Hello, `web` ~");
        assert_eq!(percent_encoded("100 %\n\u{7f}"), "100 %25%0A%7F");
        assert_eq!(percent_encoded("Grüße ☃"), "Gr%C3%BC%C3%9Fe %E2%98%83");
    }

    #[test]
    fn p_8_4_every_reason_has_status_name_and_request_id() {
        let uuid = Uuid::from_u128(7);
        for reason in Reason::ALL {
            let response = render(&Failure::new(reason, ""), &uuid);
            assert_eq!(response.status(), 200);
            let value = |name: &str| {
                let value = response.headers().get(name);
                value.map(|value| value.to_str().unwrap().to_owned())
            };
            let status = reason.grpc_status().to_string();
            assert_eq!(value("content-type").unwrap(), "application/grpc");
            assert_eq!(value("grpc-status").unwrap(), status);
            assert_eq!(value("grpc-message").unwrap(), reason.as_str());
            assert_eq!(value("adit-reason").unwrap(), reason.as_str());
            assert_eq!(value("adit-request-id").unwrap(), uuid.to_string());
            let later = matches!(reason, Reason::NoClient | Reason::Limit);
            assert_eq!(value("grpc-retry-pushback-ms").is_some(), later);
        }
    }
}
