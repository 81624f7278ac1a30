//! Makes the response for the visitor from the response of a service.

use std::task::{Context, Poll, Waker};

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    response,
};

use crate::forward::{
    deadline::Deadline,
    error_response::respond_with_error,
    headers::retain,
    receive::{RequestSend, UpstreamHead, UpstreamResponse, of_peer},
    record::{Outcome, RequestRecord},
    response_body::{ResponseBody, ServiceBody},
};

/// Turns the response of a service into the response for the visitor. A call of gRPC may have a `deadline`, which bounds
/// the body as well.
///
/// # Errors
/// When the visitor has left.
pub(crate) fn respond(
    response: UpstreamResponse,
    mut record: Box<RequestRecord>,
    deadline: Option<Deadline>,
) -> Result<Response<ResponseBody>, Failure> {
    let UpstreamResponse {
        head,
        mut recv,
        request,
    } = response;
    let (mut parts, length) = match parts(&head) {
        Ok(parts) => parts,
        Err(failure) => {
            return respond_with_error(&failure, record, !matches!(request, RequestSend::Done));
        }
    };
    let is_call = record.request.protocol == ProtocolType::Grpc;
    if is_call {
        // The response may end with a status that adit sets, and then the length would be wrong.
        retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
    }
    let bodyless = record.request.method == Method::HEAD
        || parts.status == StatusCode::NO_CONTENT
        || parts.status == StatusCode::NOT_MODIFIED;
    // Usually the first part has arrived with the head. No waker is registered: the body polls again.
    let first = match recv.poll_part(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(part))) => Some(part),
        // A failure right after the head replaces the response. A call can end with a status in any case.
        Poll::Ready(Some(Err(failure))) if !bodyless && (is_call || !recv.is_aborted()) => {
            let failure = request.failure().unwrap_or(of_peer(failure));
            return respond_with_error(&failure, record, !matches!(request, RequestSend::Done));
        }
        _ => None,
    };
    record.passed.pass_response(&record.request, &mut parts);
    record.on_response(parts.status, &parts.headers);
    if request.is_cut() && record.request.version < Version::HTTP_2 {
        // After a body that was not read to its end, the start of the next request could not be found.
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // The request may stay open for days: its headers are not needed any more.
    record.request.headers = HeaderMap::new();
    if bodyless {
        if parts.status == StatusCode::NO_CONTENT {
            // Such a response has no body by definition (RFC 9110, 8.6).
            retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
        }
        record.finish(Outcome::Completed);
        request.detach();
        let body = ResponseBody::local(Bytes::new(), Some(record));
        return Ok(Response::from_parts(parts, body));
    }
    let body = ServiceBody::new(recv, first, length, request, record, deadline);
    Ok(Response::from_parts(
        parts,
        ResponseBody::Service(Box::new(body)),
    ))
}

/// The head of a response for the visitor, and the length of its body if that is known.
///
/// # Errors
/// [`Reason::ServiceAborted`] for a head that is not valid HTTP.
pub(crate) fn parts(head: &UpstreamHead) -> Result<(response::Parts, Option<u64>), Failure> {
    let invalid = |detail: &'static str| Failure::new(Reason::ServiceAborted, detail);
    let mut parts = Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(head.status)
        .map_err(|_| invalid("upstream sent an invalid status code"))?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    let mut length = None;
    for (name, value) in head.headers.iter() {
        let name = HeaderName::from_bytes(&name)
            .map_err(|_| invalid("upstream sent an invalid header name"))?;
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| invalid("upstream sent an invalid header value"))?;
        if name == TRANSFER_ENCODING {
            // Each connection frames bodies in its own way.
            continue;
        }
        if name == CONTENT_LENGTH {
            let this = value
                .to_str()
                .ok()
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let this = this.and_then(|value| value.parse::<u64>().ok());
            match (this, length) {
                (None, _) => return Err(invalid("upstream sent an invalid Content-Length")),
                (Some(this), Some(length)) if this != length => {
                    return Err(invalid("upstream sent two different Content-Length values"));
                }
                (Some(_), Some(_)) => continue,
                (Some(this), None) => length = Some(this),
            }
        }
        headers.append(name, value);
    }
    parts.headers = headers;
    Ok((parts, length))
}
