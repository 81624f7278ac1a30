//! The layers and the director that all requests of a side pass, in any protocol.

use std::{fmt, sync::Arc};

use adit_trace::{NoObserver, Observer};
use arc_swap::ArcSwap;

use crate::forward::{
    director::Director,
    error_pages::ErrorPages,
    layer::{Layer, Layers},
};

/// The layers before routing and the director, for all public entries of a side.
pub struct Admission {
    /// May be replaced while requests run: each request keeps the list that it began with.
    layers: ArcSwap<Layers>,
    director: Arc<dyn Director>,
    observer: Arc<dyn Observer>,
    error_pages: ArcSwap<ErrorPages>,
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
            layers: ArcSwap::from_pointee(Layers::new(layers)),
            director,
            observer,
            error_pages: ArcSwap::default(),
        })
    }

    /// Lets new requests pass these layers instead of the current ones.
    pub fn set_layers(&self, layers: Vec<Box<dyn Layer>>) {
        self.layers.store(Arc::new(Layers::new(layers)));
    }

    /// Uses these pages in error responses from now on.
    pub fn set_error_pages(&self, pages: ErrorPages) {
        self.error_pages.store(Arc::new(pages));
    }

    pub(crate) fn error_pages(&self) -> ErrorPages {
        ErrorPages::clone(&self.error_pages.load())
    }

    /// The layers before routing.
    pub(crate) fn layers(&self) -> Layers {
        Layers::clone(&self.layers.load())
    }

    pub(crate) fn director(&self) -> &dyn Director {
        &*self.director
    }

    pub(crate) const fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("layers", &self.layers())
            .finish_non_exhaustive()
    }
}
