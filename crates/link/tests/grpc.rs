//! Lanes over gRPC, on a loopback socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{
    Exchange, Failure, IncomingRequest, Lane, Reason, drive,
    grpc::{
        AcceptLane, AcceptedLane, Channel, ChannelId, Endpoint, GrpcReader, connect, open_lane,
        prepare_socket, serve_connection, status_reason, with_reason,
    },
};
use adit_proto::{LANE_METADATA, SESSION_METADATA};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use support::{Drops, Inbound, answer, config, open_on, read, until};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::{Code, Status};
use tower::ServiceExt as _;

/// Says what path it was called with, in a header.
#[derive(Clone)]
struct Generated;

impl tower::Service<Request<tonic::body::Body>> for Generated {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<tonic::body::Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let known = request.extensions().get::<ChannelId>().is_some()
            && request.extensions().get::<SocketAddr>().is_some();
        let response = Response::builder()
            .header("path", request.uri().path())
            .header("known", known.to_string())
            .body(tonic::body::Body::empty());
        ready(Ok(response.unwrap()))
    }
}

/// Admits the session `good`, and keeps its lanes.
#[derive(Default)]
struct Accept {
    lanes: Mutex<Vec<Arc<Lane>>>,
    over: Drops,
}

impl AcceptLane for Accept {
    fn accept_lane(&self, metadata: &HeaderMap, _: ChannelId) -> Result<AcceptedLane, Status> {
        if metadata
            .get(SESSION_METADATA)
            .is_none_or(|key| key != "good")
        {
            let stale = Status::unauthenticated("register again");
            return Err(with_reason(stale, "stale_session"));
        }
        assert_eq!(metadata.get(LANE_METADATA).unwrap(), "3");
        let inbound = Arc::new(Inbound(mpsc::unbounded_channel().0));
        let lane = Lane::new(config(Side::Server), Budget::new(1 << 20), inbound);
        self.lanes.lock().unwrap().push(lane.clone());
        Ok(AcceptedLane {
            lane,
            on_end: Box::new(|_, _| {}),
            guard: Box::new(self.over.held()),
        })
    }
}

struct World {
    accept: Arc<Accept>,
    channel: Channel,
    drain: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accept = Arc::new(Accept::default());
    let (drain, mut drained) = watch::channel(false);
    let lanes = accept.clone();
    let served = tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        prepare_socket(&stream).unwrap();
        let endpoint = Endpoint::new(Generated, lanes, ChannelId::next(), peer);
        let until = async move { drop(drained.wait_for(|drain| *drain).await) };
        serve_connection(stream, endpoint, until).await
    });
    let stream = TcpStream::connect(addr).await.unwrap();
    prepare_socket(&stream).unwrap();
    let origin: Uri = format!("http://{addr}").parse().unwrap();
    let (channel, connection) = connect(stream, origin).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    World {
        accept,
        channel,
        drain,
        served,
    }
}

struct Client {
    lane: Arc<Lane>,
    opened: mpsc::UnboundedReceiver<IncomingRequest>,
    driven: JoinHandle<Failure>,
}

impl World {
    async fn try_open(&self, session: &str) -> Result<(Client, Arc<Lane>), Status> {
        let (sender, opened) = mpsc::unbounded_channel();
        let inbound = Arc::new(Inbound(sender));
        let lane = Lane::new(config(Side::Client), Budget::new(1 << 20), inbound);
        let mut channel = self.channel.clone();
        let source: GrpcReader = open_lane(&mut channel, &lane, session, 3).await?;
        let reader = lane.clone();
        let driven = tokio::spawn(async move { drive(&reader, source).await });
        let client = Client {
            lane,
            opened,
            driven,
        };
        let server = self.accept.lanes.lock().unwrap().last().unwrap().clone();
        Ok((client, server))
    }
}

/// P-1.6: routable before any message; P-2.1: what is longer than a message crosses in several.
#[tokio::test]
async fn a_request_crosses_both_ways() {
    let world = world().await;
    let (mut client, server) = world.try_open("good").await.unwrap();
    let visitor = open_on(&server, false, None).unwrap();
    let mut service = client.opened.recv().await.unwrap().exchange;
    answer(&service, b"", false).unwrap();
    let body = Bytes::from(
        (0..3_000_000_u32)
            .map(|n| n.to_le_bytes()[0])
            .collect::<Vec<_>>(),
    );
    let Exchange { send, mut recv } = visitor;
    let upload = send.send_all(body.clone(), true);
    let echo = async {
        let (_, got) = read(&mut service.recv).await.unwrap();
        service.send.send_all(got, true).await.unwrap();
    };
    let (sent, (), got) = tokio::join!(upload, echo, read(&mut recv));
    sent.unwrap();
    assert!(got.unwrap() == (true, body));
    drop((send, recv, service));
    for lane in [&server, &client.lane] {
        until(|| lane.stats().pending.waiting == 0 && lane.stats().mux.open == 0).await;
        assert_eq!(lane.stats().pending.completed, 1);
    }
    client.driven.abort();
}

/// P-1.5.
#[tokio::test]
async fn a_stale_session_is_refused_with_its_reason() {
    let world = world().await;
    let refused = world.try_open("old").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(status_reason(&refused), Some("stale_session"));
    assert_eq!(refused.message(), "register again");
    // The channel is as good as before.
    assert!(world.try_open("good").await.is_ok());
}

/// P-1.8: fencing ends the stream in good order, and the other end fails what rode on it (P-6.4).
#[tokio::test]
async fn a_lane_that_the_server_closes_ends_at_the_client() {
    let world = world().await;
    let (mut client, server) = world.try_open("good").await.unwrap();
    let mut visitor = open_on(&server, false, None).unwrap();
    let mut service = client.opened.recv().await.unwrap().exchange;
    server.close(&Failure::new(Reason::LinkLost, "a newer session took over"));
    let failure = visitor.recv.part().await.unwrap().unwrap_err();
    assert_eq!(failure.detail, "a newer session took over");
    let ended = client.driven.await.unwrap();
    assert_eq!(
        ended,
        Failure::new(Reason::LinkLost, "the peer ended the data stream")
    );
    assert_eq!(service.recv.part().await.unwrap().unwrap_err(), ended);
    until(|| world.accept.over.count() == 1).await;
    assert!(!world.channel.is_closed());
}

/// P-1.7: the loss of the connection takes all of its streams along, at both ends.
#[tokio::test]
async fn a_lost_connection_ends_its_lanes() {
    let world = world().await;
    let (one, at_server) = world.try_open("good").await.unwrap();
    let (two, _) = world.try_open("good").await.unwrap();
    world.served.abort();
    for client in [one, two] {
        assert_eq!(client.driven.await.unwrap().reason, Reason::LinkLost);
        assert!(client.lane.is_closed());
    }
    assert_eq!(at_server.wait_closed().await.reason, Reason::LinkLost);
    until(|| world.accept.over.count() == 2).await;
    until(|| world.channel.is_closed()).await;
    let refused = world.try_open("good").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_connection_that_drains_ends_with_its_last_stream() {
    let world = world().await;
    let (client, server) = world.try_open("good").await.unwrap();
    world.drain.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!world.served.is_finished() && !server.is_closed());
    client.lane.close(&Failure::new(Reason::Draining, "done"));
    let served = tokio::time::timeout(Duration::from_secs(10), world.served).await;
    served.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn other_methods_go_to_the_generated_service() {
    let world = world().await;
    let uri = format!("{}other/Method", world.channel.origin());
    let request = Request::post(uri).body(tonic::body::Body::empty());
    let response = world.channel.clone().oneshot(request.unwrap()).await;
    let response = response.unwrap();
    assert_eq!(response.headers()["path"], "/other/Method");
    assert_eq!(response.headers()["known"], "true");
}
