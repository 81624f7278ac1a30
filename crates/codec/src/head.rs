//! Heads: the opening messages and the heads of responses. Each protocol has a module.

mod grpc;
mod http;
mod open;
mod read;
mod session;
#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests;
mod websocket;
mod write;

use bytes::Bytes;

pub(crate) use self::{
    grpc::{GRPC_REQUEST_FIELD, GRPC_RESPONSE_FIELD},
    http::{HTTP_REQUEST_FIELD, HTTP_RESPONSE_FIELD},
    read::decode_trailers,
    session::{ACCEPTED_FIELD, TCP_OPEN_FIELD, UDP_OPEN_FIELD},
    websocket::{
        WEBSOCKET_FRAME_FIELD, WEBSOCKET_REQUEST_FIELD, WEBSOCKET_RESPONSE_FIELD, decode_frame,
    },
};
pub use self::{
    grpc::{GrpcRequest, GrpcRequestHead, GrpcResponse, GrpcResponseHead},
    http::{HttpRequest, HttpRequestHead, HttpResponse, HttpResponseHead},
    open::Open,
    session::{TcpOpen, TcpOpenHead, UdpOpen, UdpOpenHead, accepted},
    websocket::{
        WebSocketFrame, WebSocketRequest, WebSocketRequestHead, WebSocketResponse,
        WebSocketResponseHead,
    },
    write::EncodedHead,
};
use crate::id::ProtocolType;

/// The head of a request: one variant for each protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestHead {
    /// An HTTP exchange.
    Http(Box<HttpRequest>),
    /// A gRPC call.
    Grpc(Box<GrpcRequest>),
    /// A WebSocket connection.
    WebSocket(Box<WebSocketRequest>),
    /// A TCP connection.
    Tcp(Box<TcpOpen>),
    /// A UDP flow.
    Udp(Box<UdpOpen>),
}

impl RequestHead {
    /// The protocol of the request.
    pub const fn protocol(&self) -> ProtocolType {
        match self {
            Self::Http(_) => ProtocolType::Http,
            Self::Grpc(_) => ProtocolType::Grpc,
            Self::WebSocket(_) => ProtocolType::WebSocket,
            Self::Tcp(_) => ProtocolType::Tcp,
            Self::Udp(_) => ProtocolType::Udp,
        }
    }

    /// The opening part.
    pub fn open(&self) -> &Open {
        match self {
            Self::Http(head) => &head.open,
            Self::Grpc(head) => &head.open,
            Self::WebSocket(head) => &head.open,
            Self::Tcp(head) => &head.open,
            Self::Udp(head) => &head.open,
        }
    }

    /// The opening part, mutable.
    pub fn open_mut(&mut self) -> &mut Open {
        match self {
            Self::Http(head) => &mut head.open,
            Self::Grpc(head) => &mut head.open,
            Self::WebSocket(head) => &mut head.open,
            Self::Tcp(head) => &mut head.open,
            Self::Udp(head) => &mut head.open,
        }
    }

    /// The size of the payload in the head.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Http(head) => head.body.len(),
            Self::Grpc(head) => head.body.len(),
            Self::Tcp(head) => head.body.len(),
            Self::WebSocket(_) | Self::Udp(_) => 0,
        }
    }

    /// Takes the payload.
    pub fn take_body(&mut self) -> Bytes {
        match self {
            Self::Http(head) => std::mem::take(&mut head.body),
            Self::Grpc(head) => std::mem::take(&mut head.body),
            Self::Tcp(head) => std::mem::take(&mut head.body),
            Self::WebSocket(_) | Self::Udp(_) => Bytes::new(),
        }
    }
}

/// The head of a response: one variant for each protocol that has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseHead {
    /// The response of an HTTP exchange.
    Http(Box<HttpResponse>),
    /// The response of a gRPC call.
    Grpc(Box<GrpcResponse>),
    /// The response of a WebSocket connection.
    WebSocket(Box<WebSocketResponse>),
    /// The response of a TCP connection or a UDP flow: the service is connected.
    Accepted,
}

impl ResponseHead {
    /// Whether this head can respond to a request of the protocol.
    pub const fn responds_to(&self, protocol: ProtocolType) -> bool {
        matches!(
            (self, protocol),
            (Self::Http(_), ProtocolType::Http)
                | (Self::Grpc(_), ProtocolType::Grpc)
                | (Self::WebSocket(_), ProtocolType::WebSocket)
                | (Self::Accepted, ProtocolType::Tcp | ProtocolType::Udp)
        )
    }

    /// Whether payload may follow this head, and no other head: false for an interim response of HTTP, true for a
    /// switch to another protocol.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Http(head) => head.status >= 200 || head.status == 101,
            Self::Grpc(_) | Self::WebSocket(_) | Self::Accepted => true,
        }
    }

    /// The size of the payload in the head.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Http(head) => head.body.len(),
            Self::Grpc(head) => head.body.len(),
            Self::WebSocket(_) | Self::Accepted => 0,
        }
    }

    /// Takes the payload.
    pub fn take_body(&mut self) -> Bytes {
        match self {
            Self::Http(head) => std::mem::take(&mut head.body),
            Self::Grpc(head) => std::mem::take(&mut head.body),
            Self::WebSocket(_) | Self::Accepted => Bytes::new(),
        }
    }
}
