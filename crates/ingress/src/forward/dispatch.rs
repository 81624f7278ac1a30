//! Forwards a request of HTTP, gRPC or WebSocket: layers, body, routing and attempts.

use std::{
    future::Future,
    sync::{Arc, Mutex, atomic::Ordering},
};

use adit_auth::Grant;
use adit_codec::ProtocolType;
use adit_link::{BoxFuture, Failure, Retry};
use adit_trace::Phase;
use http::Method;
use http_body::Body;

use crate::forward::{
    attempt::{Holds, complete, open},
    context::HttpContext,
    demand::Demand,
    director::{Destination, Direction, Director},
    inbound::Inbound,
    layer::{Layers, Passage, Rejected},
    limits::{Limits, wait_for_head},
    options::ForwardOptions,
    phases::Phases,
    receive::UpstreamResponse,
    record::RequestRecord,
    request_body::RequestBody,
    retry::{Attempts, forward_with_retries},
};

/// Passes a request through the layers before routing, reads or starts its body, and forwards it to a client, or to another
/// one if that is allowed. Returns when the head of the final response has arrived.
///
/// # Errors
/// A failure, or the response of a layer.
pub(crate) async fn forward(
    context: &HttpContext,
    record: &mut RequestRecord,
    body: Inbound,
    options: ForwardOptions<'_>,
) -> Result<UpstreamResponse, Rejected> {
    let admission = &context.admission;
    record.phases.begin(Phase::Queue);
    let mut holds = Vec::new();
    record.passed.before_routing = Passage::new(admission.layers());
    let passage = &mut record.passed.before_routing;
    passage
        .pass_request(&mut record.request, &mut holds)
        .await?;
    record.phases.end(Phase::Queue);
    let demand = if body.is_end_stream() {
        Demand::default()
    } else {
        Demand::of(&holds, None)
    };
    let body = match record.request.protocol {
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
    let mut request = Forwarding {
        context,
        record,
        holds: (!holds.is_empty()).then(|| Arc::new(Mutex::new(holds))),
        demand,
        body,
        options,
    };
    forward_with_retries(admission.director(), &mut request).await
}

/// A request that is tried on one client after another.
struct Forwarding<'f> {
    context: &'f HttpContext,
    record: &'f mut RequestRecord,
    /// `None` if empty.
    holds: Option<Holds>,
    /// The demand for the permits of the request, for a body that is streamed.
    demand: Demand,
    body: RequestBody,
    options: ForwardOptions<'f>,
}

impl Attempts for Forwarding<'_> {
    type Done = UpstreamResponse;
    type Rejected = Rejected;

    fn direct(&self, director: &dyn Director, avoid: &[u64]) -> Direction {
        director.direct(&self.record.request, avoid)
    }

    async fn wait(
        &mut self,
        routing: BoxFuture<'static, Result<Destination, Failure>>,
    ) -> Result<Result<Destination, Failure>, Failure> {
        // hyper and h2 drop the whole request if the visitor leaves.
        Ok(routing.await)
    }

    async fn pass_layers(&mut self, layers: &Layers) -> Result<(), Rejected> {
        let mut holds = Vec::new();
        let record = &mut *self.record;
        record.passed.after_routing = Passage::new(layers.clone());
        let passage = &mut record.passed.after_routing;
        passage
            .pass_request(&mut record.request, &mut holds)
            .await?;
        if !holds.is_empty() {
            let all = self.holds.get_or_insert_default();
            let mut all = all
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            all.append(&mut holds);
        }
        Ok(())
    }

    async fn pass_limits(
        &mut self,
        limits: Arc<dyn Limits>,
        is_retry: bool,
        inline_bytes: u32,
    ) -> Result<(), Rejected> {
        let held = limits.admit(self.record.request.protocol, is_retry);
        let held = held.map_err(Rejected::Denied)?;
        {
            let all = self.holds.get_or_insert_default();
            let mut all = all
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            all.push(held);
        }
        let inlined = self.body.inlined(inline_bytes).len();
        wait_for_head(&*limits, inlined).await;
        Ok(())
    }

    // The attempt is opened before the first poll, so that the future need not keep the destination.
    fn attempt(
        &mut self,
        destination: Destination,
    ) -> impl Future<Output = Result<UpstreamResponse, Failure>> + Send {
        if let RequestBody::Streamed { .. } = &self.body {
            self.demand.add(destination.permit.as_ref());
        }
        let opened = open(
            self.context,
            self.record,
            destination,
            &self.holds,
            &self.body,
            self.options,
        );
        complete(
            &self.context.config,
            self.record,
            opened,
            &self.demand,
            &mut self.body,
            self.options,
        )
    }

    fn may_repeat(&self, failure: &Failure) -> bool {
        match failure.retry() {
            Retry::Never => false,
            Retry::Always => self.body.can_start_over(),
            // This is never true for gRPC (P-8.5): a call is a POST.
            Retry::IfSafe => {
                let method = &self.record.request.method;
                matches!(self.body, RequestBody::None)
                    && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            }
        }
    }

    fn last_attempt_was_on(&self, grant: &Grant) -> bool {
        self.record.last_attempt_was_on(grant)
    }

    fn on_retry(&mut self) {
        self.context
            .counters
            .retries
            .fetch_add(1, Ordering::Relaxed);
        self.record.retries += 1;
    }

    fn phases(&mut self) -> &mut Phases {
        &mut self.record.phases
    }
}
