//! Visitors of one protocol each: small echoed messages, many in progress at a time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::services::grpc::{CONNECTION_WINDOW, STREAM_WINDOW, grpc_message};

/// The protocol of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    WebSocket,
    Grpc,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::WebSocket, Self::Grpc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::WebSocket => "websocket",
            Self::Grpc => "grpc",
        }
    }
}

/// The addresses at which a target accepts visitors, and the hosts of its tunnels.
#[derive(Debug, Clone)]
pub(crate) struct Entries {
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// The HTTP entry for floods.
    pub(crate) flood_http: SocketAddr,
    /// The WebSocket entry for floods.
    pub(crate) flood_websocket: SocketAddr,
    /// The address to which clients of adit connect, if the target has one.
    pub(crate) tunnel: Option<SocketAddr>,
}

/// The host of the HTTP tunnel.
pub(crate) const HTTP_HOST: &str = "web.localhost";

/// The host of the WebSocket tunnel.
pub(crate) const WEBSOCKET_HOST: &str = "ws.localhost";

/// The host of the HTTP tunnel of floods.
pub(crate) const FLOOD_HTTP_HOST: &str = "flood.localhost";

/// The host of the WebSocket tunnel of floods.
pub(crate) const FLOOD_WEBSOCKET_HOST: &str = "floodws.localhost";

/// The host of the gRPC tunnel.
pub(crate) const GRPC_HOST: &str = "rpc.localhost";

pub(crate) fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The sending half of a conversation.
pub(crate) enum Sender {
    Tcp(OwnedWriteHalf),
    Udp(std::sync::Arc<UdpSocket>),
    WebSocket(SplitSink<WebSocketStream<TcpStream>, Message>),
    Grpc(mpsc::Sender<Bytes>),
}

/// The receiving half of a conversation.
pub(crate) enum Receiver {
    Tcp(OwnedReadHalf, Vec<u8>),
    Udp(std::sync::Arc<UdpSocket>, Vec<u8>),
    WebSocket(SplitStream<WebSocketStream<TcpStream>>),
    Grpc {
        response: Incoming,
        have: BytesMut,
        _connection: Connection,
    },
}

/// The task of a connection; dropping it aborts the task.
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a conversation whose messages are echoed and have the length of `message`.
///
/// # Errors
/// Returns an error when the conversation cannot be started.
pub(crate) async fn converse(
    protocol: Protocol,
    entries: &Entries,
    message: usize,
) -> io::Result<(Sender, Receiver)> {
    match protocol {
        Protocol::Tcp => {
            let mut stream = TcpStream::connect(entries.tcp).await?;
            stream.set_nodelay(true)?;
            stream.write_u8(b'e').await?;
            let (read, write) = stream.into_split();
            Ok((Sender::Tcp(write), Receiver::Tcp(read, vec![0; message])))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            socket.connect(entries.udp).await?;
            let socket = std::sync::Arc::new(socket);
            let buffer = vec![0; 65_536];
            Ok((Sender::Udp(socket.clone()), Receiver::Udp(socket, buffer)))
        }
        Protocol::WebSocket => {
            let (sink, stream) = websocket(entries.websocket).await?.split();
            Ok((Sender::WebSocket(sink), Receiver::WebSocket(stream)))
        }
        Protocol::Grpc => {
            let (sender, receiver) = mpsc::channel(256);
            let (response, connection) = call(entries.grpc, "/load/Echo", receiver).await?;
            let receiver = Receiver::Grpc {
                response,
                have: BytesMut::new(),
                _connection: connection,
            };
            Ok((Sender::Grpc(sender), receiver))
        }
    }
}

/// Opens a WebSocket.
///
/// # Errors
/// Returns an error when the WebSocket cannot be opened.
pub(crate) async fn websocket(addr: SocketAddr) -> io::Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let opened = tokio_tungstenite::client_async(format!("ws://{WEBSOCKET_HOST}/"), stream).await;
    opened.map(|(socket, _)| socket).map_err(other)
}

/// Starts a call on a new connection; returns the body of its response.
///
/// # Errors
/// Returns an error when the connection fails, or when the response has a status other than 200.
pub(crate) async fn call(
    addr: SocketAddr,
    path: &str,
    messages: mpsc::Receiver<Bytes>,
) -> io::Result<(Incoming, Connection)> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(other)?;
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{GRPC_HOST}{path}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header("te", "trailers")
        .body(Messages(messages))
        .map_err(other)?;
    let response = send.send_request(request).await.map_err(other)?;
    if response.status() != 200 || response.headers().contains_key("grpc-status") {
        return Err(io::Error::other(format!(
            "unexpected response head: {:?}",
            response.headers()
        )));
    }
    Ok((response.into_body(), connection))
}

/// The request messages of a call.
struct Messages(mpsc::Receiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

impl Sender {
    /// # Errors
    ///
    /// Returns an error when the conversation is over.
    pub(crate) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(write) => write.write_all(message).await,
            Self::Udp(socket) => socket.send(message).await.map(drop),
            Self::WebSocket(sink) => sink
                .send(Message::binary(message.to_vec()))
                .await
                .map_err(other),
            Self::Grpc(sender) => sender.send(grpc_message(message)).await.map_err(other),
        }
    }
}

impl Receiver {
    /// Receives the next message; returns whether it equals `expected`.
    ///
    /// # Errors
    /// Returns an error when the conversation is over.
    ///
    /// # Cancel safety
    /// Yes for UDP and WebSocket; with other protocols, part of a message may be lost.
    pub(crate) async fn receive(&mut self, expected: &[u8]) -> io::Result<bool> {
        let over = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match self {
            Self::Tcp(read, buffer) => {
                buffer.resize(expected.len(), 0);
                read.read_exact(buffer).await?;
                Ok(buffer == expected)
            }
            Self::Udp(socket, buffer) => {
                let length = socket.recv(buffer).await?;
                Ok(buffer.get(..length) == Some(expected))
            }
            Self::WebSocket(stream) => loop {
                match stream.next().await.ok_or_else(over)?.map_err(other)? {
                    Message::Binary(data) => return Ok(data == expected),
                    Message::Close(_) => return Err(over()),
                    _ => {}
                }
            },
            Self::Grpc { response, have, .. } => {
                let wanted = 5 + expected.len();
                while have.len() < wanted {
                    let frame = response.frame().await.ok_or_else(over)?.map_err(other)?;
                    have.extend_from_slice(&frame.into_data().map_err(|_| over())?);
                }
                let mut message = have.split_to(wanted);
                message.advance(5);
                Ok(message == expected)
            }
        }
    }
}
