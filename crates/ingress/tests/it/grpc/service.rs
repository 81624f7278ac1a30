//! A service on tonic, and a client on tonic: their messages are bytes.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{MetadataMap, MetadataValue},
    server::{Grpc, NamedService},
    transport::{Channel, Server},
};
use tower::service_fn;

/// A codec that passes messages as bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The events that the service reports to the test.
pub type Events = mpsc::UnboundedReceiver<&'static str>;

/// The service `test.Echo`.
#[derive(Clone)]
struct Echo(mpsc::UnboundedSender<&'static str>);

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

/// Reports when it is dropped.
struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

/// Returns the metadata whose names begin with `x-` to the caller.
fn with_metadata<T>(of: &MetadataMap, message: T) -> Response<T> {
    let mut response = Response::new(message);
    for name in ["x-plain", "x-blob-bin"] {
        let headers = of.as_ref().get_all(name);
        for value in headers {
            let into = response.metadata_mut().as_mut();
            into.append(name, value.clone());
        }
    }
    if let Some(timeout) = of.get("grpc-timeout") {
        let timeout = timeout.clone();
        response.metadata_mut().insert("x-timeout", timeout);
    }
    response
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let events = self.0.clone();
        Box::pin(async move {
            let mut grpc =
                Grpc::new(Raw).apply_max_message_size_config(Some(usize::MAX), Some(usize::MAX));
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match &method[..] {
                "Unary" => {
                    let echo = service_fn(|request: Request<Bytes>| async {
                        let (metadata, _, message) = request.into_parts();
                        Ok::<_, Status>(with_metadata(&metadata, message))
                    });
                    grpc.unary(echo, request).await
                }
                "Never" => {
                    let never = service_fn(move |_: Request<Bytes>| {
                        let events = events.clone();
                        async move {
                            let _guard = Guard(events.clone());
                            events.send("called").unwrap();
                            std::future::pending::<Result<Response<Bytes>, Status>>().await
                        }
                    });
                    grpc.unary(never, request).await
                }
                "Fail" => {
                    let fail = service_fn(|_: Request<Bytes>| async {
                        Err::<Response<Bytes>, _>(detailed())
                    });
                    grpc.unary(fail, request).await
                }
                "Collect" => {
                    let collect = service_fn(|request: Request<Streaming<Bytes>>| async {
                        let mut all = Vec::new();
                        let mut messages = request.into_inner();
                        while let Some(message) = messages.message().await? {
                            all.extend_from_slice(&message);
                        }
                        Ok::<_, Status>(Response::new(Bytes::from(all)))
                    });
                    grpc.client_streaming(collect, request).await
                }
                "Repeat" => {
                    let repeat = service_fn(|request: Request<Bytes>| async {
                        let message = request.into_inner();
                        let count = usize::from(message[0]);
                        let messages = stream::iter((0..count).map(move |_| Ok(message.clone())));
                        Ok::<_, Status>(Response::new(Box::pin(messages) as Messages))
                    });
                    grpc.server_streaming(repeat, request).await
                }
                "Endless" => {
                    let endless = service_fn(move |_: Request<Bytes>| {
                        let guard = Guard(events.clone());
                        async move {
                            let messages = stream::repeat_with(move || {
                                let _ = &guard;
                                Ok(Bytes::from(vec![7; 16 * 1024]))
                            });
                            Ok::<_, Status>(Response::new(Box::pin(messages) as Messages))
                        }
                    });
                    grpc.server_streaming(endless, request).await
                }
                "Quiet" => {
                    let quiet = service_fn(move |_: Request<Bytes>| {
                        let guard = Guard(events.clone());
                        async move {
                            let one = stream::iter([Ok(Bytes::from_static(b"one"))]);
                            let never = stream::poll_fn(move |_| {
                                let _ = &guard;
                                Poll::Pending
                            });
                            let messages = Box::pin(one.chain(never)) as Messages;
                            Ok::<_, Status>(Response::new(messages))
                        }
                    });
                    grpc.server_streaming(quiet, request).await
                }
                "Unread" => {
                    let unread = service_fn(move |request: Request<Streaming<Bytes>>| {
                        let guard = Guard(events.clone());
                        async move {
                            let kept = request.into_inner();
                            let messages = stream::poll_fn(move |_| {
                                let _ = (&guard, &kept);
                                Poll::Pending
                            });
                            Ok::<_, Status>(Response::new(Box::pin(messages) as Messages))
                        }
                    });
                    grpc.streaming(unread, request).await
                }
                "Chat" => {
                    let chat = service_fn(|request: Request<Streaming<Bytes>>| async {
                        let messages = request.into_inner();
                        Ok::<_, Status>(Response::new(Box::pin(messages) as Messages))
                    });
                    grpc.streaming(chat, request).await
                }
                "FailMidway" => {
                    let fail = service_fn(|_: Request<Bytes>| async {
                        let message = Ok(Bytes::from_static(b"one"));
                        let messages = stream::iter([message, Err(detailed())]);
                        Ok::<_, Status>(Response::new(Box::pin(messages) as Messages))
                    });
                    grpc.server_streaming(fail, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A status with all its fields set.
pub fn detailed() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.append("x-plain", "first".parse().unwrap());
    metadata.append("x-plain", "second".parse().unwrap());
    metadata.append_bin("x-blob-bin", MetadataValue::from_bytes(&[0, 255, 10]));
    Status::with_details_and_metadata(
        Code::FailedPrecondition,
        "not ☃ 100 %",
        Bytes::from_static(&[8, 9, 0, 255]),
        metadata,
    )
}

/// Starts the service. Returns its port, and its events.
pub async fn start() -> (u16, Events) {
    let (sender, events) = mpsc::unbounded_channel();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Server::builder()
        .add_service(Echo(sender))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (port, events)
}

/// A client of this service on one connection.
#[derive(Clone)]
pub struct Client(tonic::client::Grpc<Channel>);

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

impl Client {
    pub async fn connect(addr: std::net::SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{addr}")).unwrap();
        let channel = endpoint
            .connect_timeout(Duration::from_secs(10))
            .connect()
            .await
            .unwrap();
        let client = tonic::client::Grpc::new(channel);
        Self(client.max_decoding_message_size(usize::MAX))
    }

    pub async fn unary(
        &mut self,
        method: &str,
        message: impl tonic::IntoRequest<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.0.ready().await.unwrap();
        let request = message.into_request();
        self.0.unary(request, path(method), Raw).await
    }

    pub async fn collect(&mut self, messages: Vec<Bytes>) -> Result<Response<Bytes>, Status> {
        self.0.ready().await.unwrap();
        let request = Request::new(stream::iter(messages));
        self.0.client_streaming(request, path("Collect"), Raw).await
    }

    pub async fn repeat(
        &mut self,
        method: &str,
        message: Bytes,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.0.ready().await.unwrap();
        let request = Request::new(message);
        self.0.server_streaming(request, path(method), Raw).await
    }

    pub async fn chat(
        &mut self,
        method: &str,
        messages: mpsc::Receiver<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.0.ready().await.unwrap();
        let request = Request::new(ReceiverStream::new(messages));
        self.0.streaming(request, path(method), Raw).await
    }
}
