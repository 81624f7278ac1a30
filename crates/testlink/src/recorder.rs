//! An observer that keeps the records of finished requests.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use adit_trace::{
    Edge, Observer, Phase, Record, Sampler, Span, SpanId, Timeline, TraceContext, TraceId,
};
use tokio::sync::mpsc;

use crate::{TUNNEL, within};

/// A visitor's `traceparent`: sampled, and not sampled.
pub const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
pub const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The phases of a request at the ingress that one client serves.
pub const FORWARDED: [Phase; 5] = [
    Phase::Accept,
    Phase::Queue,
    Phase::Route,
    Phase::Transit,
    Phase::End,
];

/// A [`Record`] that outlives its request: what it refers to is never freed.
#[derive(Debug, Clone, Copy)]
pub struct Recorded(Record<'static>);

impl Deref for Recorded {
    type Target = Record<'static>;

    fn deref(&self) -> &Record<'static> {
        &self.0
    }
}

impl Recorded {
    fn new(record: &Record<'_>) -> Self {
        let texts = record.texts().map(|text| &*text.to_owned().leak());
        let timeline = record.timeline.cloned();
        let timeline = timeline.map(|timeline| &*Box::leak(Box::new(timeline)));
        Self(record.with_texts(texts, timeline))
    }

    /// The properties of every record.
    fn check(&self) {
        assert_ne!(self.request_uuid, [0; 16]);
        let responded = self.responded.unwrap_or(self.started);
        assert!(self.started <= responded && responded <= self.ended);
        let mut last = self.started;
        for span in self.spans() {
            let end = span.end.unwrap_or(self.ended);
            assert!(self.started <= span.start, "{span:?}");
            assert!(span.start <= end && end <= self.ended, "{span:?}");
            // A wait for credit is recorded at the end.
            if self.edge == Edge::Ingress && span.phase != Phase::CreditWait {
                assert!(span.start >= last, "{span:?}");
                last = span.start;
            }
            let has_children = span.phase == Phase::Transit;
            assert_eq!(span.id.is_some(), has_children, "{span:?}");
        }
    }

    pub fn spans(&self) -> &[Span] {
        self.timeline.map_or(&[], Timeline::spans)
    }

    pub fn phases(&self) -> Vec<Phase> {
        self.spans().iter().map(|span| span.phase).collect()
    }

    /// The only span of a phase.
    pub fn span(&self, phase: Phase) -> Span {
        let spans: Vec<_> = self.spans().iter().filter(|s| s.phase == phase).collect();
        assert_eq!(spans.len(), 1, "{phase:?}: {self:?}");
        *spans[0]
    }

    /// The parents of the spans at the other end, one for each attempt.
    pub fn transits(&self) -> Vec<SpanId> {
        self.spans().iter().filter_map(|span| span.id).collect()
    }

    /// Status, reason, and bytes from and to the visitor.
    pub fn outcome(&self) -> (u16, Option<&'static str>, u64, u64) {
        let bytes = (self.received_bytes, self.sent_bytes);
        (self.status, self.reason, bytes.0, bytes.1)
    }

    /// The request went to the client of the tests.
    pub fn expect_forwarded(&self) {
        let client = [self.user, self.group, self.client];
        assert_eq!(
            (self.opener, client),
            ("server", ["alice", "office", "office"])
        );
        assert_eq!((self.tunnel, self.revision), (TUNNEL, 7));
    }

    /// The request reached no client.
    pub fn expect_not_forwarded(&self) {
        let owner = [self.user, self.group, self.client];
        assert_eq!((self.opener, owner), ("", [""; 3]));
        assert_eq!((self.tunnel, self.revision), ("", 0));
    }

    /// The context that the service receives.
    pub fn traceparent(&self) -> String {
        self.timeline.unwrap().context().to_string()
    }

    /// The context that reached a client is that of this attempt.
    pub fn expect_context(&self, attempt: usize, traceparent: &str) {
        let here = self.timeline.unwrap().context();
        let there: TraceContext = traceparent.parse().unwrap();
        let expected = (here.trace_id, self.transits()[attempt], true);
        assert_eq!((there.trace_id, there.span_id, there.sampled), expected);
    }
}

/// Keeps records, and traces a share of the requests without a trace context.
#[derive(Debug)]
pub struct Recorder {
    records: mpsc::UnboundedSender<Recorded>,
    sampler: Sampler,
    pub enabled: AtomicBool,
    /// Whether it needs more than the fields for counters.
    pub detailed: AtomicBool,
    random: AtomicU64,
    /// The trace headers of the requests.
    pub parents: Mutex<Vec<String>>,
}

impl Recorder {
    pub fn new(ratio: f64) -> (Arc<Self>, Records) {
        let (records, receiver) = mpsc::unbounded_channel();
        let recorder = Self {
            records,
            sampler: Sampler::ratio(ratio).unwrap(),
            enabled: AtomicBool::new(true),
            detailed: AtomicBool::new(true),
            random: AtomicU64::new(1),
            parents: Mutex::default(),
        };
        (Arc::new(recorder), Records(receiver))
    }
}

impl Observer for Recorder {
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        self.parents.lock().unwrap().push(traceparent.into());
        let parent = traceparent.parse().ok();
        let id = TraceId::from_random(self.random().into());
        let samples = self.sampler.samples(parent, id);
        samples.then(|| Box::new(Timeline::new(parent, id, self.random())))
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(1, Ordering::Relaxed)
    }

    fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    fn needs_details(&self) -> bool {
        self.detailed.load(Ordering::Relaxed)
    }

    fn on_end(&self, record: &Record<'_>) {
        let record = Recorded::new(record);
        record.check();
        // The test may have ended.
        let _ = self.records.send(record);
    }
}

/// The records of a [`Recorder`], in the order in which requests end.
pub struct Records(mpsc::UnboundedReceiver<Recorded>);

impl Records {
    pub async fn next(&mut self) -> Recorded {
        within(self.0.recv()).await.expect("an observer")
    }

    /// The test has checked all records.
    pub fn expect_none(&mut self) {
        let more = self.0.try_recv().ok();
        assert!(more.is_none(), "one record more: {more:?}");
    }
}
