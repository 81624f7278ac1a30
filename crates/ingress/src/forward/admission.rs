//! The layers and the director that all requests of a side pass, in any protocol.

use std::{fmt, sync::Arc};

use adit_trace::{NoObserver, Observer};
use http::response::Parts;

use crate::forward::{
    director::Director,
    layer::{Layer, Layers},
    record::RequestRecord,
};

/// The layers and the director behind them, for all public entries of a side.
pub struct Admission {
    layers: Layers,
    director: Arc<dyn Director>,
    observer: Arc<dyn Observer>,
}

impl Admission {
    /// Requests pass `layers` in this order before they are routed by `director`. They are not observed.
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
            layers: Layers::new(layers),
            director,
            observer,
        })
    }

    /// The layers before routing.
    pub(crate) const fn layers(&self) -> &Layers {
        &self.layers
    }

    pub(crate) fn director(&self) -> &dyn Director {
        &*self.director
    }

    pub(crate) const fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Passes the response of `record` through the layers that its request has passed, in the reverse order.
    pub(crate) fn pass_response(&self, record: &RequestRecord, response: &mut Parts) {
        record.passed.pass_response(&record.request, response);
        self.layers.pass_response(&record.request, response);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
