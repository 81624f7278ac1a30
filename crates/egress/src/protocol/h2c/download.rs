//! The service's direction: a stream of HTTP/2 on its way to the visitor.

use std::task::{Context, Poll, Waker};

use adit_codec::{EncodedHead, HeadError, HeaderBlock, HttpResponseHead, MAX_HEAD_BYTES};
use adit_link::{Failure, SendHalf, Turn};
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response, response};

use super::{grpc, head::Head, lost::Lost};
use crate::{
    config::Config,
    fields::{is_barred_from_trailers, is_hop_by_hop},
    request::{broken::Broken, moved::Moved},
};

const BROKE_OFF: &str = "the service broke off before the end of its answer";

/// The first part of an answer, made ready to go: `answer` sends it, and [`Download::pass_on`] the rest.
pub(super) struct Download<'a> {
    body: RecvStream,
    send: &'a SendHalf,
    moved: &'a Moved,
    /// What came with the head and does not ride with it.
    early: Bytes,
    over: bool,
    /// It is the answer of a call, and its status, if it came with the head.
    is_call: bool,
    grpc_status: Option<u16>,
    /// Frames may be small, and many of them may be here.
    turn: Turn,
}

impl<'a> Download<'a> {
    /// Sends the head of the answer, with what has come of the body if that is no more than `inline`.
    pub(super) fn begin(
        response: Response<RecvStream>,
        head: &Head,
        send: &'a SendHalf,
        moved: &'a Moved,
        config: &Config,
    ) -> Result<Self, Lost> {
        let (parts, mut body) = response.into_parts();
        let mut early = Bytes::new();
        let bodiless = head.is_to_head() || matches!(parts.status.as_u16(), 204 | 304);
        // What is here already rides along: one message for a small answer.
        if !bodiless
            && !body.is_end_stream()
            && let Poll::Ready(Some(data)) = data_now(&mut body)
        {
            // One that broke off says so again behind its head.
            early = data.unwrap_or_default();
        }
        let allowed = match ready_now(send) {
            Poll::Ready(Err(_)) => return Err(Broken::Gone.into()),
            Poll::Ready(Ok(allowed)) => allowed,
            Poll::Pending => 0,
        };
        let over = bodiless || body.is_end_stream();
        let rides = early.len() <= allowed.min(config.inline_body_bytes);
        let answer = head
            .answer(&parts, if rides { &early } else { b"" })
            .map_err(|error| too_large(&error, &parts.headers))?;
        send.respond(answer, over && rides)?;
        if rides {
            let riding = std::mem::take(&mut early).len();
            release(&mut body, riding);
            moved.send(riding as u64);
        }
        let is_call = matches!(head, Head::Grpc(_));
        let grpc_status = is_call.then(|| grpc::status_in(&parts.headers)).flatten();
        Ok(Self {
            over: over && rides,
            body,
            send,
            moved,
            early,
            is_call,
            grpc_status,
            turn: Turn::new(config.turn_bytes),
        })
    }

    /// Whether all of it went with its head.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// The status of a call, where it stood in the head.
    pub(super) const fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Sends the rest of the answer; gives the status of a call, where it stood in the trailers.
    pub(super) async fn pass_on(mut self) -> Result<Option<u16>, Lost> {
        if self.over {
            return Ok(None);
        }
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            if self.pass(early).await? {
                return Ok(None);
            }
        }
        loop {
            self.turn.yield_if_over().await;
            // Credit before the data: what is not taken stays within the stream's window.
            self.send.ready().await?;
            let data = std::future::poll_fn(|cx| self.body.poll_data(cx)).await;
            let Some(data) = data else {
                break;
            };
            let data = data.map_err(|error| Lost::of(&error, BROKE_OFF))?;
            if self.pass(data).await? {
                return Ok(None);
            }
        }
        let trailers = std::future::poll_fn(|cx| self.body.poll_trailers(cx)).await;
        match trailers.map_err(|error| Lost::of(&error, BROKE_OFF))? {
            Some(trailers) => {
                let block = block_of(&trailers);
                if block.wire_len() > MAX_HEAD_BYTES {
                    let error = HeadError::TooLong {
                        limit: MAX_HEAD_BYTES,
                    };
                    return Err(too_large(&error, &trailers));
                }
                self.send.finish_with(block)?;
                Ok(grpc::status_in(&trailers).filter(|_| self.is_call))
            }
            None => {
                self.send.finish()?;
                Ok(None)
            }
        }
    }

    /// Passes one piece on; whether it was the last.
    async fn pass(&mut self, data: Bytes) -> Result<bool, Lost> {
        let length = data.len();
        self.turn.step(length);
        let ends = self.body.is_end_stream();
        self.send.send_all(data, ends).await?;
        self.moved.send(length as u64);
        release(&mut self.body, length);
        Ok(ends)
    }
}

/// The service may send as much again.
fn release(body: &mut RecvStream, bytes: usize) {
    // Fails only for more than has come.
    let _ = body.flow_control().release_capacity(bytes);
}

impl Head {
    /// The head of the answer to it as it crosses, with the part of the body that rides along.
    fn answer(&self, parts: &response::Parts, body: &[u8]) -> Result<EncodedHead, HeadError> {
        let status = parts.status.as_u16();
        let lines = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .filter(|(name, _)| !is_hop_by_hop(name));
        match self {
            Self::Http(_) => HttpResponseHead { status }.encode(lines, body),
            Self::Grpc(_) => grpc::answer(status, lines, body),
        }
    }
}

fn block_of(trailers: &HeaderMap) -> HeaderBlock {
    trailers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .filter(|(name, _)| !is_barred_from_trailers(name))
        .collect()
}

/// Names the size of what does not cross.
fn too_large(error: &HeadError, lines: &HeaderMap) -> Lost {
    let bytes: usize = { lines.iter() }
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let count = lines.len();
    Lost::TooLarge(format!(
        "the service sent {count} header lines of {bytes} bytes: {error}"
    ))
}

fn data_now(body: &mut RecvStream) -> Poll<Option<Result<Bytes, h2::Error>>> {
    body.poll_data(&mut Context::from_waker(Waker::noop()))
}

fn ready_now(send: &SendHalf) -> Poll<Result<usize, Failure>> {
    send.poll_ready(&mut Context::from_waker(Waker::noop()))
}
