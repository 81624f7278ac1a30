//! The service's side of the opening handshake (RFC 6455, 4.1).

use adit_codec::{MAX_HEAD_BYTES, WebSocketRequest};
use adit_websocket::{VERSION, accept};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{line::Line, refusal::Refusal};
use crate::{
    fields::{has_element, is_hop_by_hop},
    protocol::http1::{self, Head, parse, put_line},
    request::{
        account::{Account, TRACEPARENT},
        broken::Broken,
    },
};

/// Interim answers before the final one; a service that sends more is not going to answer.
const MAX_INTERIM: usize = 32;
/// Read at a time.
const READ_BYTES: usize = 4 * 1024;

/// What a service says to a handshake.
pub(super) enum Answer {
    /// It changes to WebSocket, and `first` came behind that.
    Accepted { lines: Vec<Line>, first: Bytes },
    /// It does not.
    Refused(Refusal),
}

/// Asks for a WebSocket, and reads the answer. The caller bounds the wait.
///
/// # Errors
/// [`Broken`], with what the visitor's side is to be told.
pub(super) async fn ask(
    socket: &mut TcpStream,
    account: &mut Account<Box<WebSocketRequest>>,
    key: &str,
) -> Result<Answer, Broken> {
    let lost = |error: std::io::Error| Broken::Died(format!("the service did not answer: {error}"));
    let mut out = Vec::with_capacity(1024);
    write_head(&mut out, account, key);
    socket.write_all(&out).await.map_err(lost)?;
    account.course.on_asked();
    let mut data = Vec::with_capacity(READ_BYTES);
    let mut lines = Vec::new();
    let mut interim = 0;
    loop {
        let before = data.len();
        // Bounded by the parser, which takes no longer head.
        if socket.read_buf(&mut data).await.map_err(lost)? == 0 {
            let why = "the service closed the connection instead of an answer";
            return Err(Broken::Died(why.into()));
        }
        // A head ends with a line: dripping bytes are not parsed anew each time.
        if !data[before..].contains(&b'\n') && data.len() < MAX_HEAD_BYTES {
            continue;
        }
        loop {
            let head = parse(&mut data, false, &mut lines);
            let Some(head) = head.map_err(|error| Broken::aborted(error.to_string()))? else {
                break;
            };
            if head.status == 101 {
                return accepted(&data, &head, &lines, key);
            }
            if head.status >= 200 {
                let rest = data.split_off(head.bytes);
                let lines = of_the_head(&data, &lines);
                return Ok(Answer::Refused(Refusal { head, lines, rest }));
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(Broken::aborted("it sends interim answers without end"));
            }
            data.drain(..head.bytes);
        }
    }
}

fn write_head(out: &mut Vec<u8>, account: &Account<Box<WebSocketRequest>>, key: &str) {
    let (request, service) = (&account.head, &account.service);
    let trace = account.traceparent();
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
        options.any(|(_, value)| has_element(value, name))
    };
    for (name, value) in request.headers.lines() {
        let is_replaced = service.replaces(name) || (trace.is_some() && name == TRACEPARENT);
        let stays = is_ours(name) || is_replaced || is_named(name);
        if !stays {
            put_line(out, name, value);
        }
    }
    for (name, value) in &service.custom {
        let name = name.as_str().as_bytes();
        if !is_ours(name) {
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

/// Whether each hop has its own line of this name, or none (P-9.1; a handshake has no body).
fn is_ours(name: &[u8]) -> bool {
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

/// Checks an answer that changes the protocol (RFC 6455, 4.1, the second list).
fn accepted(data: &[u8], head: &Head, lines: &[http1::Line], key: &str) -> Result<Answer, Broken> {
    let (start, first) = data.split_at(head.bytes);
    if !(says(start, "connection", b"upgrade") && says(start, "upgrade", b"websocket")) {
        return Err(Broken::aborted("it changes to another protocol"));
    }
    let mut lines = of_the_head(start, lines);
    let mut sums = lines
        .iter()
        .filter(|(name, _)| **name == *b"sec-websocket-accept");
    let (sum, more) = (sums.next(), sums.next());
    if sum.is_none_or(|(_, sum)| **sum != *accept(key.as_bytes()).as_bytes()) || more.is_some() {
        return Err(Broken::aborted(
            "its sec-websocket-accept does not belong to the key",
        ));
    }
    // RFC 9110, 15.2: it has no body.
    lines.retain(|(name, _)| !is_ours(name));
    Ok(Answer::Accepted {
        lines,
        first: Bytes::copy_from_slice(first),
    })
}

/// Whether a line of the head lists `token`. Those lines are the hop's, and not among the parsed ones.
fn says(head: &[u8], name: &str, token: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').skip(1).any(|line| {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let is_it = parts
            .next()
            .is_some_and(|this| this.eq_ignore_ascii_case(name.as_bytes()));
        is_it && parts.next().is_some_and(|value| has_element(value, token))
    })
}

fn of_the_head(data: &[u8], lines: &[http1::Line]) -> Vec<Line> {
    let lines = lines.iter().map(|line| line.of(data));
    lines
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
