//! A client that registers as usual, and then sends arbitrary data on its data stream.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use adit_proto::{
    Control, Credential, Heartbeat, LANE_METADATA, PROTOCOL_VERSION, PROXY_PATH, RegisterRequest,
    RegisterResponse, SESSION_METADATA, TunnelMessage, Window, control, credential, tunnel_message,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::flood::Message;
use super::target::TOKEN;
use super::visitor::other;
use crate::services::grpc::grpc_message;

const REGISTER_PATH: &str = "/adit.tunnel.v1.TunnelService/Register";

/// The number of blocks that may wait to be written.
const BLOCKS: usize = 4;

impl Message {
    /// The encoding of the message on a data stream.
    pub(super) fn encode(self) -> Bytes {
        let payload = match self {
            Self::Empty => None,
            Self::Heartbeat => {
                let heartbeat = Heartbeat {
                    sequence: 7,
                    reply: false,
                };
                let kind = Some(control::Kind::Heartbeat(heartbeat));
                Some(tunnel_message::Payload::Control(Control { kind }))
            }
            Self::LateWindow => Some(tunnel_message::Payload::Window(Window {
                limit: 1 << 20,
                consumed: 0,
            })),
        };
        let message = TunnelMessage {
            request_id: u64::from(matches!(self, Self::LateWindow)),
            payload,
            ..TunnelMessage::default()
        };
        grpc_message(&message.encode_to_vec())
    }
}

type Sending = SendRequest<BoxBody<Bytes, io::Error>>;

/// A registered client.
pub(super) struct HostileClient {
    send: Sending,
    session: String,
    origin: String,
    connection: JoinHandle<()>,
}

impl Drop for HostileClient {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl HostileClient {
    /// Connects and registers.
    ///
    /// # Errors
    /// Returns an error when the server does not accept the client.
    pub(super) async fn connect(tunnel: SocketAddr, client_id: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(tunnel).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(other)?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut client = Self {
            send,
            session: String::new(),
            origin: format!("http://{tunnel}"),
            connection,
        };
        let register = RegisterRequest {
            protocol_version: PROTOCOL_VERSION,
            client_id: client_id.to_owned(),
            group_id: client_id.to_owned(),
            instance_secret: vec![7; 32].into(),
            credential: Some(Credential {
                kind: Some(credential::Kind::Token(TOKEN.to_owned())),
            }),
            lanes: 1,
            ..RegisterRequest::default()
        };
        let body = Full::new(grpc_message(&register.encode_to_vec()));
        let body = body.map_err(|never| match never {}).boxed();
        let response = client.call(REGISTER_PATH, body).await?.collect().await;
        let response = response.map_err(other)?.to_bytes();
        let message = response.get(5..).unwrap_or_default();
        client.session = RegisterResponse::decode(message).map_err(other)?.session;
        Ok(client)
    }

    /// Sends `block` on a data stream repeatedly, until the server ends the stream. Returns how many bytes were sent.
    ///
    /// # Errors
    /// Returns an error when the server has ended the connection.
    pub(super) async fn flood(
        mut self,
        block: Bytes,
        mut sent: impl FnMut(usize),
    ) -> io::Result<()> {
        let (blocks, waiting) = mpsc::channel(BLOCKS);
        let mut response = self.call(PROXY_PATH, Blocks(waiting).boxed()).await?;
        let sending = async {
            while blocks.send(block.clone()).await.is_ok() {
                sent(block.len());
            }
        };
        let reading = async { while let Some(Ok(_)) = response.frame().await {} };
        tokio::select! {
            () = sending => {}
            () = reading => {}
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    async fn call(&mut self, path: &str, body: BoxBody<Bytes, io::Error>) -> io::Result<Incoming> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.origin))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header("te", "trailers");
        if !self.session.is_empty() {
            request = request
                .header(SESSION_METADATA, &self.session)
                .header(LANE_METADATA, "0");
        }
        let request = request.body(body).map_err(other)?;
        self.send.ready().await.map_err(other)?;
        let response: Response<Incoming> = self.send.send_request(request).await.map_err(other)?;
        match response.headers().get("grpc-status") {
            Some(status) if status != "0" => Err(io::Error::other(format!(
                "refused: {:?}",
                response.headers()
            ))),
            _ => Ok(response.into_body()),
        }
    }
}

/// The blocks of a flood.
struct Blocks(mpsc::Receiver<Bytes>);

impl Body for Blocks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|block| block.map(|block| Ok(Frame::data(block))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_flood_are_what_a_data_stream_carries() {
        assert_eq!(Message::Empty.encode(), [0; 5][..]);
        for message in [Message::Heartbeat, Message::LateWindow] {
            let encoded = message.encode();
            let decoded = TunnelMessage::decode(&encoded[5..]).unwrap();
            assert!(decoded.payload.is_some(), "{message:?}");
        }
    }
}
