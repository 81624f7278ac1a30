//! The retry loop of all protocols (P-7.2): routes a request, passes the layers of its destination, and tries one client
//! after another.

use std::{future::Future, sync::Arc};

use adit_auth::Grant;
use adit_link::{BoxFuture, Failure, Lane, Reason, Retry};
use adit_trace::Phase;

use crate::forward::{
    director::{Destination, Direction, Director, failed_on},
    layer::Layers,
    limits::Limits,
    phases::Phases,
};

/// Attempts on other clients after the first.
const MAX_RETRIES: usize = 2;

/// A request, TCP connection or UDP flow that can be tried on one client after another.
pub(crate) trait Attempts: Send {
    /// The result of an attempt that succeeded.
    type Done;
    /// The end of a request that is not forwarded: a failure, or a response as well.
    type Rejected: From<Failure>;

    /// Routes the request. Links in `avoid` have failed.
    fn direct(&self, director: &dyn Director, avoid: &[u64]) -> Direction;

    /// Waits for a client. The outer error ends the loop: the visitor has left.
    fn wait(
        &mut self,
        routing: BoxFuture<'static, Result<Destination, Failure>>,
    ) -> impl Future<Output = Result<Result<Destination, Failure>, Failure>> + Send;

    /// Passes the layers of a destination.
    fn pass_layers(
        &mut self,
        layers: &Layers,
    ) -> impl Future<Output = Result<(), Self::Rejected>> + Send;

    /// Passes the limits of a destination. `inline_bytes`: the payload that the message of the head may have.
    fn pass_limits(
        &mut self,
        limits: Arc<dyn Limits>,
        is_retry: bool,
        inline_bytes: u32,
    ) -> impl Future<Output = Result<(), Self::Rejected>> + Send;

    /// Tries one client.
    fn attempt(
        &mut self,
        destination: Destination,
    ) -> impl Future<Output = Result<Self::Done, Failure>> + Send;

    /// Whether the request may be sent again after an attempt that ended with `failure`: the failure allows a retry
    /// ([`Failure::retry`]), and another attempt would send the complete request.
    fn may_repeat(&self, failure: &Failure) -> bool;

    /// Whether the last attempt was on the client of this grant.
    fn last_attempt_was_on(&self, grant: &Grant) -> bool;

    /// Counts an attempt after the first.
    fn on_retry(&mut self);

    fn phases(&mut self) -> &mut Phases;
}

/// Tries clients until an attempt succeeds, or may not be repeated.
///
/// # Errors
/// The failure of the last attempt; of the first one, if no other client exists.
pub(crate) async fn forward_with_retries<A: Attempts>(
    director: &dyn Director,
    request: &mut A,
) -> Result<A::Done, A::Rejected> {
    let mut avoid = Vec::new();
    let mut passed: Option<Layers> = None;
    let mut last_failure = None;
    let (mut may_wait, mut is_lost) = (true, false);
    loop {
        request.phases().begin(Phase::Route);
        let directed = match request.direct(director, &avoid) {
            // The requests of a lost link must not all move to other clients. On the next link of their own client they
            // do not increase the load.
            Direction::Go(destination)
                if is_lost
                    && !request.last_attempt_was_on(&destination.grant)
                    && !director.may_retry() =>
            {
                Err(no_other_client())
            }
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(routing) if may_wait => request.wait(routing).await?,
            Direction::Wait(_) => Err(no_other_client()),
            Direction::Fail(failure) => Err(failure),
        };
        request.phases().end(Phase::Route);
        let destination = match (directed, last_failure.take()) {
            (Ok(destination), _) => destination,
            // When there is no other client, the failure of the attempt is the reason.
            (Err(_), Some(failure)) | (Err(failure), None) => return Err(failure.into()),
        };
        if !avoid.is_empty() {
            request.on_retry();
        }
        // Each list is passed once: another client of the same tunnel has the same list.
        if !destination.layers.is_empty()
            && !{ passed.as_ref() }.is_some_and(|passed| passed.is_same(&destination.layers))
        {
            request.pass_layers(&destination.layers).await?;
            passed = Some(destination.layers.clone());
        }
        if let Some(limits) = destination.limits.clone() {
            let is_retry = !avoid.is_empty();
            let inline_bytes = inline_bytes(&destination.lane);
            let passing = request.pass_limits(limits, is_retry, inline_bytes);
            passing.await?;
        }
        let (link, lane) = (destination.link, destination.lane.clone());
        let failure = match request.attempt(destination).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        request.phases().end(Phase::Transit);
        is_lost = failure.retry() == Retry::IfSafe;
        let again = avoid.len() < MAX_RETRIES && request.may_repeat(&failure);
        if !again || !(is_lost || director.may_retry()) {
            return Err(failure.into());
        }
        may_wait = waits_for_next_link(&failure, &lane);
        avoid.push(failed_on(link, &lane));
        last_failure = Some(failure);
    }
}

/// Payload that fits into the first window of a request, with its head.
pub(super) fn inline_bytes(lane: &Lane) -> u32 {
    let cost = u32::try_from(adit_flow::MESSAGE_COST).unwrap_or(u32::MAX);
    lane.initial_window().saturating_sub(cost)
}

/// Whether a request waits for the next link of its client, as later requests do: its own link is lost or drains.
fn waits_for_next_link(failed: &Failure, lane: &Lane) -> bool {
    matches!(failed.reason, Reason::LinkLost | Reason::Draining) || lane.is_closed()
}

/// The failure when the only connected client has refused the request.
fn no_other_client() -> Failure {
    Failure::new(Reason::NoClient, "no other client to try")
}
