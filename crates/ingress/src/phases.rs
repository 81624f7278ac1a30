//! The phases of a request, if it is traced.

use std::{sync::Arc, time::Instant};

use adit_link::{CreditWait, Exchange};
use adit_trace::{Observer, Phase, Timeline, TraceContext};

/// The phases of one request. Of one that is not traced it is a null pointer, and every call is one look at it: the clock
/// is not asked.
#[derive(Debug)]
pub(crate) struct Phases(Option<Box<Traced>>);

#[derive(Debug)]
struct Traced {
    timeline: Box<Timeline>,
    credit_wait: Arc<CreditWait>,
}

impl Phases {
    /// Of a request that came with `traceparent`, which is empty when nothing did.
    pub(crate) fn of(observer: &dyn Observer, traceparent: &str) -> Self {
        let traced = observer.begin(traceparent).map(|timeline| Traced {
            timeline,
            credit_wait: Arc::default(),
        });
        Self(traced.map(Box::new))
    }

    /// A phase has lasted from `start` until now.
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

    /// A try on a client begins: the context that crosses to it.
    pub(crate) fn transit(&mut self, observer: &dyn Observer) -> Option<TraceContext> {
        let Traced { timeline, .. } = self.0.as_deref_mut()?;
        Some(timeline.begin_onward(Phase::Transit, Instant::now(), observer.random()))
    }

    /// What an exchange waits for credit is measured from here on.
    pub(crate) fn watch(&self, exchange: &Exchange) {
        if let Some(traced) = &self.0 {
            exchange.watch_credit(traced.credit_wait.clone());
        }
    }

    /// The answer begins, the service's or one of ours: whatever came before it is over.
    pub(crate) fn answer(&mut self, now: Instant) {
        if let Some(Traced { timeline, .. }) = self.0.as_deref_mut() {
            for before in [Phase::Queue, Phase::Route, Phase::Transit] {
                timeline.end(before, now);
            }
            timeline.begin(Phase::End, now);
        }
    }

    /// The request is over: what it waited for credit is known.
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
