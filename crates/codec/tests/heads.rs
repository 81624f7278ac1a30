//! The properties that heads of all protocols share.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use adit_codec::{
    BadMessage, Decoder, EncodedHead, GrpcRequestHead, GrpcResponseHead, HeaderBlock,
    HttpRequestHead, HttpResponseHead, Open, Payload, ProtocolType, RequestHead, RequestId,
    ResetCode, ResponseHead, TcpOpenHead, UdpOpenHead, WebSocketFrame, WebSocketRequestHead,
    WebSocketResponseHead, accepted, write_head,
};
use bytes::{Bytes, BytesMut};

const PROTOCOLS: [ProtocolType; 5] = [
    ProtocolType::Http,
    ProtocolType::Grpc,
    ProtocolType::WebSocket,
    ProtocolType::Tcp,
    ProtocolType::Udp,
];

fn open() -> Open {
    Open {
        request_uuid: [3; 16],
        tunnel: "shop".into(),
        ..Open::default()
    }
}

/// The opening of each protocol, with a body if the protocol allows one.
fn request(protocol: ProtocolType, body: &[u8]) -> EncodedHead {
    let open = &open();
    let (authority, path, local) = (&b"a.example"[..], &b"/s/M"[..], "192.0.2.1:1");
    let none = std::iter::empty();
    match protocol {
        ProtocolType::Grpc => GrpcRequestHead {
            open,
            authority,
            path,
            timeout: None,
        }
        .encode(none, body),
        ProtocolType::WebSocket => WebSocketRequestHead {
            open,
            authority,
            path,
        }
        .encode(none),
        ProtocolType::Tcp => TcpOpenHead { open, local }.encode(body),
        ProtocolType::Udp => UdpOpenHead { open, local }.encode(),
        _ => HttpRequestHead {
            open,
            method: "POST",
            scheme: "http",
            authority,
            path,
        }
        .encode(none, body),
    }
    .unwrap()
}

fn response(protocol: ProtocolType, status: u16, body: &[u8]) -> EncodedHead {
    let none = std::iter::empty();
    match protocol {
        ProtocolType::Grpc => GrpcResponseHead { status }.encode(none, body).unwrap(),
        ProtocolType::WebSocket => WebSocketResponseHead { status }.encode(none).unwrap(),
        ProtocolType::Tcp | ProtocolType::Udp => accepted(protocol),
        _ => HttpResponseHead { status }.encode(none, body).unwrap(),
    }
}

fn read(head: &EncodedHead) -> Payload {
    let mut out = BytesMut::new();
    write_head(&mut out, RequestId::new(2), head, false);
    let mut decoder = Decoder::new();
    decoder.feed(out.freeze());
    decoder.next().unwrap().unwrap().payload
}

fn read_request(head: &EncodedHead) -> RequestHead {
    match read(head) {
        Payload::Request(head) => head,
        other => panic!("{other:?}"),
    }
}

fn read_response(head: &EncodedHead) -> ResponseHead {
    match read(head) {
        Payload::Response(head) => head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_head_has_protocol_opening_and_body() {
    for protocol in PROTOCOLS {
        let written = request(protocol, b"body");
        let mut head = read_request(&written);
        assert_eq!((head.protocol(), written.protocol()), (protocol, protocol));
        assert_eq!(head.open(), &open());
        let rides = !matches!(protocol, ProtocolType::WebSocket | ProtocolType::Udp);
        let body = if rides { "body" } else { "" };
        assert_eq!(head.body_bytes(), body.len(), "{protocol:?}");
        assert_eq!(written.body_bytes(), body.len(), "{protocol:?}");
        assert_eq!(head.take_body(), body);
        assert_eq!((head.body_bytes(), head.take_body()), (0, Bytes::new()));
    }
}

#[test]
fn a_response_head_has_body_and_finality() {
    for protocol in PROTOCOLS {
        let written = response(protocol, 200, b"body");
        let mut head = read_response(&written);
        assert_eq!(written.protocol(), protocol);
        assert!(head.is_final(), "{protocol:?}");
        let rides = matches!(protocol, ProtocolType::Http | ProtocolType::Grpc);
        let body = if rides { "body" } else { "" };
        assert_eq!(head.body_bytes(), body.len(), "{protocol:?}");
        assert_eq!(written.body_bytes(), body.len(), "{protocol:?}");
        assert_eq!(head.take_body(), body);
        assert_eq!((head.body_bytes(), head.take_body()), (0, Bytes::new()));
    }
    // P-3.1: an interim response of HTTP is not final; the switch to another protocol is.
    let switch = HttpResponseHead::encode_switch(b"tcp", std::iter::empty()).unwrap();
    let switch = read_response(&switch);
    assert!(switch.is_final());
    assert!(matches!(&switch, ResponseHead::Http(head) if head.upgrade == "tcp"));
    assert!(!read_response(&response(ProtocolType::Http, 100, b"")).is_final());
    assert!(read_response(&response(ProtocolType::WebSocket, 101, b"")).is_final());
}

#[test]
fn each_protocol_has_its_own_response() {
    for responded in PROTOCOLS {
        let head = read_response(&response(responded, 200, b""));
        for requested in PROTOCOLS {
            let accepted = [ProtocolType::Tcp, ProtocolType::Udp];
            let same = requested == responded
                || [requested, responded].iter().all(|p| accepted.contains(p));
            assert_eq!(
                head.responds_to(requested),
                same,
                "{responded:?} to {requested:?}"
            );
            assert_eq!(Payload::Response(head.clone()).fits(requested), same);
        }
        assert!(!head.responds_to(ProtocolType::Unspecified));
    }
}

#[test]
fn protocols_are_called_alike_in_configuration_logs_and_metrics() {
    let names = PROTOCOLS.map(ProtocolType::as_str);
    assert_eq!(names, ["http", "grpc", "websocket", "tcp", "udp"]);
}

#[test]
fn p_2_4_each_protocol_carries_its_own_messages_and_no_other() {
    use ProtocolType::{Grpc, Http, Tcp, Udp, WebSocket};
    let chunk = Payload::Chunk {
        data: Bytes::new(),
        first: true,
        last: true,
    };
    let frame = Payload::Frame {
        frame: WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 0,
        },
        data: Bytes::new(),
    };
    let window = Payload::Window {
        limit: 1,
        consumed: 0,
    };
    let reset = Payload::Reset {
        code: ResetCode::Cancelled,
        reason: Bytes::new(),
        in_order: false,
    };
    let cases = [
        (chunk, &[Http, Grpc, WebSocket, Tcp][..]),
        (frame, &[WebSocket]),
        (Payload::Datagram(Bytes::new()), &[Udp]),
        (Payload::Trailers(HeaderBlock::default()), &[Http, Grpc]),
        (Payload::None, &PROTOCOLS),
        (window, &PROTOCOLS),
        (Payload::StopSending(ResetCode::Cancelled), &PROTOCOLS),
        (reset, &PROTOCOLS),
        (read(&request(Http, b"")), &[]),
        (Payload::Control(Bytes::new()), &[]),
        (Payload::Bad(BadMessage::Frame), &[]),
    ];
    for (payload, carried_by) in cases {
        for protocol in PROTOCOLS {
            let carried = carried_by.contains(&protocol);
            assert_eq!(payload.fits(protocol), carried, "{payload:?} {protocol:?}");
        }
    }
}
