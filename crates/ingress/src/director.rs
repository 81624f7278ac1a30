//! Where a request goes: asked here, answered by whoever knows rules and clients.

use std::{any::Any, sync::Arc};

use adit_flow::Permit;
use adit_link::{Compression, Failure, Lane};

use crate::{layer::BoxFuture, session::Session, visit::Visit};

/// Where a request goes.
pub struct Destination {
    /// The data stream that carries it.
    pub lane: Arc<Lane>,
    /// What the client of that lane was granted, narrowed to the tunnel and the revision.
    pub grant: adit_auth::Grant,
    /// The tunnel's name.
    pub tunnel: Arc<str>,
    /// The revision of the configuration that led here.
    pub revision: u64,
    /// The link that the lane belongs to, for `avoid`.
    pub link: u64,
    /// How the tunnel wants payload to cross (P-13.1).
    pub compression: Option<Compression>,
    /// The permit of that client, kept as long as the exchange lasts.
    pub permit: Option<Permit>,
    /// Kept as long: its share of the load.
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

/// The answer of a [`Director`].
pub enum Direction {
    /// There.
    Go(Destination),
    /// Somebody may come who can take it, or may have room for it. The future bounds its own wait.
    Wait(BoxFuture<Result<Destination, Failure>>),
    /// Nowhere.
    Fail(Failure),
}

/// Knows where requests go.
pub trait Director: Send + Sync + 'static {
    /// Where this one goes. Links in `avoid` have been tried; a wait is for others, such as the next link of a client.
    fn direct(&self, visit: &Visit, avoid: &[u64]) -> Direction;

    /// Where a TCP connection or a UDP flow goes. Links in `avoid` have been tried.
    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction;

    /// Whether requests that came to this port must name a host: the port alone does not say where they go (P-3.11).
    fn needs_host(&self, local_port: u16) -> bool {
        let _ = local_port;
        true
    }

    /// Whether the retry budget has room for one more (P-7.2). Asked once for each retry, right before it.
    fn may_retry(&self) -> bool;
}
