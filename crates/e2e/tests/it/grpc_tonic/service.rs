//! A service on tonic.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message as _;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{BinaryMetadataValue, MetadataMap},
    transport::{Server, server::Router},
};
use tonic_health::ServingStatus;

use crate::grpc_tonic::echo::{
    Message,
    echo_server::{Echo, EchoServer},
};

/// A bound above the default of tonic, for large messages.
pub(crate) const MAX_MESSAGE_BYTES: usize = 80 << 20;

/// The state of a service that tests check.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) calls: usize,
    /// Calls of `Hang` that run.
    pub(crate) hanging: usize,
    /// The calls of `Hang` that their caller has cancelled.
    pub(crate) cancelled: usize,
    /// The timeout of the last call.
    pub(crate) timeout: Option<String>,
}

/// A running service.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) health: Arc<tonic_health::server::HealthReporter>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Starts a service in clear text. Its responses contain `name`.
    pub(crate) async fn start(name: &'static str) -> Self {
        let (listener, addr) = listen().await;
        let (router, seen, health) = router(name).await;
        let incoming = TcpListenerStream::new(listener);
        let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Self {
            addr,
            seen,
            health: health.into(),
            task,
        }
    }

    /// Starts a service over TLS.
    pub(crate) async fn over<I, S>(name: &'static str, addr: SocketAddr, incoming: I) -> Self
    where
        I: Stream<Item = std::io::Result<S>> + Send + 'static,
        S: tokio::io::AsyncRead
            + tokio::io::AsyncWrite
            + tonic::transport::server::Connected
            + Unpin
            + Send
            + 'static,
    {
        let (router, seen, health) = router(name).await;
        let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Self {
            addr,
            seen,
            health: health.into(),
            task,
        }
    }

    /// Waits until the state of the service fulfils this condition.
    pub(crate) async fn until(&self, what: &str, is_so: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let seen = adit_e2e::within(what, crate::grpc_tonic::SOON, seen.wait_for(is_so)).await;
        seen.unwrap().clone()
    }
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn router(
    name: &'static str,
) -> (
    Router,
    watch::Receiver<Seen>,
    tonic_health::server::HealthReporter,
) {
    let (seen, receiver) = watch::channel(Seen::default());
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("adit.e2e.v1.Echo", ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(Box::leak(
            crate::grpc_tonic::descriptors()
                .encode_to_vec()
                .into_boxed_slice(),
        ))
        .build_v1()
        .unwrap();
    let echo = EchoServer::new(Echoes {
        name,
        seen: Arc::new(Mutex::new(seen)),
    })
    .max_decoding_message_size(MAX_MESSAGE_BYTES)
    .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let router = Server::builder()
        .add_service(health_service)
        .add_service(reflection)
        .add_service(echo);
    (router, receiver, health)
}

struct Echoes {
    name: &'static str,
    seen: Arc<Mutex<watch::Sender<Seen>>>,
}

impl Echoes {
    fn note(&self, metadata: &MetadataMap) {
        let timeout = metadata.get("grpc-timeout");
        let timeout = timeout.map(|value| value.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().send_modify(|seen| {
            seen.calls += 1;
            seen.timeout = timeout;
        });
    }
}

/// Responds with the metadata of the call, in its order, and the name of the service.
fn response<T>(name: &str, sent: &MetadataMap, message: T) -> Response<T> {
    let mut response = Response::new(message);
    let metadata = response.metadata_mut();
    metadata.insert("x-service", name.parse().unwrap());
    for value in sent.get_all("x-many") {
        metadata.append("x-many", value.clone());
    }
    for value in sent.get_all_bin("x-blob-bin") {
        metadata.append_bin("x-blob-bin", value.clone());
    }
    response
}

type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// Counts a call as cancelled when it is dropped.
struct Hanging(Arc<Mutex<watch::Sender<Seen>>>);

impl Drop for Hanging {
    fn drop(&mut self) {
        let seen = self.0.lock().unwrap();
        seen.send_modify(|seen| {
            seen.hanging -= 1;
            seen.cancelled += 1;
        });
    }
}

#[tonic::async_trait]
impl Echo for Echoes {
    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        self.note(request.metadata());
        let (metadata, _, message) = request.into_parts();
        Ok(response(self.name, &metadata, message))
    }

    async fn collect(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Message>, Status> {
        self.note(request.metadata());
        let (metadata, _, mut messages) = request.into_parts();
        let (mut count, mut text) = (0, String::new());
        while let Some(message) = messages.message().await? {
            count += 1;
            text.push_str(&message.text);
        }
        Ok(response(
            self.name,
            &metadata,
            crate::grpc_tonic::message(&text, count),
        ))
    }

    type ExpandStream = Messages;

    async fn expand(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        self.note(request.metadata());
        let (metadata, _, message) = request.into_parts();
        let messages = (0..message.count).map(move |count| {
            Ok(Message {
                count,
                ..message.clone()
            })
        });
        let messages: Messages = Box::pin(tokio_stream::iter(messages));
        Ok(response(self.name, &metadata, messages))
    }

    type ChatStream = Messages;

    async fn chat(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Messages>, Status> {
        self.note(request.metadata());
        let (metadata, _, messages) = request.into_parts();
        let messages: Messages = Box::pin(messages.map(|message| {
            let mut message = message?;
            message.count += 1;
            Ok(message)
        }));
        Ok(response(self.name, &metadata, messages))
    }

    async fn fail(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        self.note(request.metadata());
        let mut metadata = MetadataMap::new();
        metadata.insert("x-why", "tried".parse().unwrap());
        metadata.insert_bin("x-why-bin", BinaryMetadataValue::from_bytes(&[0, 255, 10]));
        let code = Code::from(i32::try_from(request.get_ref().count).unwrap());
        let details = request.get_ref().payload.clone();
        let text = request.get_ref().text.clone();
        Err(Status::with_details_and_metadata(
            code, text, details, metadata,
        ))
    }

    type HangStream = Messages;

    async fn hang(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        self.note(request.metadata());
        let sender = self.seen.lock().unwrap();
        sender.send_modify(|seen| seen.hanging += 1);
        drop(sender);
        let hanging = Hanging(self.seen.clone());
        let first = tokio_stream::iter([Ok(request.into_inner())]);
        let messages: Messages =
            Box::pin(first.chain(tokio_stream::pending().map(move |message| {
                let _ = &hanging;
                message
            })));
        Ok(Response::new(messages))
    }

    async fn seen(&self, _: Request<Message>) -> Result<Response<Message>, Status> {
        let seen = self.seen.lock().unwrap().borrow().clone();
        let calls = u32::try_from(seen.calls).unwrap();
        Ok(Response::new(crate::grpc_tonic::message(self.name, calls)))
    }
}

/// A timeout that no test reaches.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
