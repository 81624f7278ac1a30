//! The interface of layers: plugins, limits, authorization.
//!
//! Requests pass two lists of layers. The list before routing belongs to the [`Admission`](crate::Admission) of the
//! entries; it decides about any request, and its changes are visible to the director. The list after routing belongs
//! to the [`Destination`](crate::Destination), which is where a tunnel has its own layers. A response passes the layers
//! that its request has passed, in the reverse order; this holds for responses of services and of layers, and for error
//! responses.

use std::{any::Any, fmt, net::IpAddr, sync::Arc};

use adit_link::{BoxFuture, Failure};
use http::response::Parts;

use crate::forward::{
    denial::Denial, local_response::LocalResponse, request_meta::RequestMeta, session::Session,
};

/// A value that a request holds until it ends, such as a permit.
pub type Held = Box<dyn Any + Send>;

/// The decision of a layer.
///
/// `R` is the response that the layer may make. A session of TCP or UDP has none ([`NoResponse`]).
pub enum Verdict<'r, R = Box<LocalResponse>> {
    /// Continue with the next layer.
    Continue,
    /// Continue, and hold this until the request ends.
    Hold(Held),
    /// Wait for the decision. The future may borrow the layer and the request, and change the request after a wait.
    Wait(BoxFuture<'r, Verdict<'r, R>>),
    /// Respond with this, and do not forward the request. It is not a failure: the request is recorded as completed.
    Respond(R),
    /// Fail the request: the visitor receives the error response of this failure.
    Reject(Failure),
    /// The visitor has access: continue with the next layer that does not need a grant ([`Layer::needs_grant`]).
    Grant,
    /// Do not admit the visitor. The layers that it has passed are notified ([`Layer::on_denied`]).
    Deny(Box<Denial>),
}

impl<R> Verdict<'_, R> {
    /// [`Verdict::Deny`] with this denial.
    pub fn deny(denial: Denial) -> Self {
        Self::Deny(Box::new(denial))
    }
}

impl Verdict<'_> {
    /// [`Verdict::Respond`] with this response.
    pub fn respond(response: LocalResponse) -> Self {
        Self::Respond(Box::new(response))
    }
}

/// The response to a session: there is none, because sessions cannot have responses.
#[derive(Debug)]
pub enum NoResponse {}

/// One step that requests pass on their way to a client: a plugin, a limit, an authorization.
///
/// A layer may change a request, hold a value until the request ends, respond itself, reject the request, or wait before it
/// decides. It never sees the body.
pub trait Layer: Send + Sync + 'static {
    /// Decides about a request, and may change it. Called once for each request, also if the request is retried on another
    /// client.
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let _ = request;
        Verdict::Continue
    }

    /// Decides about a TCP connection or a UDP flow.
    fn on_session<'s>(&'s self, session: &'s Session) -> Verdict<'s, NoResponse> {
        let _ = session;
        Verdict::Continue
    }

    /// Whether the layer admits visitors that prove something, so that it is skipped when a layer before it in the list
    /// has granted access ([`Verdict::Grant`]).
    fn needs_grant(&self) -> bool {
        false
    }

    /// The layer is skipped, because a layer before it has granted access. It removes the credentials that it would
    /// have read, which are not for the service.
    fn on_skipped(&self, request: &mut RequestMeta) {
        let _ = request;
    }

    /// A layer behind this one does not admit a visitor of this address.
    fn on_denied(&self, visitor: IpAddr, denial: &Denial) {
        let _ = (visitor, denial);
    }

    /// Inspects the head of a service's response, and may change it.
    fn on_response(&self, request: &RequestMeta, response: &mut Parts) {
        let _ = (request, response);
    }

    /// Inspects the head of a response that is made here, and may change it: that of a layer behind this one, or an
    /// error response. By default it is treated as a service's response.
    fn on_local_response(&self, request: &RequestMeta, response: &mut Parts) {
        self.on_response(request, response);
    }
}

/// An ordered list of layers. Cheap to clone; an empty one is a null pointer.
#[derive(Clone, Default)]
pub struct Layers(Option<Arc<Vec<Arc<dyn Layer>>>>);

/// A list of layers, and how many of them a request has passed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passage {
    layers: Layers,
    passed: usize,
}

/// The layers that a request has passed, which its response passes in the reverse order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassedLayers {
    pub(super) before_routing: Passage,
    /// The layers of the destination.
    pub(super) after_routing: Passage,
}

/// The end of a request at a layer, or a failure.
pub(crate) enum Rejected {
    Failure(Failure),
    Response(Box<LocalResponse>),
    Denied(Box<Denial>),
}

/// The decision of a layer, after its waits.
enum Settled<R> {
    Passed,
    Granted,
    Response(R),
    Denied(Box<Denial>),
    Failed(Failure),
}

impl Layers {
    /// A list in the order that requests pass it.
    pub fn new(layers: Vec<Box<dyn Layer>>) -> Self {
        let layers: Vec<Arc<dyn Layer>> = layers.into_iter().map(Arc::from).collect();
        Self((!layers.is_empty()).then(|| Arc::new(layers)))
    }

    /// The layers of this list, then those of `other`. If one list is empty, the result is the other list itself.
    #[must_use]
    pub fn followed_by(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => {
                let both = one.iter().chain(&**other).cloned();
                Self(Some(Arc::new(both.collect())))
            }
            (None, _) => other.clone(),
            (_, None) => self.clone(),
        }
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the list has no layers.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether both are the same list, not only equal ones.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Passes a session through the layers. `holds` receives the values that layers hold for the session; `before` is
    /// the list that it has passed before this one.
    pub(crate) async fn pass_session(
        &self,
        before: &Self,
        session: &Session,
        holds: &mut Vec<Held>,
    ) -> Result<(), Failure> {
        let layers = self.as_slice();
        let mut is_granted = false;
        for (passed, layer) in layers.iter().enumerate() {
            if is_granted && layer.needs_grant() {
                continue;
            }
            match settle(layer.on_session(session), holds).await {
                Settled::Passed => {}
                Settled::Granted => is_granted = true,
                Settled::Response(never) => match never {},
                Settled::Failed(failure) => return Err(failure),
                Settled::Denied(denial) => {
                    let visitor = session.visitor.addr().ip();
                    for layer in before.as_slice().iter().chain(layers.iter().take(passed)) {
                        layer.on_denied(visitor, &denial);
                    }
                    return Err(denial.into_failure());
                }
            }
        }
        Ok(())
    }

    fn as_slice(&self) -> &[Arc<dyn Layer>] {
        self.0.as_deref().map(Vec::as_slice).unwrap_or_default()
    }
}

impl Passage {
    /// The passage of a request that has passed none of `layers` yet.
    pub(super) const fn new(layers: Layers) -> Self {
        Self { layers, passed: 0 }
    }

    /// Passes a request through the layers. `holds` receives the values that it holds.
    pub(super) async fn pass_request(
        &mut self,
        request: &mut RequestMeta,
        holds: &mut Vec<Held>,
    ) -> Result<(), Rejected> {
        let mut is_granted = false;
        for layer in self.layers.as_slice() {
            if is_granted && layer.needs_grant() {
                layer.on_skipped(request);
                self.passed += 1;
                continue;
            }
            match settle(layer.on_request(request), holds).await {
                Settled::Passed => {}
                Settled::Granted => is_granted = true,
                Settled::Response(response) => return Err(Rejected::Response(response)),
                Settled::Denied(denial) => return Err(Rejected::Denied(denial)),
                Settled::Failed(failure) => return Err(Rejected::Failure(failure)),
            }
            self.passed += 1;
        }
        Ok(())
    }

    /// The layers that the request has passed, in the reverse order.
    fn back(&self) -> impl Iterator<Item = &dyn Layer> {
        let passed = self.layers.as_slice().iter().take(self.passed);
        passed.rev().map(|layer| &**layer)
    }
}

impl PassedLayers {
    /// Passes the response of a service through the layers in the reverse order.
    pub(crate) fn pass_response(&self, request: &RequestMeta, response: &mut Parts) {
        for layer in self.back() {
            layer.on_response(request, response);
        }
    }

    /// Passes a local response through the layers in the reverse order. A layer that has responded to the request or
    /// rejected it is not among them, nor are the layers after it.
    pub(super) fn pass_local_response(&self, request: &RequestMeta, response: &mut Parts) {
        for layer in self.back() {
            layer.on_local_response(request, response);
        }
    }

    /// Notifies the layers that the request has passed that a layer behind them does not admit the visitor.
    pub(super) fn on_denied(&self, request: &RequestMeta, denial: &Denial) {
        let visitor = request.visitor.addr().ip();
        for layer in self.back() {
            layer.on_denied(visitor, denial);
        }
    }

    fn back(&self) -> impl Iterator<Item = &dyn Layer> {
        self.after_routing.back().chain(self.before_routing.back())
    }
}

/// Waits for the decision of one layer.
async fn settle<R>(mut verdict: Verdict<'_, R>, holds: &mut Vec<Held>) -> Settled<R> {
    loop {
        match verdict {
            Verdict::Continue => return Settled::Passed,
            Verdict::Hold(held) => {
                holds.push(held);
                return Settled::Passed;
            }
            Verdict::Wait(deciding) => verdict = deciding.await,
            Verdict::Respond(response) => return Settled::Response(response),
            Verdict::Reject(failure) => return Settled::Failed(failure),
            Verdict::Grant => return Settled::Granted,
            Verdict::Deny(denial) => return Settled::Denied(denial),
        }
    }
}

impl From<Failure> for Rejected {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("len", &self.len()).finish()
    }
}
