//! What every request passes on its way to a lane, whatever it speaks.

use std::{fmt, sync::Arc};

use adit_link::Failure;
use adit_trace::{NoObserver, Observer};

use crate::{
    call::nobody_else,
    director::{Destination, Direction, Director},
    layer::{Held, Layer, Verdict},
    session::Session,
    visit::Visit,
};

/// The chain of layers, and the director behind it: one for all public entries of a side.
pub struct Admission {
    layers: Vec<Box<dyn Layer>>,
    director: Arc<dyn Director>,
    observer: Arc<dyn Observer>,
}

impl Admission {
    /// Requests pass `layers` in this order and then go where `director` says. Nobody is told of them.
    pub fn new(layers: Vec<Box<dyn Layer>>, director: Arc<dyn Director>) -> Arc<Self> {
        Self::observed(layers, director, Arc::new(NoObserver))
    }

    /// [`Admission::new`], and `observer` is told of every request when it is over, whatever became of it.
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

    /// Leads a request through the layers; gives what it is to hold while it lasts.
    pub(crate) async fn admit_visit(&self, visit: &mut Visit) -> Result<Vec<Held>, Failure> {
        let mut holds = Vec::new();
        for layer in &self.layers {
            take(&mut holds, layer.on_request(visit)).await?;
        }
        Ok(holds)
    }

    /// Leads a session through the layers; gives what it is to hold while it lasts.
    pub(crate) async fn admit_session(&self, session: &Session) -> Result<Vec<Held>, Failure> {
        let mut holds = Vec::new();
        for layer in &self.layers {
            take(&mut holds, layer.on_session(session)).await?;
        }
        Ok(holds)
    }

    /// Where a session goes. Links in `avoid` have been tried; others are waited for where it `may_wait`.
    pub(crate) async fn direct_session(
        &self,
        session: &Session,
        avoid: &[u64],
        may_wait: bool,
    ) -> Result<Destination, Failure> {
        match self.director.direct_session(session, avoid) {
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(destination) if may_wait => destination.await,
            Direction::Wait(_) => Err(nobody_else()),
            Direction::Fail(failure) => Err(failure),
        }
    }
}

async fn take(holds: &mut Vec<Held>, verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Continue => {}
        Verdict::Hold(held) => holds.push(held),
        Verdict::Wait(held) => holds.push(held.await?),
        Verdict::Stop(failure) => return Err(failure),
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
