//! Who is told.

use std::fmt;

use crate::{record::Record, timeline::Timeline};

/// Told of requests. It must not block and must not wait: it is called where the bytes move.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A request begins. `traceparent` is what came with it; empty when nothing did. Gives its timeline if it is to be
    /// traced.
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>>;

    /// A number for the id of a span.
    fn random(&self) -> u64;

    /// Whether [`Observer::on_end`] does anything: a record is not put together for nobody.
    fn is_enabled(&self) -> bool;

    /// Whether of a request that is not traced more is looked at than what it is counted by. Otherwise its
    /// [`Record::host`], [`Record::port`] and [`Record::path`] may be empty: whoever tells need not take them out of its
    /// head.
    fn needs_details(&self) -> bool {
        true
    }

    /// A request is over.
    fn on_end(&self, record: &Record<'_>);
}

/// Nobody.
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
