//! The opening handshake with a service (RFC 6455, 4.1).

use adit_codec::{
    MAX_HEAD_BYTES,
    fields::{is_hop_by_hop, list_contains},
};
use adit_net::Stream;
use adit_websocket::{VERSION, accept};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    rejection::Rejection,
    request::{HeaderLine, WebSocketRecord},
};
use crate::{
    forward::{error::ForwardError, record::TRACEPARENT},
    protocol::http1::{LineSpan, ResponseHead, parse, put_line},
};

/// The most interim responses before the final one.
const MAX_INTERIM: usize = 32;
/// The size of one read.
const READ_BYTES: usize = 4 * 1024;

/// The response to a handshake.
pub(super) enum HandshakeResponse {
    /// The service changes to WebSocket; `first` are the bytes after its response.
    Accepted {
        lines: Vec<HeaderLine>,
        first: Bytes,
    },
    Rejected(Rejection),
}

/// Sends the handshake and reads the response. The caller bounds the wait.
///
/// # Errors
/// [`ForwardError`].
pub(super) async fn shake_hands(
    socket: &mut Stream,
    record: &mut WebSocketRecord,
    key: &str,
) -> Result<HandshakeResponse, ForwardError> {
    let lost = |error: std::io::Error| {
        ForwardError::ConnectionLost(format!("the service did not respond: {error}"))
    };
    let mut out = Vec::with_capacity(1024);
    write_head(&mut out, record, key);
    socket.write_all(&out).await.map_err(lost)?;
    socket.flush().await.map_err(lost)?;
    record.timeline.on_head_written();
    let mut data = Vec::with_capacity(READ_BYTES);
    let mut lines = Vec::new();
    let mut interim = 0;
    loop {
        let before = data.len();
        // The parser bounds the data: it rejects a longer head.
        if socket.read_buf(&mut data).await.map_err(lost)? == 0 {
            let reason = "the service closed the connection without a response";
            return Err(ForwardError::ConnectionLost(reason.into()));
        }
        // A head ends with a line: it is parsed again only when another line is complete.
        if !data[before..].contains(&b'\n') && data.len() < MAX_HEAD_BYTES {
            continue;
        }
        loop {
            let head = parse(&mut data, false, &mut lines);
            let head = head.map_err(|error| ForwardError::service_aborted(error.to_string()))?;
            let Some(head) = head else {
                break;
            };
            if head.status == 101 {
                return accepted(&data, &head, &lines, key);
            }
            if head.status >= 200 {
                let rest = data.split_off(head.bytes);
                let lines = owned_lines(&data, &lines);
                let rejection = Rejection { head, lines, rest };
                return Ok(HandshakeResponse::Rejected(rejection));
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(ForwardError::service_aborted(
                    "the service sent too many interim responses",
                ));
            }
            data.drain(..head.bytes);
        }
    }
}

fn write_head(out: &mut Vec<u8>, record: &WebSocketRecord, key: &str) {
    let (request, service) = (&record.head, &record.service);
    let trace = record.traceparent();
    let host = match &service.host_rewrite {
        Some(host) => host.as_bytes(),
        None if request.authority.is_empty() => request.headers.first(b"host").unwrap_or(b""),
        None => &request.authority,
    };
    for part in [b"GET ", &request.path[..], b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    put_line(out, b"host", host);
    let is_named = |name: &[u8]| {
        let mut options = request.headers.lines().filter(|(n, _)| *n == b"connection");
        options.any(|(_, value)| list_contains(value, name))
    };
    for (name, value) in request.headers.lines() {
        let is_replaced = service.replaces(name) || (trace.is_some() && name == TRACEPARENT);
        let stays = is_per_hop(name) || is_replaced || is_named(name);
        if !stays {
            put_line(out, name, value);
        }
    }
    for (name, value) in &service.custom {
        let name = name.as_str().as_bytes();
        if !is_per_hop(name) {
            put_line(out, name, value.as_bytes());
        }
    }
    if let Some(context) = trace {
        put_line(out, TRACEPARENT, context.as_bytes());
    }
    put_line(out, b"connection", b"Upgrade");
    put_line(out, b"upgrade", b"websocket");
    put_line(out, b"sec-websocket-version", VERSION.as_bytes());
    put_line(out, b"sec-websocket-key", key.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether a line of this name is not forwarded: each hop generates its own, or has none (P-9.1; a handshake has no
/// body).
fn is_per_hop(name: &[u8]) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            b"host"
                | b"content-length"
                | b"sec-websocket-key"
                | b"sec-websocket-version"
                | b"sec-websocket-accept"
        )
}

/// Checks a response that changes the protocol (RFC 6455, 4.1, the second list).
fn accepted(
    data: &[u8],
    head: &ResponseHead,
    lines: &[LineSpan],
    key: &str,
) -> Result<HandshakeResponse, ForwardError> {
    let (start, first) = data.split_at(head.bytes);
    if !(lists(start, "connection", b"upgrade") && lists(start, "upgrade", b"websocket")) {
        return Err(ForwardError::service_aborted(
            "the service changed to a protocol other than WebSocket",
        ));
    }
    let mut lines = owned_lines(start, lines);
    let mut sums = lines
        .iter()
        .filter(|(name, _)| **name == *b"sec-websocket-accept");
    let (sum, more) = (sums.next(), sums.next());
    if sum.is_none_or(|(_, sum)| **sum != *accept(key.as_bytes()).as_bytes()) || more.is_some() {
        return Err(ForwardError::service_aborted(
            "the service sent a Sec-WebSocket-Accept that does not match the key",
        ));
    }
    // RFC 9110, 15.2: a response with status 101 has no body.
    lines.retain(|(name, _)| !is_per_hop(name));
    Ok(HandshakeResponse::Accepted {
        lines,
        first: Bytes::copy_from_slice(first),
    })
}

/// Whether a line of the head lists `token`; for hop-by-hop lines, which the parser leaves out.
fn lists(head: &[u8], name: &str, token: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').skip(1).any(|line| {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let is_named = parts
            .next()
            .is_some_and(|this| this.eq_ignore_ascii_case(name.as_bytes()));
        is_named
            && parts
                .next()
                .is_some_and(|value| list_contains(value, token))
    })
}

fn owned_lines(data: &[u8], lines: &[LineSpan]) -> Vec<HeaderLine> {
    let lines = lines.iter().map(|line| line.of(data));
    lines
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
