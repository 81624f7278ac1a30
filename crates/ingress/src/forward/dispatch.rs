//! Forwards a request to a client, and to another one if the first attempt fails and may be repeated (P-7.2).

use std::sync::{Arc, Mutex, atomic::Ordering};

use adit_codec::ProtocolType;
use adit_link::{Failure, Lane, Reason, Retry};
use adit_trace::Phase;
use http::Method;
use http_body::Body;

use crate::forward::{
    attempt::attempt,
    context::HttpContext,
    demand::Demand,
    director::{Direction, failed_on, no_other_client},
    inbound::Inbound,
    options::ForwardOptions,
    receive::UpstreamResponse,
    record::RequestRecord,
    request_body::RequestBody,
};

/// Attempts on other clients after the first.
const MAX_RETRIES: usize = 2;

/// Passes a request through the layers, forwards it to a client, and to another one if that is allowed.
pub(crate) async fn forward(
    context: &HttpContext,
    record: &mut RequestRecord,
    body: Inbound,
    options: ForwardOptions<'_>,
) -> Result<UpstreamResponse, Failure> {
    record.phases.begin(Phase::Queue);
    let holds = context.admission.admit_request(&mut record.request).await?;
    record.phases.end(Phase::Queue);
    let mut demand = if body.is_end_stream() {
        Demand::default()
    } else {
        Demand::of(&holds, None)
    };
    let holds = (!holds.is_empty()).then(|| Arc::new(Mutex::new(holds)));
    let mut body = match record.request.protocol {
        ProtocolType::Grpc => {
            let enough = context.config.inline_body_bytes;
            RequestBody::take_arrived(body, enough, &mut record.received_bytes)?
        }
        _ => {
            let expects = options.expect_continue;
            let received = &mut record.received_bytes;
            RequestBody::read_ahead(&context.config, body, expects, &demand, received).await?
        }
    };
    let director = context.admission.director();
    let mut avoid = Vec::new();
    let mut first_failure = None;
    let (mut waits, mut is_lost) = (true, false);
    loop {
        record.phases.begin(Phase::Route);
        let directed = match director.direct(&record.request, &avoid) {
            // P-7.2: the requests of a lost link must not all move to other clients. On the next link of their own client
            // they are as many as before.
            Direction::Go(destination)
                if is_lost
                    && !record.last_attempt_was_on(&destination.grant)
                    && !director.may_retry() =>
            {
                Err(no_other_client())
            }
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(destination) if waits => destination.await,
            Direction::Wait(_) => Err(no_other_client()),
            Direction::Fail(failure) => Err(failure),
        };
        record.phases.end(Phase::Route);
        let destination = match (directed, first_failure.take()) {
            (Ok(destination), _) => destination,
            // No other client: the failure of the first attempt is the reason.
            (Err(_), Some(first)) | (Err(first), None) => return Err(first),
        };
        if !avoid.is_empty() {
            context.counters.retries.fetch_add(1, Ordering::Relaxed);
            record.retries += 1;
        }
        let (link, lane) = (destination.link, destination.lane.clone());
        if let RequestBody::Streamed { .. } = &body {
            demand.add(destination.permit.as_ref());
        }
        let tried = attempt(
            context,
            record,
            destination,
            &holds,
            &demand,
            &mut body,
            options,
        );
        let failure = match tried.await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        record.phases.end(Phase::Transit);
        let again = avoid.len() < MAX_RETRIES
            // gRPC is never retried as safe (P-8.5): a call is a POST.
            && match failure.retry() {
                Retry::Never => false,
                Retry::Always => body.can_start_over(),
                Retry::IfSafe => {
                    matches!(body, RequestBody::None)
                        && matches!(
                            record.request.method,
                            Method::GET | Method::HEAD | Method::OPTIONS
                        )
                }
            };
        is_lost = failure.retry() == Retry::IfSafe;
        if !again || !(is_lost || director.may_retry()) {
            return Err(failure);
        }
        waits = may_wait(&failure, &lane);
        avoid.push(failed_on(link, &lane));
        first_failure = Some(failure);
    }
}

/// Whether a request waits for the next link of its client, as later requests do: its own link is lost or drains.
pub(crate) fn may_wait(failed: &Failure, lane: &Lane) -> bool {
    matches!(failed.reason, Reason::LinkLost | Reason::Draining) || lane.is_closed()
}
