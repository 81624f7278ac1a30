//! The phases of a request, if it is traced.

use std::{sync::Arc, time::Instant};

use adit_link::{CreditWait, Exchange};
use adit_trace::{Observer, Phase, Timeline, TraceContext};

/// The phases of one request. For a request that is not traced this is a null pointer, and each call only checks the
/// pointer and does not read the clock.
#[derive(Debug)]
pub(crate) struct Phases(Option<Box<Traced>>);

#[derive(Debug)]
struct Traced {
    timeline: Box<Timeline>,
    credit_wait: Arc<CreditWait>,
}

impl Phases {
    /// The phases of a request with this `traceparent`, which is empty when the request has none.
    pub(crate) fn of(observer: &dyn Observer, traceparent: &str) -> Self {
        let traced = observer.begin(traceparent).map(|timeline| Traced {
            timeline,
            credit_wait: Arc::default(),
        });
        Self(traced.map(Box::new))
    }

    /// Adds a phase that lasted from `start` until now.
    pub(crate) fn add(&mut self, phase: Phase, start: Instant) {
        if let Some(Traced { timeline, .. }) = self.0.as_deref_mut() {
            timeline.add(phase, start, Instant::now().max(start));
        }
    }

    pub(crate) fn begin(&mut self, phase: Phase) {
        if let Some(Traced { timeline, .. }) = self.0.as_deref_mut() {
            timeline.begin(phase, Instant::now());
        }
    }

    pub(crate) fn end(&mut self, phase: Phase) {
        if let Some(Traced { timeline, .. }) = self.0.as_deref_mut() {
            timeline.end(phase, Instant::now());
        }
    }

    /// Called when an attempt on a client starts. Returns the context that crosses to the client.
    pub(crate) fn transit(&mut self, observer: &dyn Observer) -> Option<TraceContext> {
        let Traced { timeline, .. } = self.0.as_deref_mut()?;
        Some(timeline.begin_onward(Phase::Transit, Instant::now(), observer.random()))
    }

    /// Measures how long an exchange waits for credit.
    pub(crate) fn watch(&self, exchange: &Exchange) {
        if let Some(traced) = &self.0 {
            exchange.watch_credit(traced.credit_wait.clone());
        }
    }

    /// Called when the response starts, from the service or from adit itself: the phases before it are over.
    pub(crate) fn respond(&mut self, now: Instant) {
        if let Some(Traced { timeline, .. }) = self.0.as_deref_mut() {
            for before in [Phase::Queue, Phase::Route, Phase::Transit] {
                timeline.end(before, now);
            }
            timeline.begin(Phase::End, now);
        }
    }

    /// Called when the request is over: also ends its wait for credit.
    pub(crate) fn finish(&mut self, now: Instant) {
        let Some(Traced {
            timeline,
            credit_wait,
        }) = self.0.as_deref_mut()
        else {
            return;
        };
        if let Some(waited) = credit_wait.waited() {
            timeline.add_wait(Phase::CreditWait, waited.start, waited.end, waited.total);
        }
        timeline.end(Phase::End, now);
    }

    pub(crate) fn timeline(&self) -> Option<&Timeline> {
        self.0.as_deref().map(|traced| &*traced.timeline)
    }
}
