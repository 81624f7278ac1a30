//! Compressed payload in the mux: its cost, and the messages that may carry it (section 13).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use adit_codec::{
    Compressed, Compression, ProtocolType, RequestId, ResetCode, Side, WebSocketFrame,
};
use adit_flow::MESSAGE_COST;
use adit_mux::{Config, Event, SendError, Sendable};
use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::Bytes;
use support::{
    heads::{ALL, peer_opening},
    *,
};

const W: u64 = 32 * 1024;
const FRAME: WebSocketFrame = WebSocketFrame {
    fin: true,
    rsv: 0,
    opcode: 1,
    length: 5000,
};

fn id(value: u64) -> RequestId {
    RequestId::new(value)
}

const fn compressed(inflated_bytes: u32) -> Compressed {
    Compressed {
        by: Compression::Zstd,
        inflated_bytes,
    }
}

/// A chunk of `length` bytes that inflates to `inflated_bytes`.
fn packed(id: u64, length: usize, inflated_bytes: u32) -> TunnelMessage {
    TunnelMessage {
        inflated_bytes,
        compression: adit_proto::Compression::Zstd.into(),
        ..chunk(id, length, false)
    }
}

fn packed_frame(id: u64, length: usize, inflated_bytes: u32) -> TunnelMessage {
    let frame = adit_proto::WebSocketFrame {
        fin: true,
        rsv: 0,
        opcode: 1,
        length: 5000,
        payload: vec![b'x'; length].into(),
    };
    TunnelMessage {
        inflated_bytes,
        compression: adit_proto::Compression::Zstd.into(),
        ..message(id, false, Payload::WebsocketFrame(frame))
    }
}

fn with_request(protocol: ProtocolType) -> End {
    let mut end = End::new(Config::new(Side::Server));
    let events = end.feed([peer_opening(protocol, 1, b"", false)]);
    assert!(matches!(&events[..], [Event::Opened { .. }]));
    end
}

#[test]
fn p_13_4_received_compressed_payload_costs_its_decompressed_size() {
    let mut end = with_request(ProtocolType::Http);
    let rest = (W - 20_000 - 2 * MESSAGE_COST) as u32;
    let events = end.feed([packed(1, 10, 20_000), packed(1, 10, rest)]);
    let event = |inflated_bytes: u32| Event::Compressed {
        id: id(1),
        frame: None,
        compressed: compressed(inflated_bytes),
        data: vec![b'x'; 10].into(),
        cost: u64::from(inflated_bytes) + MESSAGE_COST,
        end: false,
    };
    assert_eq!(events, [event(20_000), event(rest)]);
    // The window is used up to the last byte.
    let past = Event::Reset {
        id: id(1),
        code: ResetCode::FlowControl,
        by_peer: false,
        reason: Bytes::new(),
        in_order: false,
    };
    assert_eq!(end.feed([chunk(1, 1, false)]), [past]);

    // Consumed payload is granted again by its inflated size.
    let mut end = with_request(ProtocolType::WebSocket);
    end.feed([packed_frame(1, 1, 5000), packed(1, 1, 16_000)]);
    end.mux.consume(id(1), 5000 + MESSAGE_COST);
    assert_eq!(end.sent(), []);
    end.mux.consume(id(1), 16_000 + MESSAGE_COST);
    let granted = W + 21_000 + 2 * MESSAGE_COST;
    let expected = format!("1 window {granted} {}", 21_000 + 2 * MESSAGE_COST);
    assert_eq!(outline(&end.sent()), [expected]);
}

#[test]
fn p_13_4_sent_compressed_payload_costs_its_decompressed_size() {
    let mut end = with_request(ProtocolType::WebSocket);
    let send = |end: &End, frame, inflated_bytes, last| {
        let data = Bytes::from_static(b"short");
        end.mux
            .send_compressed(id(1), frame, compressed(inflated_bytes), data, last)
    };
    let most = (W - MESSAGE_COST) as u32;
    let too_much = Err(SendError::NoCredit("short".into()));
    assert_eq!(send(&end, None, most + 1, false), too_much);
    send(&end, Some(FRAME), 5000, false).unwrap();
    assert_eq!(end.mux.stats().queued, 5000 + MESSAGE_COST);
    let left = (W - 5000 - 2 * MESSAGE_COST) as usize;
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Now(left)));
    assert_eq!(send(&end, None, left as u32 + 1, false), too_much);
    send(&end, None, left as u32, true).unwrap();
    assert_eq!(send(&end, None, 10, false), Err(SendError::Ended));
    let sent = end.sent();
    let outline = |message: &TunnelMessage| {
        let (by, end) = (message.compression(), message.end_stream);
        assert_eq!(by, adit_proto::Compression::Zstd);
        (message.inflated_bytes, end)
    };
    assert_eq!(
        [outline(&sent[0]), outline(&sent[1])],
        [(5000, false), (left as u32, true)]
    );
    let Some(Payload::WebsocketFrame(frame)) = &sent[0].payload else {
        panic!("no frame");
    };
    assert_eq!((frame.length, &frame.payload[..]), (5000, &b"short"[..]));
    assert_eq!(sent[1].payload, Some(Payload::Chunk("short".into())));
    assert_eq!((end.mux.stats().queued, sent.len()), (0, 2));
}

#[test]
fn p_13_2_nothing_longer_than_a_message_may_be_is_sent_compressed() {
    let mut config = Config::new(Side::Server);
    config.initial_window = 1 << 20;
    config.max_payload = 1 << 19;
    let mut end = End::new(config);
    end.feed([opening(1, b"", false)]);
    let send = |inflated_bytes| {
        let data = Bytes::from_static(b"x");
        end.mux
            .send_compressed(id(1), None, compressed(inflated_bytes), data, false)
    };
    assert_eq!(send(65_537), Err(SendError::NoCredit("x".into())));
    send(65_536).unwrap();
}

#[test]
fn p_13_2_a_wrong_announced_length_ends_that_request_only() {
    let mut end = with_request(ProtocolType::Tcp);
    for (n, message) in [
        packed(1, 10, 10),
        packed(3, 1, 65_537),
        packed_frame(5, 10, 5001),
        TunnelMessage {
            inflated_bytes: 9,
            ..plain_end(7)
        },
    ]
    .into_iter()
    .enumerate()
    {
        let of = message.request_id;
        let protocol = if of == 5 {
            ProtocolType::WebSocket
        } else {
            ProtocolType::Tcp
        };
        if of > 1 {
            end.feed([peer_opening(protocol, of, b"", false)]);
        }
        let reset = Event::Reset {
            id: id(of),
            code: ResetCode::ProtocolError,
            by_peer: false,
            reason: Bytes::new(),
            in_order: false,
        };
        assert_eq!(end.feed([message]), [reset]);
        assert_eq!(end.mux.stats().violations, 1 + n as u64);
    }
}

#[test]
fn p_2_4_compressed_payload_stands_where_its_kind_does() {
    for protocol in ALL {
        for (message, fits) in [
            (packed(1, 1, 9), protocol != ProtocolType::Udp),
            (packed_frame(1, 1, 9), protocol == ProtocolType::WebSocket),
        ] {
            let mut end = with_request(protocol);
            let events = end.feed([message]);
            assert_eq!(events.len(), 1);
            let taken = matches!(&events[0], Event::Compressed { .. });
            assert_eq!(taken, fits, "{protocol:?} {events:?}");
        }
    }
}

#[test]
fn p_2_7_the_end_stands_on_compressed_payload_too() {
    let mut end = with_request(ProtocolType::Tcp);
    let last = TunnelMessage {
        end_stream: true,
        ..packed(1, 1, 9)
    };
    let events = end.feed([last.clone(), last]);
    assert!(matches!(&events[0], Event::Compressed { end: true, .. }));
    assert!(matches!(&events[1], Event::Reset { .. }), "after the end");
}
