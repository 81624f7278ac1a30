//! The interface to the caller's routing: the director decides to which client a request is forwarded.

use std::{any::Any, sync::Arc};

use adit_flow::Permit;
use adit_link::{BoxFuture, Compression, Failure, Lane};

use crate::forward::{layer::Layers, limits::Limits, request_meta::RequestMeta, session::Session};

/// The target of one attempt.
pub struct Destination {
    /// The data stream that carries the request.
    pub lane: Arc<Lane>,
    /// The grant of the client of that lane, narrowed to the tunnel and the revision.
    pub grant: adit_auth::Grant,
    /// The tunnel's name.
    pub tunnel: Arc<str>,
    /// The revision of the configuration that selected the tunnel.
    pub revision: u64,
    /// The link that the lane belongs to, for `avoid`; never 0.
    pub link: u64,
    /// The layers of the tunnel, which a request passes after it has been routed, in this order. All destinations of one
    /// tunnel share one list: a retry on another client of the tunnel does not pass it again.
    pub layers: Layers,
    /// The limits of the client, the tunnel and the user; `None` if there are none.
    pub limits: Option<Arc<dyn Limits>>,
    /// The compression that the tunnel is configured with (P-13.1).
    pub compression: Option<Compression>,
    /// A permit of that client, held until the exchange ends.
    pub permit: Option<Permit>,
    /// The share of the load, which is held until the exchange ends.
    pub hold: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination")
            .field("lane", &self.lane)
            .field("tunnel", &self.tunnel)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// The entry in `avoid` for an attempt on a lane of `link` that failed. A lost lane does not exclude its link: the
/// link's other lanes, and the one that replaces the lost lane, may be chosen (P-1.7).
pub(super) fn failed_on(link: u64, lane: &Lane) -> u64 {
    if lane.is_attached() { link } else { NO_LINK }
}

/// An entry of `avoid` that excludes no link.
const NO_LINK: u64 = 0;

/// The decision of a [`Director`].
pub enum Direction {
    /// Forward the request to this destination.
    Go(Destination),
    /// Wait for a client that can take the request. The future bounds its own wait.
    Wait(BoxFuture<'static, Result<Destination, Failure>>),
    /// Reject the request.
    Fail(Failure),
}

/// Decides to which client a request is forwarded.
pub trait Director: Send + Sync + 'static {
    /// Decides to which client a request is forwarded. Links in `avoid` have failed; if the decision is to wait, it is
    /// for other links, such as the next link of a client.
    fn direct(&self, request: &RequestMeta, avoid: &[u64]) -> Direction;

    /// Decides to which client a TCP connection or a UDP flow is forwarded. Links in `avoid` have failed.
    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction;

    /// Whether requests on this port must name a host, because the port alone does not select a tunnel (P-3.11).
    fn needs_host(&self, local_port: u16) -> bool {
        let _ = local_port;
        true
    }

    /// Takes one retry from the retry budget, if there is one (P-7.2). Called once for each retry, right before it.
    fn may_retry(&self) -> bool;
}
