//! The heads of TCP connections and UDP flows (sections 10 and 11 of the protocol).

use bytes::Bytes;

use super::{
    open::{Open, put_open, read_open},
    read::is_head_too_long,
    write::{EncodedHead, finish},
};
use crate::{
    error::{BadMessage, HeadError},
    headers::is_value,
    id::{MessageType, ProtocolType},
    wire::{Reader, put_bytes, put_length_gap},
};

pub(crate) const TCP_OPEN_FIELD: u8 = 11;
pub(crate) const UDP_OPEN_FIELD: u8 = 12;
pub(crate) const ACCEPTED_FIELD: u8 = 13;

/// The first bytes of a connection, in its opening.
const BODY_FIELD: u64 = 3;

/// The parts of a TCP connection's opening to send.
#[derive(Debug, Clone, Copy)]
pub struct TcpOpenHead<'a, T = Box<str>> {
    /// The opening part.
    pub open: &'a Open<T>,
    /// The address the visitor connected to.
    pub local: &'a str,
}

impl<T: AsRef<str>> TcpOpenHead<'_, T> {
    /// Writes the head with the first bytes, if there are any yet.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode(&self, body: &[u8]) -> Result<EncodedHead, HeadError> {
        let mut out = Vec::with_capacity(128 + body.len());
        let start = put_length_gap(&mut out, TCP_OPEN_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.local.as_bytes());
        finish(
            out,
            start,
            (ProtocolType::Tcp, MessageType::Request),
            (3, body),
        )
    }
}

/// The parts of a UDP flow's opening to send.
#[derive(Debug, Clone, Copy)]
pub struct UdpOpenHead<'a, T = Box<str>> {
    /// The opening part.
    pub open: &'a Open<T>,
    /// The address the visitor sends to.
    pub local: &'a str,
}

impl<T: AsRef<str>> UdpOpenHead<'_, T> {
    /// Writes the head.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode(&self) -> Result<EncodedHead, HeadError> {
        let mut out = Vec::with_capacity(128);
        let start = put_length_gap(&mut out, UDP_OPEN_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.local.as_bytes());
        finish(
            out,
            start,
            (ProtocolType::Udp, MessageType::Request),
            (3, &[]),
        )
    }
}

/// The response to either: the service is connected. `protocol` is TCP or UDP.
pub fn accepted(protocol: ProtocolType) -> EncodedHead {
    let mut field = Vec::with_capacity(4);
    let start = put_length_gap(&mut field, ACCEPTED_FIELD);
    crate::wire::fill_length_gap(&mut field, start);
    EncodedHead {
        protocol,
        message_type: MessageType::Response,
        field,
        body_bytes: 0,
    }
}

/// A received opening of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOpen {
    /// The opening part.
    pub open: Open,
    /// The address the visitor connected to.
    pub local: Box<str>,
    /// The first bytes, if the message has any.
    pub body: Bytes,
}

/// A received opening of a UDP flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpOpen {
    /// The opening part.
    pub open: Open,
    /// The address the visitor sends to.
    pub local: Box<str>,
}

impl TcpOpen {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let (open, local, body) = decode(message, Some(BODY_FIELD))?;
        Ok(Self { open, local, body })
    }
}

impl UdpOpen {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let (open, local, _) = decode(message, None)?;
        Ok(Self { open, local })
    }
}

/// Reads the fields of both. `body_field`: the field of the first bytes, if the head has one.
fn decode(message: &Bytes, body_field: Option<u64>) -> Result<(Open, Box<str>, Bytes), BadMessage> {
    let mut reader = Reader::new(message);
    let (mut open, mut local) = (None, Box::from(""));
    let mut body = Bytes::new();
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => open = Some(read_open(message, value)?),
            2 => {
                let (from, to) = value.range()?;
                local = match std::str::from_utf8(&message[from..to]) {
                    Ok(text) if is_value(text.as_bytes()) => Box::from(text),
                    _ => return Err(BadMessage::Head),
                };
            }
            field if body_field == Some(field) => {
                let (from, to) = value.range()?;
                body = message.slice(from..to);
            }
            _ => {}
        }
    }
    if is_head_too_long(message, &body) {
        return Err(BadMessage::HeadTooLong);
    }
    Ok((open.ok_or(BadMessage::Head)?, local, body))
}

#[cfg(not(adit_loom))]
#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{
        head::tests::samples::{LONGEST, content, filled, open},
        wire::put_uint,
    };

    fn tcp(local: &str) -> Bytes {
        let open = open();
        let head = TcpOpenHead { open: &open, local };
        content(head.encode(b"first").unwrap())
    }

    fn udp(local: &str) -> Bytes {
        let open = open();
        let head = UdpOpenHead { open: &open, local };
        content(head.encode().unwrap())
    }

    #[test]
    fn p_10_1_an_opening_reads_back() {
        let read = TcpOpen::decode(&tcp("192.0.2.1:22")).unwrap();
        assert_eq!((read.open, &*read.local), (open(), "192.0.2.1:22"));
        assert_eq!(read.body, "first");
        let read = UdpOpen::decode(&udp("[2001:db8::1]:53")).unwrap();
        assert_eq!((read.open, &*read.local), (open(), "[2001:db8::1]:53"));
    }

    #[test]
    fn a_local_address_ends_no_line() {
        let bad = Some(BadMessage::Head);
        for local in ["a\r", "a\nb", "\0", "\x7f", "\x1f"] {
            assert_eq!(TcpOpen::decode(&tcp(local)).err(), bad, "{local:?}");
            assert_eq!(UdpOpen::decode(&udp(local)).err(), bad, "{local:?}");
        }
        assert!(TcpOpen::decode(&tcp("")).is_ok() && UdpOpen::decode(&udp("")).is_ok());
        let no_text = [&udp("")[..], &[0x12, 1, 0xff]].concat();
        assert_eq!(UdpOpen::decode(&no_text.into()).err(), bad);
    }

    #[test]
    fn p_2_8_an_opening_without_open_is_refused() {
        let bad = Some(BadMessage::Head);
        for head in [&b""[..], b"\x12\x01a"] {
            assert_eq!(TcpOpen::decode(&Bytes::from_static(head)).err(), bad);
            assert_eq!(UdpOpen::decode(&Bytes::from_static(head)).err(), bad);
        }
    }

    #[test]
    fn p_2_10_openings_are_read_up_to_their_bound() {
        let too_long = Some(BadMessage::HeadTooLong);
        let (tcp, udp) = (tcp("a"), udp("a"));
        let most = LONGEST + b"first".len();
        assert!(TcpOpen::decode(&filled(&tcp, most)).is_ok());
        assert_eq!(TcpOpen::decode(&filled(&tcp, most + 1)).err(), too_long);
        assert!(UdpOpen::decode(&filled(&udp, LONGEST)).is_ok());
        assert_eq!(UdpOpen::decode(&filled(&udp, LONGEST + 1)).err(), too_long);
    }

    /// Regression: a flow's opening was decoded as a connection's, so that a field of a newer version was taken for its
    /// first bytes: it was rejected for its wire type, or exceeded the bound for heads.
    #[test]
    fn p_2_3_a_flow_has_no_first_bytes() {
        let mut number = BytesMut::from(&udp("a")[..]);
        put_uint(&mut number, 3, 7);
        assert!(UdpOpen::decode(&number.freeze()).is_ok());
        let mut long = BytesMut::from(&udp("a")[..]);
        put_bytes(&mut long, 3, &[0; LONGEST]);
        assert_eq!(
            UdpOpen::decode(&long.freeze()).err(),
            Some(BadMessage::HeadTooLong)
        );
        let mut number = BytesMut::from(&tcp("a")[..]);
        put_uint(&mut number, 3, 7);
        assert_eq!(
            TcpOpen::decode(&number.freeze()).err(),
            Some(BadMessage::WireType)
        );
    }

    #[test]
    fn openings_are_written_up_to_the_bounds() {
        let open = open();
        let local = "a".repeat(crate::MAX_HEAD_BYTES);
        let too_long = HeadError::TooLong {
            limit: crate::MAX_HEAD_BYTES,
        };
        let (open, local) = (&open, &local[..]);
        assert_eq!(
            TcpOpenHead { open, local }.encode(b"").unwrap_err(),
            too_long
        );
        assert_eq!(UdpOpenHead { open, local }.encode().unwrap_err(), too_long);
    }
}
