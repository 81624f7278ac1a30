//! Failures as responses and trailers of gRPC (P-8.4).

use adit_link::{Failure, GRPC_CONTENT_TYPE, GrpcStatus, parse_grpc_status};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use uuid::Uuid;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The response to a failure: trailers only.
pub(crate) fn render(failure: &Failure, uuid: &Uuid) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC_CONTENT_TYPE));
    headers.extend(trailers(failure, uuid));
    response
}

/// The trailers for a failure behind the head of a response.
pub(crate) fn trailers(failure: &Failure, uuid: &Uuid) -> HeaderMap {
    let status = GrpcStatus::of_failure(failure, uuid);
    let lines = status.lines().filter_map(|(name, value)| {
        // All values are visible ASCII and spaces.
        let value = HeaderValue::try_from(value).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    lines.collect()
}

/// The status in trailers, or in a head that has the trailers as well.
pub(crate) fn status_of(trailers: &HeaderMap) -> Option<u16> {
    parse_grpc_status(trailers.get(STATUS)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_4_a_response_of_trailers_only_has_the_status() {
        let uuid = Uuid::from_u128(7);
        let failure = Failure::new(adit_link::Reason::Limit, "");
        let response = render(&failure, &uuid);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(status_of(response.headers()), Some(8));
        let lines = trailers(&failure, &uuid);
        assert_eq!(
            lines.len(),
            GrpcStatus::of_failure(&failure, &uuid).lines().count()
        );
    }
}
