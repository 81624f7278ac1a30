//! Frames that are forwarded: a table of raw bytes, fragments, extensions, sizes and splits.

use adit_link::{Part, Reason};
use adit_testlink::{
    HttpEntry, http1, next_part,
    tcp::read,
    websocket::{Frame, expect, frame, read_frame, send},
    within,
};
use tokio::io::AsyncWriteExt;

use crate::websocket::short;

/// The result of the bytes.
enum Then {
    /// The client receives these frames, and the visitor nothing.
    Carried(Vec<Frame>),
    /// The visitor receives a close frame 1002 and the end, the client a reset (P-9.4).
    Refused,
}

/// A visitor's bytes, with a mask of zeros where that is easier to read.
fn zero(head: &[u8], payload: &[u8]) -> Vec<u8> {
    [head, &[0; 4], payload].concat()
}

/// Each row: a clause of RFC 6455, the bytes of a visitor, and their result.
#[rustfmt::skip]
fn table() -> Vec<(&'static str, Vec<u8>, Then)> {
    use Then::{Carried, Refused};
    let one = |frame: Frame| Carried(vec![frame]);
    vec![
        // Valid frames.
        ("5.7: a masked text message",
            vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], one(Frame::text("Hello"))),
        ("5.7: a fragmented message", [zero(&[0x01, 0x83], b"Hel"), zero(&[0x80, 0x82], b"lo")].concat(),
            Carried(vec![Frame::of(false, 0, 1, "Hel"), Frame::of(true, 0, 0, "lo")])),
        ("5.7: a masked pong",
            vec![0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], one(Frame::of(true, 0, 10, "Hello"))),
        ("5.7: 256 bytes", zero(&[0x82, 0xfe, 0x01, 0x00], &[7; 256]), one(Frame::of(true, 0, 2, [7; 256]))),
        ("5.7: 64 KiB", zero(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], &[7; 65536]), one(Frame::of(true, 0, 2, [7; 65536]))),
        ("5.2: 125 bytes", zero(&[0x82, 0xfd], &[7; 125]), one(Frame::of(true, 0, 2, [7; 125]))),
        ("5.2: 126 bytes", zero(&[0x82, 0xfe, 0, 126], &[7; 126]), one(Frame::of(true, 0, 2, [7; 126]))),
        ("5.2: 65535 bytes", zero(&[0x82, 0xfe, 0xff, 0xff], &[7; 65535]), one(Frame::of(true, 0, 2, [7; 65535]))),
        ("5.4: an empty message", zero(&[0x81, 0x80], b""), one(Frame::text(""))),
        ("5.4: empty fragments", [zero(&[0x01, 0x80], b""), zero(&[0x00, 0x80], b""), zero(&[0x80, 0x80], b"")].concat(),
            Carried(vec![Frame::of(false, 0, 1, ""), Frame::of(false, 0, 0, ""), Frame::of(true, 0, 0, "")])),
        ("5.4: a control frame between fragments",
            [zero(&[0x01, 0x81], b"a"), zero(&[0x89, 0x81], b"p"), zero(&[0x80, 0x81], b"b")].concat(),
            Carried(vec![Frame::of(false, 0, 1, "a"), Frame::of(true, 0, 9, "p"), Frame::of(true, 0, 0, "b")])),
        ("5.5: the longest control frame", zero(&[0x89, 0xfd], &[7; 125]), one(Frame::of(true, 0, 9, [7; 125]))),
        ("5.5.2: a ping without payload", zero(&[0x89, 0x80], b""), one(Frame::of(true, 0, 9, ""))),
        ("5.3: a mask of zeros", zero(&[0x81, 0x82], b"hi"), one(Frame::text("hi"))),
        ("5.2, 9.1: RSV1, an extension's business", zero(&[0xc1, 0x81], b"z"), one(Frame::of(true, 4, 1, "z"))),
        ("5.2, 9.1: RSV2 and RSV3, too", zero(&[0xb2, 0x81], b"z"), one(Frame::of(true, 3, 2, "z"))),
        // Valid frames whose meaning is left to the two ends.
        ("5.2: reserved opcodes 3 to 7", zero(&[0x83, 0x81], b"z"), one(Frame::of(true, 0, 3, "z"))),
        ("5.2: reserved opcodes 11 to 15", zero(&[0x8f, 0x81], b"z"), one(Frame::of(true, 0, 15, "z"))),
        ("5.4: a continuation of nothing", zero(&[0x80, 0x81], b"z"), one(Frame::of(true, 0, 0, "z"))),
        ("5.4: a message within a message", [zero(&[0x01, 0x81], b"a"), zero(&[0x81, 0x81], b"b")].concat(),
            Carried(vec![Frame::of(false, 0, 1, "a"), Frame::text("b")])),
        ("5.6: text that is not UTF-8", zero(&[0x81, 0x82], &[0xc3, 0x28]), one(Frame::of(true, 0, 1, [0xc3, 0x28]))),
        ("5.5.1: a close frame of one byte", zero(&[0x88, 0x81], b"x"), one(Frame::of(true, 0, 8, "x"))),
        ("5.5.1: a close frame without a code", zero(&[0x88, 0x80], b""), one(Frame::of(true, 0, 8, ""))),
        ("7.4.1: a code that must not be sent", zero(&[0x88, 0x82], &[0x03, 0xed]), one(Frame::close(1005))),
        ("5.5.1: what follows a close frame is discarded",
            [zero(&[0x88, 0x82], &[0x03, 0xe8]), zero(&[0x81, 0x82], b"no"), vec![0xff; 40]].concat(),
            one(Frame::close(1000))),
        // Invalid frames.
        ("5.1: no mask", vec![0x81, 0x05, b'H', b'e', b'l', b'l', b'o'], Refused),
        ("5.1: no mask on a close frame", vec![0x88, 0x00], Refused),
        ("5.1: no mask on the second frame", [zero(&[0x81, 0x82], b"hi"), vec![0x81, 0x00]].concat(), Refused),
        ("5.2: 125 bytes in 16 bits", zero(&[0x82, 0xfe, 0, 125], &[7; 125]), Refused),
        ("5.2: 0 bytes in 16 bits", zero(&[0x82, 0xfe, 0, 0], b""), Refused),
        ("5.2: 65535 bytes in 64 bits", zero(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b""), Refused),
        ("5.2: a length of 2^63", zero(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], b""), Refused),
        ("5.2: a length of 2^64 - 1", zero(&[&[0x82, 0xff][..], &[0xff; 8]].concat(), b""), Refused),
        ("5.5: a ping of 126 bytes", zero(&[0x89, 0xfe, 0, 126], &[7; 126]), Refused),
        ("5.5: a close frame of 64 bits", zero(&[0x88, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], b""), Refused),
        ("5.5: a ping in fragments", zero(&[0x09, 0x81], b"p"), Refused),
        ("5.5: a close frame in fragments", zero(&[0x08, 0x82], &[0x03, 0xe8]), Refused),
        ("5.5: a reserved control frame in fragments", zero(&[0x0b, 0x80], b""), Refused),
        ("5.4: a bad frame between fragments", [zero(&[0x01, 0x81], b"a"), vec![0x80, 0x01, b'b']].concat(), Refused),
        ("HTTP in place of frames", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
    ]
}

#[tokio::test(start_paused = true)]
async fn p_9_4_frames_are_carried_or_refused_as_rfc_6455_requires() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    for (clause, bytes, then) in table() {
        // The bytes are sent as a whole, and split at every place of the first bytes.
        for cut in [0, 1, 2, 3, 5, 6, 7, 9, 13, 14, 15] {
            let cut = cut.min(bytes.len());
            let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
            http1::send(&mut visitor.0, &bytes[..cut]).await;
            tokio::task::yield_now().await;
            // The entry may have closed the connection after the first part.
            let _ = visitor.0.write_all(&bytes[cut..]).await;
            match &then {
                Then::Carried(frames) => {
                    for expected in frames {
                        let got = frame(&mut exchange.recv).await.unwrap();
                        assert_eq!(got.as_ref(), Some(expected), "{clause}");
                    }
                    send(&exchange, &[Frame::text("and back")]).await;
                    visitor.expect(&[Frame::text("and back")]).await;
                }
                Then::Refused => {
                    assert_eq!(visitor.frame().await, Some(Frame::close(1002)), "{clause}");
                    assert_eq!(visitor.frame().await, None, "{clause}");
                    let failure = loop {
                        match frame(&mut exchange.recv).await {
                            Ok(Some(_)) => {}
                            Ok(None) => panic!("{clause}: it must not look whole"),
                            Err(failure) => break failure,
                        }
                    };
                    assert_eq!(failure.reason, Reason::Cancelled, "{clause}");
                }
            }
            drop((visitor, exchange));
        }
    }
    entry.settled().await;
    let refused = table()
        .iter()
        .filter(|row| matches!(row.2, Then::Refused))
        .count();
    let failed = entry.stats().failures.of(Reason::BadRequest);
    assert_eq!(failed, refused as u64 * 11);
}

/// The other direction is not checked here: the egress has checked it.
#[tokio::test(start_paused = true)]
async fn p_9_3_every_frame_of_the_service_is_unchanged() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, exchange) = entry.open_websocket(&mut incoming).await;
    for opcode in 0..16 {
        for rsv in 0..8 {
            // A close frame would end the WebSocket.
            if opcode != 8 {
                let frame = Frame::of(opcode & 8 != 0 || rsv == 3, rsv, opcode, [opcode; 3]);
                send(&exchange, std::slice::from_ref(&frame)).await;
                visitor.expect(&[frame]).await;
            }
        }
    }
    for length in [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 200_000] {
        let frame = Frame::of(true, 0, 2, vec![5; length]);
        let (_, got) = tokio::join!(
            send(&exchange, std::slice::from_ref(&frame)),
            visitor.frame()
        );
        assert_eq!(got, Some(frame));
    }
}

#[tokio::test(start_paused = true)]
async fn p_9_3_fragments_with_control_frames_between_them_cross_in_their_order() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let frames = [
        Frame::of(false, 0, 1, "one "),
        Frame::new(9, "ping"),
        Frame::of(false, 0, 0, "two "),
        Frame::new(10, ""),
        Frame::new(9, [0; 125]),
        Frame::of(false, 0, 0, ""),
        Frame::new(0, "three"),
        Frame::text("another"),
    ];
    visitor.send(&frames).await;
    expect(&mut exchange, &frames).await;
    send(&exchange, &frames).await;
    visitor.expect(&frames).await;
}

#[tokio::test(start_paused = true)]
async fn compressed_messages_cross_byte_for_byte() {
    // RFC 7692, 7.2.3.1: "Hello", compressed, in one frame and in two.
    let whole = Frame::of(true, 4, 1, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let halves = [
        Frame::of(false, 4, 1, [0xf2, 0x48, 0xcd]),
        Frame::of(true, 0, 0, [0xc9, 0xc9, 0x07, 0x00]),
    ];
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    for frames in [&[whole][..], &halves] {
        visitor.send(frames).await;
        expect(&mut exchange, frames).await;
        send(&exchange, frames).await;
        let expected: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(None)).collect();
        let got = read(&mut visitor.0, expected.len()).await;
        assert_eq!(got, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_sends_byte_by_byte_is_understood() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let frames = [
        Frame::text("drip"),
        Frame::of(false, 4, 2, [9; 300]),
        Frame::new(9, ""),
        Frame::of(true, 0, 0, [8; 3]),
    ];
    for byte in frames.iter().flat_map(Frame::masked) {
        visitor.0.write_u8(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    expect(&mut exchange, &frames).await;
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_payload_crosses_before_its_rest() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let bytes = Frame::of(true, 0, 2, [7; 1000]).masked();
    http1::send(&mut visitor.0, &bytes[..508]).await;
    let mut got = 0;
    while got < 500 {
        match next_part(&mut exchange.recv).await {
            Some(Ok(Part::Frame(head, payload))) => {
                assert_eq!(head.length, 1000);
                got += payload.bytes().len();
            }
            Some(Ok(Part::Data(payload))) => got += payload.bytes().len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 500);
    // An incomplete frame is also forwarded in the other direction.
    let head = Frame::of(true, 0, 2, [7; 1000]).head;
    exchange.send.send_frame(head, vec![7; 400].into()).unwrap();
    let start = read(&mut visitor.0, 404).await;
    assert_eq!(start[..5], [0x82, 126, 3, 232, 7]);
}

/// Many frames in one read, with more payload than the credit at a time.
#[tokio::test(start_paused = true)]
async fn a_burst_of_small_frames_crosses_in_order() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let (mut read, mut write) = tokio::io::split(visitor.0);
    let frames: Vec<Frame> = (0..5_000).map(|n| Frame::text(&n.to_string())).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::masked).collect();
    let sending = tokio::spawn(async move {
        write.write_all(&bytes).await.unwrap();
        write
    });
    expect(&mut exchange, &frames).await;
    let back = frames.clone();
    let reading = tokio::spawn(async move {
        for expected in back {
            assert_eq!(read_frame(&mut read).await, Some(expected));
        }
    });
    send(&exchange, &frames).await;
    within(reading).await.unwrap();
    drop(sending.await.unwrap());
}

/// No memory is reserved for the announced length of a frame.
#[tokio::test(start_paused = true)]
async fn the_longest_frame_there_is_may_begin() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let head = [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4], b"begin"].concat();
    http1::send(&mut visitor.0, &head).await;
    let Some(Ok(Part::Frame(head, payload))) = next_part(&mut exchange.recv).await else {
        panic!("no frame");
    };
    assert_eq!(
        (head.length, &payload.bytes()[..]),
        (i64::MAX.cast_unsigned(), &b"begin"[..])
    );
}
