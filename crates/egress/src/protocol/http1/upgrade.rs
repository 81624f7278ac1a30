//! A connection of HTTP/1.1 that has changed to another protocol (P-3.7): it carries bytes in both directions, as a TCP
//! connection does.

use adit_codec::ResetCode;
use adit_net::Stream;
use adit_splice::tcp::{Progress, Socket, Splice, SpliceError};
use bytes::Bytes;
use uuid::Uuid;

use super::request::Http1Request;
use crate::forward::{record::Outcome, resources::Resources};

/// Carries both directions to their ends and finishes the request's record. `early` has come from the service behind its
/// response.
pub(super) async fn run(
    socket: Stream,
    request: Http1Request,
    early: Bytes,
    resources: &Resources,
) {
    let Http1Request { record, exchange } = request;
    let config = &resources.config;
    let socket = Socket::new(socket);
    if let Some(silence) = config.tcp_keepalive {
        socket.set_keepalive(silence);
    }
    exchange.set_stall(config.tcp_stall_timeout);
    let length = early.len() as u64;
    // Fails if the visitor has left: its bytes reach the service all the same.
    if exchange.send.send_all(early, false).await.is_ok() {
        record.payload.add_to_visitor(length);
    }
    let patience = config.tcp_stall_timeout;
    let mut splice = Splice::new(
        &socket,
        exchange,
        &resources.buffers,
        Bytes::new(),
        patience,
    );
    let on_progress = |progress: Progress| {
        record.payload.add_from_visitor(progress.written);
        record.payload.add_to_visitor(progress.read);
    };
    match splice.run(on_progress).await {
        Ok(()) => {
            drop(splice);
            socket.close();
            record.finish(Outcome::Completed);
        }
        Err(SpliceError::Exchange(failure)) => {
            tracing::debug!(
                target: "adit::egress",
                request_id = %Uuid::from_bytes(record.head.open.request_uuid),
                %failure,
                "connection of an upgraded request reset"
            );
            if splice.is_aborted() {
                drop(splice);
                socket.reset_after_delivery(patience).await;
            }
            record.finish(Outcome::of_failure(&failure));
        }
        Err(SpliceError::Socket(error)) => {
            let reason = format!("the service reset the connection: {error}");
            match splice.into_send() {
                Some(send) => record.reset(send, ResetCode::ServiceAborted, &reason),
                None => record.finish(Outcome::CANCELLED),
            }
        }
    }
}
