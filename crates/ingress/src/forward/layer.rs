//! The interface of layers: plugins, limits, authorization.
//!
//! Requests pass two lists of layers. The list before routing belongs to the [`Admission`](crate::Admission) of the
//! entries; it decides about any request, and its changes are visible to the director. The list after routing belongs
//! to the [`Destination`](crate::Destination), which is where a tunnel has its own layers. A response passes the layers
//! that its request has passed, in the reverse order; this holds for responses of services and of layers, and for error
//! responses.

use std::{any::Any, fmt, net::IpAddr, sync::Arc};

use adit_codec::ProtocolType;
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
    /// The visitor would have access if the layer were enforced: layers that are not enforced either do not report it.
    WouldGrant,
    /// The visitor has not proved what this layer asks for: continue, because a later layer of the list can grant access
    /// instead. If none does, this is a part of the denial.
    Unmet(Box<Denial>),
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

    /// Whether the layer has an effect on visitors, and does not only report them.
    fn enforces(&self) -> bool {
        true
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

/// An ordered list of layers, or several of them, one after the other. Cheap to clone; an empty one is a null pointer.
#[derive(Clone, Default)]
pub struct Layers(Option<Arc<Vec<Listed>>>);

/// A layer in its list.
#[derive(Clone)]
struct Listed {
    layer: Arc<dyn Layer>,
    /// The first layer of a list: what a visitor has proved to the list before it does not count here (P-15.3).
    begins_list: bool,
}

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
    WouldBeGranted,
    Unmet(Box<Denial>),
    Response(R),
    Denied(Box<Denial>),
    Failed(Failure),
}

/// What the layers of a list have found out about a visitor.
#[derive(Default)]
struct Findings {
    is_granted: bool,
    would_be_granted: bool,
    /// What it has not proved to layers that could have granted access.
    unmet: Option<Box<Denial>>,
}

impl Findings {
    /// Whether the visitor need not pass `layer`.
    fn skip(&self, layer: &dyn Layer) -> bool {
        (self.is_granted || self.would_be_granted && !layer.enforces()) && layer.needs_grant()
    }

    fn add_unmet(&mut self, denial: Box<Denial>) {
        self.unmet = Some(self.denied(denial));
    }

    /// The denial of the visitor.
    fn denied(&mut self, denial: Box<Denial>) -> Box<Denial> {
        match self.unmet.take() {
            Some(unmet) => Box::new(denial.after(*unmet)),
            None => denial,
        }
    }
}

impl Layers {
    /// A list in the order that requests pass it.
    pub fn new(layers: Vec<Box<dyn Layer>>) -> Self {
        let listed = layers.into_iter().enumerate().map(|(index, layer)| Listed {
            layer: layer.into(),
            begins_list: index == 0,
        });
        let listed: Vec<_> = listed.collect();
        Self((!listed.is_empty()).then(|| Arc::new(listed)))
    }

    /// The layers of this list, then those of `other`. They stay two lists: a grant of one has no effect in the other. If one
    /// list is empty, the result is the other list itself.
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
        let mut found = Findings::default();
        for (passed, Listed { layer, begins_list }) in layers.iter().enumerate() {
            if *begins_list {
                found = Findings::default();
            }
            if found.skip(&**layer) {
                continue;
            }
            match settle(layer.on_session(session), holds).await {
                Settled::Passed => {}
                Settled::Granted => found.is_granted = true,
                Settled::WouldBeGranted => found.would_be_granted = true,
                Settled::Unmet(denial) => found.add_unmet(denial),
                Settled::Response(never) => match never {},
                Settled::Failed(failure) => return Err(failure),
                // Anybody can send a datagram in the name of another (P-15.9).
                Settled::Denied(denial) if session.protocol == ProtocolType::Udp => {
                    return Err(denial.into_failure());
                }
                Settled::Denied(denial) => {
                    let denial = found.denied(denial);
                    let visitor = session.visitor.addr().ip();
                    for passed in before.as_slice().iter().chain(layers.iter().take(passed)) {
                        passed.layer.on_denied(visitor, &denial);
                    }
                    return Err(denial.into_failure());
                }
            }
        }
        Ok(())
    }

    fn as_slice(&self) -> &[Listed] {
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
        let mut found = Findings::default();
        for Listed { layer, begins_list } in self.layers.as_slice() {
            if *begins_list {
                found = Findings::default();
            }
            if found.skip(&**layer) {
                layer.on_skipped(request);
                self.passed += 1;
                continue;
            }
            match settle(layer.on_request(request), holds).await {
                Settled::Passed => {}
                Settled::Granted => found.is_granted = true,
                Settled::WouldBeGranted => found.would_be_granted = true,
                Settled::Unmet(denial) => found.add_unmet(denial),
                Settled::Response(response) => return Err(Rejected::Response(response)),
                Settled::Denied(denial) => return Err(Rejected::Denied(found.denied(denial))),
                Settled::Failed(failure) => return Err(Rejected::Failure(failure)),
            }
            self.passed += 1;
        }
        Ok(())
    }

    /// The layers that the request has passed, in the reverse order.
    fn back(&self) -> impl Iterator<Item = &dyn Layer> {
        let passed = self.layers.as_slice().iter().take(self.passed);
        passed.rev().map(|passed| &*passed.layer)
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
            Verdict::WouldGrant => return Settled::WouldBeGranted,
            Verdict::Unmet(denial) => return Settled::Unmet(denial),
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
