//! TCP visitors through both ends of a lane, on real sockets.

mod breaks;
mod bulk;
mod resets;
mod retries;

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::{ProtocolType, accepted};
use adit_egress::{Egress, Protocol, ServiceConfig};
use adit_ingress::{Direction, TcpConfig, layers::Permits};
use adit_link::Reason;
use adit_testlink::{
    EgressLink, Incoming, Link, Route, TUNNEL, TcpEntry, ends,
    exchanges::{failure_of, payload},
    http1::send,
    next_part, pass,
    tcp::{RESET, echo, read, read_all, service},
    until, within,
};
use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{mpsc, oneshot},
};

/// An entry, and an egress with one service behind it.
struct ToService {
    entry: TcpEntry,
    egress: Arc<Egress>,
}

impl ToService {
    fn new(port: u16) -> Self {
        Self::with(TcpConfig::default(), port)
    }

    fn with(config: TcpConfig, port: u16) -> Self {
        let EgressLink { link, egress } = egress_link(adit_egress::Config::default(), port);
        let entry = Route::to(&link).tcp(config);
        Self { entry, egress }
    }

    /// Waits until this many bytes have been written to the service.
    async fn service_has(&self, bytes: u64) {
        let sent = || self.egress.stats().tcp.sent_bytes;
        until("the service has the bytes", || sent() == bytes).await;
    }

    /// Waits until no connection is open on either side.
    async fn settled(&self) {
        self.entry.settled().await;
        until("no service is connected", || {
            self.egress.stats().tcp.open == 0
        })
        .await;
    }
}

impl Deref for ToService {
    type Target = TcpEntry;

    fn deref(&self) -> &TcpEntry {
        &self.entry
    }
}

fn egress_link(config: adit_egress::Config, port: u16) -> EgressLink {
    EgressLink::to(ServiceConfig::new("127.0.0.1", port, Protocol::Tcp), config)
}

#[tokio::test]
async fn p_10_1_bytes_of_a_visitor_come_back() {
    let entry = ToService::new(echo().await);
    let mut visitor = entry.connect().await;
    for bytes in ["hello", "", "and again"] {
        send(&mut visitor, bytes).await;
        assert_eq!(read(&mut visitor, bytes.len()).await, bytes.as_bytes());
    }
    let stats = entry.stats();
    assert_eq!((stats.open, stats.total, stats.refused), (1, 1, 0));
    visitor.shutdown().await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
    entry.settled().await;
    let stats = entry.stats();
    assert_eq!((stats.received_bytes, stats.sent_bytes), (14, 14));
    assert_eq!(stats.failures.total(), 0);
}

#[tokio::test]
async fn p_10_1_the_service_may_send_first() {
    let (port, mut results) = service(|mut stream, _| async move {
        send(&mut stream, b"SSH-2.0-adit\r\n").await;
        read_all(&mut stream).await
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    assert_eq!(read(&mut visitor, 14).await, b"SSH-2.0-adit\r\n");
    send(&mut visitor, b"SSH-2.0-visitor\r\n").await;
    visitor.shutdown().await.unwrap();
    let received = within(results.recv()).await.unwrap();
    assert_eq!(received, (b"SSH-2.0-visitor\r\n".to_vec(), None));
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
    entry.settled().await;
}

/// A route that waits for the test before it leads to `link`.
fn waits(link: &Link) -> (Route, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (sender, waiting) = mpsc::unbounded_channel();
    let there = link.clone();
    let route = Route::director(std::slice::from_ref(link), move |_, _| {
        let (go, gone) = oneshot::channel();
        sender.send(go).unwrap();
        let destination = there.destination(1);
        Direction::Wait(Box::pin(async move {
            let _ = gone.await;
            Ok(destination)
        }))
    });
    (route, waiting)
}

#[tokio::test]
async fn p_10_1_the_first_bytes_travel_in_the_head() {
    let (link, mut incoming) = Link::scripted();
    let (route, mut waiting) = waits(&link);
    let config = TcpConfig {
        first_bytes: 8,
        ..TcpConfig::default()
    };
    let entry = route.tcp(config);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"0123456789").await;
    within(waiting.recv()).await.unwrap().send(()).unwrap();
    let (head, mut exchange) = incoming.tcp().await;
    assert_eq!(&*head.open.tunnel, TUNNEL);
    assert_eq!(head.open.revision, 7);
    assert_eq!(
        *head.open.visitor,
        visitor.local_addr().unwrap().to_string()
    );
    assert_eq!(*head.local, entry.addr.to_string());
    // The body in the head is the first part, and the rest arrives without waiting for a response.
    for expected in ["01234567", "89"] {
        let data = payload(&mut exchange.recv).await;
        assert_eq!(data, expected);
    }
    drop(exchange);
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    entry.settled().await;
}

/// The connection is served as soon as it has been accepted, before its socket is reported as readable.
#[tokio::test]
async fn p_10_1_first_bytes_of_a_new_connection_travel_in_the_head() {
    for (initial_window, expected) in [(None, 8 * 1024), (Some(1000), 500), (Some(264), 8)] {
        let ends = ends().map(|mut end| {
            end.mux.initial_window = initial_window.unwrap_or(end.mux.initial_window);
            end
        });
        let (dispatch, mut incoming) = Incoming::channel();
        let link = Link::with(ends, dispatch);
        let entry = adit_ingress::Tcp::new(TcpConfig::default(), Route::to(&link).admission());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut visitor = TcpStream::connect(addr).await.unwrap();
        send(&mut visitor, &[1; 20_000]).await;
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let serving = tokio::spawn(entry.serve(stream, peer, addr));
        let (_, mut exchange) = incoming.tcp().await;
        let first = payload(&mut exchange.recv).await;
        assert_eq!(first.len(), expected);
        drop(exchange);
        within(serving).await.unwrap();
    }
}

#[tokio::test]
async fn p_10_2_an_early_end_travels_with_the_opening_message() {
    let (link, mut incoming) = Link::scripted();
    let (route, mut waiting) = waits(&link);
    let entry = route.tcp(TcpConfig::default());
    let mut visitor = entry.connect().await;
    visitor.shutdown().await.unwrap();
    within(waiting.recv()).await.unwrap().send(()).unwrap();
    let (_, mut exchange) = incoming.tcp().await;
    assert!(next_part(&mut exchange.recv).await.is_none());
    exchange
        .send
        .respond(accepted(ProtocolType::Tcp), false)
        .unwrap();
    exchange
        .send
        .send(Bytes::from_static(b"still here"), true)
        .unwrap();
    drop(exchange);
    assert_eq!(read_all(&mut visitor).await, (b"still here".to_vec(), None));
    entry.settled().await;
}

#[tokio::test]
async fn p_10_2_the_visitor_ends_first_and_the_service_goes_on() {
    let (port, _) = service(|mut stream, _| async move {
        let (received, error) = read_all(&mut stream).await;
        assert_eq!(error, None);
        send(&mut stream, &received).await;
        send(&mut stream, b", and then some").await;
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"that is all").await;
    visitor.shutdown().await.unwrap();
    let expected = b"that is all, and then some".to_vec();
    assert_eq!(read_all(&mut visitor).await, (expected, None));
    entry.settled().await;
}

#[tokio::test]
async fn p_10_2_the_service_ends_first_and_the_visitor_goes_on() {
    let (port, mut results) = service(|mut stream, _| async move {
        send(&mut stream, b"that is all").await;
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    assert_eq!(
        read_all(&mut visitor).await,
        (b"that is all".to_vec(), None)
    );
    let rest = vec![7; 300_000];
    send(&mut visitor, &rest).await;
    visitor.shutdown().await.unwrap();
    assert_eq!(within(results.recv()).await.unwrap(), (rest, None));
    entry.settled().await;
}

/// One direction is shut, and then both are silent for longer than any timeout.
#[tokio::test]
async fn p_10_2_a_half_closed_connection_may_be_silent_forever() {
    let ((ended, end), (go, gone)) = (oneshot::channel(), oneshot::channel::<()>());
    let signals = Mutex::new(Some((ended, gone)));
    let (port, _) = service(move |mut stream, _| {
        let (ended, gone) = signals.lock().unwrap().take().unwrap();
        async move {
            assert_eq!(read_all(&mut stream).await, (b"request".to_vec(), None));
            ended.send(()).unwrap();
            gone.await.unwrap();
            send(&mut stream, b"response").await;
        }
    })
    .await;
    let config = TcpConfig {
        accept_timeout: Duration::from_millis(200),
        stall: Duration::from_millis(20),
        ..TcpConfig::default()
    };
    let entry = ToService::with(config, port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"request").await;
    visitor.shutdown().await.unwrap();
    within(end).await.unwrap();
    pass(Duration::from_millis(400)).await;
    go.send(()).unwrap();
    assert_eq!(read_all(&mut visitor).await, (b"response".to_vec(), None));
    entry.settled().await;
}

#[tokio::test]
async fn keepalive_is_set_on_visitors_sockets() {
    let (link, mut incoming) = Link::scripted();
    for (keepalive, expected) in [(None, false), (Some(Duration::from_secs(8)), true)] {
        let config = TcpConfig {
            keepalive,
            ..TcpConfig::default()
        };
        let entry = adit_ingress::Tcp::new(config, Route::to(&link).admission());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let visitor = TcpStream::connect(addr).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        // A second handle to the same connection.
        let stream = stream.into_std().unwrap();
        let watched = socket2::Socket::from(stream.try_clone().unwrap());
        let stream = TcpStream::from_std(stream).unwrap();
        let serving = tokio::spawn(entry.serve(stream, peer, addr));
        let (_, exchange) = incoming.tcp().await;
        assert_eq!(watched.keepalive().unwrap(), expected);
        if let Some(silence) = keepalive {
            assert_eq!(watched.tcp_keepalive_time().unwrap(), silence);
            assert_eq!(watched.tcp_keepalive_interval().unwrap(), silence / 4);
        }
        drop((visitor, exchange));
        within(serving).await.unwrap();
    }
}

/// The permit of a silent connection is given to a waiting one; a connection that carried bytes keeps its own.
#[tokio::test]
async fn silent_connection_gives_its_permit_to_one_that_waits() {
    let (link, mut incoming) = Link::scripted();
    let permits = Permits::new(adit_flow::Gate::new(2, 10), Duration::from_secs(20));
    let config = TcpConfig {
        shortage_grace: Duration::from_millis(50),
        ..TcpConfig::default()
    };
    let entry = Route::to(&link).layer(permits).tcp(config);
    let mut talks = entry.connect().await;
    send(&mut talks, b"hello").await;
    let (_, talking) = incoming.tcp().await;
    let mut silent = entry.connect().await;
    let (_, exchange) = incoming.tcp().await;
    let _waits = entry.connect().await;
    let (_, next) = incoming.tcp().await;
    assert!(read_all(&mut silent).await.1.is_some(), "it is reset");
    let stalled = failure_of(&exchange.send).await;
    assert_eq!(stalled.reason, Reason::Stalled);
    assert!(talking.send.failure().is_none());
    drop((talks, talking, next));
}
