//! The receiver of records.

use std::fmt;

use crate::{record::Record, timeline::Timeline};

/// Receives the records of requests. The methods run on data threads, so they must not block.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A request begins. `traceparent` is the header of the request, empty without one. Returns its timeline if the
    /// request is traced.
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>>;

    /// A random number for the id of a span.
    fn random(&self) -> u64;

    /// Whether [`Observer::on_end`] uses records. Otherwise no records need be created.
    fn is_enabled(&self) -> bool;

    /// Whether the records of requests that are not traced need [`Record::host`], [`Record::port`] and [`Record::path`].
    /// Otherwise these may be empty, which saves reading them from the request's head.
    fn needs_details(&self) -> bool {
        true
    }

    /// A request is finished.
    fn on_end(&self, record: &Record<'_>);
}

/// Ignores all requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn begin(&self, _traceparent: &str) -> Option<Box<Timeline>> {
        None
    }

    fn random(&self) -> u64 {
        0
    }

    fn is_enabled(&self) -> bool {
        false
    }

    fn on_end(&self, _record: &Record<'_>) {}
}
