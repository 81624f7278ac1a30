//! Hostile responses: the parsers never read outside the bytes that a service sends, and their results do not depend on
//! how the bytes are split.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_egress::http1::{BodyFraming, ChunkedDecoder, ChunkedError, parse};

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|b| {
            b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"\"(),/:;<=>?@[\\]{}".contains(b)
        })
}

#[test]
fn heads() {
    bolero::check!().for_each(|input: &[u8]| {
        // Most inputs are not heads; these prefixes turn some of them into heads.
        for start in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nX: ",
        ] {
            for end in [&b""[..], b"\r\n\r\n"] {
                let mut bytes = [start, input, end].concat();
                let mut lines = Vec::new();
                let Ok(Some(head)) = parse(&mut bytes, false, &mut lines) else {
                    continue;
                };
                assert!((100..=999).contains(&head.status));
                assert!(head.bytes <= bytes.len());
                assert!(!(head.keep_alive && matches!(head.framing, BodyFraming::Close)));
                for line in &lines {
                    let (name, value) = line.of(&bytes[..head.bytes]);
                    assert!(is_token(name), "{name:?}");
                    assert!(
                        value
                            .iter()
                            .all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f)),
                        "{value:?}"
                    );
                }
                // Bytes after the head do not change it, and a part of the head is incomplete.
                let mut again = Vec::new();
                let alone = parse(&mut bytes[..head.bytes].to_vec(), false, &mut again)
                    .unwrap()
                    .unwrap();
                assert_eq!(
                    (alone.status, alone.bytes, again),
                    (head.status, head.bytes, lines)
                );
                let less = parse(
                    &mut bytes[..head.bytes - 1].to_vec(),
                    false,
                    &mut Vec::new(),
                );
                assert!(!matches!(less, Ok(Some(_))));
            }
        }
    });
}

type Outcome = Result<(Vec<u8>, usize, bool), ChunkedError>;

fn decode(coded: &[u8], step: usize) -> Outcome {
    let mut decoder = ChunkedDecoder::default();
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in coded.chunks(step) {
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.payload.end <= decoded.consumed && decoded.consumed <= piece.len());
        payload.extend_from_slice(&piece[decoded.payload]);
        consumed += decoded.consumed;
        if decoder.is_done() {
            break;
        }
        assert_eq!(decoded.consumed, piece.len());
    }
    if decoder.is_done() {
        decoder.take_trailers()?;
    }
    Ok((payload, consumed, decoder.is_done()))
}

#[test]
fn chunked_bodies() {
    bolero::check!().for_each(|input: &[u8]| {
        // The input uses few letters, so that random bytes form chunks.
        const LETTERS: &[u8] = b"\r\n0123a;: x\r\n";
        let letters: Vec<u8> = input
            .iter()
            .map(|b| LETTERS[usize::from(*b) % LETTERS.len()])
            .collect();
        let mut framed = Vec::new();
        for chunk in input.chunks(11) {
            framed.extend(format!("{:x}\r\n", chunk.len()).bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(
            decode(&framed, 13),
            Ok((input.to_vec(), framed.len(), true))
        );
        for coded in [input, &letters] {
            let whole = decode(coded, usize::MAX);
            for step in [1, 2, 7] {
                assert_eq!(decode(coded, step), whole);
            }
        }
    });
}
