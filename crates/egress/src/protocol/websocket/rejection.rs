//! Forwards the response of a service that rejects a WebSocket (P-9.2).

use adit_codec::WebSocketResponseHead;
use adit_link::SendHalf;
use adit_net::Stream;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::request::{HeaderLine, WebSocketRecord};
use crate::{
    forward::{error::ForwardError, resources::Resources},
    protocol::http1::{BodyFraming, ResponseHead},
};

/// A response of a service that does not change to WebSocket. Its body is forwarded as credit allows.
pub(super) struct Rejection {
    pub(super) head: ResponseHead,
    pub(super) lines: Vec<HeaderLine>,
    /// The bytes after the head of the response.
    pub(super) rest: Vec<u8>,
}

impl Rejection {
    /// Forwards the response to its end.
    ///
    /// # Errors
    /// [`ForwardError`]: the service closed early, or the opener does not wait for the response any more.
    pub(super) async fn forward(
        self,
        socket: &mut Stream,
        send: &SendHalf,
        resources: &Resources,
        record: &mut WebSocketRecord,
    ) -> Result<(), ForwardError> {
        let Self { head, lines, rest } = self;
        let mut framing = head.framing;
        let lines = lines.iter().map(|(name, value)| (&name[..], &value[..]));
        let head_message = WebSocketResponseHead {
            status: head.status,
        }
        .encode(lines)
        .map_err(|error| ForwardError::service_aborted(error.to_string()))?;
        send.respond(head_message, false)?;
        record.timeline.on_response(head.status, false);
        let mut data = rest;
        loop {
            let decoded = framing.decode(&mut data).map_err(|error| {
                let reason = format!("the service sent an invalid chunked body: {error}");
                ForwardError::service_aborted(reason)
            })?;
            let payload = Bytes::from(data).slice(decoded.payload);
            let length = payload.len();
            send.send_all(payload, false).await?;
            record.payload.add_to_visitor(length as u64);
            if framing.is_done() {
                break;
            }
            // Credit is requested first, so that nothing is read that cannot be forwarded. Then the timeout measures
            // only the service.
            let allowed = send.ready().await?;
            let mut piece = resources.buffers.small.take();
            let room = piece.unfilled();
            let limit = room.len().min(allowed);
            let within = resources.config.stall_timeout;
            let read = tokio::time::timeout(within, socket.read(&mut room[..limit]));
            let read = tokio::select! {
                biased;
                () = send.closed() => return Err(ForwardError::Abandoned),
                read = read => read,
            };
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(closed_early(&error.to_string())),
                Err(_) => return Err(closed_early("nothing received in time")),
            };
            if count == 0 {
                if matches!(framing, BodyFraming::Close) {
                    break;
                }
                return Err(closed_early("connection closed"));
            }
            data = room[..count].to_vec();
        }
        // Trailers of this response are not forwarded.
        send.finish()?;
        Ok(())
    }
}

fn closed_early(how: &str) -> ForwardError {
    ForwardError::service_aborted(format!(
        "the service closed early before the end of its response: {how}"
    ))
}
