//! The response to a failure (section 7 of the protocol): text or JSON for HTTP, a status for gRPC.

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use adit_trace::Printable;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use uuid::Uuid;

use crate::forward::{
    grpc_status,
    headers::{REASON, REQUEST_ID, request_id},
    record::RequestRecord,
    response_body::ResponseBody,
};

/// Request context needed to render an error response.
pub(crate) struct ErrorContext<'a> {
    pub(crate) uuid: Uuid,
    pub(crate) protocol: ProtocolType,
    pub(crate) method: &'a Method,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    /// The connection, if it is HTTP/1, cannot serve another request.
    pub(crate) close: bool,
}

/// Responds with a failure. After a body that may not have been read to its end, the connection has to `close`.
///
/// # Errors
/// The failure itself, if the visitor has left.
pub(crate) fn respond_with_error(
    failure: &Failure,
    mut record: RequestRecord,
    close: bool,
) -> Result<Response<ResponseBody>, Failure> {
    record.on_failure(failure);
    if failure.reason == Reason::Cancelled {
        return Err(failure.clone());
    }
    tracing::debug!(
        request_id = %record.request.uuid,
        reason = failure.reason.as_str(),
        "{}",
        failure.detail
    );
    let context = ErrorContext {
        uuid: record.request.uuid,
        protocol: record.request.protocol,
        method: &record.request.method,
        version: record.request.version,
        headers: &record.request.headers,
        close,
    };
    let response = render(failure, &context);
    record.on_response(response.status(), response.headers());
    Ok(response.map(|text| ResponseBody::own(text, record)))
}

/// The response to a failure.
pub(crate) fn render(failure: &Failure, context: &ErrorContext<'_>) -> Response<Bytes> {
    if context.protocol == ProtocolType::Grpc {
        return grpc_status::render(failure, &context.uuid);
    }
    let reason = failure.reason;
    let status =
        StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = wants_json(context.headers);
    let text = if *context.method == Method::HEAD {
        String::new()
    } else if json {
        as_json(status, failure, context.uuid)
    } else {
        as_text(status, failure, context.uuid)
    };
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let content_type = if json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    headers.insert(REQUEST_ID, request_id(&context.uuid));
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let in_doubt = matches!(
        reason,
        Reason::BadRequest | Reason::HeaderTooLarge | Reason::Stalled
    );
    if context.version < Version::HTTP_2 && (context.close || in_doubt) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    let wanted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    wanted.is_some_and(|wanted| {
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

fn as_json(status: StatusCode, failure: &Failure, uuid: Uuid) -> String {
    format!(
        r#"{{"status":{},"reason":"{}","detail":"{}","advice":"{}","request_id":"{uuid}"}}"#,
        status.as_u16(),
        failure.reason,
        escaped(failure.public_detail()),
        escaped(advice(failure.reason)),
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// What whoever reads it can do.
const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::NoTunnel => {
            "Nothing is served here. Check the address, and the domain of the tunnel or the upstream of the entry."
        }
        Reason::NoClient => "Nobody serves this now. Start the client, or try again.",
        Reason::Limit => "Try again in a moment.",
        Reason::BadRequest => "The request breaks the rules of HTTP. Correct it.",
        Reason::HeaderTooLarge => "Send fewer or shorter headers.",
        Reason::Loop => {
            "The tunnel leads back to the server that it comes from. Name another service as its target."
        }
        Reason::DialFailed => {
            "The link is there, but the service cannot be reached. Start the service, or check its address."
        }
        Reason::ServiceTimeout => {
            "The service took too long. See whether it is busy, or try again."
        }
        Reason::ServiceAborted => "The service broke off. Its log may say why.",
        Reason::Refused | Reason::Draining | Reason::LinkLost => "Try again.",
        Reason::ProtocolError | Reason::FlowControl => {
            "Server and client do not understand each other. See whether both are up to date."
        }
        Reason::Stalled => "The request did not come to its end. Try again.",
        Reason::Cancelled => "The request was given up.",
        Reason::Internal => "The log of the server says more, under the request's id.",
    }
}
