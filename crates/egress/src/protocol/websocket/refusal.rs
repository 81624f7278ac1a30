//! A service that does not change to WebSocket answers as to any request (P-9.2).

use std::ops::Range;

use adit_codec::{WebSocketRequest, WebSocketResponseHead};
use adit_link::SendHalf;
use bytes::Bytes;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::line::Line;
use crate::{
    protocol::http1::{Framing, Head},
    request::{account::Account, broken::Broken},
    resources::Resources,
};

/// A refusal whose body goes on as credit allows.
pub(super) struct Refusal {
    pub(super) head: Head,
    pub(super) lines: Vec<Line>,
    /// What came behind its head.
    pub(super) rest: Vec<u8>,
}

impl Refusal {
    /// Passes it on whole.
    ///
    /// # Errors
    /// [`Broken`]: it broke off, or nobody wants it any more.
    pub(super) async fn pass_on(
        self,
        socket: &mut TcpStream,
        send: &SendHalf,
        shared: &Resources,
        account: &mut Account<Box<WebSocketRequest>>,
    ) -> Result<(), Broken> {
        let Self { head, lines, rest } = self;
        let mut framing = head.framing;
        let lines = lines.iter().map(|(name, value)| (&name[..], &value[..]));
        let answer = WebSocketResponseHead {
            status: head.status,
        }
        .encode(lines)
        .map_err(|error| Broken::aborted(error.to_string()))?;
        send.respond(answer, false)?;
        account.course.on_answer(head.status, false);
        let mut data = rest;
        loop {
            let (payload, is_over) = decode(&mut framing, &mut data)?;
            let payload = Bytes::from(data).slice(payload);
            let length = payload.len();
            send.send_all(payload, false).await?;
            account.moved.send(length as u64);
            if is_over {
                break;
            }
            // Nothing is read that could not go on, and a service that is slow has its time.
            let allowed = send.ready().await?;
            let mut piece = shared.small.take();
            let room = piece.unfilled();
            let limit = room.len().min(allowed);
            let read =
                tokio::time::timeout(shared.config.stall_timeout, socket.read(&mut room[..limit]));
            let read = tokio::select! {
                biased;
                () = send.closed() => return Err(Broken::Gone),
                read = read => read,
            };
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(broke_off(&error.to_string())),
                Err(_) => return Err(broke_off("nothing more came")),
            };
            if count == 0 {
                if matches!(framing, Framing::Close) {
                    break;
                }
                return Err(broke_off("connection closed"));
            }
            data = room[..count].to_vec();
        }
        // Trailers have no place in it.
        send.finish()?;
        Ok(())
    }
}

/// Takes a piece of the body in; gives where its payload stands now, and whether it was the last.
fn decode(framing: &mut Framing, data: &mut [u8]) -> Result<(Range<usize>, bool), Broken> {
    match framing {
        Framing::Close => Ok((0..data.len(), false)),
        Framing::Length(left) => {
            let here = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
            *left -= here as u64;
            Ok((0..here, *left == 0))
        }
        Framing::Chunked(chunked) => {
            let decoded = chunked.decode(data).map_err(|error| {
                Broken::aborted(format!("its answer is no chunked body: {error}"))
            })?;
            Ok((decoded.payload, chunked.is_done()))
        }
    }
}

fn broke_off(how: &str) -> Broken {
    Broken::aborted(format!(
        "the service broke off before the end of its answer: {how}"
    ))
}
