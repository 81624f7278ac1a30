//! Two lanes in one process, joined by pipes that can be cut.

#![allow(dead_code)]

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_codec::{HttpRequestHead, HttpResponseHead, Open, Side};
use adit_flow::Budget;
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Part, RecvHalf, TransportError,
    TransportReader, TransportWriter, drive,
};
use bytes::{Bytes, BytesMut};
use tokio::{sync::mpsc, task::JoinHandle};

/// Passes on the requests that the peer opens.
pub(crate) struct Inbound(pub(crate) mpsc::UnboundedSender<IncomingRequest>);

impl Dispatch for Inbound {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.0.send(opened);
    }
}

pub(crate) struct Pipe(pub(crate) mpsc::Receiver<Bytes>);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(Ok))
    }
}

/// Writes a lane's batches, cut at its segments.
pub(crate) async fn write(mut outbound: TransportWriter, into: mpsc::Sender<Bytes>) {
    while let Some(batch) = std::future::poll_fn(|cx| outbound.poll_batch(cx)).await {
        for segment in batch.into_segments() {
            if into.send(segment).await.is_err() {
                return;
            }
        }
    }
}

/// An end of a link.
pub(crate) struct End {
    pub(crate) lane: Arc<Lane>,
    pub(crate) opened: tokio::sync::Mutex<mpsc::UnboundedReceiver<IncomingRequest>>,
    pub(crate) budget: Budget,
    pub(crate) reads: JoinHandle<Failure>,
    pub(crate) writes: JoinHandle<()>,
}

pub(crate) struct Pair {
    pub(crate) server: End,
    pub(crate) client: End,
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in [&self.server, &self.client] {
            end.reads.abort();
            end.writes.abort();
        }
    }
}

pub(crate) fn config(side: Side) -> LaneConfig {
    LaneConfig {
        mux: adit_mux::Config::new(side),
        max_entries: 10_000,
        heartbeat: Duration::from_secs(3),
        dead_after: Duration::from_secs(10),
        stall: Duration::from_secs(60),
        turn_bytes: adit_link::turn::TURN_BYTES,
    }
}

pub(crate) fn pair() -> Pair {
    pair_of(config(Side::Server), config(Side::Client))
}

pub(crate) fn pair_of(server: LaneConfig, client: LaneConfig) -> Pair {
    let (to_client, at_client) = mpsc::channel(4);
    let (to_server, at_server) = mpsc::channel(4);
    Pair {
        server: End::new(server, to_client, at_server),
        client: End::new(client, to_server, at_client),
    }
}

impl End {
    fn new(config: LaneConfig, to: mpsc::Sender<Bytes>, at: mpsc::Receiver<Bytes>) -> Self {
        let (sender, opened) = mpsc::unbounded_channel();
        let budget = Budget::new(64 << 20);
        let lane = Lane::new(config, budget.clone(), Arc::new(Inbound(sender)));
        let writes = tokio::spawn(write(lane.outbound(), to));
        let driven = lane.clone();
        let reads = tokio::spawn(async move { drive(&driven, Pipe(at)).await });
        Self {
            lane,
            opened: tokio::sync::Mutex::new(opened),
            budget,
            reads,
            writes,
        }
    }

    pub(crate) fn open(&self, end: bool, deadline: Option<Instant>) -> Result<Exchange, Failure> {
        open_on(&self.lane, end, deadline)
    }

    pub(crate) async fn accept(&self) -> Exchange {
        self.opened.lock().await.recv().await.unwrap().exchange
    }

    /// Waits until this end has no state of any request.
    pub(crate) async fn settled(&self) {
        until(|| {
            let stats = self.lane.stats();
            (stats.pending.waiting, stats.mux.open, stats.waiting_bytes) == (0, 0, 0)
        })
        .await;
        assert_eq!(self.budget.used(), 0, "windows are given back");
        assert_eq!(self.lane.stats().pinned_bytes, 0);
    }
}

impl Pair {
    /// An exchange that is open on both ends: the server's and the client's handle.
    pub(crate) async fn open(&self, end: bool) -> (Exchange, Exchange) {
        let opened = self.server.open(end, None).unwrap();
        let accepted = self.client.accept().await;
        assert_eq!(opened.id(), accepted.id());
        (opened, accepted)
    }

    pub(crate) async fn settled(&self) {
        self.server.settled().await;
        self.client.settled().await;
    }
}

pub(crate) fn open_on(
    lane: &Arc<Lane>,
    end: bool,
    deadline: Option<Instant>,
) -> Result<Exchange, Failure> {
    let open: Open<&str> = Open {
        tunnel: "web",
        ..Open::default()
    };
    let head = HttpRequestHead {
        open: &open,
        method: "GET",
        scheme: "http",
        authority: b"a.example",
        path: b"/",
    };
    lane.open(head.encode(std::iter::empty(), b"").unwrap(), end, deadline)
}

pub(crate) fn response(exchange: &Exchange, body: &[u8], end: bool) -> Result<(), Failure> {
    let head = HttpResponseHead { status: 200 };
    let head = head.encode(std::iter::empty(), body).unwrap();
    exchange.send.respond(head, end)
}

/// Reads to the end; returns whether there was a response, and the payload.
pub(crate) async fn read(recv: &mut RecvHalf) -> Result<(bool, Bytes), Failure> {
    let mut responded = false;
    let mut all = BytesMut::new();
    while let Some(part) = recv.part().await {
        match part? {
            Part::Response(_) => responded = true,
            Part::Data(payload) => all.extend_from_slice(payload.bytes()),
            Part::Trailers(_) => {}
            other => panic!("unexpected part of an HTTP response: {other:?}"),
        }
    }
    Ok((responded, all.freeze()))
}

/// Waits for the condition, at most some seconds by the test's clock.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the condition was not met in time");
}

/// Counts drops.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<Mutex<usize>>);

pub(crate) struct Held(Drops);

impl Drops {
    pub(crate) fn held(&self) -> Held {
        Held(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() += 1;
    }
}
