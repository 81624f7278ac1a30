//! Openings and responses of every protocol, of the peer and of this end.

use adit_codec::{
    EncodedHead, GrpcRequestHead, GrpcResponseHead, Open, ProtocolType, TcpOpenHead, UdpOpenHead,
    WebSocketRequestHead, WebSocketResponseHead, accepted,
};
use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::Bytes;

use super::{message, opening, request_head, response, response_head};

pub(crate) const ALL: [ProtocolType; 5] = [
    ProtocolType::Http,
    ProtocolType::Grpc,
    ProtocolType::WebSocket,
    ProtocolType::Tcp,
    ProtocolType::Udp,
];

/// The opening of a request by the peer, with a body if the protocol has one.
pub(crate) fn peer_opening(
    protocol: ProtocolType,
    id: u64,
    body: &[u8],
    end: bool,
) -> TunnelMessage {
    let open = Some(adit_proto::Open {
        request_uuid: Bytes::from_static(&[7; 16]),
        tunnel: "shop".into(),
        ..adit_proto::Open::default()
    });
    let body = Bytes::copy_from_slice(body);
    let payload = match protocol {
        ProtocolType::Grpc => Payload::GrpcRequest(adit_proto::GrpcRequest {
            open,
            path: "/s/M".into(),
            body,
            ..Default::default()
        }),
        ProtocolType::WebSocket => Payload::WebsocketRequest(adit_proto::WebSocketRequest {
            open,
            path: "/".into(),
            ..Default::default()
        }),
        ProtocolType::Tcp => Payload::TcpOpen(adit_proto::TcpOpen {
            open,
            body,
            ..Default::default()
        }),
        ProtocolType::Udp => Payload::UdpOpen(adit_proto::UdpOpen {
            open,
            ..Default::default()
        }),
        _ => return opening(id, &body, end),
    };
    message(id, end, payload)
}

/// The peer's response to a request; `status` is that of HTTP.
pub(crate) fn peer_response(
    protocol: ProtocolType,
    id: u64,
    status: u32,
    body: &[u8],
    end: bool,
) -> TunnelMessage {
    let payload = match protocol {
        ProtocolType::Grpc => Payload::GrpcResponse(adit_proto::GrpcResponse {
            body: Bytes::copy_from_slice(body),
            ..Default::default()
        }),
        ProtocolType::WebSocket => Payload::WebsocketResponse(adit_proto::WebSocketResponse {
            status: 101,
            headers: Vec::new(),
        }),
        ProtocolType::Tcp | ProtocolType::Udp => Payload::Accepted(adit_proto::Accepted {}),
        _ => return response(id, status, body, end),
    };
    message(id, end, payload)
}

/// The head with which this end opens a request.
pub(crate) fn own_opening(protocol: ProtocolType, body: &[u8]) -> EncodedHead {
    let open: &Open = &Open {
        request_uuid: [9; 16],
        tunnel: "shop".into(),
        ..Open::default()
    };
    let (authority, path) = (&b"shop.localhost"[..], &b"/s/M"[..]);
    let (local, none) = ("192.0.2.1:1", std::iter::empty());
    match protocol {
        ProtocolType::Grpc => {
            let timeout = None;
            let head = GrpcRequestHead {
                open,
                authority,
                path,
                timeout,
            };
            head.encode(none, body)
        }
        ProtocolType::WebSocket => WebSocketRequestHead {
            open,
            authority,
            path,
        }
        .encode(none),
        ProtocolType::Tcp => TcpOpenHead { open, local }.encode(body),
        ProtocolType::Udp => UdpOpenHead { open, local }.encode(),
        _ => return request_head(body),
    }
    .unwrap()
}

/// The head with which this end responds to a request.
pub(crate) fn own_response(protocol: ProtocolType, body: &[u8]) -> EncodedHead {
    let none = std::iter::empty();
    match protocol {
        ProtocolType::Grpc => GrpcResponseHead { status: 200 }.encode(none, body).unwrap(),
        ProtocolType::WebSocket => WebSocketResponseHead { status: 101 }.encode(none).unwrap(),
        ProtocolType::Tcp | ProtocolType::Udp => accepted(protocol),
        _ => response_head(200, body),
    }
}

pub(crate) fn peer_frame(id: u64, payload: usize, length: u64, end: bool) -> TunnelMessage {
    let frame = adit_proto::WebSocketFrame {
        fin: true,
        rsv: 4,
        opcode: 2,
        length,
        payload: vec![b'f'; payload].into(),
    };
    message(id, end, Payload::WebsocketFrame(frame))
}

/// The cost of a sent message on the wire, by P-4.1.
pub(crate) fn cost_of(message: &TunnelMessage) -> u64 {
    let body = |body: &Bytes| match body.len() as u64 {
        0 => 0,
        length => length + adit_flow::MESSAGE_COST,
    };
    match &message.payload {
        // Compressed payload costs its inflated size (P-13.4).
        Some(_) if message.inflated_bytes > 0 => {
            u64::from(message.inflated_bytes) + adit_flow::MESSAGE_COST
        }
        Some(Payload::Chunk(data)) => data.len() as u64 + adit_flow::MESSAGE_COST,
        Some(Payload::WebsocketFrame(frame)) => {
            frame.payload.len() as u64 + adit_flow::MESSAGE_COST
        }
        Some(Payload::HttpRequest(head)) => body(&head.body),
        Some(Payload::HttpResponse(head)) => body(&head.body),
        Some(Payload::GrpcRequest(head)) => body(&head.body),
        Some(Payload::GrpcResponse(head)) => body(&head.body),
        Some(Payload::TcpOpen(head)) => body(&head.body),
        _ => 0,
    }
}

pub(crate) fn opens(message: &TunnelMessage) -> bool {
    matches!(
        message.payload,
        Some(
            Payload::HttpRequest(_)
                | Payload::GrpcRequest(_)
                | Payload::WebsocketRequest(_)
                | Payload::TcpOpen(_)
                | Payload::UdpOpen(_)
        )
    )
}
