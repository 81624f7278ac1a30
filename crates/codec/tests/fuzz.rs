//! Hostile bytes cause no panic, the decoder returns no more bytes than it received, and the result does not depend on
//! how the frames are cut.
//!
//! With an engine (`cargo bolero test`) these are fuzz targets; without one they run a bounded number of times.
#![cfg(not(adit_loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod model;

use adit_codec::{HeaderBlock, MAX_WIRE_LINES, Open, Payload, RequestHead, ResponseHead};
use model::{End, framed, joined, read, read_one};

/// Bytes that look more like a message than random ones: fields with small numbers.
fn message_of(fields: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, kind, content) in fields {
        let number = u16::from(number % 34);
        let wire = [0, 2, 2, 2, 1, 5, 3, 4][usize::from(kind % 8)];
        let key = number << 3 | wire;
        if key >= 0x80 {
            out.push((key & 0x7f) as u8 | 0x80);
            out.push((key >> 7) as u8);
        } else {
            out.push(key as u8);
        }
        match wire {
            0 => out.extend(content.iter().take(10)),
            2 => {
                out.push(content.len().min(127) as u8);
                out.extend(content.iter().take(127));
            }
            _ => out.extend(content),
        }
    }
    out
}

/// Reads a stream in one frame, and again cut into several; both results must be equal.
fn assert_cuts_change_nothing(stream: &[u8], cuts: &[u8]) {
    let cuts: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    let (whole, _, end) = read(stream, &[]);
    let (parts, _, cut_end) = read(stream, &cuts);
    assert_eq!(end, cut_end);
    let cut_short = !end_is_clean(&end);
    let whole = joined(whole.into_iter().map(|(_, envelope)| envelope), cut_short);
    let parts = joined(parts.into_iter().map(|(_, envelope)| envelope), cut_short);
    let out: usize = whole
        .iter()
        .map(|envelope| match &envelope.payload {
            Payload::Chunk { data, .. }
            | Payload::Control(data)
            | Payload::Datagram(data)
            | Payload::Frame { data, .. } => data.len(),
            Payload::Request(head) => head.body_bytes(),
            Payload::Response(head) => head.body_bytes(),
            _ => 0,
        })
        .sum();
    assert!(out <= stream.len());
    assert_eq!(whole, parts);
}

fn end_is_clean(end: &End) -> bool {
    end.error.is_none() && end.between_messages
}

/// A block written to an HTTP/1 connection, read back line by line.
fn assert_lines_stay_lines(block: &HeaderBlock) {
    assert!(block.len() <= MAX_WIRE_LINES);
    let mut written = Vec::new();
    for (name, value) in block.lines() {
        written.extend([name, b": ", value, b"\r\n"].concat());
    }
    let text: Vec<char> = written.iter().map(|&byte| char::from(byte)).collect();
    let text: String = text.into_iter().collect();
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.pop(), Some(""));
    assert_eq!(lines.len(), block.len());
    for (line, (name, value)) in lines.iter().zip(block.iter()) {
        assert!(!line.contains(['\r', '\n', '\0']));
        let (read_name, read_value) = line.split_once(": ").unwrap();
        assert!(read_name.bytes().eq(name.iter().copied()));
        assert!(!read_name.is_empty() && !read_name.contains([' ', ':', '\t']));
        assert!(
            read_value
                .chars()
                .map(|one| one as u32)
                .eq(value.iter().map(|&byte| u32::from(byte)))
        );
        assert!(block.first(&name).is_some());
    }
}

#[test]
fn any_bytes_cut_anywhere() {
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>)>()
        .for_each(|(stream, cuts)| assert_cuts_change_nothing(stream, cuts));
}

#[test]
fn any_messages_cut_anywhere() {
    bolero::check!()
        .with_type::<(Vec<Vec<u8>>, Vec<u8>)>()
        .for_each(|(messages, cuts)| {
            let stream: Vec<u8> = messages.iter().flat_map(|one| framed(one)).collect();
            assert_cuts_change_nothing(&stream, cuts);
        });
}

#[test]
fn any_fields_cut_anywhere() {
    bolero::check!()
        .with_type::<(Vec<Vec<(u8, u8, Vec<u8>)>>, Vec<u8>, u8)>()
        .for_each(|(messages, cuts, tail)| {
            let mut stream: Vec<u8> = messages
                .iter()
                .flat_map(|fields| framed(&message_of(fields)))
                .collect();
            // Sometimes the last message is cut short.
            if tail % 4 == 0 {
                stream.truncate(stream.len().saturating_sub(usize::from(tail / 4)));
            }
            assert_cuts_change_nothing(&stream, cuts);
        });
}

#[test]
fn any_header_block() {
    bolero::check!()
        .with_type::<(Vec<(Vec<u8>, Vec<u8>, bool)>, Vec<(u8, u8, Vec<u8>)>)>()
        .for_each(|(lines, noise)| {
            let mut content = message_of(noise);
            for (name, value, valid) in lines {
                let mut name: Vec<u8> = name.iter().copied().take(50).collect();
                let mut value: Vec<u8> = value.iter().copied().take(50).collect();
                if *valid {
                    name.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
                    name.push(b'x');
                    value
                        .iter_mut()
                        .for_each(|byte| *byte = (*byte).max(0x20) & 0xbf | 0x20);
                }
                let line = [
                    &[0x0a, name.len() as u8],
                    &name[..],
                    &[0x12, value.len() as u8],
                    &value[..],
                ]
                .concat();
                content.extend([0x0a, line.len() as u8]);
                content.extend(line);
            }
            for number in [14 << 3 | 2, 6 << 3 | 2] {
                let mut message = vec![0x08, 2, number];
                if number == 6 << 3 | 2 {
                    // In a response, field 2 has the headers and field 1 the status.
                    content
                        .iter_mut()
                        .filter(|byte| **byte == 0x0a)
                        .for_each(|byte| *byte = 0x12);
                    content.extend([0x08, 0xc8, 0x01]);
                }
                message.extend([
                    content.len() as u8 | 0x80,
                    (content.len() >> 7) as u8 | 0x80,
                ]);
                message.push((content.len() >> 14) as u8);
                message.extend(&content);
                if let Ok(envelope) = read_one(&message) {
                    match envelope.payload {
                        Payload::Trailers(block) => assert_lines_stay_lines(&block),
                        Payload::Response(ResponseHead::Http(head)) => {
                            assert_lines_stay_lines(&head.headers);
                        }
                        Payload::Bad(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            // The block is built from arbitrary lines; invalid ones are left out.
            let block = lines
                .iter()
                .take(MAX_WIRE_LINES)
                .map(|(name, value, _)| (&name[..], &value[..]))
                .collect();
            assert_lines_stay_lines(&block);
        });
}

/// The payloads that are messages themselves, each with a content that makes it valid, so that the decoder reads the
/// bytes after it.
fn heads() -> [(u8, Vec<u8>); 11] {
    let open = [&[0x0a, 18, 0x0a, 16][..], &[7; 16]].concat();
    let opened = |rest: &[u8]| [&open[..], rest].concat();
    [
        (5, opened(b"\x12\x03GET\x2a\x01/")),
        (6, vec![0x08, 0x64]),
        (7, opened(b"\x1a\x01/")),
        (8, vec![0x08, 0xc8, 0x01]),
        (9, opened(b"\x1a\x01/")),
        (10, vec![0x08, 0x65]),
        (11, opened(b"")),
        (12, opened(b"")),
        (13, vec![]),
        (19, vec![0x20, 0xff, 0x7f]),
        (14, vec![]),
    ]
}

fn assert_open_holds(open: &Open) {
    for text in [
        &open.tunnel,
        &open.visitor,
        &open.traceparent,
        &open.baggage,
    ] {
        assert!(!text.contains(['\r', '\n', '\0']));
    }
}

fn assert_place_holds(authority: &[u8], path: &[u8]) {
    let is_part = |bytes: &[u8]| !bytes.iter().any(|&byte| byte <= b' ' || byte == 0x7f);
    assert!(is_part(authority) && is_part(path) && !path.is_empty());
}

fn assert_request_holds(head: &RequestHead) {
    assert_open_holds(head.open());
    match head {
        RequestHead::Http(read) => {
            assert_lines_stay_lines(&read.headers);
            let line = [&read.method[..], b" ", &read.path, b" HTTP/1.1"].concat();
            assert_eq!(line.iter().filter(|&&byte| byte == b' ').count(), 2);
            assert!(!line.iter().any(|byte| byte.is_ascii_control()));
            assert_place_holds(&read.authority, &read.path);
            assert!(["", "http", "https"].iter().any(|one| read.scheme == *one));
        }
        RequestHead::Grpc(read) => {
            assert_lines_stay_lines(&read.metadata);
            assert_place_holds(&read.authority, &read.path);
            assert!(read.path.starts_with(b"/"));
            assert!(read.timeout.is_none_or(|timeout| !timeout.is_zero()));
        }
        RequestHead::WebSocket(read) => {
            assert_lines_stay_lines(&read.headers);
            assert_place_holds(&read.authority, &read.path);
            assert!(read.path.starts_with(b"/"));
        }
        RequestHead::Tcp(read) => assert!(!read.local.contains(['\r', '\n', '\0'])),
        RequestHead::Udp(read) => assert!(!read.local.contains(['\r', '\n', '\0'])),
    }
}

fn assert_response_holds(head: &ResponseHead) {
    match head {
        ResponseHead::Http(read) => {
            assert_lines_stay_lines(&read.headers);
            assert!((100..=999).contains(&read.status));
        }
        ResponseHead::Grpc(read) => {
            assert_lines_stay_lines(&read.metadata);
            assert!((200..=999).contains(&read.status));
        }
        ResponseHead::WebSocket(read) => {
            assert_lines_stay_lines(&read.headers);
            assert!(read.status == 101 || (200..=999).contains(&read.status));
        }
        ResponseHead::Accepted => {}
    }
}

type Fields = Vec<(u8, u8, Vec<u8>)>;

#[test]
fn any_head() {
    bolero::check!()
        .with_type::<(Fields, u8, bool, Vec<u8>)>()
        .for_each(|(fields, which, holds, cuts)| {
            let heads = heads();
            let (number, start) = &heads[usize::from(*which) % heads.len()];
            let mut head = if *holds { start.clone() } else { Vec::new() };
            let fields: Vec<_> = fields
                .iter()
                .map(|(number, kind, content)| (number % 9, *kind, content.clone()))
                .collect();
            head.extend(message_of(&fields));
            let key = u16::from(*number) << 3 | 2;
            let mut message = vec![0x08, 2, key as u8 | 0x80, (key >> 7) as u8];
            message.extend([head.len() as u8 | 0x80, (head.len() >> 7) as u8 | 0x80]);
            message.push((head.len() >> 14) as u8);
            message.extend(&head);
            let read = read_one(&message).unwrap().payload;
            match &read {
                Payload::Request(head) => {
                    assert_request_holds(head);
                    assert!(head.body_bytes() <= message.len());
                    assert!(!read.fits(head.protocol()), "it opens one and no other");
                }
                Payload::Response(head) => {
                    assert_response_holds(head);
                    assert!(head.body_bytes() <= message.len());
                }
                Payload::Frame { frame, data } => {
                    assert!(frame.rsv < 8 && frame.opcode < 16 && frame.length < 1 << 63);
                    assert!(data.len() as u64 <= frame.length);
                }
                Payload::Trailers(block) => assert_lines_stay_lines(block),
                Payload::Bad(_) => {}
                other => panic!("{other:?}"),
            }
            assert_cuts_change_nothing(&[framed(&message), framed(&message)].concat(), cuts);
        });
}
