//! Reads a response from a stream of HTTP/2 and forwards it to the link.

use std::task::{Context, Poll, Waker};

use adit_codec::{
    EncodedHead, HeadError, HeaderBlock, HttpResponseHead, MAX_HEAD_BYTES,
    fields::{is_hop_by_hop, is_message_control},
};
use adit_link::{Failure, SendHalf, Turn, header_lines};
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response, response};

use super::{error::ExchangeError, grpc, request::Http2Head};
use crate::{
    config::Config,
    forward::{error::ForwardError, payload_counts::PayloadCounts},
};

const CLOSED_EARLY: &str = "the service closed early before the end of its response";

/// Forwards one response: its head in [`ResponseReader::begin`], the rest in [`ResponseReader::run`].
pub(super) struct ResponseReader<'a> {
    body: RecvStream,
    send: &'a SendHalf,
    counts: &'a PayloadCounts,
    /// Data that arrived with the head and was not sent in its message.
    early: Bytes,
    done: bool,
    is_grpc: bool,
    /// The status of gRPC in the head.
    grpc_status: Option<u16>,
    /// Limits the work of one turn: many small frames may have arrived.
    turn: Turn,
}

impl<'a> ResponseReader<'a> {
    /// Forwards the head of the response, with the data that has arrived if it may be inlined.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) fn begin(
        response: Response<RecvStream>,
        request: &Http2Head,
        send: &'a SendHalf,
        counts: &'a PayloadCounts,
        config: &Config,
    ) -> Result<Self, ExchangeError> {
        let (parts, mut body) = response.into_parts();
        let mut early = Bytes::new();
        let has_no_body = request.is_to_head() || matches!(parts.status.as_u16(), 204 | 304);
        // Data that has arrived is sent with the head: a small response is one message.
        if !has_no_body
            && !body.is_end_stream()
            && let Poll::Ready(Some(data)) = data_now(&mut body)
        {
            // An error is reported again by the next read.
            early = data.unwrap_or_default();
        }
        let allowed = match ready_now(send) {
            Poll::Ready(Err(_)) => return Err(ForwardError::Abandoned.into()),
            Poll::Ready(Ok(allowed)) => allowed,
            Poll::Pending => 0,
        };
        let is_read = has_no_body || body.is_end_stream();
        let is_inlined = early.len() <= allowed.min(config.inline_body_bytes);
        let head = request
            .encode_response(&parts, if is_inlined { &early } else { b"" })
            .map_err(|error| too_large(&error, &parts.headers))?;
        send.respond(head, is_read && is_inlined)?;
        if is_inlined {
            let inlined = std::mem::take(&mut early).len();
            release(&mut body, inlined);
            counts.add_to_visitor(inlined as u64);
        }
        let is_grpc = request.is_grpc();
        let grpc_status = is_grpc.then(|| grpc::status_in(&parts.headers)).flatten();
        Ok(Self {
            done: is_read && is_inlined,
            body,
            send,
            counts,
            early,
            is_grpc,
            grpc_status,
            turn: Turn::new(config.turn_bytes),
        })
    }

    /// Whether the response was forwarded to its end with its head.
    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// The status of gRPC in the head.
    pub(super) const fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Forwards the rest of the response; returns the status of gRPC in the trailers.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn run(mut self) -> Result<Option<u16>, ExchangeError> {
        if self.done {
            return Ok(None);
        }
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            if self.forward(early).await? {
                return Ok(None);
            }
        }
        loop {
            self.turn.yield_if_over().await;
            // Credit is requested first: data that is not taken stays within the window of the stream.
            self.send.ready().await?;
            let data = std::future::poll_fn(|cx| self.body.poll_data(cx)).await;
            let Some(data) = data else {
                break;
            };
            let data = data.map_err(|error| ExchangeError::of(&error, CLOSED_EARLY))?;
            if self.forward(data).await? {
                return Ok(None);
            }
        }
        let trailers = std::future::poll_fn(|cx| self.body.poll_trailers(cx)).await;
        match trailers.map_err(|error| ExchangeError::of(&error, CLOSED_EARLY))? {
            Some(trailers) => {
                let block = block_of(&trailers);
                if block.wire_len() > MAX_HEAD_BYTES {
                    let error = HeadError::TooLong {
                        limit: MAX_HEAD_BYTES,
                    };
                    return Err(too_large(&error, &trailers));
                }
                self.send.finish_with(block)?;
                Ok(grpc::status_in(&trailers).filter(|_| self.is_grpc))
            }
            None => {
                self.send.finish()?;
                Ok(None)
            }
        }
    }

    /// Forwards data; returns whether it was the last.
    async fn forward(&mut self, data: Bytes) -> Result<bool, ExchangeError> {
        let length = data.len();
        self.turn.step(length);
        let ends = self.body.is_end_stream();
        self.send.send_all(data, ends).await?;
        self.counts.add_to_visitor(length as u64);
        release(&mut self.body, length);
        Ok(ends)
    }
}

/// Returns credit of the window to the service.
fn release(body: &mut RecvStream, bytes: usize) {
    // This fails only for more bytes than were received.
    let _ = body.flow_control().release_capacity(bytes);
}

impl Http2Head {
    /// The head of a response for the tunnel, with the first part of the body.
    fn encode_response(
        &self,
        parts: &response::Parts,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let status = parts.status.as_u16();
        let lines = header_lines(&parts.headers).filter(|(name, _)| !is_hop_by_hop(name));
        match self {
            Self::Http(_) => HttpResponseHead { status }.encode(lines, body),
            Self::Grpc(_) => grpc::encode_response(status, lines, body),
        }
    }
}

fn block_of(trailers: &HeaderMap) -> HeaderBlock {
    header_lines(trailers)
        .filter(|(name, _)| !is_message_control(name))
        .collect()
}

/// The error for header lines that are too large to be forwarded; it states their size.
fn too_large(error: &HeadError, lines: &HeaderMap) -> ExchangeError {
    let bytes: usize = { lines.iter() }
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let count = lines.len();
    ExchangeError::HeadersTooLarge(format!(
        "the service sent {count} header lines of {bytes} bytes: {error}"
    ))
}

fn data_now(body: &mut RecvStream) -> Poll<Option<Result<Bytes, h2::Error>>> {
    body.poll_data(&mut Context::from_waker(Waker::noop()))
}

fn ready_now(send: &SendHalf) -> Poll<Result<usize, Failure>> {
    send.poll_ready(&mut Context::from_waker(Waker::noop()))
}
