//! Two lanes in one process: the server's side opens, the client's side has the egress.

#![allow(dead_code)]

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::{HttpRequestHead, Open, ResponseHead, Side};
use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_flow::Budget;
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Part, RecvHalf, TransportError,
    TransportReader, TransportWriter, drive,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

pub(crate) const TUNNEL: &str = "web";

struct Pipe(mpsc::Receiver<Bytes>);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(Ok))
    }
}

struct Nobody;

impl Dispatch for Nobody {
    fn dispatch(&self, opened: IncomingRequest) {
        drop(opened);
    }
}

async fn pump(mut outbound: TransportWriter, into: mpsc::Sender<Bytes>) {
    while let Some(batch) = std::future::poll_fn(|cx| outbound.poll_batch(cx)).await {
        for segment in batch.into_segments() {
            if into.send(segment).await.is_err() {
                return;
            }
        }
    }
}

pub(crate) struct Pair {
    pub(crate) server: Arc<Lane>,
    pub(crate) client: Arc<Lane>,
    pub(crate) egress: Arc<Egress>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn lane_config(side: Side) -> LaneConfig {
    LaneConfig {
        mux: adit_mux::Config::new(side),
        max_entries: 10_000,
        heartbeat: Duration::from_secs(5),
        dead_after: Duration::from_secs(30),
        stall: Duration::from_secs(60),
        turn_bytes: adit_link::turn::TURN_BYTES,
    }
}

impl Pair {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(Egress::new(config))
    }

    pub(crate) fn with(egress: Arc<Egress>) -> Self {
        let budget = || Budget::new(64 << 20);
        let server = Lane::new(lane_config(Side::Server), budget(), Arc::new(Nobody));
        let client = Lane::new(lane_config(Side::Client), budget(), egress.clone());
        let (to_client, at_client) = mpsc::channel(16);
        let (to_server, at_server) = mpsc::channel(16);
        let mut tasks = Vec::new();
        tasks.push(tokio::spawn(pump(server.outbound(), to_client)).abort_handle());
        tasks.push(tokio::spawn(pump(client.outbound(), to_server)).abort_handle());
        let lane = server.clone();
        tasks.push(tokio::spawn(async move { drive(&lane, Pipe(at_server)).await }).abort_handle());
        let lane = client.clone();
        tasks.push(tokio::spawn(async move { drive(&lane, Pipe(at_client)).await }).abort_handle());
        Self {
            server,
            client,
            egress,
            tasks,
        }
    }

    /// To one service on this machine.
    pub(crate) fn to(port: u16, config: Config) -> Self {
        let pair = Self::new(config);
        pair.serve(service(port));
        pair
    }

    pub(crate) fn serve(&self, service: ServiceConfig) {
        self.egress
            .set_services(HashMap::from([(TUNNEL.into(), service)]));
    }

    pub(crate) fn open(&self, ask: &Ask<'_>, body: &[u8], end: bool) -> Exchange {
        let open: Open = Open {
            tunnel: ask.tunnel.into(),
            ..Open::default()
        };
        let head = HttpRequestHead {
            open: &open,
            method: ask.method,
            scheme: "http",
            authority: b"visitor.example",
            path: ask.path.as_bytes(),
        };
        let headers = ask
            .headers
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let head = head.encode(headers, body).unwrap();
        self.server.open(head, end, None).unwrap()
    }

    /// A request that offers to change to `upgrade`.
    pub(crate) fn offer(&self, ask: &Ask<'_>, upgrade: &[u8], body: &[u8]) -> Exchange {
        let open: Open = Open {
            tunnel: ask.tunnel.into(),
            ..Open::default()
        };
        let head = HttpRequestHead {
            open: &open,
            method: ask.method,
            scheme: "http",
            authority: b"visitor.example",
            path: ask.path.as_bytes(),
        };
        let headers = { ask.headers.iter() }.map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let head = head.encode_offer(upgrade, headers, body).unwrap();
        self.server.open(head, false, None).unwrap()
    }

    pub(crate) async fn ask(&self, ask: &Ask<'_>, body: &[u8]) -> Result<Answer, Failure> {
        let Exchange { send, mut recv } = self.open(ask, body, true);
        let answer = read(&mut recv).await;
        drop(send);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(&Ask::get(path), b"").await
    }

    /// Waits until nothing is open on either side: whatever is not given back would show here.
    pub(crate) async fn settled(&self) {
        within(async {
            while self.server.open_requests() + self.client.open_requests() > 0
                || self.server.mux().stats().open + self.client.mux().stats().open > 0
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

pub(crate) fn service(port: u16) -> ServiceConfig {
    ServiceConfig::new("127.0.0.1", port, Protocol::Http1)
}

pub(crate) struct Ask<'a> {
    pub(crate) tunnel: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self::new("GET", path, &[])
    }

    pub(crate) fn new(method: &'a str, path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            tunnel: TUNNEL,
            method,
            path,
            headers,
        }
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Messages that brought payload.
    pub(crate) messages: usize,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| &value[..])
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn lines(block: &adit_codec::HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect();
    block.lines().map(|(n, v)| (text(n), text(v))).collect()
}

/// Reads an answer to its end.
pub(crate) async fn read(recv: &mut RecvHalf) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    while let Some(part) = within(recv.part()).await {
        match part? {
            Part::Response(ResponseHead::Http(head)) if head.status < 200 => {
                answer.interim.push(head.status);
            }
            Part::Response(ResponseHead::Http(head)) => {
                answer.status = head.status;
                answer.headers = lines(&head.headers);
            }
            Part::Data(data) => {
                answer.body.extend_from_slice(data.as_ref());
                answer.messages += 1;
            }
            Part::Trailers(trailers) => answer.trailers = lines(&trailers),
            other => panic!("no part of an HTTP answer: {other:?}"),
        }
    }
    Ok(answer)
}

/// A bound for what must not hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("hangs")
}

/// A service whose n-th connection is handled by `script`.
pub(crate) async fn scripted<F, S>(script: S) -> u16
where
    S: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for count in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(script(socket, count));
        }
    });
    port
}

/// Reads one request's head.
pub(crate) async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Answers every request on every connection with the same bytes; requests must have no body.
pub(crate) async fn fixed(answer: &'static str) -> u16 {
    scripted(move |mut socket, _| async move {
        while read_head(&mut socket).await.is_some() {
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}
