//! The differences between protocols: which messages their requests may carry, WebSocket frames and UDP datagrams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use adit_codec::{
    EncodedHead, GrpcRequestHead, Open, ProtocolType, RequestId, ResetCode, Side, TcpOpenHead,
    UdpOpenHead, WebSocketFrame, WebSocketRequestHead, accepted,
};
use adit_flow::MESSAGE_COST;
use adit_mux::{Config, Event, SendError, Sendable};
use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::Bytes;
use support::*;

const W: u64 = 32 * 1024;
const PROTOCOLS: [ProtocolType; 5] = [
    ProtocolType::Http,
    ProtocolType::Grpc,
    ProtocolType::WebSocket,
    ProtocolType::Tcp,
    ProtocolType::Udp,
];
const FRAME: WebSocketFrame = WebSocketFrame {
    fin: true,
    rsv: 4,
    opcode: 2,
    length: 5,
};

fn id(value: u64) -> RequestId {
    RequestId::new(value)
}

/// The opening of a request by the peer.
fn opening_of(protocol: ProtocolType, id: u64) -> TunnelMessage {
    let open = Some(adit_proto::Open {
        request_uuid: Bytes::from_static(&[7; 16]),
        tunnel: "shop".into(),
        ..adit_proto::Open::default()
    });
    let payload = match protocol {
        ProtocolType::Grpc => Payload::GrpcRequest(adit_proto::GrpcRequest {
            open,
            path: "/s/M".into(),
            ..Default::default()
        }),
        ProtocolType::WebSocket => Payload::WebsocketRequest(adit_proto::WebSocketRequest {
            open,
            path: "/".into(),
            ..Default::default()
        }),
        ProtocolType::Tcp => Payload::TcpOpen(adit_proto::TcpOpen {
            open,
            ..Default::default()
        }),
        ProtocolType::Udp => Payload::UdpOpen(adit_proto::UdpOpen {
            open,
            ..Default::default()
        }),
        _ => return opening(id, b"", false),
    };
    message(id, false, payload)
}

/// The head with which this end opens a request.
fn head_of(protocol: ProtocolType) -> EncodedHead {
    let open: &Open = &Open {
        request_uuid: [9; 16],
        tunnel: "shop".into(),
        ..Open::default()
    };
    let (authority, path) = (&b"shop.localhost"[..], &b"/s/M"[..]);
    let local = "0.0.0.0:1";
    match protocol {
        ProtocolType::Grpc => GrpcRequestHead {
            open,
            authority,
            path,
            timeout: None,
        }
        .encode(std::iter::empty(), b""),
        ProtocolType::WebSocket => WebSocketRequestHead {
            open,
            authority,
            path,
        }
        .encode(std::iter::empty()),
        ProtocolType::Tcp => TcpOpenHead { open, local }.encode(b""),
        ProtocolType::Udp => UdpOpenHead { open, local }.encode(),
        _ => return request_head(b""),
    }
    .unwrap()
}

/// The peer's response to a request.
fn response_of(protocol: ProtocolType, id: u64) -> TunnelMessage {
    let payload = match protocol {
        ProtocolType::Grpc => Payload::GrpcResponse(Default::default()),
        ProtocolType::WebSocket => Payload::WebsocketResponse(adit_proto::WebSocketResponse {
            status: 101,
            headers: Vec::new(),
        }),
        ProtocolType::Tcp | ProtocolType::Udp => Payload::Accepted(adit_proto::Accepted {}),
        _ => return response(id, 200, b"", false),
    };
    message(id, false, payload)
}

fn frame(id: u64, payload: &'static [u8], length: u64, end: bool) -> TunnelMessage {
    let frame = adit_proto::WebSocketFrame {
        fin: true,
        rsv: 4,
        opcode: 2,
        length,
        payload: payload.into(),
    };
    message(id, end, Payload::WebsocketFrame(frame))
}

fn datagram(id: u64, data: &[u8], end: bool) -> TunnelMessage {
    message(id, end, Payload::Datagram(Bytes::copy_from_slice(data)))
}

fn reset_event(value: u64, code: ResetCode) -> Event {
    Event::Reset {
        id: id(value),
        code,
        by_peer: false,
        reason: Bytes::new(),
        in_order: false,
    }
}

/// A server end on which the client has opened request 1.
fn with_request(protocol: ProtocolType) -> End {
    with_config(Config::new(Side::Server), protocol)
}

fn with_config(config: Config, protocol: ProtocolType) -> End {
    let mut end = End::new(config);
    let events = end.feed([opening_of(protocol, 1)]);
    let [
        Event::Opened {
            head, end: false, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(head.protocol(), protocol);
    end
}

#[test]
fn p_2_4_a_foreign_payload_ends_that_request_only() {
    use ProtocolType::{Grpc, Http, Tcp, Udp, WebSocket};
    let cases = [
        (chunk(1, 3, false), &[Http, Grpc, WebSocket, Tcp][..]),
        (frame(1, b"abc", 3, false), &[WebSocket]),
        (datagram(1, b"abc", false), &[Udp]),
        (trailers(1), &[Http, Grpc]),
        (plain_end(1), &PROTOCOLS),
        (window(1, W + 1, 0), &PROTOCOLS),
        (stop(1), &PROTOCOLS),
        (opening(1, b"", false), &[]),
        (response(1, 200, b"", false), &[]),
    ];
    for (message, carried_by) in cases {
        for protocol in PROTOCOLS {
            let mut end = with_request(protocol);
            let events = end.feed([message.clone(), opening(3, b"", true)]);
            let out_of_place = reset_event(1, ResetCode::ProtocolError);
            let carried = !events.contains(&out_of_place);
            assert_eq!(
                carried,
                carried_by.contains(&protocol),
                "{message:?} {protocol:?}"
            );
            assert!(matches!(events.last(), Some(Event::Opened { .. })));
            assert_eq!(end.mux.stats().violations, u64::from(!carried));
        }
    }
}

#[test]
fn p_2_4_each_protocol_has_its_own_response() {
    for requested in PROTOCOLS {
        for responded in PROTOCOLS {
            let mut end = End::server();
            let own = end.mux.open(head_of(requested), false, |_| true).unwrap();
            assert_eq!((own, end.sent().len()), (Some(id(2)), 1));
            let events = end.feed([response_of(responded, 2)]);
            let same = |protocol| match protocol {
                ProtocolType::Udp => ProtocolType::Tcp,
                other => other,
            };
            if same(requested) == same(responded) {
                assert!(matches!(&events[..], [Event::Response { end: false, .. }]));
                // Only one final response is allowed.
                let again = end.feed([response_of(responded, 2)]);
                let expected = reset_event(2, ResetCode::ProtocolError);
                assert_eq!(again, [expected]);
            } else {
                let expected = reset_event(2, ResetCode::ProtocolError);
                assert_eq!(events, [expected], "{requested:?} {responded:?}");
            }
        }
    }
}

// 9. WebSocket

#[test]
fn p_9_3_a_frame_crosses_unchanged_before_the_rest_of_its_payload() {
    let mut end = with_request(ProtocolType::WebSocket);
    let events = end.feed([
        frame(1, b"abc", 5, false),
        chunk(1, 2, false),
        frame(1, b"", 0, true),
    ]);
    let of = |length| WebSocketFrame { length, ..FRAME };
    let expected = [
        Event::Frame {
            id: id(1),
            frame: of(5),
            data: "abc".into(),
            cost: 3 + MESSAGE_COST,
            end: false,
        },
        Event::Data {
            id: id(1),
            data: "xx".into(),
            cost: 2 + MESSAGE_COST,
            end: false,
        },
        Event::Frame {
            id: id(1),
            frame: of(0),
            data: Bytes::new(),
            cost: MESSAGE_COST,
            end: true,
        },
    ];
    assert_eq!(events, expected);

    end.mux
        .send_frame(id(1), of(5), "abc".into(), false)
        .unwrap();
    end.mux.send(id(1), "de".into(), false).unwrap();
    end.mux
        .send_frame(id(1), of(0), Bytes::new(), true)
        .unwrap();
    let refused = end.mux.send_frame(id(1), of(0), "x".into(), false);
    assert_eq!(refused, Err(SendError::Ended));
    let sent = end.sent();
    assert_eq!(sent[0].payload, frame(1, b"abc", 5, false).payload);
    assert_eq!(sent[1].payload, Some(Payload::Chunk("de".into())));
    assert_eq!(sent[2].payload, frame(1, b"", 0, true).payload);
    let ends: Vec<bool> = sent.iter().map(|message| message.end_stream).collect();
    assert_eq!(ends, [false, false, true]);
    let gone = end.mux.send_frame(id(99), of(0), Bytes::new(), false);
    assert_eq!(gone, Err(SendError::Gone));
}

#[test]
fn p_9_5_frames_cost_credit_and_empty_ones_too() {
    let mut end = with_request(ProtocolType::WebSocket);
    let empty = W / MESSAGE_COST;
    let events = end.feed((0..empty).map(|_| frame(1, b"", 0, false)));
    assert_eq!(events.len() as u64, empty);
    let past = reset_event(1, ResetCode::FlowControl);
    assert_eq!(end.feed([frame(1, b"", 0, false)]), [past]);

    // This end stays within its credit too, and returns a payload that it may not send.
    let mut end = with_request(ProtocolType::WebSocket);
    let most = end.mux.sendable(id(1)).unwrap();
    let most = match most {
        Sendable::Now(bytes) => bytes,
        Sendable::Later => panic!("nothing has been sent"),
    };
    assert_eq!(most as u64, W - MESSAGE_COST);
    let send = |length: usize| {
        let data = Bytes::from(vec![0; length]);
        end.mux.send_frame(id(1), FRAME, data, false)
    };
    let Err(SendError::NoCredit(back)) = send(most + 1) else {
        panic!("more than may be sent");
    };
    assert_eq!(back.len(), most + 1);
    send(most - MESSAGE_COST as usize).unwrap();
    assert_eq!(end.mux.stats().queued, W - MESSAGE_COST);
    send(0).unwrap();
    assert_eq!(send(0), Err(SendError::NoCredit(Bytes::new())));
    assert_eq!(end.sent().len(), 2);
}

#[test]
fn p_2_1_frames_and_datagrams_stay_below_the_longest_payload() {
    let mut config = Config::new(Side::Server);
    config.max_payload = 100;
    let (fits, too_long) = (Bytes::from(vec![0; 100]), Bytes::from(vec![0; 101]));
    let refused = Err(SendError::NoCredit(too_long.clone()));
    let end = with_config(config.clone(), ProtocolType::WebSocket);
    let sent = end.mux.send_frame(id(1), FRAME, too_long.clone(), false);
    assert_eq!(sent, refused);
    end.mux
        .send_frame(id(1), FRAME, fits.clone(), false)
        .unwrap();
    let end = with_config(config, ProtocolType::Udp);
    assert_eq!(end.mux.send_datagram(id(1), too_long), refused);
    end.mux.send_datagram(id(1), fits).unwrap();
}

#[test]
fn p_2_9_a_reset_after_a_frame_or_datagram_is_allowed() {
    let mut config = Config::new(Side::Server);
    config.max_resets_per_tick = 0;
    let mut end = with_config(config.clone(), ProtocolType::WebSocket);
    end.mux.send_frame(id(1), FRAME, "x".into(), false).unwrap();
    assert_eq!(end.feed([reset(1)]).len(), 1);
    let mut end = with_config(config, ProtocolType::Udp);
    end.mux.send_datagram(id(1), "x".into()).unwrap();
    assert_eq!(end.feed([reset(1)]).len(), 1);
}

// 11. UDP

#[test]
fn p_11_1_datagrams_cross_both_ways_before_the_response() {
    let mut end = with_request(ProtocolType::Udp);
    let events = end.feed([datagram(1, b"", false), datagram(1, b"last", true)]);
    let expected = [(&b""[..], false), (b"last", true)].map(|(data, end)| Event::Datagram {
        id: id(1),
        data: data.into(),
        end,
    });
    assert_eq!(events, expected);
    // The datagrams are sent after the head, in order, and the end after them.
    end.mux
        .respond(id(1), accepted(ProtocolType::Udp), false)
        .unwrap();
    for data in ["one", "", "two"] {
        end.mux.send_datagram(id(1), data.into()).unwrap();
    }
    end.mux.send(id(1), Bytes::new(), true).unwrap();
    assert_eq!(
        end.mux.send_datagram(id(1), "late".into()),
        Err(SendError::Ended)
    );
    let sent = end.sent();
    assert_eq!(
        sent[0].payload,
        Some(Payload::Accepted(adit_proto::Accepted {}))
    );
    assert_eq!(
        sent[1..4],
        ["one", "", "two"].map(|data| datagram_sent(1, data))
    );
    assert_eq!(outline(&sent[4..]), ["1 end."]);
    assert_eq!((end.mux.stats().open, end.mux.stats().queued), (0, 0));
    assert_eq!(
        end.mux.send_datagram(id(1), "x".into()),
        Err(SendError::Gone)
    );
}

#[test]
fn p_11_1_datagrams_may_come_before_the_response_but_not_an_end() {
    let mut end = End::server();
    for own in [2, 4] {
        let opened = end.mux.open(head_of(ProtocolType::Udp), false, |_| true);
        assert_eq!((opened, end.sent().len()), (Ok(Some(id(own))), 1));
        let events = end.feed([datagram(own, b"early", false)]);
        assert!(matches!(&events[..], [Event::Datagram { end: false, .. }]));
    }
    let events = end.feed([
        response_of(ProtocolType::Udp, 2),
        datagram(2, b"last", true),
    ]);
    assert!(matches!(
        &events[..],
        [Event::Response { .. }, Event::Datagram { end: true, .. }]
    ));
    let expected = reset_event(4, ResetCode::ProtocolError);
    assert_eq!(end.feed([datagram(4, b"last", true)]), [expected]);
}

fn datagram_sent(id: u64, data: &str) -> TunnelMessage {
    TunnelMessage {
        message_type: adit_proto::MessageType::Datagram.into(),
        ..datagram(id, data.as_bytes(), false)
    }
}

#[test]
fn p_11_2_datagrams_have_no_credit() {
    let mut end = with_request(ProtocolType::Udp);
    let long = vec![0; 40_000];
    for _ in 0..10 {
        let events = end.feed([datagram(1, &long, false)]);
        assert!(matches!(&events[..], [Event::Datagram { .. }]));
        end.mux.send_datagram(id(1), long.clone().into()).unwrap();
        assert_eq!(end.sent().len(), 1);
    }
    assert_eq!(end.mux.stats().windows_sent, 0);
}

#[test]
fn p_11_3_the_oldest_waiting_datagrams_are_dropped_and_counted() {
    let mut config = Config::new(Side::Server);
    config.max_queued_datagrams = 4 * (10 + MESSAGE_COST);
    let waiting = |end: &mut End, id: u64| -> Vec<u8> {
        let number = |message: TunnelMessage| match message.payload {
            Some(Payload::Datagram(data)) if message.request_id == id => Some(data[0]),
            _ => None,
        };
        end.sent().into_iter().filter_map(number).collect()
    };
    // Once while the head waits to be sent, and once after it has been sent.
    for head_has_left in [false, true] {
        let mut end = with_config(config.clone(), ProtocolType::Udp);
        let flow = end.mux.open(head_of(ProtocolType::Udp), false, |_| true);
        let flow = flow.unwrap().unwrap();
        if head_has_left {
            assert_eq!(end.sent().len(), 1);
        }
        end.mux
            .send_datagram(id(1), Bytes::from(vec![77; 10]))
            .unwrap();
        for n in 0..4 {
            end.mux
                .send_datagram(flow, Bytes::from(vec![n; 10]))
                .unwrap();
        }
        assert_eq!(end.mux.stats().datagrams_dropped, 0);
        for n in 4..6 {
            end.mux
                .send_datagram(flow, Bytes::from(vec![n; 10]))
                .unwrap();
        }
        let stats = end.mux.stats();
        assert_eq!(stats.datagrams_dropped, 2);
        assert_eq!(stats.queued, 5 * (10 + MESSAGE_COST));
        // A shorter datagram makes as much room as it needs, a longer one more.
        end.mux
            .send_datagram(flow, Bytes::from(vec![6; 1]))
            .unwrap();
        assert_eq!(end.mux.stats().datagrams_dropped, 3);
        end.mux
            .send_datagram(flow, Bytes::from(vec![7; 52]))
            .unwrap();
        assert_eq!(end.mux.stats().datagrams_dropped, 5);
        assert_eq!(waiting(&mut end, flow.value()), [5, 6, 7]);
        assert_eq!(end.mux.stats().queued, 0);
        // A datagram that costs more than the bound is queued alone.
        for n in 8..11 {
            end.mux
                .send_datagram(flow, Bytes::from(vec![n; 1000]))
                .unwrap();
        }
        assert_eq!(end.mux.stats().datagrams_dropped, 7);
        assert_eq!(waiting(&mut end, flow.value()), [10]);
    }
}

#[test]
fn p_11_3_a_full_lane_drops_datagrams_of_flows_with_a_queue() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 5 * (10 + MESSAGE_COST);
    let mut end = with_config(config, ProtocolType::Udp);
    let quiet: Vec<u64> = (0..7).map(|n| 3 + 2 * n).collect();
    let opened = quiet.iter().map(|id| opening_of(ProtocolType::Udp, *id));
    end.feed(opened);
    let send = |end: &End, flow: u64, n: u8| {
        let data = Bytes::from(vec![n; 10]);
        end.mux.send_datagram(id(flow), data).unwrap();
        end.mux.stats().datagrams_dropped
    };
    for n in 0..5 {
        assert_eq!(send(&end, 1, n), 0);
    }
    assert_eq!(send(&end, 1, 5), 1);
    // A flow with nothing queued may add one datagram, up to twice the bound.
    for flow in &quiet[..5] {
        assert_eq!(send(&end, *flow, 0), 1);
    }
    assert_eq!(send(&end, quiet[0], 1), 2);
    // Above that, the new datagram is dropped.
    assert_eq!(send(&end, quiet[5], 0), 3);
    assert_eq!(send(&end, quiet[6], 0), 4);
    let stats = end.mux.stats();
    assert_eq!(stats.queued, 10 * (10 + MESSAGE_COST));
    let mut sent: Vec<_> = end
        .sent()
        .into_iter()
        .map(|message| match message.payload {
            Some(Payload::Datagram(data)) => (message.request_id, data[0]),
            other => panic!("{other:?}"),
        })
        .collect();
    sent.sort_unstable();
    let bulk = (1..=5).map(|n| (1, n));
    let expected: Vec<_> = bulk
        .chain([(quiet[0], 1)])
        .chain(quiet[1..5].iter().map(|flow| (*flow, 0)))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(send(&end, 1, 9), 4);
}

/// A server end with a flow (1) and two connections (3 and 5), where at most five short messages may wait.
fn with_little_room() -> End {
    let mut config = Config::new(Side::Server);
    config.max_queued = 5 * (10 + MESSAGE_COST);
    config.max_batch = 1;
    let mut end = with_config(config, ProtocolType::Udp);
    let events = end.feed([3, 5].map(|id| opening_of(ProtocolType::Tcp, id)));
    assert_eq!(events.len(), 2);
    end
}

fn flood(end: &End, flow: RequestId) {
    for _ in 0..5 {
        end.mux
            .send_datagram(flow, Bytes::from(vec![0; 10]))
            .unwrap();
    }
}

#[test]
fn p_11_2_flooded_datagrams_and_payload_do_not_starve_each_other() {
    let end = with_little_room();
    flood(&end, id(1));
    assert!(matches!(end.mux.sendable(id(3)), Ok(Sendable::Now(_))));
    let end = with_little_room();
    end.mux.send(id(3), vec![0; 1000].into(), false).unwrap();
    flood(&end, id(1));
    assert_eq!(end.mux.stats().datagrams_dropped, 0);
}

#[test]
fn p_11_2_a_blocked_sender_resumes_while_datagrams_wait() {
    let end = with_little_room();
    end.mux.send(id(3), vec![0; 2600].into(), false).unwrap();
    flood(&end, id(1));
    assert_eq!(end.mux.sendable(id(5)), Ok(Sendable::Later));
    // A batch is one message here, and the first one is of connection 3.
    assert_eq!(end.transmit().unwrap().writable, [id(5)]);
    assert_eq!(end.mux.stats().queued, 5 * (10 + MESSAGE_COST));
}

#[test]
fn p_11_3_an_ended_flow_frees_the_room_of_its_datagrams() {
    let mut end = with_little_room();
    flood(&end, id(1));
    end.feed([reset(1)]);
    // The head of this flow has not been sent, so its datagrams are held.
    let own = end.mux.open(head_of(ProtocolType::Udp), false, |_| true);
    let own = own.unwrap().unwrap();
    flood(&end, own);
    end.mux.reset(own, ResetCode::Cancelled, "");
    end.feed([opening_of(ProtocolType::Udp, 7)]);
    flood(&end, id(7));
    assert_eq!(end.mux.stats().datagrams_dropped, 0);
    end.mux.send_datagram(id(7), "x".into()).unwrap();
    assert_eq!(end.mux.stats().datagrams_dropped, 1);
    // Sent datagrams free their room as well.
    end.sent();
    flood(&end, id(7));
    assert_eq!(end.mux.stats().datagrams_dropped, 1);
}

/// Regression: a datagram of the accepting side, ahead of its `Accepted`, ended the flow.
#[test]
fn p_11_1_the_accepting_side_sends_datagrams_before_its_response() {
    let mut end = End::server();
    let flow = end.mux.open(head_of(ProtocolType::Udp), false, |_| true);
    let flow = flow.unwrap().unwrap();
    assert_eq!(end.sent().len(), 1);
    let events = end.feed([
        datagram(2, b"early", false),
        response_of(ProtocolType::Udp, 2),
        datagram(2, b"late", false),
    ]);
    assert!(matches!(
        &events[..],
        [
            Event::Datagram { .. },
            Event::Response { .. },
            Event::Datagram { .. }
        ]
    ));
    // The end of a direction needs a response before it, in every protocol.
    let other = end.mux.open(head_of(ProtocolType::Udp), false, |_| true);
    assert_eq!((flow, other), (id(2), Ok(Some(id(4)))));
    assert_eq!(end.sent().len(), 1);
    let early_end = reset_event(4, ResetCode::ProtocolError);
    assert_eq!(end.feed([datagram(4, b"last", true)]), [early_end]);
}

/// Regression: flows that queue more than can be sent took all the room, and the senders of other requests waited as
/// long as the flood continued.
#[test]
fn p_11_2_waiting_datagrams_take_no_room_of_other_requests() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 3000;
    let mut end = with_config(config, ProtocolType::Udp);
    end.feed([opening(3, b"", true), opening_of(ProtocolType::Tcp, 5)]);
    let flood = |end: &End| {
        for _ in 0..100 {
            let data = Bytes::from(vec![0; 100]);
            end.mux.send_datagram(id(1), data).unwrap();
        }
    };
    flood(&end);
    let stats = end.mux.stats();
    assert!(stats.datagrams_dropped > 0 && stats.queued > 2600);
    // A new sender has room, and a sender that waits until other payload has been sent is woken then.
    assert!(matches!(end.mux.sendable(id(3)), Ok(Sendable::Now(_))));
    end.mux.send(id(3), vec![0; 6000].into(), false).unwrap();
    assert_eq!(end.mux.sendable(id(5)), Ok(Sendable::Later));
    for _ in 0..100 {
        let transmit = end.transmit().unwrap();
        flood(&end);
        if transmit.writable == [id(5)] {
            // The datagrams that are dropped with their flow are not counted any more.
            end.feed([reset(1)]);
            end.sent();
            assert_eq!(end.mux.stats().queued, 0);
            return;
        }
    }
    panic!("it waits for the flood to end");
}
