//! One request from its head to the head of its answer.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_codec::{EncodedHead, HeadError, HttpRequestHead, Open, ProtocolType, ResetCode};
use adit_link::{Exchange, Failure, Lane, Reason, Retry, compress::is_compressible};
use adit_trace::{Phase, TraceContext};
use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, Version, header::TRANSFER_ENCODING};
use http_body::Body;
use uuid::Uuid;

use crate::{
    access::{Access, tell_refused},
    answer::{Answer, answer, respond},
    body::{ResponseBody, Sending},
    connection::Connection,
    demand::Demand,
    director::{Destination, Direction},
    grpc::{self, Deadline},
    http::Http,
    inbound::Inbound,
    interim::SendInterim,
    layer::Held,
    layers::crosses,
    pump,
    reply::{To, reply},
    streaming::Streaming,
    target::Target,
    upgrade,
    upload::{Upload, inline_length},
    visit::{self, Arrival, Visit, new_uuid, protocol},
    websocket::{self, Refused, handshake},
};

/// Tries on other clients after the first.
const MAX_RETRIES: usize = 2;

/// The longest trace header that is carried along.
const MAX_TRACE_BYTES: usize = 8 * 1024;

/// What differs between protocols while a request is carried.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'v> {
    /// The answer must begin within this, from the end of the request or the last part of it that has come.
    pub(crate) answer_within: Option<Duration>,
    /// The visitor must go on with its body within this.
    pub(crate) stall: Option<Duration>,
    /// The visitor sends its body only when it is told to.
    pub(crate) expects: bool,
    /// The visitor waits no longer.
    pub(crate) deadline: Option<Deadline>,
    /// A visitor that leaves while it sends has called the request off: nothing of it is delivered any more.
    pub(crate) cancels_at_once: bool,
    /// Sends interim responses on the visitor's stream, over HTTP/2.
    pub(crate) interim: Option<&'v dyn SendInterim>,
}

/// What the layers gave a request to hold. Shared by its exchange and by the call, so that it outlives a try that fails
/// and is followed by another.
type Holds = Arc<Mutex<Vec<Held>>>;

/// Serves one request; `interim` sends interim responses to a visitor of HTTP/2. The error is for a visitor who is not
/// there any more.
pub(crate) async fn serve(
    http: Arc<Http>,
    connection: Arc<Connection>,
    request: Request<Inbound>,
    interim: Option<&dyn SendInterim>,
) -> Result<Response<ResponseBody>, Failure> {
    http.counters.requests.fetch_add(1, Ordering::Relaxed);
    let number = connection.next_request();
    let uuid = new_uuid();
    let started = connection.take_head_began();
    let (mut parts, body) = request.into_parts();
    let mut target = Target::new(&parts.uri, &connection.take_replaced(number));
    if parts.version < Version::HTTP_2
        && parts.headers.contains_key(TRANSFER_ENCODING)
        && !connection.is_only_chunked(number)
    {
        let both = "content-length and transfer-encoding in one request";
        let failure = Failure::new(Reason::BadRequest, both);
        let asked = (&parts, target.as_ref());
        return Ok(refuse(&http, &connection, &failure, None, asked, uuid));
    }
    let handshake = match handshake(&mut parts, &body, &connection) {
        Ok(handshake) => handshake,
        Err(refused) => {
            let (failure, refused) = (refused.failure(), Some(&refused));
            let asked = (&parts, target.as_ref());
            return Ok(refuse(&http, &connection, &failure, refused, asked, uuid));
        }
    };
    let director = http.admission.director();
    let arrival = Arrival {
        uuid,
        visitor: connection.visitor.clone(),
        scheme: connection.scheme,
        started,
        needs_host: director.needs_host(connection.visitor.local_port()),
    };
    let visit = match Visit::admit(&mut parts, &mut target, arrival) {
        Ok(visit) => visit,
        Err(failure) => {
            let asked = (&parts, target.as_ref());
            return Ok(refuse(&http, &connection, &failure, None, asked, uuid));
        }
    };
    let access = Access::new(http.clone(), connection, visit);
    if let Some(handshake) = handshake {
        // Apart: every connection of HTTP/1 keeps room for the future that serves its requests.
        return Box::pin(websocket::serve(&http, access, body, handshake)).await;
    }
    match access.visit.protocol {
        ProtocolType::Grpc => Box::pin(grpc::serve(&http, access, body)).await,
        _ => serve_http(&http, access, body, interim).await,
    }
}

async fn serve_http(
    http: &Arc<Http>,
    mut access: Access,
    body: Inbound,
    interim: Option<&dyn SendInterim>,
) -> Result<Response<ResponseBody>, Failure> {
    let streamed = !body.is_end_stream() && inline_length(http, &body).is_none();
    let terms = Terms {
        answer_within: Some(http.config.service_timeout),
        stall: Some(http.config.stall_timeout),
        expects: access.visit.expects_continue(),
        deadline: None,
        cancels_at_once: false,
        interim,
    };
    if !access.visit.upgrade.is_empty() {
        return Box::pin(upgrade::serve(http, access, body, terms, streamed)).await;
    }
    match carry(http, &mut access, body, terms).await {
        Ok(answer) => respond(http, answer, access, None),
        Err(failure) => fail(&failure, access, streamed),
    }
}

/// Answers a request that could be read in two ways, or a handshake that cannot be answered otherwise.
fn refuse(
    http: &Http,
    connection: &Connection,
    failure: &Failure,
    handshake: Option<&Refused>,
    (parts, target): (&http::request::Parts, Option<&Target>),
    uuid: Uuid,
) -> Response<ResponseBody> {
    http.counters.count_failure(failure.reason);
    tracing::debug!(request_id = %uuid, reason = failure.reason.as_str(), "{}", failure.detail);
    let to = To {
        uuid,
        protocol: protocol(parts),
        method: &parts.method,
        version: parts.version,
        headers: &parts.headers,
        close: true,
    };
    let mut response = reply(failure, &to);
    if let Some(handshake) = handshake {
        handshake.dress(&mut response, parts.version);
    }
    let observer = http.admission.observer();
    tell_refused(
        &**observer,
        connection,
        (parts, target),
        uuid,
        failure.reason,
        &response,
    );
    response.map(ResponseBody::bare)
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
        protocol: access.visit.protocol,
        method: &access.visit.method,
        version: access.visit.version,
        headers: &access.visit.headers,
        close,
    };
    let response = reply(failure, &to);
    access.on_answer(response.status(), response.headers());
    Ok(response.map(|text| ResponseBody::own(text, access)))
}

/// Leads a request through the layers and to a client, and to another one if that is allowed.
pub(crate) async fn carry(
    http: &Http,
    access: &mut Access,
    body: Inbound,
    terms: Terms<'_>,
) -> Result<Answer, Failure> {
    access.phases.begin(Phase::Queue);
    let holds = http.admission.admit_visit(&mut access.visit).await?;
    access.phases.end(Phase::Queue);
    let mut demand = if body.is_end_stream() {
        Demand::default()
    } else {
        Demand::of(&holds, None)
    };
    let holds = (!holds.is_empty()).then(|| Arc::new(Mutex::new(holds)));
    let mut upload = match access.visit.protocol {
        ProtocolType::Grpc => {
            let enough = http.config.inline_body_bytes;
            Upload::begun(body, enough, &mut access.received_bytes)?
        }
        _ => {
            let received = &mut access.received_bytes;
            Upload::read_ahead(http, body, terms.expects, &demand, received).await?
        }
    };
    let mut avoid = Vec::new();
    let mut first_failure = None;
    let (mut waits, mut is_lost) = (true, false);
    loop {
        access.phases.begin(Phase::Route);
        let directed = match http.admission.director().direct(&access.visit, &avoid) {
            // P-7.2: the requests of a lost link must not all fall upon other clients. On the next link of their own client
            // they are no more than before.
            Direction::Go(destination)
                if is_lost
                    && !access.was_led_to(&destination.grant)
                    && !http.admission.director().may_retry() =>
            {
                Err(nobody_else())
            }
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(destination) if waits => destination.await,
            Direction::Wait(_) => Err(nobody_else()),
            Direction::Fail(failure) => Err(failure),
        };
        access.phases.end(Phase::Route);
        let destination = match (directed, first_failure.take()) {
            (Ok(destination), _) => destination,
            // There is nobody else: what the first one said is the reason.
            (Err(_), Some(first)) | (Err(first), None) => return Err(first),
        };
        if !avoid.is_empty() {
            http.counters.retries.fetch_add(1, Ordering::Relaxed);
            access.retries += 1;
        }
        let (link, lane) = (destination.link, destination.lane.clone());
        if let Upload::Streamed { .. } = &upload {
            demand.add(destination.permit.as_ref());
        }
        let tried = attempt(
            http,
            access,
            destination,
            &holds,
            &demand,
            &mut upload,
            terms,
        );
        let failure = match tried.await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        access.phases.end(Phase::Transit);
        let again = avoid.len() < MAX_RETRIES
            // For gRPC the rest is left out (P-8.5): a call is a POST.
            && match failure.retry() {
                Retry::Never => false,
                Retry::Always => upload.can_start_over(),
                Retry::IfSafe => {
                    matches!(upload, Upload::None)
                        && matches!(
                            access.visit.method,
                            Method::GET | Method::HEAD | Method::OPTIONS
                        )
                }
            };
        is_lost = failure.retry() == Retry::IfSafe;
        if !again || !(is_lost || http.admission.director().may_retry()) {
            return Err(failure);
        }
        waits = may_wait(&failure, &lane);
        avoid.push(link);
        first_failure = Some(failure);
    }
}

/// Whether a request waits for the next link of its client, as those that come later do: its own is lost or leaving.
pub(crate) fn may_wait(failed: &Failure, lane: &Lane) -> bool {
    matches!(failed.reason, Reason::LinkLost | Reason::Draining) || lane.is_closed()
}

/// The client that refused a request is there, and no other.
pub(crate) fn nobody_else() -> Failure {
    Failure::new(Reason::NoClient, "there is no other client to try")
}

/// One try on one client, up to the head of the answer.
async fn attempt(
    http: &Http,
    access: &mut Access,
    destination: Destination,
    holds: &Option<Holds>,
    demand: &Demand,
    upload: &mut Upload,
    terms: Terms<'_>,
) -> Result<Answer, Failure> {
    let lane = destination.lane;
    let fits = |body: &Bytes| {
        body.len() as u64 + adit_flow::MESSAGE_COST <= u64::from(lane.initial_window())
    };
    let (riding, end) = match &*upload {
        Upload::None => (&[][..], access.visit.protocol != ProtocolType::WebSocket),
        Upload::Inline(body, trailers) if fits(body) => (&body[..], trailers.is_none()),
        Upload::Broken(first, _) | Upload::Streamed { first, .. } if fits(first) => {
            (&first[..], false)
        }
        Upload::Inline(..) | Upload::Broken(..) | Upload::Streamed { .. } => (&[][..], false),
    };
    // What rides is the whole body then, and what follows is of the other protocol (P-3.7).
    let offers = !access.visit.upgrade.is_empty() && lane.may_upgrade() && {
        let rides_whole = |body: &Bytes| body.len() == riding.len();
        match &*upload {
            Upload::None => true,
            Upload::Inline(body, None) => rides_whole(body),
            _ => false,
        }
    };
    access.may_switch = offers;
    let end = end && !offers;
    let context = access.phases.transit(&**http.admission.observer());
    let (visit, tunnel) = (&access.visit, &destination.tunnel);
    let visit = VisitHead { visit, offers };
    let head = head(visit, tunnel, destination.revision, context, riding, terms)?;
    let rode = !riding.is_empty();
    // A streamed body may take its time, so that the lane cannot know when the answer is due.
    let due = match upload {
        Upload::Streamed { .. } => None,
        _ => terms.answer_within.map(|within| Instant::now() + within),
    };
    access.on_route(destination.grant, lane.mux().side());
    let Exchange { send, recv } = {
        let exchange = lane.open(head, end, due)?;
        access.phases.watch(&exchange);
        exchange.hold((
            destination.hold,
            destination.permit,
            holds.clone(),
            access.park(),
        ));
        let compression = destination.compression;
        let compression = compression.filter(|_| is_compressible(lines_of(&access.visit)));
        exchange.send.set_compression(compression);
        if access.visit.protocol == ProtocolType::WebSocket {
            exchange.set_stall(http.config.session_stall);
        }
        exchange
    };
    match upload {
        Upload::None | Upload::Inline(..) if offers => {
            let mut answer = answer(access, terms, recv).await?;
            if answer.head.status == 101 {
                answer.sending = Sending::Open(send);
            } else {
                // Fails only when the exchange is over.
                let _ = send.finish();
            }
            Ok(answer)
        }
        Upload::None if end => answer(access, terms, recv).await,
        Upload::None => {
            // A WebSocket's visitor goes on when it has its answer.
            let mut answer = answer(access, terms, recv).await?;
            answer.sending = Sending::Open(send);
            Ok(answer)
        }
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
            answer(access, terms, recv).await
        }
        Upload::Broken(first, failure) => {
            if !rode {
                // Fails only when the exchange is over.
                let _ = send.send_all(first.clone(), false).await;
            }
            send.abort(ResetCode::Cancelled, &failure.detail);
            Err(failure.clone())
        }
        Upload::Streamed { first, body } => {
            let streaming = Streaming {
                http,
                terms,
                send: Some(send),
                pump: None,
                demand,
                first: if rode { Bytes::new() } else { first.clone() },
                body,
                access,
            };
            streaming.answer(recv).await
        }
    }
}

/// A request, and whether the service may change to one of the protocols that it offers.
#[derive(Clone, Copy)]
struct VisitHead<'v> {
    visit: &'v Visit,
    offers: bool,
}

/// The visitor's header lines.
fn lines_of(visit: &Visit) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = visit.headers.iter();
    let lines = lines.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    lines.filter(|(name, _)| crosses(name))
}

/// What opens a request at the client. `context` is the one of a request that is traced here: ours stands in the place of
/// the visitor's then.
fn head(
    VisitHead { visit, offers }: VisitHead<'_>,
    tunnel: &str,
    revision: u64,
    context: Option<TraceContext>,
    body: &[u8],
    terms: Terms<'_>,
) -> Result<EncodedHead, Failure> {
    let context = context.map(|context| context.to_string());
    let given = || {
        let given = visit::traceparent(&visit.headers);
        let is_context = given.len() <= MAX_TRACE_BYTES && given.parse::<TraceContext>().is_ok();
        if is_context { given } else { "" }
    };
    static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
    let baggage = visit.headers.get(&BAGGAGE);
    let baggage = baggage.and_then(|value| value.to_str().ok());
    let open = Open {
        request_uuid: visit.uuid.into_bytes(),
        tunnel,
        revision,
        visitor: visit.visitor.as_str(),
        traceparent: context.as_deref().unwrap_or_else(given),
        baggage: baggage
            .filter(|baggage| baggage.len() <= MAX_TRACE_BYTES)
            .unwrap_or_default(),
        resumable: false,
    };
    let lines = lines_of(visit);
    let head = if visit.protocol == ProtocolType::WebSocket {
        websocket::head(visit, &open, lines)
    } else if visit.protocol == ProtocolType::Grpc {
        grpc::head(visit, &open, lines, body, terms.deadline)
    } else {
        HttpRequestHead {
            open: &open,
            method: visit.method.as_str(),
            scheme: visit.scheme.as_str(),
            authority: visit.authority_str().as_bytes(),
            path: visit.path.as_bytes(),
        }
        .encode_offer(if offers { &visit.upgrade } else { b"" }, lines, body)
    };
    head.map_err(|error| {
        let detail = match error {
            HeadError::TooManyHeaders { .. } => error.to_string(),
            HeadError::TooLong { limit } => {
                let bytes: usize = lines_of(visit)
                    .map(|(name, value)| name.len() + value.len())
                    .sum();
                format!("the header lines have {bytes} bytes, and a head may have {limit} in all")
            }
        };
        Failure::new(Reason::HeaderTooLarge, detail)
    })
}
