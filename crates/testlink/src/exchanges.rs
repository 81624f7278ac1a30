//! The far side of an exchange: heads, with header lines as text, bodies and small services.

use adit_codec::{
    EncodedHead, GrpcResponseHead, HeaderBlock, HttpRequest, HttpResponseHead,
    WebSocketResponseHead,
};
use adit_link::{Exchange, Failure, Part, RecvHalf, SendHalf};
use bytes::Bytes;

use crate::{next_part, within};

pub(crate) type Lines<'l> = &'l [(&'l str, &'l str)];

pub(crate) fn lines<'l>(lines: Lines<'l>) -> impl Iterator<Item = (&'l [u8], &'l [u8])> {
    lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))
}

pub fn block(of: &[(&str, &str)]) -> HeaderBlock {
    lines(of).collect()
}

/// The lines of a block; a byte that is not ASCII is shown as the character of its number.
pub fn block_text(block: &HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect();
    block.lines().map(|(n, v)| (text(n), text(v))).collect()
}

pub fn head(status: u16, headers: Lines<'_>, body: &[u8]) -> EncodedHead {
    let head = HttpResponseHead { status };
    head.encode(lines(headers), body).unwrap()
}

pub fn websocket_head(status: u16, headers: Lines<'_>) -> EncodedHead {
    let head = WebSocketResponseHead { status };
    head.encode(lines(headers)).unwrap()
}

/// The whole response in one message.
pub fn respond(exchange: &Exchange, status: u16, headers: Lines<'_>, body: &[u8]) {
    let head = head(status, headers, body);
    exchange.send.respond(head, true).unwrap();
}

/// The head of a response whose body follows; `body` is its first part.
pub fn begin(exchange: &Exchange, status: u16, headers: Lines<'_>, body: &[u8]) {
    let head = head(status, headers, body);
    exchange.send.respond(head, false).unwrap();
}

/// The head of a gRPC response, with its first messages.
pub fn respond_grpc(send: &SendHalf, metadata: Lines<'_>, body: &[u8], end: bool) {
    let head = GrpcResponseHead { status: 200 };
    let head = head.encode(lines(metadata), body).unwrap();
    send.respond(head, end).unwrap();
}

/// The rest of a request's body, and its trailers as `name=value;`.
pub async fn body_of(exchange: &mut Exchange) -> Result<(Vec<u8>, String), Failure> {
    let (mut body, mut trailers) = (Vec::new(), String::new());
    while let Some(part) = exchange.recv.part().await {
        match part? {
            Part::Data(payload) => body.extend_from_slice(payload.bytes()),
            Part::Trailers(block) => {
                let lines = block_text(&block).into_iter();
                trailers.extend(lines.map(|(name, value)| format!("{name}={value};")));
            }
            other => panic!("unexpected part of a request body: {other:?}"),
        }
    }
    Ok((body, trailers))
}

/// The next part, which must be payload.
pub async fn payload(recv: &mut RecvHalf) -> Bytes {
    match next_part(recv).await {
        Some(Ok(Part::Data(payload))) => payload.bytes().clone(),
        other => panic!("expected payload, got {other:?}"),
    }
}

/// Waits until the exchange has failed, and returns the reason.
pub async fn failure_of(send: &SendHalf) -> Failure {
    within(send.closed()).await;
    send.failure().expect("a failure")
}

/// Echoes the request's body.
pub async fn echo(_: HttpRequest, mut exchange: Exchange) {
    // A request that fails has no response.
    let Ok((body, trailers)) = body_of(&mut exchange).await else {
        return;
    };
    let length = body.len().to_string();
    let headers = [("content-length", &length[..]), ("x-trailers", &trailers)];
    begin(&exchange, 200, &headers, b"");
    exchange.send.send_all(body.into(), true).await.unwrap();
}

pub async fn hello(_: HttpRequest, exchange: Exchange) {
    respond(&exchange, 200, &[("content-type", "text/plain")], b"hello");
}
