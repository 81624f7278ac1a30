//! Carries the bytes of a session between its exchange and the connection to its service: for TCP, and for a connection
//! of HTTP/1.1 that has changed to another protocol.

use adit_codec::ResetCode;
use adit_link::Exchange;
use adit_net::Stream;
use adit_splice::tcp::{Progress, Socket, Splice, SpliceError};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    config::Config,
    forward::{
        record::{Outcome, RequestRecord},
        request_info::RequestInfo,
        resources::Resources,
    },
};

/// Prepares the connection of a session: the timeouts of sessions apply to it and to its exchange.
pub(super) fn begin(stream: Stream, exchange: &Exchange, config: &Config) -> Socket {
    let socket = Socket::new(stream);
    if let Some(silence) = config.tcp_keepalive {
        socket.set_keepalive(silence);
    }
    exchange.set_stall(config.tcp_stall_timeout);
    socket
}

/// Forwards both directions to their ends and finishes the record. `header` is written before any payload, and is not
/// counted as payload. Returns whether the service has reset the connection.
pub(super) async fn carry<H: RequestInfo>(
    socket: Socket,
    exchange: Exchange,
    mut record: RequestRecord<H>,
    header: Bytes,
    resources: &Resources,
    mut on_progress: impl FnMut(Progress),
) -> bool {
    let mut header_left = header.len() as u64;
    let patience = resources.config.tcp_stall_timeout;
    let mut splice = Splice::new(&socket, exchange, &resources.buffers, header, patience);
    let payload = &mut record.payload;
    let carried = splice.run(|progress| {
        on_progress(progress);
        let of_header = header_left.min(progress.written);
        header_left -= of_header;
        payload.add_from_visitor(progress.written - of_header);
        payload.add_to_visitor(progress.read);
    });
    match carried.await {
        Ok(()) => {
            drop(splice);
            socket.close();
            record.finish(Outcome::Completed);
            false
        }
        Err(SpliceError::Exchange(failure)) => {
            tracing::debug!(
                target: "adit::egress",
                request_id = %Uuid::from_bytes(record.head.summary().open.request_uuid),
                %failure,
                "connection to the service reset"
            );
            if splice.is_aborted() {
                drop(splice);
                socket.reset_after_delivery(patience).await;
            }
            record.finish(Outcome::of_failure(&failure));
            false
        }
        Err(SpliceError::Socket(error)) => {
            let reason = format!("the service reset the connection: {error}");
            match splice.into_send() {
                Some(send) => record.reset(send, ResetCode::ServiceAborted, &reason),
                None => record.finish(Outcome::CANCELLED),
            }
            true
        }
    }
}
