//! From what a service sends to the answer a visitor gets.

use std::task::{Context, Poll, Waker};

use adit_codec::{HeaderBlock, HttpResponse, ProtocolType, ResponseHead};
use adit_link::{Failure, Part, Reason, RecvHalf};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    response,
};

use crate::{
    access::Access,
    body::{ResponseBody, Sending, ServiceBody},
    call::{Terms, fail},
    grpc::Deadline,
    http::Http,
    interim,
    ordered::retain,
};

/// The final answer and what goes on behind it.
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) recv: RecvHalf,
    pub(crate) sending: Sending,
}

/// The head of an answer, whatever it speaks.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: HeaderBlock,
    /// With status 101, what the service has changed to.
    pub(crate) upgrade: Bytes,
}

/// What has come of an answer.
pub(crate) enum Came {
    /// The head of the final one.
    Final(Head),
    /// Of status 100 to 199 (P-3.1).
    Interim(Box<HttpResponse>),
}

/// The final answer to a request that has been sent whole. Interim ones are passed on.
pub(crate) async fn answer(
    access: &Access,
    terms: Terms<'_>,
    mut recv: RecvHalf,
) -> Result<Answer, Failure> {
    loop {
        match came(recv.part().await, access.may_switch)? {
            // No body waits for it.
            Came::Interim(head) if head.status == 100 => {}
            Came::Interim(head) => interim::pass_on(access, terms.interim, &head).await,
            Came::Final(head) => {
                return Ok(Answer {
                    head,
                    recv,
                    sending: Sending::Done,
                });
            }
        }
    }
}

/// The head of an answer, if that is what came. The service may change the protocol, or not.
pub(crate) fn came(part: Option<Result<Part, Failure>>, may_switch: bool) -> Result<Came, Failure> {
    let done = |status, headers| {
        let upgrade = Bytes::new();
        Ok(Came::Final(Head {
            status,
            headers,
            upgrade,
        }))
    };
    match part {
        Some(Ok(Part::Response(ResponseHead::Http(head)))) if head.status >= 200 => {
            done(head.status, head.headers)
        }
        Some(Ok(Part::Response(ResponseHead::Http(head)))) if head.status == 101 && may_switch => {
            Ok(Came::Final(Head {
                status: head.status,
                headers: head.headers,
                upgrade: head.upgrade,
            }))
        }
        Some(Ok(Part::Response(ResponseHead::Grpc(head)))) => done(head.status, head.metadata),
        Some(Ok(Part::Response(ResponseHead::WebSocket(head)))) => done(head.status, head.headers),
        Some(Ok(Part::Response(ResponseHead::Http(head)))) if head.status == 101 => {
            Err(Failure::new(
                Reason::ServiceAborted,
                "the service changed the protocol without being asked",
            ))
        }
        Some(Ok(Part::Response(ResponseHead::Http(head)))) => Ok(Came::Interim(head)),
        Some(Ok(_)) => Err(Failure::new(
            Reason::ProtocolError,
            "no answer to what was asked",
        )),
        Some(Err(failure)) => Err(of_peer(failure)),
        None => Err(Failure::new(
            Reason::ServiceAborted,
            "the service ended without an answer",
        )),
    }
}

/// The visitor is still there: it was the other side that left.
pub(crate) fn of_peer(failure: Failure) -> Failure {
    match failure.reason {
        Reason::Cancelled => Failure::new(Reason::ServiceAborted, "the client gave the request up"),
        _ => failure,
    }
}

/// The service's answer as the visitor gets it. A call may have a `deadline`, which stands until its end.
pub(crate) fn respond(
    http: &Http,
    answer: Answer,
    mut access: Access,
    deadline: Option<Deadline>,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer {
        head,
        mut recv,
        sending,
    } = answer;
    let (mut parts, length) = match parts(&head) {
        Ok(parts) => parts,
        Err(failure) => return fail(&failure, access, !matches!(sending, Sending::Done)),
    };
    let is_call = access.visit.protocol == ProtocolType::Grpc;
    if is_call {
        // The answer may end with a status of ours, and then it would be a lie.
        retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
    }
    let bodyless = access.visit.method == Method::HEAD
        || parts.status == StatusCode::NO_CONTENT
        || parts.status == StatusCode::NOT_MODIFIED;
    // Mostly it has come with the head. No waker is left behind: the body is asked again.
    let first = match recv.poll_part(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(part))) => Some(part),
        // Behind the head, what broke off is the answer. A call can end with a status in any case.
        Poll::Ready(Some(Err(failure))) if !bodyless && (is_call || !recv.is_aborted()) => {
            let failure = sending.failure().unwrap_or(of_peer(failure));
            return fail(&failure, access, !matches!(sending, Sending::Done));
        }
        _ => None,
    };
    for layer in http.admission.layers().iter().rev() {
        layer.on_response(&access.visit, &mut parts);
    }
    access.on_answer(parts.status, &parts.headers);
    if sending.is_cut() && access.visit.version < Version::HTTP_2 {
        // The next request could not be found behind it.
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // It may stand open for days.
    access.visit.headers = HeaderMap::new();
    if bodyless {
        if parts.status == StatusCode::NO_CONTENT {
            // It has none by definition (RFC 9110, 8.6).
            retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
        }
        access.on_end();
        sending.detach();
        return Ok(Response::from_parts(
            parts,
            ResponseBody::own(Bytes::new(), access),
        ));
    }
    let body = ServiceBody::new(recv, first, length, sending, access, deadline);
    Ok(Response::from_parts(
        parts,
        ResponseBody::Service(Box::new(body)),
    ))
}

/// The head of an answer, and how long its body is, if that is known.
pub(crate) fn parts(head: &Head) -> Result<(response::Parts, Option<u64>), Failure> {
    let bad = |detail: &'static str| Failure::new(Reason::ServiceAborted, detail);
    let mut parts = Response::new(()).into_parts().0;
    parts.status =
        StatusCode::from_u16(head.status).map_err(|_| bad("the service's status is none"))?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    let mut length = None;
    for (name, value) in head.headers.iter() {
        let name = HeaderName::from_bytes(&name)
            .map_err(|_| bad("the service's answer has a header that is none"))?;
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| bad("the service's answer has a header that is none"))?;
        if name == TRANSFER_ENCODING {
            // How bodies are framed is this connection's own affair.
            continue;
        }
        if name == CONTENT_LENGTH {
            let this = value
                .to_str()
                .ok()
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let this = this.and_then(|value| value.parse::<u64>().ok());
            match (this, length) {
                (None, _) => return Err(bad("the service's content-length is no number")),
                (Some(this), Some(length)) if this != length => {
                    return Err(bad("the service's answer has two lengths"));
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
