//! The layers and the director that all requests of a side pass, in any protocol.

use std::{fmt, sync::Arc};

use adit_link::Failure;
use adit_trace::{NoObserver, Observer};

use crate::forward::{
    director::{Destination, Direction, Director, no_other_client},
    layer::{Held, Layer, Verdict},
    request_meta::RequestMeta,
    session::Session,
};

/// The layers and the director behind them, for all public entries of a side.
pub struct Admission {
    layers: Vec<Box<dyn Layer>>,
    director: Arc<dyn Director>,
    observer: Arc<dyn Observer>,
}

impl Admission {
    /// Requests pass `layers` in this order and are then routed by `director`. They are not observed.
    pub fn new(layers: Vec<Box<dyn Layer>>, director: Arc<dyn Director>) -> Arc<Self> {
        Self::observed(layers, director, Arc::new(NoObserver))
    }

    /// [`Admission::new`] with an `observer`, which receives the record of every request when the request is over.
    pub fn observed(
        layers: Vec<Box<dyn Layer>>,
        director: Arc<dyn Director>,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        Arc::new(Self {
            layers,
            director,
            observer,
        })
    }

    pub(crate) fn layers(&self) -> &[Box<dyn Layer>] {
        &self.layers
    }

    pub(crate) fn director(&self) -> &dyn Director {
        &*self.director
    }

    pub(crate) const fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Passes a request through the layers. Returns the values that it holds until it ends.
    pub(crate) async fn admit_request(
        &self,
        request: &mut RequestMeta,
    ) -> Result<Vec<Held>, Failure> {
        let mut holds = Vec::new();
        for layer in &self.layers {
            apply(&mut holds, layer.on_request(request)).await?;
        }
        Ok(holds)
    }

    /// Passes a session through the layers. Returns the values that it holds until it ends.
    pub(crate) async fn admit_session(&self, session: &Session) -> Result<Vec<Held>, Failure> {
        let mut holds = Vec::new();
        for layer in &self.layers {
            apply(&mut holds, layer.on_session(session)).await?;
        }
        Ok(holds)
    }

    /// Routes a session. Links in `avoid` have failed; it waits for other links if it `may_wait`.
    pub(crate) async fn direct_session(
        &self,
        session: &Session,
        avoid: &[u64],
        may_wait: bool,
    ) -> Result<Destination, Failure> {
        match self.director.direct_session(session, avoid) {
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(destination) if may_wait => destination.await,
            Direction::Wait(_) => Err(no_other_client()),
            Direction::Fail(failure) => Err(failure),
        }
    }
}

async fn apply(holds: &mut Vec<Held>, verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Continue => {}
        Verdict::Hold(held) => holds.push(held),
        Verdict::Wait(held) => holds.push(held.await?),
        Verdict::Reject(failure) => return Err(failure),
    }
    Ok(())
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}
