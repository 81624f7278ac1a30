//! One request from its head to the head of its answer.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use adit_codec::{EncodedHead, HeadError, HttpRequestHead, Open};
use adit_link::{Exchange, Failure, Reason, Retry};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, Version, header::TRANSFER_ENCODING};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    access::Access,
    answer::{Answer, answer, respond},
    body::ResponseBody,
    connection::Connection,
    director::{Destination, Direction},
    http::Http,
    layer::{Held, Verdict},
    pump,
    reply::{To, reply},
    streaming::Streaming,
    visit::{Visit, new_uuid},
};

/// Tries on other clients after the first.
const MAX_RETRIES: usize = 2;

/// The longest trace header that is carried along.
const MAX_TRACE_BYTES: usize = 8 * 1024;

/// The visitor's body, as it is going to cross.
enum Upload {
    None,
    /// Whole, with its trailers.
    Inline(Bytes, Option<HeaderMap>),
    /// Read as it is sent. None once it has been read from.
    Streamed(Option<Incoming>),
}

/// What the layers gave a request to hold. Shared by its exchange and by the call, so that it outlives a try that fails
/// and is followed by another.
type Holds = Arc<Mutex<Vec<Held>>>;

/// Serves one request. The error is for a visitor who is not there any more.
pub(crate) async fn serve(
    http: Arc<Http>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Failure> {
    http.counters.requests.fetch_add(1, Ordering::Relaxed);
    let number = connection.next_request();
    let uuid = new_uuid();
    let (mut parts, body) = request.into_parts();
    if parts.version < Version::HTTP_2
        && parts.headers.contains_key(TRANSFER_ENCODING)
        && !connection.is_only_chunked(number)
    {
        let both = "content-length and transfer-encoding in one request";
        return refuse(&http, &Failure::new(Reason::BadRequest, both), &parts, uuid);
    }
    let visit = match Visit::admit(
        &mut parts,
        uuid,
        connection.visitor.clone(),
        connection.scheme,
    ) {
        Ok(visit) => visit,
        Err(failure) => return refuse(&http, &failure, &parts, uuid),
    };
    let mut access = Access::new(http.clone(), connection, visit);
    let streamed = !body.is_end_stream() && inline_length(&http, &body).is_none();
    match carry(&http, &mut access, body).await {
        Ok(answer) => respond(&http, answer, access),
        Err(failure) => fail(&failure, access, streamed),
    }
}

fn refuse(
    http: &Http,
    failure: &Failure,
    parts: &http::request::Parts,
    uuid: Uuid,
) -> Result<Response<ResponseBody>, Failure> {
    http.counters.count_failure(failure.reason);
    tracing::debug!(request_id = %uuid, reason = failure.reason.as_str(), "{}", failure.detail);
    let to = To {
        uuid,
        method: &parts.method,
        version: parts.version,
        headers: &parts.headers,
        close: true,
    };
    Ok(reply(failure, &to).map(ResponseBody::bare))
}

/// Answers a failure. After a body that may not have been read to its end, the connection cannot serve on.
pub(crate) fn fail(
    failure: &Failure,
    mut access: Access,
    close: bool,
) -> Result<Response<ResponseBody>, Failure> {
    access.on_failure(failure);
    if failure.reason == Reason::Cancelled {
        return Err(failure.clone());
    }
    tracing::debug!(
        request_id = %access.visit.uuid,
        reason = failure.reason.as_str(),
        "{}",
        failure.detail
    );
    let to = To {
        uuid: access.visit.uuid,
        method: &access.visit.method,
        version: access.visit.version,
        headers: &access.visit.headers,
        close,
    };
    let response = reply(failure, &to);
    access.on_answer(response.status());
    Ok(response.map(|text| ResponseBody::own(text, access)))
}

/// Leads a request through the layers and to a client, and to another one if that is allowed.
async fn carry(http: &Http, access: &mut Access, body: Incoming) -> Result<Answer, Failure> {
    let holds = admit(http, &mut access.visit).await?;
    let expects = access.visit.expects_continue();
    let mut upload = read_ahead(http, body, expects).await?;
    let mut avoid = Vec::new();
    let mut first_failure = None;
    loop {
        let directed = match http.director.direct(&access.visit, &avoid) {
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(destination) => destination.await,
            Direction::Fail(failure) => Err(failure),
        };
        let destination = match (directed, first_failure.take()) {
            (Ok(destination), _) => destination,
            // There is nobody else: what the first one said is the reason.
            (Err(_), Some(first)) | (Err(first), None) => return Err(first),
        };
        let link = destination.link;
        let failure = match attempt(http, access, destination, &holds, &mut upload, expects).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let again = avoid.len() < MAX_RETRIES
            && match failure.retry() {
                Retry::Never => false,
                Retry::Always => !matches!(upload, Upload::Streamed(None)),
                Retry::IfSafe => {
                    matches!(upload, Upload::None)
                        && matches!(
                            access.visit.method,
                            Method::GET | Method::HEAD | Method::OPTIONS
                        )
                }
            };
        if !again || !http.director.may_retry() {
            return Err(failure);
        }
        http.counters.retries.fetch_add(1, Ordering::Relaxed);
        avoid.push(link);
        first_failure = Some(failure);
    }
}

async fn admit(http: &Http, visit: &mut Visit) -> Result<Option<Holds>, Failure> {
    let mut holds = Vec::new();
    for layer in &http.layers {
        match layer.on_request(visit) {
            Verdict::Continue => {}
            Verdict::Hold(held) => holds.push(held),
            Verdict::Wait(held) => holds.push(held.await?),
            Verdict::Stop(failure) => return Err(failure),
        }
    }
    Ok((!holds.is_empty()).then(|| Arc::new(Mutex::new(holds))))
}

/// Decides how a body crosses, and reads a small one.
async fn read_ahead(http: &Http, body: Incoming, expects: bool) -> Result<Upload, Failure> {
    if body.is_end_stream() {
        return Ok(Upload::None);
    }
    let length = match inline_length(http, &body) {
        Some(length) if !expects => length,
        _ => return Ok(Upload::Streamed(Some(body))),
    };
    let stalled = || Failure::new(Reason::Stalled, "the body did not come in time");
    // One time for all of it: drop by drop it would hold its permit for days.
    timeout(http.config.stall_timeout, read_whole(body, length))
        .await
        .unwrap_or_else(|_| Err(stalled()))
}

async fn read_whole(mut body: Incoming, length: usize) -> Result<Upload, Failure> {
    // Mostly it has come with the head, in one piece.
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    let mut trailers = None;
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Err(error)) => return Err(pump::of_body(&error)),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) if joined.is_empty() && whole.is_empty() => whole = data,
            Ok(data) => {
                if joined.is_empty() {
                    joined.reserve(length);
                    joined.extend_from_slice(&std::mem::take(&mut whole));
                }
                joined.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if body.is_end_stream() {
            break;
        }
    }
    if !joined.is_empty() {
        whole = joined.freeze();
    }
    if whole.is_empty() && trailers.is_none() {
        return Ok(Upload::None);
    }
    Ok(Upload::Inline(whole, trailers))
}

/// The length of a body that may ride in its head's message.
fn inline_length(http: &Http, body: &Incoming) -> Option<usize> {
    let length = usize::try_from(body.size_hint().exact()?).ok()?;
    (length <= http.config.inline_body_bytes).then_some(length)
}

/// One try on one client, up to the head of the answer.
async fn attempt(
    http: &Http,
    access: &mut Access,
    destination: Destination,
    holds: &Option<Holds>,
    upload: &mut Upload,
    expects: bool,
) -> Result<Answer, Failure> {
    let lane = destination.lane;
    let fits = |body: &Bytes| {
        body.len() as u64 + adit_flow::MESSAGE_COST <= u64::from(lane.initial_window())
    };
    let (riding, end) = match upload {
        Upload::None => (&[][..], true),
        Upload::Inline(body, trailers) if fits(body) => (&body[..], trailers.is_none()),
        Upload::Inline(..) | Upload::Streamed(_) => (&[][..], false),
    };
    let head = head(
        &access.visit,
        &destination.tunnel,
        destination.revision,
        riding,
    )?;
    let rode = !riding.is_empty();
    // A streamed body may take its time, so that the lane cannot know when the answer is due.
    let due = (!matches!(upload, Upload::Streamed(_)))
        .then(|| Instant::now() + http.config.service_timeout);
    access.on_route(destination.grant, lane.mux().side());
    let Exchange { send, recv } = {
        let exchange = lane.open(head, end, due)?;
        exchange.hold((destination.hold, holds.clone()));
        exchange
    };
    match upload {
        Upload::None => answer(recv).await,
        Upload::Inline(body, trailers) => {
            if !end {
                // Where this fails, the answer says why, or is there already.
                let sent = if rode {
                    Ok(())
                } else {
                    send.send_all(body.clone(), trailers.is_none()).await
                };
                if let (Ok(()), Some(trailers)) = (sent, trailers) {
                    let _ = send.finish_with(pump::block_of(trailers));
                }
            }
            answer(recv).await
        }
        Upload::Streamed(body) => {
            let streaming = Streaming {
                http,
                send: Some(send),
                pump: None,
                body,
            };
            streaming.answer(recv, expects).await
        }
    }
}

fn head(visit: &Visit, tunnel: &str, revision: u64, body: &[u8]) -> Result<EncodedHead, Failure> {
    let trace = |name: &str| {
        let value = visit
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value
            .filter(|v| v.len() <= MAX_TRACE_BYTES)
            .unwrap_or_default()
    };
    let open = Open {
        request_uuid: visit.uuid.into_bytes(),
        tunnel,
        revision,
        visitor: visit.visitor.as_str(),
        traceparent: trace("traceparent"),
        baggage: trace("baggage"),
        resumable: false,
    };
    let head = HttpRequestHead {
        open: &open,
        method: visit.method.as_str(),
        scheme: visit.scheme.as_str(),
        authority: visit.authority.as_str().as_bytes(),
        path: visit.path.as_str().as_bytes(),
    };
    let lines = visit
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    head.encode(lines, body).map_err(|error| match error {
        HeadError::TooManyHeaders { .. } | HeadError::TooLong { .. } => {
            Failure::new(Reason::HeaderTooLarge, error.to_string())
        }
    })
}
