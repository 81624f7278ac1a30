//! An observer that keeps what it is told, and an entry whose requests come to the test.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use adit_codec::{HttpRequest, RequestHead, Side};
use adit_ingress::{Direction, HttpConfig};
use adit_link::{Dispatch, Exchange, IncomingRequest};
use adit_trace::{
    Edge, Observer, Phase, Record, Sampler, Span, SpanId, Timeline, TraceContext, TraceId,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::world::{Link, World, config, destination, director, standard_layers, within};

pub const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A record that outlives its request.
#[derive(Debug, Clone)]
pub struct Told {
    pub protocol: &'static str,
    pub uuid: [u8; 16],
    /// Opener, user, client, tunnel and revision.
    pub route: (&'static str, String, String, String, u64),
    /// The group of its client.
    pub group: String,
    pub visitor: String,
    pub port: u16,
    /// Scheme, method, host, path and version.
    pub asked: (&'static str, String, String, String, &'static str),
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub reason: Option<&'static str>,
    pub received: u64,
    pub sent: u64,
    pub retries: u32,
    pub started: Instant,
    pub answered: Option<Instant>,
    pub ended: Instant,
    pub timeline: Option<Timeline>,
}

impl Told {
    fn of(record: &Record<'_>) -> Self {
        assert_eq!((record.edge, record.service), (Edge::Ingress, ""));
        assert_ne!(record.request_uuid, [0; 16]);
        let told = Self {
            protocol: record.protocol,
            uuid: record.request_uuid,
            route: (
                record.opener,
                record.user.into(),
                record.client.into(),
                record.tunnel.into(),
                record.revision,
            ),
            group: record.group.into(),
            visitor: record.visitor.into(),
            port: record.port,
            asked: (
                record.scheme,
                record.method.into(),
                record.host.into(),
                record.path.into(),
                record.version,
            ),
            status: record.status,
            grpc_status: record.grpc_status,
            reason: record.reason,
            received: record.received_bytes,
            sent: record.sent_bytes,
            retries: record.retries,
            started: record.started,
            answered: record.answered,
            ended: record.ended,
            timeline: record.timeline.cloned(),
        };
        told.check();
        told
    }

    /// What must be so of every record.
    fn check(&self) {
        assert!(self.started <= self.answered.unwrap_or(self.started));
        assert!(self.answered.unwrap_or(self.started) <= self.ended);
        let mut last = self.started;
        for span in self.spans() {
            let end = span.end.unwrap_or(self.ended);
            assert!(span.start <= end && end <= self.ended, "{span:?}");
            assert!(span.start >= self.started, "{span:?}");
            // That is known at the end.
            if span.phase != Phase::CreditWait {
                assert!(span.start >= last, "{span:?}");
                last = span.start;
            }
            let crosses = span.phase == Phase::Transit;
            assert_eq!(span.id.is_some(), crosses, "{span:?}");
        }
    }

    pub fn spans(&self) -> &[Span] {
        self.timeline.as_ref().map_or(&[], Timeline::spans)
    }

    /// The names of the phases, in their order.
    pub fn phases(&self) -> Vec<&'static str> {
        self.spans()
            .iter()
            .map(|span| span.phase.as_str())
            .collect()
    }

    /// What is a child of which try.
    pub fn transits(&self) -> Vec<SpanId> {
        self.spans().iter().filter_map(|span| span.id).collect()
    }

    /// Status, reason, and bytes from and to the visitor.
    pub fn outcome(&self) -> (u16, Option<&'static str>, u64, u64) {
        (self.status, self.reason, self.received, self.sent)
    }

    /// It was led to the client of the tests.
    pub fn led_to(&self, tunnel: &str) {
        let (opener, user, client, to, revision) = &self.route;
        assert_eq!(
            (*opener, &user[..], &client[..]),
            ("server", "alice", "office")
        );
        assert_eq!(self.group, "office");
        assert_eq!((&to[..], *revision), (tunnel, 7));
    }

    /// It came to no client.
    pub fn led_nowhere(&self) {
        assert_eq!(
            self.route,
            ("", String::new(), String::new(), String::new(), 0)
        );
        assert_eq!(self.group, "");
    }
}

/// What a try on a client looks like, from where it begins to its answer.
pub const CARRIED: [&str; 5] = ["accept", "queue", "route", "transit", "end"];

/// The context that reached a client is that of this try.
pub fn crossed(told: &Told, at: usize, traceparent: &str) {
    let here = told.timeline.as_ref().unwrap().context();
    let there: TraceContext = traceparent.parse().unwrap();
    assert_eq!(
        (there.trace_id, there.span_id, there.sampled),
        (here.trace_id, told.transits()[at], true)
    );
}

/// Keeps what it is told.
#[derive(Debug)]
pub struct Recorder {
    tell: UnboundedSender<Told>,
    sampler: Sampler,
    needs_details: AtomicBool,
    dice: AtomicU64,
    /// The contexts that requests came with.
    came_with: Mutex<Vec<String>>,
}

pub type Records = UnboundedReceiver<Told>;

/// Traces this share of the requests whose visitors say nothing.
pub fn recorder(ratio: f64) -> (Arc<Recorder>, Records) {
    let (tell, told) = unbounded_channel();
    let recorder = Recorder {
        tell,
        sampler: Sampler::ratio(ratio).unwrap(),
        needs_details: AtomicBool::new(true),
        dice: AtomicU64::new(1),
        came_with: Mutex::default(),
    };
    (Arc::new(recorder), told)
}

impl Recorder {
    /// It only counts from now on.
    pub fn counts_only(&self) {
        self.needs_details.store(false, Ordering::Relaxed);
    }

    pub fn came_with(&self) -> Vec<String> {
        self.came_with.lock().unwrap().clone()
    }
}

impl Observer for Recorder {
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        self.came_with.lock().unwrap().push(traceparent.into());
        let parent = traceparent.parse().ok();
        let id = TraceId::from_random(self.random().into());
        let samples = self.sampler.samples(parent, id);
        samples.then(|| Box::new(Timeline::new(parent, id, self.random())))
    }

    fn random(&self) -> u64 {
        self.dice.fetch_add(1, Ordering::Relaxed)
    }

    fn is_enabled(&self) -> bool {
        true
    }

    fn needs_details(&self) -> bool {
        self.needs_details.load(Ordering::Relaxed)
    }

    fn on_end(&self, record: &Record<'_>) {
        let _ = self.tell.send(Told::of(record));
    }
}

/// Hands what is opened to the test, which plays the client.
struct Scripted(UnboundedSender<IncomingRequest>);

impl Dispatch for Scripted {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.0.send(opened);
    }
}

/// An entry with an observer, before a client that the test plays.
pub struct Rig {
    pub world: World,
    pub recorder: Arc<Recorder>,
    records: Records,
    opened: UnboundedReceiver<IncomingRequest>,
}

impl Rig {
    /// One that traces everything.
    pub async fn new() -> Self {
        Self::with(config(), 1.0).await
    }

    pub async fn with(config: HttpConfig, ratio: f64) -> Self {
        Self::on(Side::Server, Side::Client, config, ratio).await
    }

    /// The entry of one side, before the other.
    pub async fn on(entry: Side, other: Side, config: HttpConfig, ratio: f64) -> Self {
        let (tell, opened) = unbounded_channel();
        let link = Link::between(entry, other, Arc::new(Scripted(tell)));
        let there = link.clone();
        let director = director(move |_, _| Direction::Go(destination(&there, 1)));
        let (recorder, records) = recorder(ratio);
        let mut world =
            World::observed(config, standard_layers(), director, recorder.clone()).await;
        world.links = vec![link];
        Self {
            world,
            recorder,
            records,
            opened,
        }
    }

    /// The next request that reaches the client.
    pub async fn opened(&mut self) -> (RequestHead, Exchange) {
        let IncomingRequest { head, exchange } = within(self.opened.recv()).await.unwrap();
        (head, exchange)
    }

    pub async fn http(&mut self) -> (HttpRequest, Exchange) {
        match self.opened().await {
            (RequestHead::Http(head), exchange) => (*head, exchange),
            (other, _) => panic!("no HTTP request: {other:?}"),
        }
    }

    /// The next record.
    pub async fn told(&mut self) -> Told {
        within(self.records.recv()).await.unwrap()
    }

    /// Nobody has been told of anything else.
    pub async fn is_over(&mut self) {
        self.world.settle().await;
        let more = self.records.try_recv().ok();
        assert!(more.is_none(), "{more:?}");
    }
}
