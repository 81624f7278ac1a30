//! A public port with a real socket, and both ends of a lane in memory behind it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use adit_auth::{ClientClaim, Grant};
use adit_codec::{ProtocolType, Side, UdpOpen, accepted};
use adit_flow::{Budget, Gate};
use adit_ingress::{
    Admission, Destination, Direction, Director, Session, Udp, UdpConfig, UdpStats, Visit, layers,
    listener::bind_udp,
};
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Part, Reason, RequestHead,
    TransportError, TransportReader, TransportWriter, drive,
};
use adit_trace::{NoObserver, Observer};
use bytes::{Buf, Bytes};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What one lane has to send is what the other one reads.
pub(crate) struct Pipe(TransportWriter);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_batch(cx).map(|batch| {
            batch.map(|mut batch| {
                let length = batch.remaining();
                Ok(batch.copy_to_bytes(length))
            })
        })
    }
}

pub(crate) struct Inbound(mpsc::UnboundedSender<IncomingRequest>);

impl Dispatch for Inbound {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.0.send(opened);
    }
}

/// A link, and what was opened at its far end.
pub(crate) struct Link {
    pub(crate) near: Arc<Lane>,
    pub(crate) far: Arc<Lane>,
    pub(crate) opened: mpsc::UnboundedReceiver<IncomingRequest>,
}

impl Link {
    pub(crate) fn new() -> Self {
        let (inbound, opened) = mpsc::unbounded_channel();
        let inbound = Arc::new(Inbound(inbound));
        let lane = |side| {
            let config = LaneConfig {
                mux: adit_mux::Config::new(side),
                max_entries: 10_000,
                heartbeat: 1000 * SECOND,
                dead_after: 4000 * SECOND,
                stall: 1000 * SECOND,
                turn_bytes: adit_link::turn::TURN_BYTES,
            };
            Lane::new(config, Budget::new(16 << 20), inbound.clone())
        };
        let (near, far) = (lane(Side::Server), lane(Side::Client));
        let (there, back) = (Pipe(near.outbound()), Pipe(far.outbound()));
        for (lane, source) in [(near.clone(), back), (far.clone(), there)] {
            tokio::spawn(async move { drive(&lane, source).await });
        }
        Self { near, far, opened }
    }

    pub(crate) fn to(lane: &Arc<Lane>) -> Direction {
        let claim = ClientClaim {
            client_id: "office".parse().unwrap(),
            group_id: "office".parse().unwrap(),
        };
        let grant = Grant::for_link("alice".parse().unwrap(), claim);
        Direction::Go(Destination {
            lane: lane.clone(),
            grant: grant.for_tunnel("dns".parse().unwrap(), 7),
            tunnel: "dns".into(),
            revision: 7,
            link: 1,
            compression: None,
            permit: None,
            hold: Box::new(()),
        })
    }

    /// The next flow that the visitors' side opens.
    pub(crate) async fn flow(&mut self) -> Service {
        let IncomingRequest { head, exchange } = within(self.opened.recv()).await.unwrap();
        let RequestHead::Udp(head) = head else {
            panic!("not UDP: {head:?}");
        };
        Service {
            head: *head,
            exchange,
        }
    }
}

/// The service's side of one flow.
pub(crate) struct Service {
    pub(crate) head: UdpOpen,
    pub(crate) exchange: Exchange,
}

impl Service {
    pub(crate) fn accept(&self) {
        let answer = accepted(ProtocolType::Udp);
        self.exchange.send.respond(answer, false).unwrap();
    }

    pub(crate) fn say(&self, data: impl Into<Bytes>) {
        self.exchange.send.send_datagram(data.into()).unwrap();
    }

    /// The next datagram; `None` when the visitor's side has ended the flow.
    pub(crate) async fn try_hear(&mut self) -> Result<Option<Bytes>, Failure> {
        match within(self.exchange.recv.part()).await {
            Some(Ok(Part::Datagram(data))) => Ok(Some(data)),
            Some(Ok(part)) => panic!("no datagram: {part:?}"),
            Some(Err(failure)) => Err(failure),
            None => Ok(None),
        }
    }

    pub(crate) async fn hear(&mut self) -> Bytes {
        self.try_hear().await.unwrap().expect("the flow has ended")
    }

    /// Sends everything back, with a mark.
    pub(crate) async fn echo(mut self, mark: u8) {
        self.accept();
        while let Ok(Some(data)) = self.try_hear().await {
            let mut answer = data.to_vec();
            answer.push(mark);
            self.say(answer);
        }
    }
}

pub(crate) type Direct = dyn Fn(&Session) -> Direction + Send + Sync;

pub(crate) struct TestDirector {
    pub(crate) direct: Box<Direct>,
    pub(crate) asked: Mutex<Vec<Session>>,
}

impl Director for TestDirector {
    fn direct(&self, _: &Visit, _: &[u64]) -> Direction {
        panic!("no HTTP here");
    }

    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction {
        assert!(avoid.is_empty());
        self.asked.lock().unwrap().push(session.clone());
        (self.direct)(session)
    }

    fn may_retry(&self) -> bool {
        false
    }
}

/// A public port.
pub(crate) struct Port {
    pub(crate) udp: Arc<Udp>,
    pub(crate) addr: SocketAddr,
    pub(crate) director: Arc<TestDirector>,
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) serves: JoinHandle<()>,
}

impl Port {
    pub(crate) fn new(
        config: UdpConfig,
        session_timeout: Duration,
        direct: impl Fn(&Session) -> Direction + Send + Sync + 'static,
    ) -> Self {
        Self::observed(config, session_timeout, Arc::new(NoObserver), direct)
    }

    pub(crate) fn observed(
        config: UdpConfig,
        session_timeout: Duration,
        observer: Arc<dyn Observer>,
        direct: impl Fn(&Session) -> Direction + Send + Sync + 'static,
    ) -> Self {
        let director = Arc::new(TestDirector {
            direct: Box::new(direct),
            asked: Mutex::default(),
        });
        // There is no permit to be had: flows take none (P-11.2).
        let permits = layers::Permits::new(Gate::new(0, 0), Duration::ZERO);
        let admission = Admission::observed(vec![Box::new(permits)], director.clone(), observer);
        let udp = Udp::new(config, admission);
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        let (drain, mut drained) = watch::channel(false);
        let serves = tokio::spawn(udp.clone().serve(socket, session_timeout, async move {
            let _ = drained.wait_for(|drained| *drained).await;
        }));
        Self {
            udp,
            addr,
            director,
            drain,
            serves,
        }
    }

    /// One that leads to a link.
    pub(crate) fn to(link: &Link, config: UdpConfig) -> Self {
        let lane = link.near.clone();
        Self::new(config, 60 * SECOND, move |_| Link::to(&lane))
    }

    pub(crate) async fn visitor(&self) -> Visitor {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.addr).await.unwrap();
        Visitor(socket)
    }

    pub(crate) fn stats(&self) -> UdpStats {
        self.udp.stats()
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&UdpStats) -> bool) {
        until(|| is_so(&self.stats())).await;
    }
}

pub(crate) struct Visitor(pub(crate) UdpSocket);

impl Visitor {
    pub(crate) async fn say(&self, data: &[u8]) {
        assert_eq!(self.0.send(data).await.unwrap(), data.len());
    }

    pub(crate) async fn hear(&self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let length = within(self.0.recv(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(100 * SECOND, work)
        .await
        .expect("it hangs")
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) fn failure(reason: Reason) -> Direction {
    Direction::Fail(Failure::new(reason, "said the test"))
}
