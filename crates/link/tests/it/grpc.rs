//! Lanes and control over gRPC, on a loopback socket, in memory and over TLS.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{Drops, Inbound, config, open_on, read, response, until};
use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{
    BoxFuture, Exchange, Failure, IncomingRequest, Lane, Reason,
    control::{
        AcceptLane, AcceptedLane, CallError, Channel, ChannelId, ClientConnection, ControlInbound,
        ControlMessage, ControlOutbound, ControlReadError, ControlServer, LaneRequest, Refusal,
        RefusalReason, Transport,
    },
    drive,
    grpc::{Endpoint, GrpcChannel, GrpcReader, GrpcTransport, Methods, connect, serve_connection},
};
use adit_net::Stream;
use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, EnrolRequest, EnrolResponse, Heartbeat, RegisterRequest,
    RegisterResponse, control::Kind,
};
use adit_testlink::streams::{in_memory, tls};
use adit_tls::Connector;
use bytes::Bytes;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::StreamExt as _;

fn stale() -> Refusal {
    Refusal::new(RefusalReason::StaleSession, "register again")
}

/// A server with one session, `good`, that returns each control message.
struct Scripted;

impl ControlServer for Scripted {
    fn register<'a>(
        &'a self,
        connection: &'a ClientConnection,
        request: RegisterRequest,
    ) -> BoxFuture<'a, Result<RegisterResponse, Refusal>> {
        assert!(connection.peer.ip().is_loopback());
        connection.allowance.lift();
        let session = "good".into();
        let registered = match request.client_id.as_str() {
            "" => Err(Refusal::new(RefusalReason::BadRequest, "no client id")),
            _ => Ok(RegisterResponse {
                session,
                ..RegisterResponse::default()
            }),
        };
        Box::pin(async move { registered })
    }

    fn enrol<'a>(
        &'a self,
        _: &'a ClientConnection,
        request: EnrolRequest,
    ) -> BoxFuture<'a, Result<EnrolResponse, Refusal>> {
        let enrolled = match request.key.as_str() {
            "" => Err(Refusal::new(RefusalReason::BadRequest, "no key")),
            key => Ok(EnrolResponse {
                user: key.to_owned(),
                ..EnrolResponse::default()
            }),
        };
        Box::pin(async move { enrolled })
    }

    fn open_control(
        &self,
        _: &ClientConnection,
        session: &str,
        inbound: ControlInbound,
    ) -> Result<ControlOutbound, Refusal> {
        if session != "good" {
            return Err(stale());
        }
        Ok(Box::pin(inbound.map(|message| match message {
            Ok(message) => Ok(message),
            Err(error) => {
                assert!(matches!(error, ControlReadError::Lost(_)), "{error:?}");
                Err(Refusal::new(RefusalReason::Internal, error))
            }
        })))
    }

    fn sync_config(
        &self,
        session: &str,
        request: ConfigSyncRequest,
    ) -> Result<ConfigSyncResponse, Refusal> {
        if session != "good" {
            return Err(stale());
        }
        Ok(ConfigSyncResponse {
            revision: request.known_revision + 1,
            ..ConfigSyncResponse::default()
        })
    }
}

/// Admits the session `good`, and keeps its lanes.
#[derive(Default)]
struct Accept {
    lanes: Mutex<Vec<Arc<Lane>>>,
    over: Drops,
}

impl AcceptLane for Accept {
    fn accept_lane(&self, request: LaneRequest<'_>, _: ChannelId) -> Result<AcceptedLane, Refusal> {
        if request.session != "good" {
            return Err(stale());
        }
        assert_eq!(request.lane, 3);
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
    channel: GrpcChannel,
    drain: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let transport = GrpcTransport {
        host: addr.ip().to_string(),
        port: addr.port(),
        proxy: None,
        tls: Connector::off(),
    };
    let (connected, accepted) = tokio::join!(transport.connect(), async {
        let (stream, _) = listener.accept().await.unwrap();
        Server::on(stream.into())
    });
    let (channel, driver) = connected.unwrap();
    tokio::spawn(driver);
    accepted.world(channel)
}

/// A client and a server over the two ends of a stream; the client's is first.
async fn world_over((near, far): (Stream, Stream)) -> World {
    let server = Server::on(far);
    let origin = format!("{}://a.test/", near.scheme().as_str());
    let (channel, connection) = connect(near, origin.parse().unwrap()).await.unwrap();
    tokio::spawn(connection);
    server.world(channel)
}

/// The server's end of the connection.
struct Server {
    accept: Arc<Accept>,
    drain: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn on(stream: Stream) -> Self {
        let accept = Arc::new(Accept::default());
        let (drain, mut drained) = watch::channel(false);
        let methods = Methods::new(Arc::new(Scripted));
        let connection = ClientConnection::new(ChannelId::next(), stream.peer_addr().unwrap());
        let endpoint = Endpoint::new(methods, accept.clone(), connection);
        let until = async move { drop(drained.wait_for(|drain| *drain).await) };
        Self {
            accept,
            drain,
            served: tokio::spawn(serve_connection(stream, endpoint, until)),
        }
    }

    fn world(self, channel: GrpcChannel) -> World {
        let Self {
            accept,
            drain,
            served,
        } = self;
        World {
            accept,
            channel,
            drain,
            served,
        }
    }
}

struct Client {
    lane: Arc<Lane>,
    opened: mpsc::UnboundedReceiver<IncomingRequest>,
    driven: JoinHandle<Failure>,
}

impl World {
    async fn try_open(&self, session: &str) -> Result<(Client, Arc<Lane>), CallError> {
        let (sender, opened) = mpsc::unbounded_channel();
        let inbound = Arc::new(Inbound(sender));
        let lane = Lane::new(config(Side::Client), Budget::new(1 << 20), inbound);
        let request = LaneRequest { session, lane: 3 };
        let source: GrpcReader = self.channel.open_lane(&lane, request).await?;
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

/// P-1.6: a lane is routable before any message. P-2.1: a body longer than a message crosses in several.
#[tokio::test]
async fn a_request_crosses_both_ways() {
    crosses_both_ways(world().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_crosses_in_memory_and_over_tls() {
    let addr = ([127, 0, 0, 1], 80).into();
    crosses_both_ways(world_over(in_memory(addr)).await).await;
    let over_tls = tls(in_memory(addr), &[b"h2"]).await;
    crosses_both_ways(world_over(over_tls).await).await;
}

async fn crosses_both_ways(world: World) {
    let (mut client, server) = world.try_open("good").await.unwrap();
    let visitor = open_on(&server, false, None).unwrap();
    let mut service = client.opened.recv().await.unwrap().exchange;
    response(&service, b"", false).unwrap();
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

/// P-1.5: a data stream with a stale session is refused with the reason, and the channel remains usable.
#[tokio::test]
async fn a_stale_session_is_refused_with_its_reason() {
    let world = world().await;
    let refused = world.try_open("old").await.err().unwrap();
    assert_eq!(refused, CallError::Refused(stale()));
    // The channel remains usable.
    assert!(world.try_open("good").await.is_ok());
}

/// P-1.8: fencing ends the stream cleanly, and the other end fails its requests (P-6.4).
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

/// P-1.7: the loss of the connection ends all of its streams, at both ends.
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
    assert!(matches!(refused, CallError::Lost(_)), "{refused:?}");
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
async fn calls_and_refusals_cross_as_the_traits_state_them() {
    let world = world().await;
    let channel = &world.channel;
    let registered = channel.register(RegisterRequest {
        client_id: "laptop".into(),
        ..RegisterRequest::default()
    });
    let session = registered.await.unwrap().session;
    assert_eq!(session, "good");
    let refused = channel.register(RegisterRequest::default()).await;
    let refusal = Refusal::new(RefusalReason::BadRequest, "no client id");
    assert_eq!(refused.unwrap_err(), CallError::Refused(refusal));

    let request = ConfigSyncRequest { known_revision: 4 };
    let synced = channel.sync_config(&session, request).await.unwrap();
    assert_eq!(synced.revision, 5);
    let refused = channel.sync_config("old", request).await.unwrap_err();
    assert_eq!(refused, CallError::Refused(stale()));
}

#[tokio::test]
async fn p_1_5_control_messages_cross_both_ways() {
    let world = world().await;
    let channel = &world.channel;
    let refused = channel.open_control("old").await.err().unwrap();
    assert_eq!(refused, CallError::Refused(stale()));
    let mut control = channel.open_control("good").await.unwrap();
    for request_id in [0, 7] {
        let heartbeat = Heartbeat {
            sequence: 9,
            reply: false,
        };
        let message = ControlMessage::new(request_id, Kind::Heartbeat(heartbeat));
        control.outbound.send(message.clone()).await.unwrap();
        let echo = control.inbound.next().await.unwrap().unwrap();
        assert_eq!(echo, message);
    }
    drop(control.outbound);
    assert_eq!(control.inbound.next().await, None, "both directions end");
}
