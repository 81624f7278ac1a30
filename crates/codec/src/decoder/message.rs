//! Decodes a message that is complete in one buffer.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    compressed::{COMPRESSION_FIELD, Compressed, INFLATED_BYTES_FIELD},
    envelope::{Envelope, Payload},
    error::{BadMessage, DecodeError},
    frame::MAX_MESSAGE_BYTES,
    head::{
        ACCEPTED_FIELD, GRPC_REQUEST_FIELD, GRPC_RESPONSE_FIELD, GrpcRequest, GrpcResponse,
        HTTP_REQUEST_FIELD, HTTP_RESPONSE_FIELD, HttpRequest, HttpResponse, RequestHead,
        ResponseHead, TCP_OPEN_FIELD, TcpOpen, UDP_OPEN_FIELD, UdpOpen, WEBSOCKET_FRAME_FIELD,
        WEBSOCKET_REQUEST_FIELD, WEBSOCKET_RESPONSE_FIELD, WebSocketRequest, WebSocketResponse,
        decode_frame, decode_trailers,
    },
    id::{MessageType, RequestId, ResetCode},
    message::{
        CHUNK_FIELD, CONTROL_FIELD, DATAGRAM_FIELD, MAX_DATAGRAM_BYTES, RESET_FIELD,
        STOP_SENDING_FIELD, TRAILERS_FIELD, WINDOW_FIELD,
    },
    wire::{Reader, Value, low_32},
};

/// The last payload field before those of compression. The numbers between them and [`CHUNK_FIELD`] are free: a new payload
/// stands in both arms of the match of [`decode_message`] and in [`field_of`].
const LAST_PAYLOAD_FIELD: u64 = CONTROL_FIELD as u64;
const CHUNK_NUMBER: u64 = CHUNK_FIELD as u64;
const INFLATED_BYTES_NUMBER: u64 = INFLATED_BYTES_FIELD as u64;
const COMPRESSION_NUMBER: u64 = COMPRESSION_FIELD as u64;

/// Decodes one complete message: the first `length` bytes of a buffer. Only the fields of the result are sliced out.
pub(super) fn decode_message(
    buffer: &Bytes,
    length: usize,
    offset: u64,
) -> Result<Option<Envelope>, DecodeError> {
    debug_assert!(length <= MAX_MESSAGE_BYTES && length <= buffer.len());
    let (mut id, mut message_type, mut end_stream) = (0, 0, 0);
    let mut payload = None;
    let (mut inflated_bytes, mut compression) = (0, 0);
    let mut unknown = false;
    let mut bad = None;
    let mut reader = Reader::new(&buffer[..length]);
    loop {
        let (field, value) = match reader.field() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(what) => {
                bad = Some(what);
                break;
            }
        };
        match (field, value) {
            (1, Value::Varint(value)) => id = value,
            (2, Value::Varint(_)) => {}
            (3, Value::Varint(value)) => message_type = low_32(value),
            (4, Value::Varint(value)) => end_stream = value,
            (5..=LAST_PAYLOAD_FIELD | CHUNK_NUMBER, Value::Range(from, to)) => {
                // The last payload counts (P-2.3), also if this version does not know it.
                payload = field_of(field).map(|known| (known, from, to));
                unknown = payload.is_none();
            }
            (INFLATED_BYTES_NUMBER, Value::Varint(value)) => inflated_bytes = value,
            (COMPRESSION_NUMBER, Value::Varint(value)) => compression = value,
            (1..=COMPRESSION_NUMBER | CHUNK_NUMBER, _) => bad = Some(BadMessage::WireType),
            // A payload of a newer version; it is ignored if the message also has a known one.
            (24..=30, _) => unknown = true,
            _ => {}
        }
    }
    if let Some(what) = bad
        && id == 0
    {
        return Err(DecodeError::NotAMessage { what, offset });
    }
    let payload = match (bad, payload) {
        (Some(what), _) => Payload::Bad(what),
        (None, Some((field, from, to))) => {
            if contradicts(message_type, field) {
                Payload::Bad(BadMessage::Contradiction)
            } else {
                decode_payload(field, buffer, from..to).unwrap_or_else(Payload::Bad)
            }
        }
        (None, None) if unknown || end_stream == 0 => Payload::Bad(BadMessage::UnknownPayload),
        (None, None) => match MessageType::from_wire(message_type) {
            Some(MessageType::Unspecified | MessageType::StreamChunk) => Payload::None,
            _ => Payload::Bad(BadMessage::Contradiction),
        },
    };
    let mut envelope = Envelope {
        id: RequestId::new(id),
        end_stream: end_stream != 0,
        payload,
    };
    match Compressed::read(inflated_bytes, compression) {
        Ok(None) => {}
        Ok(Some(compressed)) => envelope.payload = as_compressed(compressed, envelope.payload),
        Err(what) => envelope.payload = Payload::Bad(what),
    }
    Ok(Some(envelope))
}

/// The payload of a message with compression fields (P-13.2).
fn as_compressed(compressed: Compressed, payload: Payload) -> Payload {
    let (frame, data) = match payload {
        Payload::Chunk { data, .. } => (None, data),
        Payload::Frame { frame, data } => (Some(frame), data),
        Payload::Bad(what) => return Payload::Bad(what),
        _ => return Payload::Bad(BadMessage::Compression),
    };
    if compressed.holds(data.len(), frame.map_or(u64::MAX, |frame| frame.length)) {
        Payload::Compressed {
            compressed,
            frame,
            data,
        }
    } else {
        Payload::Bad(BadMessage::Compression)
    }
}

fn field_of(field: u64) -> Option<u8> {
    u8::try_from(field).ok().filter(|field| {
        matches!(
            *field,
            HTTP_REQUEST_FIELD
                ..=RESET_FIELD
                    | WEBSOCKET_FRAME_FIELD
                    | DATAGRAM_FIELD
                    | CONTROL_FIELD
                    | CHUNK_FIELD
        )
    })
}

fn contradicts(message_type: u64, field: u8) -> bool {
    let fits = match field {
        HTTP_REQUEST_FIELD
        | GRPC_REQUEST_FIELD
        | WEBSOCKET_REQUEST_FIELD
        | TCP_OPEN_FIELD
        | UDP_OPEN_FIELD => MessageType::Request,
        HTTP_RESPONSE_FIELD | GRPC_RESPONSE_FIELD | WEBSOCKET_RESPONSE_FIELD | ACCEPTED_FIELD => {
            MessageType::Response
        }
        WEBSOCKET_FRAME_FIELD => MessageType::Frame,
        DATAGRAM_FIELD => MessageType::Datagram,
        TRAILERS_FIELD => MessageType::Trailers,
        WINDOW_FIELD => MessageType::Window,
        STOP_SENDING_FIELD => MessageType::StopSending,
        RESET_FIELD => MessageType::Reset,
        CONTROL_FIELD => MessageType::Control,
        _ => MessageType::StreamChunk,
    };
    message_type != 0 && message_type != u64::from(fits.to_wire())
}

fn decode_payload(field: u8, buffer: &Bytes, at: Range<usize>) -> Result<Payload, BadMessage> {
    let (from, content) = (at.start, &buffer[at.clone()]);
    Ok(match field {
        WEBSOCKET_FRAME_FIELD => {
            let (frame, data) = decode_frame(&buffer.slice(at))?;
            Payload::Frame { frame, data }
        }
        DATAGRAM_FIELD if content.len() > MAX_DATAGRAM_BYTES => return Err(BadMessage::Datagram),
        DATAGRAM_FIELD => Payload::Datagram(buffer.slice(at)),
        TRAILERS_FIELD => Payload::Trailers(decode_trailers(&buffer.slice(at))?),
        WINDOW_FIELD => {
            let mut reader = Reader::new(content);
            let (mut limit, mut consumed) = (0, 0);
            while let Some((field, value)) = reader.field()? {
                match field {
                    1 => limit = value.varint()?,
                    2 => consumed = value.varint()?,
                    _ => {}
                }
            }
            Payload::Window { limit, consumed }
        }
        STOP_SENDING_FIELD => {
            let mut reader = Reader::new(content);
            let mut code = 0;
            while let Some((field, value)) = reader.field()? {
                if field == 1 {
                    code = value.varint()?;
                }
            }
            Payload::StopSending(reset_code(code))
        }
        RESET_FIELD => {
            let mut reader = Reader::new(content);
            let mut code = 0;
            let mut reason = Bytes::new();
            let mut in_order = false;
            while let Some((field, value)) = reader.field()? {
                match field {
                    1 => code = value.varint()?,
                    2 => {
                        let (start, end) = value.range()?;
                        reason = buffer.slice(from + start..from + end);
                    }
                    3 => in_order = value.varint()? != 0,
                    _ => {}
                }
            }
            Payload::Reset {
                code: reset_code(code),
                reason,
                in_order,
            }
        }
        CONTROL_FIELD => Payload::Control(buffer.slice(at)),
        CHUNK_FIELD => Payload::Chunk {
            data: buffer.slice(at),
            first: true,
            last: true,
        },
        _ => decode_head(field, buffer.slice(at))?,
    })
}

fn decode_head(field: u8, bytes: Bytes) -> Result<Payload, BadMessage> {
    let request = match field {
        HTTP_REQUEST_FIELD => RequestHead::Http(HttpRequest::decode(bytes)?),
        GRPC_REQUEST_FIELD => RequestHead::Grpc(GrpcRequest::decode(&bytes)?.into()),
        WEBSOCKET_REQUEST_FIELD => RequestHead::WebSocket(WebSocketRequest::decode(&bytes)?.into()),
        TCP_OPEN_FIELD => RequestHead::Tcp(TcpOpen::decode(&bytes)?.into()),
        UDP_OPEN_FIELD => RequestHead::Udp(UdpOpen::decode(&bytes)?.into()),
        _ => return decode_response(field, bytes).map(Payload::Response),
    };
    Ok(Payload::Request(request))
}

fn decode_response(field: u8, bytes: Bytes) -> Result<ResponseHead, BadMessage> {
    Ok(match field {
        HTTP_RESPONSE_FIELD => ResponseHead::Http(HttpResponse::decode(bytes)?),
        GRPC_RESPONSE_FIELD => ResponseHead::Grpc(GrpcResponse::decode(&bytes)?.into()),
        WEBSOCKET_RESPONSE_FIELD => {
            ResponseHead::WebSocket(WebSocketResponse::decode(&bytes)?.into())
        }
        ACCEPTED_FIELD => {
            // The message is empty in this version; content of a newer version must still be protobuf.
            let mut reader = Reader::new(&bytes);
            while reader.field()?.is_some() {}
            ResponseHead::Accepted
        }
        // `field_of` returns no other field.
        _ => return Err(BadMessage::UnknownPayload),
    })
}

/// A code of a newer version still ends the request.
fn reset_code(code: u64) -> ResetCode {
    ResetCode::from_wire(low_32(code)).unwrap_or(ResetCode::Unspecified)
}

#[cfg(not(adit_loom))]
#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::{super::tests::framed, *};
    use crate::{Decoder, head::WebSocketFrame};

    #[test]
    fn each_payload_contradicts_every_type_but_its_own() {
        for (field, fits) in [
            (HTTP_REQUEST_FIELD, 1),
            (HTTP_RESPONSE_FIELD, 2),
            (GRPC_REQUEST_FIELD, 1),
            (GRPC_RESPONSE_FIELD, 2),
            (WEBSOCKET_REQUEST_FIELD, 1),
            (WEBSOCKET_RESPONSE_FIELD, 2),
            (TCP_OPEN_FIELD, 1),
            (UDP_OPEN_FIELD, 1),
            (ACCEPTED_FIELD, 2),
            (WEBSOCKET_FRAME_FIELD, 8),
            (DATAGRAM_FIELD, 9),
            (CHUNK_FIELD, 3),
            (TRAILERS_FIELD, 4),
            (WINDOW_FIELD, 5),
            (STOP_SENDING_FIELD, 6),
            (RESET_FIELD, 7),
            (CONTROL_FIELD, 11),
        ] {
            for message_type in 0..=12 {
                let contradicted = message_type != 0 && message_type != fits;
                assert_eq!(contradicts(message_type, field), contradicted, "{field}");
            }
        }
    }

    #[test]
    fn p_11_1_a_datagram_has_at_most_65507_bytes() {
        let read = |length| {
            let mut out = BytesMut::new();
            crate::message::write_datagram_prefix(&mut out, RequestId::new(2), length);
            out.put_bytes(7, length);
            let mut decoder = Decoder::new();
            decoder.feed(out.freeze());
            decoder.next().unwrap().unwrap().payload
        };
        for length in [0, 1, 65_507] {
            assert_eq!(read(length), Payload::Datagram(vec![7; length].into()));
        }
        assert_eq!(read(65_508), Payload::Bad(BadMessage::Datagram));
    }

    #[test]
    fn an_empty_message_is_still_validated() {
        let accepted = |content: &[u8]| {
            let message = Bytes::copy_from_slice(content);
            decode_payload(ACCEPTED_FIELD, &message, 0..content.len()).unwrap_or_else(Payload::Bad)
        };
        assert_eq!(accepted(b""), Payload::Response(ResponseHead::Accepted));
        // A field of a newer version is skipped, if it is valid protobuf.
        assert_eq!(
            accepted(b"\x0a\x01a"),
            Payload::Response(ResponseHead::Accepted)
        );
        assert_eq!(accepted(b"\x0a\x02a"), Payload::Bad(BadMessage::Truncated));
    }

    #[test]
    fn p_13_2_compressed_payload_carries_algorithm_and_size() {
        let read = |fields: &[u8]| {
            let message = [&[8, 2], fields].concat();
            let mut decoder = Decoder::new();
            decoder.feed(framed(&message).freeze());
            decoder.next().unwrap().unwrap().payload
        };
        let compressed = |by, inflated_bytes, frame, data: &[u8]| Payload::Compressed {
            compressed: Compressed { by, inflated_bytes },
            frame,
            data: Bytes::copy_from_slice(data),
        };
        use crate::id::Compression::{Gzip, Zstd};
        // The fields may be in any order.
        assert_eq!(
            read(b"\xb0\x01\x04\xb8\x01\x01\xfa\x01\x03abc"),
            compressed(Gzip, 4, None, b"abc")
        );
        assert_eq!(
            read(b"\xfa\x01\x03abc\xb8\x01\x02\xb0\x01\x80\x80\x04"),
            compressed(Zstd, 65_536, None, b"abc")
        );
        let frame = WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 4,
        };
        let framed = b"\x9a\x01\x09\x08\x01\x18\x01\x20\x04\x2a\x01a\xb8\x01\x01\xb0\x01";
        assert_eq!(
            read(&[&framed[..], &[4]].concat()),
            compressed(Gzip, 4, Some(frame), b"a")
        );
        let bad = Payload::Bad(BadMessage::Compression);
        for fields in [
            // The inflated size is above 64 KiB, or not greater than the compressed size.
            &b"\xb0\x01\x81\x80\x04\xb8\x01\x01\xfa\x01\x03abc"[..],
            b"\xb0\x01\x03\xb8\x01\x01\xfa\x01\x03abc",
            b"\xb0\x01\xff\xff\xff\xff\x0f\xb8\x01\x01\xfa\x01\x03abc",
            // The inflated size is greater than the length of the frame.
            &[&framed[..], &[5]].concat(),
            // One field without the other, or an invalid value.
            b"\xb8\x01\x01\xfa\x01\x03abc",
            b"\xb0\x01\x04\xfa\x01\x03abc",
            b"\xb0\x01\x04\xb8\x01\x03\xfa\x01\x03abc",
            // Payloads that are never compressed: the end, a datagram, a window, a response.
            b"\x20\x01\xb0\x01\x04\xb8\x01\x01",
            b"\xb0\x01\x04\xb8\x01\x01\xa2\x01\x03abc",
            b"\xb0\x01\x04\xb8\x01\x01\x7a\x02\x08\x01",
            b"\xb0\x01\x04\xb8\x01\x01\x6a\x00",
        ] {
            assert_eq!(read(fields), bad, "{fields:?}");
        }
        // Zeros count as absent.
        let chunk = Payload::Chunk {
            data: "abc".into(),
            first: true,
            last: true,
        };
        assert_eq!(read(b"\xb0\x01\x00\xb8\x01\x00\xfa\x01\x03abc"), chunk);
        let wrong = Payload::Bad(BadMessage::WireType);
        assert_eq!(read(b"\xb2\x01\x00\xfa\x01\x03abc"), wrong);
        assert_eq!(read(b"\xba\x01\x00\xfa\x01\x03abc"), wrong);
    }

    #[test]
    fn a_bad_message_names_its_request_or_ends_the_stream() {
        let bad = |message: &[u8]| {
            let mut decoder = Decoder::new();
            decoder.feed(framed(message).freeze());
            decoder.next().map(|read| {
                let envelope = read.unwrap();
                (envelope.id.value(), envelope.payload)
            })
        };
        let cut = Payload::Bad(BadMessage::Truncated);
        assert_eq!(bad(&[8, 2, 0x7a]), Ok((2, cut)));
        assert_eq!(
            bad(&[0x7a, 9, 8, 2]),
            Err(DecodeError::NotAMessage {
                what: BadMessage::Truncated,
                offset: 0
            })
        );
        let contradiction = Payload::Bad(BadMessage::Contradiction);
        assert_eq!(
            bad(&[8, 2, 0x18, 4, 0x20, 1]),
            Ok((2, contradiction.clone()))
        );
        assert_eq!(bad(&[8, 2, 0x18, 5, 0xfa, 1, 0]), Ok((2, contradiction)));
        assert_eq!(bad(&[8, 2, 0x18, 3, 0x20, 1]), Ok((2, Payload::None)));
        // The wire type is wrong inside a payload as well.
        let wrong = Payload::Bad(BadMessage::WireType);
        assert_eq!(bad(&[8, 2, 0x7a, 2, 0x0a, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x7a, 2, 0x12, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x82, 1, 2, 0x0a, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x8a, 1, 2, 0x10, 0]), Ok((2, wrong)));
    }
}
