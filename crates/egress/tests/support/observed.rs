//! An observer that keeps what it is told.

#![allow(dead_code)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use adit_egress::{Config, Egress, ServiceConfig};
use adit_trace::{Edge, Observer, Phase, Record, Sampler, Span, Timeline, TraceContext, TraceId};
use tokio::sync::mpsc;

use crate::support::{Pair, within};

/// What a visitor's trace says when it is recorded, and when it is not.
pub(crate) const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
pub(crate) const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A record, kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) protocol: &'static str,
    pub(crate) opener: &'static str,
    pub(crate) request_uuid: [u8; 16],
    pub(crate) tunnel: String,
    pub(crate) revision: u64,
    pub(crate) visitor: String,
    pub(crate) scheme: &'static str,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) service: String,
    pub(crate) reason: Option<&'static str>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) answered: Option<Instant>,
    pub(crate) spans: Vec<Span>,
    pub(crate) context: Option<TraceContext>,
}

impl Kept {
    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.spans.iter().map(|span| span.phase).collect()
    }

    pub(crate) fn span(&self, phase: Phase) -> Span {
        let mut spans = self.spans.iter().filter(|span| span.phase == phase);
        let span = spans
            .next()
            .unwrap_or_else(|| panic!("no {phase:?}: {self:?}"));
        assert!(spans.next().is_none(), "{phase:?} twice: {self:?}");
        *span
    }

    /// What the service has to get in place of `traceparent`.
    pub(crate) fn traceparent(&self) -> String {
        self.context.expect("it is traced").to_string()
    }
}

/// Keeps what it is told.
#[derive(Debug)]
struct Keeper {
    sampler: Sampler,
    listens: bool,
    needs_details: bool,
    random: AtomicU64,
    records: mpsc::UnboundedSender<Kept>,
}

impl Observer for Keeper {
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        let parent = traceparent.parse().ok();
        let new = TraceId::from_random(self.random().into());
        let traced = self.sampler.samples(parent, new);
        traced.then(|| Box::new(Timeline::new(parent, new, self.random())))
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(1, Ordering::Relaxed)
    }

    fn is_enabled(&self) -> bool {
        self.listens
    }

    fn needs_details(&self) -> bool {
        self.needs_details
    }

    fn on_end(&self, record: &Record<'_>) {
        assert_eq!(record.edge, Edge::Egress);
        assert_eq!((record.user, record.client, record.retries), ("", "", 0));
        assert_eq!(record.group, "");
        assert!(record.started <= record.ended);
        if let Some(answered) = record.answered {
            assert!(record.started <= answered && answered <= record.ended);
        }
        let spans = record.timeline.map_or(&[][..], Timeline::spans);
        for span in spans {
            let end = span.end.unwrap_or(record.ended);
            assert!(record.started <= span.start, "{span:?}");
            assert!(span.start <= end && end <= record.ended, "{span:?}");
        }
        let kept = Kept {
            protocol: record.protocol,
            opener: record.opener,
            request_uuid: record.request_uuid,
            tunnel: record.tunnel.into(),
            revision: record.revision,
            visitor: record.visitor.into(),
            scheme: record.scheme,
            method: record.method.into(),
            host: record.host.into(),
            port: record.port,
            path: record.path.into(),
            status: record.status,
            grpc_status: record.grpc_status,
            service: record.service.into(),
            reason: record.reason,
            received_bytes: record.received_bytes,
            sent_bytes: record.sent_bytes,
            answered: record.answered,
            spans: spans.to_vec(),
            context: record.timeline.map(Timeline::context),
        };
        self.records.send(kept).expect("the test listens");
    }
}

/// A pair, and what its observer is told.
pub(crate) struct Observed {
    pub(crate) pair: Pair,
    records: mpsc::UnboundedReceiver<Kept>,
}

/// What an observer does with requests of no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roots {
    Traced,
    Untraced,
    /// Nor looked at more closely than is needed to count them.
    Counted,
    /// And nobody listens.
    Unheard,
}

impl Observed {
    pub(crate) fn new(config: Config, roots: Roots) -> Self {
        let (sender, records) = mpsc::unbounded_channel();
        let share = if roots == Roots::Traced { 1.0 } else { 0.0 };
        let keeper = Keeper {
            sampler: Sampler::ratio(share).unwrap(),
            listens: roots != Roots::Unheard,
            needs_details: roots != Roots::Counted,
            random: AtomicU64::new(1),
            records: sender,
        };
        Self {
            pair: Pair::with(Egress::with_observer(config, Arc::new(keeper))),
            records,
        }
    }

    /// One service, where nothing begins a trace.
    pub(crate) fn to(service: ServiceConfig, config: Config) -> Self {
        let observed = Self::new(config, Roots::Untraced);
        observed.pair.serve(service);
        observed
    }

    /// The next record.
    pub(crate) async fn record(&mut self) -> Kept {
        within(self.records.recv()).await.unwrap()
    }

    /// The next record, and there are no more.
    pub(crate) async fn only_record(&mut self) -> Kept {
        let record = self.record().await;
        self.no_more().await;
        record
    }

    pub(crate) async fn no_more(&mut self) {
        self.pair.settled().await;
        tokio::task::yield_now().await;
        let more = self.records.try_recv();
        assert!(more.is_err(), "one more: {more:?}");
    }
}
