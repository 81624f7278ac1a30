//! Both ends of a lane, an entry before it and a service or a script behind it; and a visitor that speaks HTTP/2 frame by
//! frame.

use std::{collections::HashMap, sync::Arc, time::Duration};

use adit_egress::{Egress, Protocol, ServiceConfig};
use adit_ingress::{Direction, HttpConfig};
use adit_link::{Dispatch, IncomingRequest};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, Request};
use tokio::sync::mpsc;

use crate::world::{Link, World, config, destination, director, standard_layers, within};

/// To a service on this machine that speaks HTTP/2.
pub async fn to_service(port: u16) -> World {
    to_service_with(port, config()).await
}

pub async fn to_service_with(port: u16, config: HttpConfig) -> World {
    let egress = Egress::new(adit_egress::Config {
        // A call does not know it.
        response_timeout: Duration::from_millis(50),
        ..adit_egress::Config::default()
    });
    let service = ServiceConfig::new("127.0.0.1", port, Protocol::Http2);
    egress.set_services(HashMap::from([("web".into(), service)]));
    to(Link::to(egress), config).await
}

async fn to(link: Link, config: HttpConfig) -> World {
    let there = link.clone();
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let mut world = World::assemble(config, standard_layers(), director).await;
    world.links = vec![link];
    world
}

/// Hands what is opened to the test, which plays the client.
struct Scripted(mpsc::UnboundedSender<IncomingRequest>);

impl Dispatch for Scripted {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.0.send(opened);
    }
}

pub fn scripted_link() -> (Link, mpsc::UnboundedReceiver<IncomingRequest>) {
    let (tell, told) = mpsc::unbounded_channel();
    (Link::to(Arc::new(Scripted(tell))), told)
}

pub async fn scripted() -> (World, mpsc::UnboundedReceiver<IncomingRequest>) {
    scripted_with(config()).await
}

pub async fn scripted_with(
    config: HttpConfig,
) -> (World, mpsc::UnboundedReceiver<IncomingRequest>) {
    let (link, told) = scripted_link();
    (to(link, config).await, told)
}

/// A visitor with one connection.
pub struct Visitor(h2::client::SendRequest<Bytes>);

/// A call that has been begun.
pub struct Call {
    pub answer: ResponseFuture,
    pub send: SendStream<Bytes>,
}

/// All of an answer.
#[derive(Debug, Default)]
pub struct Told {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Told {
    /// Of the trailers, or of the head when the answer is these only.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        trailers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Number and reason of a status that adit has made.
    pub fn verdict(&self) -> (&str, &str) {
        let status = self.trailer("grpc-status").expect("a status");
        (status, self.trailer("adit-reason").unwrap_or_default())
    }
}

impl Visitor {
    pub async fn connect(world: &World) -> Self {
        Self::with(world, &h2::client::Builder::new()).await
    }

    pub async fn with(world: &World, builder: &h2::client::Builder) -> Self {
        let stream = world.connect().await;
        let (send, connection) = within(builder.handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Begins a call. `end` is the end of its direction.
    pub async fn open(&mut self, path: &str, headers: &[(&str, &str)], end: bool) -> Call {
        let mut request = Request::post(format!("http://calls.example{path}"));
        let given = |name: &str| headers.iter().any(|(n, _)| *n == name);
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            if !given(name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(()).unwrap(), end).await
    }

    pub async fn ask(&mut self, request: Request<()>, end: bool) -> Call {
        std::future::poll_fn(|cx| self.0.poll_ready(cx))
            .await
            .unwrap();
        let (answer, send) = self.0.send_request(request, end).unwrap();
        Call { answer, send }
    }

    /// A call with one message.
    pub async fn call(&mut self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Told {
        let mut call = self.open(path, headers, false).await;
        call.send.send_data(framed(message), true).unwrap();
        call.told().await.unwrap()
    }
}

impl Call {
    /// The whole answer.
    pub async fn told(self) -> Result<Told, Option<Reason>> {
        within(async {
            let response = self.answer.await.map_err(|error| error.reason())?;
            let (parts, body) = response.into_parts();
            rest(parts, body).await
        })
        .await
    }

    /// The head of the answer, and what is to come.
    pub async fn head(self) -> (http::response::Parts, RecvStream, SendStream<Bytes>) {
        let response = within(self.answer).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, body, self.send)
    }
}

pub async fn rest(
    parts: http::response::Parts,
    mut body: RecvStream,
) -> Result<Told, Option<Reason>> {
    let mut told = Told {
        status: parts.status.as_u16(),
        headers: parts.headers,
        ..Told::default()
    };
    while let Some(data) = within(body.data()).await {
        let data = data.map_err(|error| error.reason())?;
        body.flow_control().release_capacity(data.len()).unwrap();
        told.body.extend_from_slice(&data);
    }
    told.trailers = within(body.trailers())
        .await
        .map_err(|error| error.reason())?;
    Ok(told)
}

/// A message as gRPC frames it: not compressed, its length, itself.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// Sends all of it as fast as credit comes.
pub async fn send_all(send: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let allowed = within(std::future::poll_fn(|cx| send.poll_capacity(cx))).await;
        let part = bytes.split_to(allowed.unwrap().unwrap().min(bytes.len()));
        let last = end && bytes.is_empty();
        send.send_data(part, last).unwrap();
    }
}
