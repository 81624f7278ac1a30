//! The response to a failure (section 7 of the protocol): text or JSON for HTTP, a status for gRPC.

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use adit_trace::Printable;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, RETRY_AFTER},
};
use serde::Serialize;
use uuid::Uuid;

use crate::forward::{
    denial::Denial,
    error_pages::{ErrorPages, PageRequest},
    headers::{REASON, REQUEST_ID, request_id},
    layer::Rejected,
    local_response::{LocalResponse, PLAIN_TEXT},
    record::{Outcome, RequestRecord},
    response_body::ResponseBody,
};

/// Request context needed to make an error response.
pub(crate) struct ErrorContext<'a> {
    pub(crate) uuid: Uuid,
    pub(crate) protocol: ProtocolType,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// The connection, if it is HTTP/1, cannot serve another request.
    pub(crate) close: bool,
    /// Another status than that of the reason.
    pub(crate) status: Option<StatusCode>,
    pub(crate) pages: ErrorPages,
}

/// Responds to a request that was not forwarded: with the response of a layer, or with an error response.
///
/// # Errors
/// The failure, if the visitor has left.
pub(crate) fn respond_to_rejected(
    rejected: Rejected,
    record: Box<RequestRecord>,
    close: bool,
) -> Result<Response<ResponseBody>, Failure> {
    match rejected {
        Rejected::Failure(failure) => respond_with_error(&failure, record, close),
        Rejected::Response(response) => {
            let response = response.with_close(close);
            Ok(respond(response, record, Outcome::Completed))
        }
        Rejected::Denied(denial) => Ok(respond_to_denied(&denial, record, close)),
    }
}

/// Responds to a visitor that a layer does not admit.
fn respond_to_denied(
    denial: &Denial,
    record: Box<RequestRecord>,
    close: bool,
) -> Response<ResponseBody> {
    let request = &record.request;
    record.passed.on_denied(request, denial);
    let is_call = request.protocol == ProtocolType::Grpc;
    let response = denial.response(is_call, || {
        let context = ErrorContext {
            status: denial.status(),
            ..context_of(&record, close)
        };
        error_response(denial.failure(), &context)
    });
    let response = response.with_close(close);
    respond(response, record, Outcome::Failed(denial.failure()))
}

/// Responds with a failure. `close`: the connection must be closed, after a body that may not have been read to its
/// end.
///
/// # Errors
/// The failure itself, if the visitor has left.
pub(crate) fn respond_with_error(
    failure: &Failure,
    mut record: Box<RequestRecord>,
    close: bool,
) -> Result<Response<ResponseBody>, Failure> {
    if failure.reason == Reason::Cancelled {
        record.finish(Outcome::Failed(failure));
        return Err(failure.clone());
    }
    let response = error_response(failure, &context_of(&record, close));
    Ok(respond(response, record, Outcome::Failed(failure)))
}

/// The context of a request that has been read.
fn context_of(record: &RequestRecord, close: bool) -> ErrorContext<'_> {
    ErrorContext {
        uuid: record.request.uuid,
        protocol: record.request.protocol,
        method: &record.request.method,
        headers: &record.request.headers,
        close,
        status: None,
        pages: record.error_pages(),
    }
}

/// The response behind the layers that the request has passed (P-3.13), recorded with this outcome. The body keeps the request open until it has been sent.
fn respond(
    response: LocalResponse,
    mut record: Box<RequestRecord>,
    outcome: Outcome<'_>,
) -> Response<ResponseBody> {
    let request = &record.request;
    let response = response.render(request.protocol, &request.method, request.version);
    let (mut parts, body) = response.into_parts();
    record.passed.pass_local_response(request, &mut parts);
    record.on_response(parts.status, &parts.headers);
    record.sent_bytes = body.len() as u64;
    record.finish(outcome);
    Response::from_parts(parts, ResponseBody::local(body, Some(record)))
}

/// The response to a failure.
pub(crate) fn error_response(failure: &Failure, context: &ErrorContext<'_>) -> LocalResponse {
    let reason = failure.reason;
    let status = context.status.unwrap_or_else(|| {
        StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    });
    if context.protocol == ProtocolType::Grpc {
        return LocalResponse::for_call(failure, &context.uuid);
    }
    let is_json = wants_json(context.headers);
    let (content_type, text) = if let Some(page) = page(failure, status, context, is_json) {
        page
    } else if *context.method == Method::HEAD {
        (content_type(is_json), Bytes::new())
    } else if is_json {
        (
            content_type(true),
            as_json(status, failure, context.uuid).into(),
        )
    } else {
        (
            content_type(false),
            as_text(status, failure, context.uuid).into(),
        )
    };
    let mut response = LocalResponse::new(status)
        .with_body(content_type, text)
        .with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_header(REASON, HeaderValue::from_static(reason.as_str()))
        .with_header(REQUEST_ID, request_id(&context.uuid));
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        response = response.with_header(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let in_doubt = matches!(
        reason,
        Reason::BadRequest | Reason::HeaderTooLarge | Reason::Stalled
    );
    response.with_close(context.close || in_doubt)
}

/// The page of the configuration for a failure, in the form that the visitor accepts.
fn page(
    failure: &Failure,
    status: StatusCode,
    context: &ErrorContext<'_>,
    is_json: bool,
) -> Option<(HeaderValue, Bytes)> {
    let request = PageRequest {
        status,
        reason: failure.reason,
        uuid: context.uuid,
    };
    if is_json {
        let json = context.pages.json(&request)?;
        return Some((content_type(true), json));
    }
    let accepts_html = wanted(context.headers).is_some_and(|wanted| wanted.contains("text/html"));
    let html = accepts_html.then(|| context.pages.html(&request))?;
    Some((HeaderValue::from_static("text/html; charset=utf-8"), html?))
}

fn wanted(headers: &HeaderMap) -> Option<&str> {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok())
}

const fn content_type(is_json: bool) -> HeaderValue {
    HeaderValue::from_static(if is_json {
        "application/json"
    } else {
        PLAIN_TEXT
    })
}

fn wants_json(headers: &HeaderMap) -> bool {
    wanted(headers).is_some_and(|wanted| {
        let json = wanted.find("json");
        let html = wanted.find("text/html");
        json.is_some_and(|json| html.is_none_or(|html| json < html))
    })
}

fn as_text(status: StatusCode, failure: &Failure, uuid: Uuid) -> String {
    let title = status.canonical_reason().unwrap_or_default();
    let detail = failure.public_detail();
    let line = if detail.is_empty() { "" } else { "\n" };
    format!(
        "{} {title}\n\n{}{line}{}\n\nreason:  {}\nrequest: {uuid}\n",
        status.as_u16(),
        Printable(detail),
        advice(failure.reason),
        failure.reason,
    )
}

fn as_json(status: StatusCode, failure: &Failure, uuid: Uuid) -> Vec<u8> {
    let error = JsonError {
        status: status.as_u16(),
        reason: failure.reason.as_str(),
        detail: failure.public_detail(),
        advice: advice(failure.reason),
        request_id: uuid.to_string(),
    };
    // Numbers and texts can always be serialized.
    serde_json::to_vec(&error).unwrap_or_default()
}

#[derive(Serialize)]
struct JsonError<'f> {
    status: u16,
    reason: &'f str,
    detail: &'f str,
    advice: &'f str,
    request_id: String,
}

/// What the reader can do about a failure.
const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::NoTunnel => {
            "No tunnel serves this address. Check the address, and the domain of the tunnel or the upstream of the entry."
        }
        Reason::NoClient => "No client serves this now. Start the client, or try again.",
        Reason::Limit => "Try again in a moment.",
        Reason::BadRequest => "The request is not valid HTTP. Correct it.",
        Reason::HeaderTooLarge => "Send fewer or shorter headers.",
        Reason::Misdirected => "Send the request on a new connection to its host.",
        Reason::Loop => {
            "The tunnel leads back to the server that it comes from. Name another service as its target."
        }
        Reason::AccessDenied => "Access from this address is not allowed.",
        Reason::UnauthenticatedVisitor => "Log in, or send a valid token.",
        Reason::Banned => {
            "Requests from this address were denied too often. Try again later, or ask the administrator of the server."
        }
        Reason::DialFailed => {
            "The link is up, but the service cannot be reached. Start the service, or check its address."
        }
        Reason::ServiceTimeout => {
            "The service took too long. Check whether it is busy, or try again."
        }
        Reason::ServiceAborted => {
            "The service closed the connection early. Its log may have the reason."
        }
        Reason::Refused | Reason::Draining | Reason::LinkLost => "Try again.",
        Reason::ProtocolError | Reason::FlowControl => {
            "Server and client are not compatible. Check whether both are up to date."
        }
        Reason::Stalled => "The request did not arrive completely. Try again.",
        Reason::Cancelled => "The request was cancelled.",
        Reason::Internal => "The log of the server has details under the id of the request.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_error_is_valid_json() {
        let failure = Failure::new(Reason::BadRequest, "a \"quoted\" detail");
        let json = as_json(StatusCode::BAD_REQUEST, &failure, Uuid::from_u128(7));
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["status"], 400);
        assert_eq!(json["reason"], "bad_request");
        assert_eq!(json["detail"], "a \"quoted\" detail");
    }
}
