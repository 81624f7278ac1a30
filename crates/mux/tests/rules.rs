//! The clauses of `docs/protocol.md` for a mux, each tested by its number, with hand-made messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use adit_codec::{RequestHead, RequestId, ResetCode, Side};
use adit_flow::{Budget, MESSAGE_COST};
use adit_mux::{Config, Event, OpenError, ReceiveError, SendError, Sendable};
use adit_proto::tunnel_message::Payload;
use bytes::Bytes;
use prost::Message;
use support::*;

const W: u64 = 32 * 1024;

fn id(value: u64) -> RequestId {
    RequestId::new(value)
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

/// A server end on which the client has opened request 1, without its end.
fn with_request() -> End {
    let mut end = End::server();
    let events = end.feed([opening(1, b"", false)]);
    assert!(matches!(&events[..], [Event::Opened { end: false, .. }]));
    end
}

// 2. Messages

#[test]
fn p_2_1_lost_framing_ends_the_stream_after_complete_messages() {
    let mut end = End::server();
    let mut frame = framed(&opening(1, b"", true).encode_to_vec()).to_vec();
    frame.extend_from_slice(&[1, 0, 0, 0, 1]);
    let mut events = Vec::new();
    let result = end.receiver.handle_frame(frame.into(), &mut events);
    assert!(matches!(result, Err(ReceiveError::Decode(_))), "{result:?}");
    assert_eq!(events.len(), 1, "the message before the fault counts");
}

#[test]
fn p_2_2_ids_ascend_with_the_bit_of_their_opener() {
    for (side, expected) in [(Side::Server, [2, 4, 6]), (Side::Client, [1, 3, 5])] {
        let mut end = End::new(Config::new(side));
        assert_eq!(end.mux.side(), side);
        let refused = end.mux.open(request_head(b""), true, |_| false);
        assert_eq!(refused, Ok(None), "a refused registration uses no id");
        for expected in expected {
            let mut seen = None;
            let given = end
                .mux
                .open(request_head(b""), true, |id| {
                    seen = Some(id);
                    true
                })
                .unwrap();
            assert_eq!((given, seen), (Some(id(expected)), Some(id(expected))));
        }
        let ids: Vec<u64> = end.sent().iter().map(|m| m.request_id).collect();
        assert_eq!(ids, expected);
        assert_eq!((end.mux.stats().opened, end.mux.stats().open), (3, 3));
    }
}

#[test]
fn p_2_2_control_messages_belong_to_the_stream_itself() {
    let mut end = End::server();
    let heartbeat = adit_proto::Control {
        kind: Some(adit_proto::control::Kind::Heartbeat(
            adit_proto::Heartbeat {
                sequence: 7,
                reply: false,
            },
        )),
    };
    let encoded = Bytes::from(heartbeat.encode_to_vec());
    let events = end.feed([message(0, false, Payload::Control(heartbeat.clone()))]);
    assert_eq!(events, [Event::Control(encoded.clone())]);
    // Id 0 carries no other payload.
    assert_eq!(end.feed([chunk(0, 5, false)]), []);
    assert_eq!(end.mux.stats().violations, 1);
    assert!(end.mux.send_control(encoded));
    let sent = end.sent();
    assert_eq!(sent[0].payload, Some(Payload::Control(heartbeat)));
    assert_eq!((sent[0].request_id, sent.len()), (0, 1));
}

#[test]
fn p_2_3_fields_in_any_order_mean_the_same() {
    // The payload is before the id, an unknown field between them, the end last.
    let plain = opening(1, b"body", true).encode_to_vec();
    let id_field = &plain[..2];
    let end_field = &plain[2..4];
    let payload = &plain[4..];
    let unknown = [0xa0, 0x06, 0x01]; // field 100, varint
    let shuffled = [payload, &unknown, end_field, id_field].concat();
    let mut ordered_end = End::server();
    let mut shuffled_end = End::server();
    let mut events = Vec::new();
    let frame = framed(&shuffled);
    shuffled_end
        .receiver
        .handle_frame(frame, &mut events)
        .unwrap();
    assert_eq!(events, ordered_end.feed([opening(1, b"body", true)]));
    assert!(matches!(&events[..], [Event::Opened { end: true, .. }]));
    // The end and the id of this chunk are after its payload.
    let mut end = with_request();
    let chunk = [&[0xfa, 0x01, 2, b'h', b'i'][..], &[0x20, 1], &[0x08, 1]].concat();
    let mut events = Vec::new();
    end.receiver
        .handle_frame(framed(&chunk), &mut events)
        .unwrap();
    let data = Bytes::from_static(b"hi");
    assert_eq!(
        events,
        [Event::Data {
            id: id(1),
            data,
            cost: 2 + MESSAGE_COST,
            end: true
        }]
    );
}

#[test]
fn p_2_4_a_contradiction_or_an_unknown_payload_costs_the_request_alone() {
    let mut contradiction = chunk(1, 3, false);
    contradiction.message_type = adit_proto::MessageType::Trailers.into();
    let resume = message(1, false, Payload::Resume(adit_proto::Resume::default()));
    for bad in [contradiction, resume] {
        let mut end = with_request();
        let events = end.feed([bad, opening(3, b"", true), chunk(1, 3, false)]);
        assert_eq!(events[0], reset_event(1, ResetCode::ProtocolError));
        assert!(
            matches!(&events[1..], [Event::Opened { .. }]),
            "the link stays up"
        );
        assert_eq!(
            end.mux.stats().violations,
            1,
            "what comes after a reset is dropped"
        );
        assert_eq!(outline(&end.sent()), ["1 reset ProtocolError"]);
    }
    // A message that opens a request has the error.
    let mut end = End::server();
    let mut bad = opening(1, b"", false);
    bad.message_type = adit_proto::MessageType::StreamChunk.into();
    assert_eq!(end.feed([bad]), []);
    assert_eq!(outline(&end.sent()), ["1 reset ProtocolError"]);
}

#[test]
fn p_2_5_late_messages_are_dropped_and_counted() {
    let mut end = with_request();
    assert!(end.mux.reset(id(1), ResetCode::Cancelled, "bye"));
    assert_eq!(outline(&end.sent()), ["1 reset Cancelled"]);
    end.feed([opening(9, b"", false)]);
    let late = [
        chunk(1, 5, false),
        window(1, 99, 0),
        stop(1),
        reset(1),
        plain_end(1),
        opening(1, b"", false),
        // This id is below the highest and was never opened.
        opening(5, b"", true),
    ];
    assert_eq!(end.feed(late), []);
    let stats = end.mux.stats();
    assert_eq!((stats.late, stats.violations, stats.open), (7, 0, 1));
    assert_eq!(end.sent(), [], "nothing is responded");
    // Ids of this end.
    let own = end.opened(true).value();
    end.feed([reset(own)]);
    assert_eq!(end.feed([reset(own), response(own, 200, b"", true)]), []);
    assert_eq!(end.mux.stats().late, 9);
}

#[test]
fn p_2_5_no_message_responds_to_a_reset() {
    let mut end = with_request();
    let events = end.feed([reset(1), reset(1), reset(7), chunk(7, 1, false)]);
    let expected = Event::Reset {
        id: id(1),
        code: ResetCode::Cancelled,
        by_peer: true,
        reason: "gone".into(),
        in_order: false,
    };
    assert_eq!(events, [expected]);
    assert_eq!(end.sent(), []);
    // The reset of an id that was never opened uses the id up: later messages for it are late.
    let stats = end.mux.stats();
    assert_eq!((stats.late, stats.violations, stats.open), (2, 1, 0));
}

#[test]
fn p_2_6_a_new_id_must_open() {
    let mut end = End::server();
    let control = Payload::Control(adit_proto::Control::default());
    let messages = [
        chunk(1, 1, false),
        response(3, 200, b"", false),
        trailers(5),
        window(7, 1, 0),
        stop(9),
        plain_end(11),
        message(13, false, control),
        opening(15, b"", true),
    ];
    let events = end.feed(messages);
    assert!(matches!(&events[..], [Event::Opened { id, .. }] if id.value() == 15));
    let expected: Vec<_> = (0..7)
        .map(|n| format!("{} reset ProtocolError", 2 * n + 1))
        .collect();
    assert_eq!(outline(&end.sent()), expected);
    let stats = end.mux.stats();
    assert_eq!((stats.violations, stats.refused, stats.accepted), (7, 7, 1));
}

#[test]
fn p_2_6_an_unopened_own_id_is_dropped_and_counted() {
    let mut end = End::server();
    let own = end.opened(true).value();
    let next = own + 2;
    assert_eq!(
        end.feed([
            response(next, 200, b"", true),
            opening(next + 100, b"", true)
        ]),
        []
    );
    let stats = end.mux.stats();
    assert_eq!((stats.violations, stats.late, stats.open), (2, 0, 1));
    assert_eq!(end.sent(), []);
}

/// Regression: the peer could respond to, reset or stop a request that had not been sent yet, by guessing its id.
#[test]
fn p_2_6_an_own_id_is_unknown_before_its_head_leaves() {
    let mut end = End::server();
    let own = end.open(b"", false);
    let guesses = [
        response(own.value(), 200, b"", true),
        reset(own.value()),
        stop(own.value()),
    ];
    assert_eq!(end.feed(guesses), []);
    assert_eq!(end.mux.stats().violations, 3);
    assert_eq!(outline(&end.sent()), ["2 open"]);
    let events = end.feed([response(own.value(), 200, b"", true)]);
    assert!(matches!(&events[..], [Event::Response { end: true, .. }]));
}

#[test]
fn p_2_7_a_message_after_the_end_is_a_protocol_error() {
    for ending in [plain_end(1), trailers(1), chunk(1, 4, true)] {
        for after in [chunk(1, 1, false), plain_end(1), trailers(1)] {
            let mut end = with_request();
            end.feed([ending.clone()]);
            let events = end.feed([after]);
            let expected = reset_event(1, ResetCode::ProtocolError);
            assert_eq!(events, [expected]);
            assert_eq!(outline(&end.sent()), ["1 reset ProtocolError"]);
        }
        // These three messages are valid after the end.
        let mut end = with_request();
        let ended = end.feed([ending]);
        assert_eq!(ended.len(), 1);
        let events = end.feed([window(1, 2 * W, 0), stop(1), reset(1)]);
        assert!(
            matches!(
                &events[..],
                [Event::Stopped { .. }, Event::Reset { by_peer: true, .. }]
            ),
            "{events:?}"
        );
        assert_eq!(end.mux.stats().violations, 0);
    }
}

#[test]
fn p_2_7_each_way_to_end_is_distinguished() {
    let mut end = with_request();
    assert_eq!(end.feed([plain_end(1)]), [Event::End { id: id(1) }]);
    let mut end = with_request();
    let trailers = adit_codec::HeaderBlock::default();
    let mut without_flag = support::trailers(1);
    without_flag.end_stream = false;
    assert_eq!(
        end.feed([without_flag]),
        [Event::Trailers {
            id: id(1),
            trailers
        }]
    );
    assert_eq!(
        end.feed([chunk(1, 1, false)]).len(),
        1,
        "trailers end without the flag too"
    );
    assert_eq!(end.mux.stats().violations, 1);
}

/// Regression: `end_stream` on a window or a stop was ignored.
#[test]
fn p_2_7_end_stream_counts_on_any_message() {
    for mut ending in [window(1, 2 * W, 0), stop(1)] {
        ending.end_stream = true;
        let mut end = with_request();
        let events = end.feed([ending.clone()]);
        assert_eq!(events.last(), Some(&Event::End { id: id(1) }));
        assert_eq!(
            end.feed([ending]),
            [],
            "may come after the end, without effect"
        );
        assert_eq!(end.mux.stats().violations, 0);
        let events = end.feed([chunk(1, 1, false)]);
        assert!(matches!(&events[..], [Event::Reset { by_peer: false, .. }]));
    }
}

#[test]
fn p_2_9_requests_beyond_the_bound_are_refused() {
    let mut config = Config::new(Side::Server);
    config.max_requests = 2;
    let mut end = End::new(config);
    let events = end.feed([1, 3, 5, 7].map(|id| opening(id, b"", true)));
    assert_eq!(events.len(), 2);
    assert_eq!(outline(&end.sent()), ["5 reset Refused", "7 reset Refused"]);
    let stats = end.mux.stats();
    assert_eq!(
        (stats.refused, stats.accepted, stats.open, stats.violations),
        (2, 2, 2, 0)
    );
    // Own requests do not count, and a completed one makes room.
    end.opened(true);
    end.mux
        .respond(id(1), response_head(200, b""), true)
        .unwrap();
    end.sent();
    assert!(matches!(
        &end.feed([opening(9, b"", true)])[..],
        [Event::Opened { .. }]
    ));
    end.feed([opening(11, b"", true)]);
    let before = end.mux.stats().messages_sent;
    assert_eq!(outline(&end.sent()), ["11 reset Refused"]);
    assert_eq!(end.mux.stats().messages_sent, before + 1);
}

#[test]
fn p_2_9_owed_refusals_are_bounded() {
    let mut config = Config::new(Side::Server);
    config.max_requests = 0;
    let mut end = End::new(config);
    let flood = |from: u64, count: u64| (0..count).map(move |n| opening(from + 2 * n, b"", true));
    end.feed(flood(1, 1024));
    let (events, result) = end.try_feed([opening(3001, b"", true)]);
    assert_eq!(events, []);
    assert_eq!(result, Err(ReceiveError::TooManyRefusals { owed: 1024 }));
    // The refusals are sent when the stream can take them.
    assert_eq!(end.sent().len(), 1024);
    end.feed(flood(5001, 1024));
}

fn rapid_reset_end(bound: u32) -> End {
    let mut config = Config::new(Side::Server);
    config.max_resets_per_tick = bound;
    End::new(config)
}

/// Regression: a peer could open requests and reset them in a loop (CVE-2023-44487), or have them reset (CVE-2025-8671).
#[test]
fn p_2_9_rapid_reset_ends_the_stream() {
    let ways = [
        vec![reset(1)],
        vec![plain_end(1), plain_end(1)],
        vec![chunk(1, 40_000, false)],
        vec![stop(1)],
        vec![stop(1), reset(1)],
    ];
    for way in ways {
        let mut end = rapid_reset_end(3);
        let mut next = 1;
        let mut open_and_give_up = |end: &mut End| {
            let mut messages = vec![opening(next, b"", false)];
            messages.extend(way.iter().cloned().map(|mut message| {
                message.request_id = next;
                message
            }));
            next += 2;
            let (events, result) = end.try_feed(messages);
            assert!(!events.is_empty());
            end.sent();
            result
        };
        for _ in 0..3 {
            assert_eq!(open_and_give_up(&mut end), Ok(()), "{way:?}");
        }
        end.mux.tick();
        for _ in 0..3 {
            assert_eq!(open_and_give_up(&mut end), Ok(()), "{way:?}");
        }
        let expected = Err(ReceiveError::RapidReset { given_up: 4 });
        assert_eq!(open_and_give_up(&mut end), expected, "{way:?}");
    }
}

#[test]
fn p_2_9_a_peer_with_a_response_may_reset() {
    for n in 0..4_u64 {
        let mut end = rapid_reset_end(0);
        let value = 2 * n + 1;
        end.feed([opening(value, b"", false)]);
        let (body, ends) = (&b"body"[..usize::from(n == 0) * 4], n == 1);
        let head = response_head(200, body);
        end.mux.respond(id(value), head, ends).unwrap();
        match n {
            2 => end.mux.send(id(value), "x".into(), false).unwrap(),
            3 => end.mux.send(id(value), Bytes::new(), true).unwrap(),
            _ => {}
        }
        assert_eq!(end.feed([reset(value)]).len(), 1);
        // A request that this end opened is not counted.
        let own = end.opened(false).value();
        assert_eq!(end.feed([reset(own)]).len(), 1);
        // A request that this end reset itself is not counted as the peer's.
        end.feed([opening(value + 1000, b"", false)]);
        assert!(end.mux.reset(id(value + 1000), ResetCode::NoTunnel, ""));
        assert_eq!(end.feed([reset(value + 1000)]), []);
    }
    // A head without a body may be an interim response, which does not show that work was done.
    let mut end = rapid_reset_end(0);
    end.feed([opening(1, b"", false)]);
    end.mux
        .respond(id(1), response_head(100, b""), false)
        .unwrap();
    let (_, result) = end.try_feed([reset(1)]);
    assert_eq!(result, Err(ReceiveError::RapidReset { given_up: 1 }));
}

#[test]
fn the_default_bound_on_resets_exceeds_max_requests() {
    let config = Config::new(Side::Client);
    assert!(config.max_resets_per_tick as usize >= 2 * config.max_requests);
}

// 3. HTTP

#[test]
fn p_3_1_interim_responses_come_before_one_final_response() {
    let mut end = End::server();
    let own = end.opened(true).value();
    let interim = response(own, 100, b"", false);
    let responses = [
        interim.clone(),
        interim.clone(),
        response(own, 200, b"", false),
    ];
    assert_eq!(end.feed(responses).len(), 3);
    assert_eq!(end.mux.stats().violations, 0);
    for after in [interim, response(own, 200, b"", true)] {
        let mut end = End::server();
        end.opened(true);
        end.feed([response(own, 200, b"", false)]);
        let expected = reset_event(own, ResetCode::ProtocolError);
        assert_eq!(end.feed([after]), [expected]);
    }
}

#[test]
fn p_3_7_payload_follows_a_switch_as_any_final_response() {
    let mut end = End::server();
    let own = end.opened(false).value();
    let responses = [
        response(own, 103, b"", false),
        response(own, 101, b"", false),
        chunk(own, 1, false),
    ];
    assert_eq!(end.feed(responses).len(), 3);
    assert_eq!(end.mux.stats().violations, 0);
    let expected = reset_event(own, ResetCode::ProtocolError);
    assert_eq!(end.feed([response(own, 200, b"", false)]), [expected]);
}

/// Regression: payload was passed on before there was a response, and an invalid response ended the request.
#[test]
fn p_3_1_payload_before_the_response_is_refused() {
    let early = |own| {
        [
            chunk(own, 1, false),
            trailers(own),
            plain_end(own),
            response(own, 100, b"", true),
            response(own, 199, b"", true),
        ]
    };
    for n in 0..5 {
        let mut end = End::server();
        let own = end.opened(true).value();
        let events = end.feed([early(own)[n].clone()]);
        let expected = reset_event(own, ResetCode::ProtocolError);
        assert_eq!(events, [expected]);
    }
}

#[test]
fn heads_in_the_wrong_direction_are_out_of_place() {
    let mut end = with_request();
    let own = end.opened(false).value();
    let control = message(own, false, Payload::Control(adit_proto::Control::default()));
    let events = end.feed([response(1, 200, b"", false), control]);
    let out_of_place = |id| reset_event(id, ResetCode::ProtocolError);
    assert_eq!(events, [out_of_place(1), out_of_place(own)]);
    let mut end = with_request();
    assert_eq!(end.feed([opening(1, b"", false)]), [out_of_place(1)]);
}

#[test]
fn p_3_2_a_body_in_the_head_costs_as_a_chunk_would() {
    let mut end = End::server();
    let fits = vec![0; (W - MESSAGE_COST) as usize];
    let events = end.feed([opening(1, &fits, false)]);
    let Event::Opened {
        head: RequestHead::Http(head),
        ..
    } = &events[0]
    else {
        panic!("{events:?}");
    };
    assert_eq!(head.body.len(), fits.len());
    assert!(matches!(
        &end.feed([chunk(1, 0, false)])[..],
        [Event::Reset { .. }]
    ));
    // One byte more, in the body of a head, is refused with the code for flow control.
    let too_long = vec![0; fits.len() + 1];
    assert_eq!(end.feed([opening(3, &too_long, true)]), []);
    let sent = outline(&end.sent());
    assert_eq!(sent, ["3 reset FlowControl", "1 reset FlowControl"]);
    assert_eq!(end.mux.stats().violations, 2);
    // A body above the limit is refused in the direction of the response as well.
    let own = end.opened(true);
    let events = end.feed([response(own.value(), 200, &too_long, true)]);
    assert_eq!(events, [reset_event(2, ResetCode::FlowControl)]);
}

#[test]
fn p_3_2_this_end_keeps_to_it_too() {
    let mut end = with_request();
    let window = 32 * 1024;
    let fits = vec![0; (W - MESSAGE_COST) as usize];
    let too_long = vec![0; fits.len() + 1];
    let refused = end
        .mux
        .open(request_head(&too_long), true, |_| panic!("not registered"));
    assert_eq!(refused, Err(OpenError::BodyTooLong { window }));
    let refused = end.mux.respond(id(1), response_head(200, &too_long), true);
    assert_eq!(refused, Err(SendError::NoCredit(Bytes::new())));
    let own = end.open(&fits, false);
    assert_eq!(end.mux.sendable(own), Ok(Sendable::Later));
    end.mux
        .respond(id(1), response_head(200, &fits), false)
        .unwrap();
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Later));
    assert_eq!(end.sent().len(), 2);
}

// 4. Credit

#[test]
fn p_4_1_only_chunks_and_bodies_cost() {
    let mut end = with_request();
    let costs: Vec<u64> = end
        .feed([chunk(1, 10, false), chunk(1, 0, false)])
        .iter()
        .map(|event| match event {
            Event::Data { cost, .. } => *cost,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(costs, [10 + MESSAGE_COST, MESSAGE_COST]);
    // A chunk in parts is charged for its message once.
    let frame = framed(&chunk(1, 5000, true).encode_to_vec());
    let mut parts = Vec::new();
    for cut in [0..2000, 2000..3500, 3500..frame.len()] {
        end.receiver
            .handle_frame(frame.slice(cut), &mut parts)
            .unwrap();
    }
    let (mut cost_sum, mut length, mut ends) = (0, 0, Vec::new());
    for part in parts {
        let Event::Data {
            cost, data, end, ..
        } = part
        else {
            panic!("{part:?}");
        };
        cost_sum += cost;
        length += data.len();
        ends.push(end);
    }
    assert_eq!((cost_sum, length), (5000 + MESSAGE_COST, 5000));
    assert_eq!(ends, [false, false, true]);
}

#[test]
fn p_4_2_no_more_is_sent_than_the_limit_allows() {
    let mut end = with_request();
    let all = (W - MESSAGE_COST) as usize;
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Now(all)));
    let too_much = Bytes::from(vec![1; all + 1]);
    let all_but_one = all - MESSAGE_COST as usize - 1;
    let refused = end.mux.send(id(1), too_much.clone(), false);
    assert_eq!(refused, Err(SendError::NoCredit(too_much)), "given back");
    end.mux
        .send(id(1), vec![1; all_but_one].into(), false)
        .unwrap();
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Now(1)));
    end.mux.send(id(1), "x".into(), false).unwrap();
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Later));
    let sent = end.sent();
    assert_eq!(
        outline(&sent),
        [
            "1 response 200",
            &format!("1 chunk {all_but_one}"),
            "1 chunk 1"
        ]
    );
    assert_eq!(end.writable, [], "room in the queue is not credit");
    // Limits are absolute; the higher one counts, and credit for one more byte is not enough for a message.
    assert_eq!(
        end.feed([window(1, W + MESSAGE_COST, 0)]),
        [Event::Writable { id: id(1) }]
    );
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Later));
    let events = end.feed([window(1, W + MESSAGE_COST + 5, 0), window(1, W + 1, 0)]);
    assert_eq!(events, [Event::Writable { id: id(1) }]);
    assert_eq!(end.mux.sendable(id(1)), Ok(Sendable::Now(5)));
}

#[test]
fn p_2_1_payloads_stay_below_the_bound() {
    let mut config = Config::new(Side::Server);
    config.initial_window = 1 << 20;
    let mut end = End::new(config);
    let own = end.opened(false);
    assert_eq!(end.mux.sendable(own), Ok(Sendable::Now(64 * 1024)));
    let most = Bytes::from(vec![0; 64 * 1024]);
    let more = Bytes::from(vec![0; 64 * 1024 + 1]);
    assert_eq!(
        end.mux.send(own, more.clone(), false),
        Err(SendError::NoCredit(more))
    );
    assert_eq!(end.mux.send(own, most, false), Ok(()));
}

#[test]
fn p_4_3_a_window_that_goes_back_is_ignored() {
    let mut end = End::server();
    let own = end.opened(false);
    end.mux.send(own, vec![0; 1000].into(), false).unwrap();
    end.feed([window(2, 2 * W, 500), window(2, W, 100), window(2, 0, 0)]);
    let expected = (2 * W - 1000 - 2 * MESSAGE_COST) as usize;
    assert_eq!(end.mux.sendable(own), Ok(Sendable::Now(expected)));
    assert_eq!(end.mux.stats().violations, 0);
}

#[test]
fn p_4_4_a_sender_past_the_limit_is_reset() {
    let mut end = with_request();
    let all = (W - MESSAGE_COST) as usize;
    let events = end.feed([
        opening(3, b"", false),
        chunk(1, all, false),
        chunk(3, all + 1, false),
    ]);
    assert!(matches!(&events[1], Event::Data { cost, .. } if *cost == W));
    assert_eq!(events[2], reset_event(3, ResetCode::FlowControl));
    assert_eq!(outline(&end.sent()), ["3 reset FlowControl"]);
    assert_eq!(end.mux.stats().open, 1);
}

#[test]
fn p_4_5_consumed_past_the_sent_cost_is_a_protocol_error() {
    let mut end = End::server();
    let own = end.opened(false);
    end.mux.send(own, vec![0; 100].into(), false).unwrap();
    assert_eq!(end.feed([window(2, W, 100 + MESSAGE_COST)]), []);
    let events = end.feed([window(2, 2 * W, 101 + MESSAGE_COST)]);
    let expected = reset_event(2, ResetCode::ProtocolError);
    assert_eq!(events, [expected]);
    assert_eq!(outline(&end.sent()), ["2 reset ProtocolError"]);
}

#[test]
fn p_4_6_a_window_is_granted_when_half_has_been_consumed() {
    let mut end = with_request();
    end.feed([chunk(1, 20_000, false)]);
    end.mux.consume(id(1), W / 2 - 1);
    assert_eq!(end.sent(), []);
    end.mux.consume(id(1), 1);
    assert_eq!(
        outline(&end.sent()),
        [format!("1 window {} {}", W + W / 2, W / 2)]
    );
    assert_eq!(end.mux.stats().windows_sent, 1);
    // No window is sent after the end.
    let mut ended = with_request();
    ended.feed([chunk(1, 30_000, true)]);
    ended.mux.consume(id(1), 30_000);
    assert_eq!(ended.sent(), []);
    // Consuming more than was received, or for an unknown id, has no effect.
    end.mux.consume(id(1), u64::MAX);
    end.mux.consume(id(99), 5);
    assert_eq!(end.sent(), []);
}

#[test]
fn p_4_6_windows_grow_at_the_budgets_expense_and_give_it_back() {
    for how in ["end", "reset", "peer's reset", "stop"] {
        let budget = Budget::new(64 << 20);
        let mut end = End::with_budget(Config::new(Side::Server), budget.clone());
        end.feed([opening(1, b"", false)]);
        // The window grows once four windows have been consumed.
        for (consumed, limit) in [(W, 2 * W), (2 * W, 3 * W), (3 * W, 4 * W), (4 * W, 6 * W)] {
            assert_eq!(budget.used(), 0);
            end.feed([chunk(1, (W - MESSAGE_COST) as usize, false)]);
            end.mux.consume(id(1), W);
            assert_eq!(
                outline(&end.sent()),
                [format!("1 window {limit} {consumed}")]
            );
        }
        assert_eq!(budget.used(), W);
        end.feed([chunk(1, 100, false)]);
        match how {
            "end" => {
                end.mux
                    .respond(id(1), response_head(200, b""), true)
                    .unwrap();
                end.feed([plain_end(1)]);
                end.sent();
                assert_eq!(
                    (end.mux.stats().open, budget.used()),
                    (1, W),
                    "100 bytes wait"
                );
                end.mux.consume(id(1), 99 + MESSAGE_COST);
                assert_eq!(end.mux.stats().open, 1);
                end.mux.consume(id(1), 1);
            }
            "reset" => {
                end.mux.reset(id(1), ResetCode::Cancelled, "");
                end.sent();
            }
            "stop" => {
                end.mux
                    .respond(id(1), response_head(200, b""), true)
                    .unwrap();
                end.mux.stop_sending(id(1), ResetCode::Cancelled);
                end.sent();
                end.feed([chunk(1, 100, false), plain_end(1)]);
            }
            _ => assert_eq!(end.feed([reset(1)]).len(), 1),
        }
        assert_eq!((end.mux.stats().open, budget.used()), (0, 0), "{how}");
    }
}

#[test]
fn p_4_8_owed_messages_leave_once_with_the_newest_value() {
    let mut end = with_request();
    end.feed([chunk(1, 20_000, false)]);
    for _ in 0..3 {
        end.mux.consume(id(1), 6_000);
    }
    assert_eq!(
        outline(&end.sent()),
        [format!("1 window {} 18000", W + 18_000)]
    );
    // A stop replaces a window, a reset replaces both.
    end.mux.consume(id(1), 2_000);
    end.feed([chunk(1, 20_000, false)]);
    end.mux.consume(id(1), 20_000);
    end.mux.stop_sending(id(1), ResetCode::Cancelled);
    end.mux.stop_sending(id(1), ResetCode::Stalled);
    let mut other = with_request();
    assert_eq!(outline(&end.sent()), ["1 stop"]);
    other.mux.stop_sending(id(1), ResetCode::Cancelled);
    assert!(other.mux.reset(id(1), ResetCode::Internal, "fault"));
    assert!(!other.mux.reset(id(1), ResetCode::Stalled, "again"));
    assert_eq!(outline(&other.sent()), ["1 reset Internal"]);
}

// 5. Order

#[test]
fn p_5_1_control_then_owed_then_heads_then_payload() {
    let mut config = Config::new(Side::Server);
    config.max_requests = 2;
    let mut end = End::new(config);
    end.feed([1, 3].map(|id| opening(id, b"", false)));
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    end.sent();
    end.mux.send(id(1), "payload".into(), false).unwrap();
    end.open(b"", true);
    end.mux
        .respond(id(3), response_head(204, b""), true)
        .unwrap();
    end.open(b"", true);
    end.mux.stop_sending(id(3), ResetCode::Cancelled);
    end.feed([opening(5, b"", true)]);
    assert!(end.mux.send_control(Bytes::new()));
    let expected = [
        "0 control",
        "5 reset Refused",
        "3 stop",
        "2 open.",
        "3 response 204.",
        "4 open.",
        "1 chunk 7",
    ];
    let sent = end.sent();
    assert_eq!(outline(&sent), expected);
    let stats = end.mux.stats();
    assert_eq!((stats.messages_sent, stats.batches_sent), (8, 2));
}

/// Regression: when heads filled their part of a batch, the payload of a request whose head was left for the next one
/// was sent before it.
#[test]
fn p_5_1_payload_never_overtakes_its_head() {
    let mut end = End::server();
    end.feed([opening(1, b"", true)]);
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    end.sent();
    end.mux.send(id(1), vec![0; 1000].into(), false).unwrap();
    let ids: Vec<u64> = (1..7).map(|n| 2 * n + 1).collect();
    end.feed(ids.iter().map(|&id| opening(id, b"", true)));
    for &value in &ids {
        end.mux
            .respond(id(value), long_response_head(60_000), false)
            .unwrap();
        end.mux.send(id(value), "data".into(), true).unwrap();
    }
    assert_eq!(end.mux.stats().queued, 1000 + 6 * 4 + 7 * MESSAGE_COST);
    let batch = end.transmit().unwrap().batch.unwrap();
    let bytes: Vec<u8> = batch.into_segments().flatten().collect();
    let first = outline(&messages(bytes.into()));
    // Half of the batch is for heads: the third head exceeds it.
    let expected = [
        "3 response 200",
        "5 response 200",
        "7 response 200",
        "1 chunk 1000",
    ];
    assert_eq!(first[..4], expected);
    assert_eq!(first[4..], ["3 chunk 4.", "5 chunk 4.", "7 chunk 4."]);
    let expected = [9, 11, 13].map(|id| format!("{id} response 200"));
    let second = outline(&end.sent());
    assert_eq!(second[..3], expected);
    assert_eq!(second[3..], ["9 chunk 4.", "11 chunk 4.", "13 chunk 4."]);
    assert_eq!((end.mux.stats().queued, end.mux.stats().open), (0, 1));
}

#[test]
fn p_5_1_requests_take_turns_of_32_kib() {
    let mut config = Config::new(Side::Server);
    config.initial_window = 1 << 20;
    let mut end = End::new(config);
    let ids: Vec<RequestId> = (0..2).map(|_| end.opened(false)).collect();
    for _ in 0..6 {
        for &id in &ids {
            end.mux
                .send(id, vec![0; 16 * 1024 - MESSAGE_COST as usize].into(), false)
                .unwrap();
        }
    }
    let order: Vec<u64> = end
        .sent()
        .iter()
        .map(|message| message.request_id)
        .collect();
    // The first turn is early, one message at a time.
    assert_eq!(order, [2, 4, 2, 4, 2, 2, 4, 4, 2, 2, 4, 4]);
}

/// A batch ends with the message that reaches the bound: it exceeds the bound by less than one message of 64 KiB of
/// payload.
#[test]
fn p_5_2_a_batch_passes_its_bound_by_less_than_a_message() {
    let mut config = Config::new(Side::Server);
    config.initial_window = 4 << 20;
    config.max_queued_per_request = 4 << 20;
    let bound = config.max_batch;
    let mut end = End::new(config);
    let own = end.opened(false);
    while let Ok(Sendable::Now(bytes)) = end.mux.sendable(own) {
        end.mux.send(own, vec![0; bytes].into(), false).unwrap();
    }
    let (mut batches, mut total) = (0, 0);
    while let Some(transmit) = end.transmit() {
        let batch = transmit.batch.unwrap();
        let bytes: usize = batch.into_segments().map(|segment| segment.len()).sum();
        assert!(bytes < bound + 64 * 1024 + 64, "{bytes}");
        total += bytes;
        batches += 1;
    }
    assert!((2 << 20..3 << 20).contains(&total), "{total}");
    assert_eq!(batches, 8, "{total}");
    let stats = end.mux.stats();
    assert_eq!(stats.batches_sent, 8 + 1);
    assert!(stats.bytes_sent > total as u64);
}

#[test]
fn p_5_2_a_batch_that_is_exactly_full_takes_no_more() {
    let control = |end: &mut End| assert!(end.mux.send_control(Bytes::from_static(b"probe")));
    let head = |end: &mut End| assert!(end.open(b"", false) > id(0));
    let payload = |end: &mut End| end.mux.send(id(1), "x".into(), false).unwrap();
    let kinds: [&dyn Fn(&mut End); 3] = [&control, &head, &payload];
    for queue in kinds {
        let mut one = with_request();
        queue(&mut one);
        let batch = one.transmit().unwrap().batch.unwrap();
        let bytes: usize = batch.into_segments().map(|segment| segment.len()).sum();

        let mut config = Config::new(Side::Server);
        config.max_batch = bytes;
        let mut end = End::new(config);
        end.feed([opening(1, b"", false)]);
        queue(&mut end);
        queue(&mut end);
        for sent in 1..=2 {
            assert!(end.transmit().is_some());
            assert_eq!(end.mux.stats().messages_sent, sent);
        }
        assert!(end.transmit().is_none());
    }
}

// 6. Ending

#[test]
fn p_6_1_stop_sending_ends_the_direction_and_drops_its_queue() {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    end.sent();
    end.mux.send(id(1), vec![0; 5000].into(), false).unwrap();
    assert_eq!(end.mux.stats().queued, 5000 + MESSAGE_COST);
    let stopped = Event::Stopped {
        id: id(1),
        code: ResetCode::Cancelled,
    };
    assert_eq!(end.feed([stop(1)]), [stopped]);
    assert_eq!(end.mux.sendable(id(1)), Err(SendError::Ended));
    assert_eq!(
        end.mux.send(id(1), "x".into(), false),
        Err(SendError::Ended)
    );
    assert_eq!(outline(&end.sent()), ["1 end."]);
    assert_eq!(end.feed([stop(1)]), [], "has ended already");
    assert_eq!(end.sent(), []);
    // The other direction is untouched.
    assert!(matches!(
        &end.feed([chunk(1, 5, true)])[..],
        [Event::Data { end: true, .. }]
    ));
    end.mux.consume(id(1), 5 + MESSAGE_COST);
    assert_eq!(end.mux.stats().open, 0);
}

/// Regression: two stops before the end had been sent caused two events, each at the cost of an iteration over all
/// heads.
#[test]
fn p_6_1_a_repeated_stop_has_no_effect() {
    let mut end = with_request();
    assert_eq!(end.feed([stop(1), stop(1)]).len(), 1);
    assert_eq!(outline(&end.sent()), ["1 end."]);
    assert_eq!(end.mux.stats().queued, 0);
}

#[test]
fn p_6_1_a_head_that_has_not_left_leaves_before_the_end() {
    for (ends, body) in [(true, &b""[..]), (false, b"body")] {
        let mut end = with_request();
        end.mux
            .respond(id(1), response_head(200, body), ends)
            .unwrap();
        if !ends {
            end.mux.send(id(1), "data".into(), true).unwrap();
            assert_eq!(end.mux.stats().queued, 4 + MESSAGE_COST);
        }
        assert_eq!(end.feed([stop(1)]).len(), 1);
        assert_eq!(end.mux.stats().queued, MESSAGE_COST, "the end");
        assert_eq!(outline(&end.sent()), ["1 response 200", "1 end."]);
        assert_eq!(end.mux.stats().queued, 0);
        end.feed([plain_end(1)]);
        assert_eq!(end.mux.stats().open, 0);
    }
}

#[test]
fn p_6_1_payload_after_our_stop_is_dropped_but_counted() {
    let mut end = End::server();
    let own = end.opened(true);
    end.feed([response(2, 200, b"", false), chunk(2, 1000, false)]);
    end.mux.stop_sending(own, ResetCode::Cancelled);
    assert_eq!(outline(&end.sent()), ["2 stop"]);
    assert_eq!(end.feed([chunk(2, 20_000, false)]), []);
    assert_eq!(end.sent(), [], "no credit for a stopped direction");
    let events = end.feed([chunk(2, 20_000, false)]);
    assert_eq!(events, [reset_event(2, ResetCode::FlowControl)]);
    // A stop after the end has no effect.
    let mut end = End::server();
    let own = end.opened(true);
    end.mux.stop_sending(own, ResetCode::Cancelled);
    assert_eq!(
        end.feed([plain_end(2)]),
        [],
        "the peer may stop before its response"
    );
    assert_eq!(end.mux.stats().open, 1, "the stop is still owed");
    end.sent();
    assert_eq!((end.mux.stats().open, end.mux.stats().violations), (0, 0));
}

#[test]
fn p_6_1_stopping_an_ended_direction_returns_unread_credit() {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), true)
        .unwrap();
    end.feed([chunk(1, 1000, true)]);
    end.sent();
    assert_eq!(end.mux.stats().open, 1);
    end.mux.stop_sending(id(1), ResetCode::Cancelled);
    assert_eq!((end.mux.stats().open, end.sent()), (0, vec![]));
    end.mux.stop_sending(id(1), ResetCode::Cancelled);
}

#[test]
fn p_6_2_a_reset_drops_unsent_payload() {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    end.sent();
    end.mux.send(id(1), vec![0; 5000].into(), false).unwrap();
    assert!(end.mux.reset(id(1), ResetCode::ServiceAborted, "broke off"));
    assert_eq!(end.mux.stats().queued, 0);
    assert_eq!(end.mux.sendable(id(1)), Err(SendError::Gone));
    assert_eq!(end.mux.send(id(1), "x".into(), true), Err(SendError::Gone));
    assert_eq!(
        end.feed([chunk(1, 5, false), window(1, 9 * W, 0), stop(1)]),
        []
    );
    let sent = end.sent();
    assert_eq!(outline(&sent), ["1 reset ServiceAborted"]);
    let Some(Payload::Reset(reset)) = &sent[0].payload else {
        panic!("{sent:?}");
    };
    assert_eq!(reset.reason, "broke off");
    assert_eq!((end.mux.stats().open, end.mux.stats().violations), (0, 0));
    assert!(!end.mux.reset(id(1), ResetCode::Cancelled, ""));
}

#[test]
fn p_6_2_a_reset_removes_heads_that_have_not_left() {
    // The head of a request of this end: the peer never receives it.
    let mut end = with_request();
    let own = end.open(b"", false);
    end.mux.send(own, "data".into(), false).unwrap();
    assert!(end.mux.reset(own, ResetCode::Cancelled, ""));
    let stats = end.mux.stats();
    assert_eq!((stats.open, stats.queued), (1, 0));
    assert_eq!(end.sent(), []);
    // The head of a response.
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    end.mux.send(id(1), "data".into(), false).unwrap();
    end.mux.reset(id(1), ResetCode::Cancelled, "");
    assert_eq!(end.mux.stats().queued, 0);
    assert_eq!(outline(&end.sent()), ["1 reset Cancelled"]);
    // A reset by the peer also removes the head of a response that has not been sent.
    end.feed([opening(3, b"", true)]);
    end.mux
        .respond(id(3), response_head(200, b""), false)
        .unwrap();
    end.mux.send(id(3), "data".into(), false).unwrap();
    assert_eq!(end.feed([reset(3)]).len(), 1);
    assert_eq!((end.mux.stats().open, end.mux.stats().queued), (0, 0));
    assert_eq!(end.sent(), []);
    // The next request is sent as a whole.
    assert_eq!(end.open(b"", true), id(4));
    assert_eq!(outline(&end.sent()), ["4 open."]);
}

#[test]
fn p_6_2_a_completed_request_is_not_reset() {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), true)
        .unwrap();
    end.feed([chunk(1, 5, true)]);
    end.sent();
    assert_eq!(end.mux.stats().open, 1, "five bytes have not left yet");
    assert!(end.mux.reset(id(1), ResetCode::Cancelled, ""));
    assert_eq!((end.mux.stats().open, end.sent()), (0, vec![]));
}

#[test]
fn p_6_4_after_the_end_of_the_stream_nothing_is_opened() {
    let mut end = End::server();
    end.open(b"", true);
    assert!(!end.mux.is_closed());
    end.mux.close();
    assert!(end.mux.is_closed());
    let refused = end
        .mux
        .open(request_head(b""), true, |_| panic!("not registered"));
    assert_eq!(refused, Err(OpenError::Closed));
    assert!(!end.mux.send_control(Bytes::new()));
    assert_eq!(
        outline(&end.sent()),
        ["2 open."],
        "what is there is written"
    );
    assert!(end.transmit().is_none());
}

#[test]
fn control_messages_that_wait_are_bounded() {
    let mut end = End::server();
    let taken = (0..100)
        .filter(|_| end.mux.send_control(Bytes::new()))
        .count();
    assert_eq!(taken, 64);
    assert_eq!(end.sent().len(), 64);
    assert!(end.mux.send_control(Bytes::new()));
}

#[test]
fn p_2_7_trailers_end_this_direction() {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    let lines = [(&b"grpc-status"[..], &b"0"[..])].into_iter().collect();
    end.mux.send_trailers(id(1), lines).unwrap();
    assert_eq!(end.mux.sendable(id(1)), Err(SendError::Ended));
    let again = end.mux.send_trailers(id(1), Default::default());
    assert_eq!(again, Err(SendError::Ended));
    let sent = end.sent();
    assert_eq!(outline(&sent), ["1 response 200", "1 trailers."]);
    let Some(Payload::Trailers(trailers)) = &sent[1].payload else {
        panic!("{sent:?}");
    };
    assert_eq!(trailers.trailers[0].name, "grpc-status");
    let gone = end.mux.send_trailers(id(99), Default::default());
    assert_eq!(gone, Err(SendError::Gone));
}

#[test]
fn a_receiver_reports_a_cut_message() {
    let mut end = End::server();
    assert!(end.receiver.is_between_messages());
    let frame = framed(&opening(1, b"", true).encode_to_vec());
    let mut events = Vec::new();
    for cut in [0..3, 3..20, 20..frame.len()] {
        let whole = cut.end == frame.len();
        end.receiver
            .handle_frame(frame.slice(cut), &mut events)
            .unwrap();
        assert_eq!(end.receiver.is_between_messages(), whole);
    }
    assert_eq!(events.len(), 1);
}

#[test]
fn a_reset_wakes_senders_blocked_on_room() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 100;
    let mut end = End::new(config);
    end.feed([1, 3].map(|id| opening(id, b"", false)));
    end.mux.send(id(1), vec![0; 1000].into(), false).unwrap();
    assert_eq!(end.mux.sendable(id(3)), Ok(Sendable::Later));
    // No message is left to send, but the writer reports a writable request.
    end.feed([reset(1)]);
    let transmit = end.transmit().unwrap();
    assert!(transmit.batch.is_none());
    assert_eq!(transmit.writable, [id(3)]);
    assert!(matches!(end.mux.sendable(id(3)), Ok(Sendable::Now(_))));
    assert!(end.transmit().is_none());
}

#[test]
fn sent_messages_are_counted() {
    let mut config = Config::new(Side::Server);
    config.max_requests = 3;
    let mut end = End::new(config);
    end.feed([1, 3, 5, 7].map(|id| opening(id, b"", false)));
    end.feed([chunk(1, 20_000, false)]);
    // One of each kind: control, refusal, stop, window, reset, head, payload, trailers, end.
    assert!(end.mux.send_control(Bytes::new()));
    end.mux.consume(id(1), 20_000);
    end.mux.stop_sending(id(3), ResetCode::Cancelled);
    end.mux.reset(id(5), ResetCode::Internal, "");
    for value in [1, 3] {
        let head = response_head(200, b"");
        end.mux.respond(id(value), head, false).unwrap();
        end.mux.send(id(value), "x".into(), false).unwrap();
    }
    end.mux.send_trailers(id(1), Default::default()).unwrap();
    end.mux.send(id(3), Bytes::new(), true).unwrap();
    let sent = end.sent();
    assert_eq!(sent.len(), 11, "{:?}", outline(&sent));
    let stats = end.mux.stats();
    assert_eq!((stats.messages_sent, stats.windows_sent), (11, 1));
    assert_eq!((stats.refused, stats.queued), (1, 0));
}

#[test]
fn a_request_without_owed_messages_does_not_wake_the_writer() {
    let mut end = End::server();
    assert_eq!(end.sent(), []);
    // A new request, payload of less than half of the window, and a received response.
    end.feed([opening(1, b"", false), chunk(1, 100, false)]);
    end.mux.consume(id(1), 100);
    assert_eq!(end.bell.rung(), 0);
    end.opened(false);
    let rung = end.bell.rung();
    end.feed([response(2, 200, b"", false)]);
    assert_eq!(end.bell.rung(), rung);
}

#[test]
fn received_messages_are_counted() {
    let mut end = End::server();
    end.feed([1, 3, 5].map(|id| opening(id, b"", false)));
    end.feed([chunk(1, 1, false), chunk(99, 1, false), plain_end(1)]);
    let stats = end.mux.stats();
    let counted = (stats.messages_received, stats.accepted, stats.open);
    assert_eq!(counted, (6, 3, 3));
    assert_eq!((stats.refused, stats.violations, stats.late), (1, 1, 0));
}

/// A server end on which the client has opened request 1 and got the head of its response.
fn responded() -> End {
    let mut end = with_request();
    end.mux
        .respond(id(1), response_head(200, b""), false)
        .unwrap();
    assert_eq!(end.sent().len(), 1);
    end
}

#[test]
fn p_6_2_an_abort_leaves_behind_the_sent_payload() {
    let mut end = responded();
    end.mux
        .send(id(1), Bytes::from_static(b"hello"), false)
        .unwrap();
    assert!(
        end.mux
            .abort(id(1), ResetCode::ServiceAborted, "closed early")
    );
    assert!(
        !end.mux
            .abort(id(1), ResetCode::ServiceAborted, "once is enough")
    );
    assert_eq!(end.mux.sendable(id(1)), Err(SendError::Gone));
    // The peer is stopped before the payload is sent.
    let expected = ["1 stop", "1 chunk 5", "1 abort ServiceAborted"];
    assert_eq!(outline(&end.sent()), expected);
    assert_eq!(end.mux.stats().open, 0);
    // Messages that the peer had sent by then are late.
    assert_eq!(end.feed([chunk(1, 5, true)]), []);
    assert_eq!(end.mux.stats().violations, 0);
}

#[test]
fn p_6_2_an_abort_leaves_behind_its_opening() {
    let mut end = End::server();
    let own = end.open(b"", false);
    end.mux
        .send(own, Bytes::from_static(b"hey"), false)
        .unwrap();
    assert!(end.mux.abort(own, ResetCode::Cancelled, "left"));
    let expected = ["2 open", "2 chunk 3", "2 abort Cancelled"];
    assert_eq!(outline(&end.sent()), expected);
    assert_eq!(end.mux.stats().open, 0);
}

#[test]
fn p_6_2_an_abort_leaves_behind_the_end() {
    let mut end = responded();
    end.mux
        .send(id(1), Bytes::from_static(b"hello"), true)
        .unwrap();
    assert_eq!(outline(&end.sent()), ["1 chunk 5."]);
    assert!(end.mux.abort(id(1), ResetCode::ServiceAborted, ""));
    assert_eq!(outline(&end.sent()), ["1 stop", "1 abort ServiceAborted"]);
}

#[test]
fn p_6_2_a_reset_at_once_overtakes_and_drops() {
    for aborted_before in [false, true] {
        let mut end = responded();
        end.mux
            .send(id(1), Bytes::from_static(b"hello"), false)
            .unwrap();
        if aborted_before {
            end.mux.abort(id(1), ResetCode::ServiceAborted, "");
        }
        assert!(end.mux.reset(id(1), ResetCode::Cancelled, ""));
        assert_eq!(outline(&end.sent()), ["1 reset Cancelled"]);
        let stats = end.mux.stats();
        assert_eq!((stats.open, stats.queued), (0, 0));
    }
}

#[test]
fn p_6_2_a_stop_drops_payload_before_an_abort_only() {
    let mut end = responded();
    end.mux
        .send(id(1), Bytes::from_static(b"hello"), false)
        .unwrap();
    end.mux.abort(id(1), ResetCode::ServiceAborted, "");
    assert_eq!(end.feed([stop(1)]), [], "its task is gone");
    assert_eq!(outline(&end.sent()), ["1 stop", "1 abort ServiceAborted"]);
    assert_eq!(end.mux.stats().open, 0);
}

#[test]
fn p_6_2_an_aborted_payload_is_charged_until_it_leaves() {
    let mut end = responded();
    end.mux
        .send(id(1), Bytes::from_static(b"unsent"), false)
        .unwrap();
    let events = end.feed([chunk(1, 100, false), abort(1), chunk(1, 1, false)]);
    assert!(
        matches!(
            &events[..],
            [
                Event::Data { end: false, .. },
                Event::Reset {
                    by_peer: true,
                    in_order: true,
                    ..
                },
                Event::Reset { by_peer: false, .. }
            ]
        ),
        "{events:?}"
    );
    assert_eq!(end.sent(), [], "both directions are over");

    let mut end = responded();
    end.feed([chunk(1, 100, false), abort(1)]);
    assert_eq!(end.mux.sendable(id(1)), Err(SendError::Ended));
    assert_eq!(end.mux.stats().open, 1);
    end.mux.consume(id(1), 100 + MESSAGE_COST);
    assert_eq!(end.mux.stats().open, 0);
    assert_eq!(end.sent(), []);
}

#[test]
fn p_6_2_a_stopped_direction_is_not_delivered_before_an_abort() {
    let mut end = responded();
    end.mux.stop_sending(id(1), ResetCode::Cancelled);
    let events = end.feed([chunk(1, 100, false), abort(1)]);
    assert!(
        matches!(
            &events[..],
            [Event::Reset {
                in_order: false,
                ..
            }]
        ),
        "{events:?}"
    );
    assert_eq!(end.mux.stats().open, 0);
}
