//! The messages of a control stream as the server reads them: their parts are counted before memory is taken for them
//! (P-2.1).

use adit_proto::TunnelMessage;
use bytes::Buf;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Texts and nested messages of one message. A tunnel without content has two bytes on the wire, and a hundred times as
/// many in memory.
const MAX_PARTS: usize = 32 * 1024;

/// The field of a message that is read as a message itself; `None`: every field.
type Path = &'static [Option<u64>];

/// The repeated fields that a client sends: `control`, `tunnels_announce`, `tunnels`, `layers`, and each kind of a layer.
const PATH: Path = &[Some(21), Some(4), Some(2), Some(11), None];

/// Encodes as every protobuf library does, and decodes messages with a bounded number of parts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ControlCodec;

impl Codec for ControlCodec {
    type Encode = TunnelMessage;
    type Decode = TunnelMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for ControlCodec {
    type Item = TunnelMessage;
    type Error = Status;

    fn encode(&mut self, message: TunnelMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let encoded = message.encode(out);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for ControlCodec {
    type Item = TunnelMessage;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<TunnelMessage>, Status> {
        let mut parts = MAX_PARTS;
        // The buffer of a message is one piece.
        count(bytes.chunk(), PATH, &mut parts).map_err(Status::internal)?;
        let decoded = TunnelMessage::decode(bytes);
        let decoded = decoded.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(decoded))
    }
}

/// Counts the texts and messages in `bytes` down from `left`.
fn count(mut bytes: &[u8], path: Path, left: &mut usize) -> Result<(), String> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => {
                take(&mut bytes, 8)?;
            }
            2 => {
                let length = varint(&mut bytes)?;
                let part = take(&mut bytes, length)?;
                *left = left.checked_sub(1).ok_or_else(|| {
                    format!("a control message has at most {MAX_PARTS} texts and messages: announce fewer tunnels at a time")
                })?;
                if let Some((field, path)) = path.split_first()
                    && field.is_none_or(|field| field == key >> 3)
                {
                    count(part, path, left)?;
                }
            }
            5 => {
                take(&mut bytes, 4)?;
            }
            other => return Err(format!("a field has the wire type {other}")),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    prost::encoding::decode_varint(bytes).map_err(|error| error.to_string())
}

fn take<'b>(bytes: &mut &'b [u8], length: u64) -> Result<&'b [u8], String> {
    let split = usize::try_from(length).ok();
    let split = split.and_then(|length| bytes.split_at_checked(length));
    let (part, rest) = split.ok_or("a field is longer than its message")?;
    *bytes = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use adit_proto::{
        Control, IpRules, Layer, Tunnel, TunnelsAnnounce, control::Kind, layer,
        tunnel_message::Payload,
    };

    use super::*;

    fn parts_of(tunnels: Vec<Tunnel>) -> Result<usize, String> {
        let announce = TunnelsAnnounce {
            sequence: 7,
            tunnels,
        };
        let kind = Some(Kind::TunnelsAnnounce(announce));
        let message = TunnelMessage {
            request_id: 1,
            payload: Some(Payload::Control(Control { kind })),
            ..TunnelMessage::default()
        };
        let mut left = MAX_PARTS;
        count(&message.encode_to_vec(), PATH, &mut left)?;
        Ok(MAX_PARTS - left)
    }

    fn with_rules(allow: usize) -> Tunnel {
        let rules = IpRules {
            allow: vec![String::new(); allow],
            ..IpRules::default()
        };
        let layer = Layer {
            kind: Some(layer::Kind::Ip(rules)),
            ..Layer::default()
        };
        Tunnel {
            name: "web".into(),
            domains: vec!["a.test".into(), "b.test".into()],
            layers: vec![layer],
            remote_port: 7,
            ..Tunnel::default()
        }
    }

    #[test]
    fn p_2_1_the_parts_of_an_announcement_are_counted_before_it_is_decoded() {
        // The control message, the announcement, and of each tunnel itself, a name, two domains, a layer, its kind, its rules.
        assert_eq!(parts_of(vec![with_rules(1)]), Ok(2 + 7));
        assert_eq!(parts_of(vec![with_rules(3), with_rules(4)]), Ok(2 + 9 + 10));
        assert_eq!(
            parts_of(vec![Tunnel::default(); MAX_PARTS - 2]),
            Ok(MAX_PARTS)
        );
        let refused = parts_of(vec![Tunnel::default(); MAX_PARTS - 1]).unwrap_err();
        assert!(refused.contains("announce fewer tunnels"), "{refused}");
        assert!(parts_of(vec![with_rules(MAX_PARTS)]).is_err());
    }

    #[test]
    fn p_1_13_bytes_that_are_not_a_message_are_not_counted() {
        // A group, a field beyond the end, a varint without an end, and one in a nested message.
        for bytes in [
            &[0x0b, 0x0c][..],
            &[0x12, 9, 1],
            &[0x80],
            &[0xaa, 1, 1, 0x80],
        ] {
            assert!(count(bytes, PATH, &mut 100).is_err(), "{bytes:?}");
        }
    }
}
