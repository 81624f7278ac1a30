//! Requests that offer to change to another protocol (P-3.7; RFC 9110, 7.8): `Upgrade` with any token but `websocket`,
//! which has a protocol of its own here, and `h2c`, which would be spoken by adit itself.
//!
//! The service decides. When it changes, the visitor's whole connection carries bytes in both directions, as a TCP
//! connection does; any other answer is one of HTTP.

use std::sync::Arc;

use adit_codec::{Pool, ResetCode};
use adit_link::{Exchange, Failure, Reason};
use adit_splice::tcp::{BufferPools, Progress, Socket, Splice, SpliceError};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
    request::Parts,
};

use crate::{
    access::Access,
    answer::{self, Answer, of_peer, respond},
    body::{ResponseBody, Sending},
    call::{Terms, carry, fail},
    http::Http,
    inbound::Inbound,
    ordered::retain,
    socket::VisitorSocket,
    tcp::DEPARTED,
};

/// Read after a silence.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Read while bytes keep coming: a message's worth (P-2.1).
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that wait for use, of each size: more than are read into in one turn of a thread.
const MAX_FREE_BUFFERS: usize = 64;

/// Buffers for all upgraded connections of an entry.
pub(crate) fn buffers() -> BufferPools {
    BufferPools {
        small: Pool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
        large: Pool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
    }
}

/// The protocols that a request offers to change to, as they cross; empty when it offers none.
pub(crate) fn offered(parts: &Parts) -> Bytes {
    let is_possible = parts.version == Version::HTTP_11
        && parts.method != Method::CONNECT
        && parts.headers.contains_key(UPGRADE);
    if !is_possible || !elements(&parts.headers, &CONNECTION).any(is_token(b"upgrade")) {
        return Bytes::new();
    }
    let protocols = elements(&parts.headers, &UPGRADE).filter(|protocol| is_carried(protocol));
    protocols.collect::<Vec<_>>().join(&b", "[..]).into()
}

fn elements<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn is_token(token: &[u8]) -> impl FnMut(&[u8]) -> bool {
    move |element| element.eq_ignore_ascii_case(token)
}

/// A name, and a version behind a slash (RFC 9110, 7.8), of a protocol that both hops can carry as bytes.
fn is_carried(protocol: &[u8]) -> bool {
    let is_text = protocol
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'"');
    let own = [&b"h2c"[..], b"h2", b"websocket"];
    is_text && !protocol.is_empty() && !own.iter().any(|own| protocol.eq_ignore_ascii_case(own))
}

/// Serves one request that offers to change.
pub(crate) async fn serve(
    http: &Arc<Http>,
    mut access: Access,
    body: Inbound,
    terms: Terms<'_>,
    streamed: bool,
) -> Result<Response<ResponseBody>, Failure> {
    match carry(http, &mut access, body, terms).await {
        Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() => {
            accept(http, answer, access)
        }
        Ok(answer) => respond(http, answer, access, None),
        Err(failure) => fail(&failure, access, streamed),
    }
}

/// The answer to a visitor whose service has changed, and what follows it.
fn accept(
    http: &Arc<Http>,
    answer: Answer,
    mut access: Access,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer {
        head,
        recv,
        sending,
    } = answer;
    let Sending::Open(send) = sending else {
        let failure = Failure::new(Reason::Internal, "an upgrade that can only be read");
        return fail(&failure, access, true);
    };
    let mut parts = match answer::parts(&head) {
        Ok((parts, _)) => parts,
        Err(failure) => return fail(&failure, access, true),
    };
    // A service that does not name it means the only one that was offered.
    let named = Some(&head.upgrade).filter(|named| !named.is_empty());
    let protocol = named.unwrap_or(&access.visit.upgrade).clone();
    let Ok(protocol) = HeaderValue::from_maybe_shared(protocol) else {
        let failure = Failure::new(Reason::ServiceAborted, "the service's upgrade is malformed");
        return fail(&failure, access, true);
    };
    for layer in http.admission.layers().iter().rev() {
        layer.on_response(&access.visit, &mut parts);
    }
    retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
    let upgrade = HeaderValue::from_static("Upgrade");
    parts.headers.insert(CONNECTION, upgrade);
    parts.headers.insert(UPGRADE, protocol);
    access.on_answer(parts.status, &parts.headers);
    // It may stand open for days.
    access.visit.headers = HeaderMap::new();
    let exchange = Exchange { send, recv };
    exchange.set_stall(http.config.session_stall);
    let connection = access.connection().clone();
    connection.takeover().set_upgraded(Upgraded {
        http: http.clone(),
        access,
        exchange,
    });
    Ok(Response::from_parts(
        parts,
        ResponseBody::bare(Bytes::new()),
    ))
}

/// A connection that has changed to another protocol, and whose bytes are to be carried.
pub(crate) struct Upgraded {
    http: Arc<Http>,
    access: Access,
    exchange: Exchange,
}

impl Upgraded {
    /// Carries both directions to their ends; `first` has been read already.
    ///
    /// # Cancel safety
    /// Dropping it resets both hops.
    pub(crate) async fn run(self, socket: VisitorSocket, first: Bytes) {
        let Self {
            http,
            mut access,
            exchange,
        } = self;
        match carry_bytes(&http, &mut access, exchange, socket, first).await {
            Ok(()) => access.on_end(),
            Err(failure) => {
                tracing::debug!(
                    request_id = %access.visit.uuid,
                    reason = failure.reason.as_str(),
                    "{}",
                    failure.detail
                );
                access.on_failure(&failure);
            }
        }
    }
}

async fn carry_bytes(
    http: &Http,
    access: &mut Access,
    exchange: Exchange,
    socket: VisitorSocket,
    first: Bytes,
) -> Result<(), Failure> {
    let left = |error: std::io::Error| {
        Failure::new(Reason::Cancelled, format!("the visitor left: {error}"))
    };
    let socket = Socket::new(socket.into_stream().map_err(left)?);
    access.received_bytes += first.len() as u64;
    // Where it fails, the other direction says why.
    let _ = exchange.send.send_all(first, false).await;
    let mut splice = Splice::new(&socket, exchange, &http.upgraded, Bytes::new(), DEPARTED);
    let on_moved = |moved: Progress| {
        access.received_bytes += moved.read;
        access.sent_bytes += moved.written;
    };
    let failure = match splice.run(on_moved).await {
        Ok(()) => None,
        Err(SpliceError::Exchange(failure)) => Some(of_peer(failure)),
        Err(SpliceError::Socket(error)) => {
            if let Some(send) = splice.into_send() {
                send.abort(ResetCode::Cancelled, "the visitor left");
            }
            return Err(left(error));
        }
    };
    let is_aborted = splice.is_aborted();
    drop(splice);
    match failure {
        Some(failure) => {
            if is_aborted {
                socket.reset_after_delivery(http.config.session_stall).await;
            }
            Err(failure)
        }
        None => {
            socket.close();
            Ok(())
        }
    }
}
