//! The private service of the protocol measurements: TCP, UDP, WebSocket and gRPC, each on a port of its own.
//!
//! Everything is echoed, but for a TCP connection that begins with a wish: `d` and a length gets as many bytes of the
//! pattern, `u` and a length is read to its end and answered with one byte, `e` is echoed. A WebSocket text `N` is
//! answered with N bytes in binary messages, and the gRPC method `/load/Send/N` answers N bytes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;

use crate::pattern::{PIECE, Pattern};

/// The payload of one message of a flood.
pub(crate) const FLOOD_MESSAGE: u64 = 16 * 1024;

/// Windows of HTTP/2 that never limit: what is measured is the tunnel.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;

/// Where each protocol is served; one line of JSON on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// Serves until it is ended.
///
/// # Errors
/// A port cannot be had.
pub(crate) async fn run() -> io::Result<()> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (tcp, websocket, grpc) = (listen().await?, listen().await?, listen().await?);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addresses = Addresses {
        tcp: tcp.local_addr()?,
        udp: udp.local_addr()?,
        websocket: websocket.local_addr()?,
        grpc: grpc.local_addr()?,
    };
    anstream::println!("{}", serde_json::to_string(&addresses)?);
    tokio::join!(
        accept(tcp, serve_tcp),
        accept(websocket, serve_websocket),
        accept(grpc, serve_grpc),
        serve_udp(udp),
    );
    Ok(())
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    loop {
        if let Ok((stream, _)) = listener.accept().await
            && stream.set_nodelay(true).is_ok()
        {
            tokio::spawn(serve(stream));
        }
    }
}

async fn serve_tcp(mut stream: TcpStream) -> Option<()> {
    let wish = stream.read_u8().await.ok()?;
    match wish {
        b'd' => {
            let wanted = stream.read_u64().await.ok()?;
            let mut offset = 0;
            while offset < wanted {
                let piece = Pattern::shared().piece(offset, (wanted - offset).min(64 * 1024));
                stream.write_all(piece).await.ok()?;
                offset += piece.len() as u64;
            }
            stream.shutdown().await.ok()
        }
        b'u' => {
            let mut left = stream.read_u64().await.ok()?;
            let mut buffer = vec![0; PIECE];
            while left > 0 {
                let read = stream.read(&mut buffer).await.ok()? as u64;
                left = left.checked_sub(read).filter(|_| read > 0)?;
            }
            stream.write_u8(1).await.ok()
        }
        _ => {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = stream.read(&mut buffer).await.ok()?;
                if read == 0 {
                    return stream.shutdown().await.ok();
                }
                stream.write_all(&buffer[..read]).await.ok()?;
            }
        }
    }
}

async fn serve_udp(socket: UdpSocket) {
    let mut datagram = vec![0; 65_536];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.try_send_to(&datagram[..length], from);
        }
    }
}

async fn serve_websocket(stream: TcpStream) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(_) => socket.send(message).await.ok()?,
            Message::Text(length) => {
                let wanted: u64 = length.parse().ok()?;
                let mut offset = 0;
                while offset < wanted {
                    let length = (wanted - offset).min(FLOOD_MESSAGE);
                    let piece = Pattern::shared().piece(offset, length);
                    socket.send(Message::binary(piece.to_vec())).await.ok()?;
                    offset += length;
                }
            }
            _ => {}
        }
    }
    Some(())
}

async fn serve_grpc(stream: TcpStream) -> Option<()> {
    let calls = service_fn(async |request: Request<Incoming>| {
        let wanted = request.uri().path().strip_prefix("/load/Send/");
        let wanted = wanted.and_then(|length| length.parse().ok());
        let body = match wanted {
            Some(wanted) => Answer::Send { wanted, offset: 0 },
            None => Answer::Echo(request.into_body()),
        };
        let mut answer = Response::new(body);
        let grpc = HeaderValue::from_static("application/grpc");
        answer.headers_mut().insert(CONTENT_TYPE, grpc);
        Ok::<_, Infallible>(answer)
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(10_000)
        .serve_connection(TokioIo::new(stream), calls)
        .await
        .ok()
}

/// One gRPC message: no compression, its length, its bytes.
pub(crate) fn grpc_message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}

/// The body of a gRPC answer.
enum Answer {
    /// What comes goes back.
    Echo(Incoming),
    /// Messages of the pattern.
    Send { wanted: u64, offset: u64 },
    /// The trailers have gone.
    Ended,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = match &mut *self {
            Self::Ended => return Poll::Ready(None),
            Self::Echo(request) => loop {
                match ready!(Pin::new(&mut *request).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break Some(data);
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => break None,
                }
            },
            Self::Send { wanted, offset } if *offset < *wanted => {
                let piece =
                    Pattern::shared().piece(*offset, (*wanted - *offset).min(FLOOD_MESSAGE));
                *offset += piece.len() as u64;
                Some(grpc_message(piece))
            }
            Self::Send { .. } => None,
        };
        Poll::Ready(Some(Ok(match next {
            Some(data) => Frame::data(data),
            None => {
                *self = Self::Ended;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
        })))
    }
}
