//! How a request body is sent: in the message of the head, or as a stream.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use adit_link::{Failure, Reason};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::HttpConfig,
    forward::{
        demand::{CHECK_INTERVAL, Demand},
        inbound::Inbound,
        pace::Pace,
    },
};

/// A request body in the form in which it will be sent.
pub(crate) enum RequestBody {
    None,
    /// A complete body, with its trailers.
    Inline(Bytes, Option<HeaderMap>),
    /// The beginning of a small body that the visitor did not complete (P-6.2).
    Incomplete(Bytes, Failure),
    /// A body that is read while it is sent.
    Streamed {
        /// The bytes that arrived with the head.
        first: Bytes,
        /// The rest; `None` once it has been read from.
        body: Option<Inbound>,
    },
}

impl RequestBody {
    /// Decides how a body is sent, and reads a small one. `received` counts the bytes.
    ///
    /// # Errors
    /// A body that does not arrive in time, or breaks the rules of HTTP.
    pub(crate) async fn read_ahead(
        config: &HttpConfig,
        body: Inbound,
        expect_continue: bool,
        demand: &Demand,
        received: &mut u64,
    ) -> Result<Self, Failure> {
        if body.is_end_stream() {
            return Ok(Self::None);
        }
        let length = match inline_length(config, &body) {
            Some(length) if !expect_continue => length,
            _ => return Ok(Self::streamed(Bytes::new(), body)),
        };
        // One timeout applies to the whole body: with a timeout for each byte the request could hold its permit for
        // days.
        timeout(
            config.stall_timeout,
            read_whole(config, body, length, demand, received),
        )
        .await
        .unwrap_or_else(|_| Err(stalled()))
    }

    /// Takes up to `enough` bytes that have arrived with the head, without waiting: the service may have to send first.
    /// `received` counts the bytes.
    ///
    /// # Errors
    /// A body that breaks the rules of HTTP.
    pub(crate) fn take_arrived(
        mut body: Inbound,
        enough: usize,
        received: &mut u64,
    ) -> Result<Self, Failure> {
        let mut first = Gathered::default();
        while !body.is_end_stream() && first.len() < enough {
            // No waker is registered: the next reader polls again.
            let mut cx = Context::from_waker(Waker::noop());
            let frame = match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Ok(Self::whole(first.bytes(), None)),
                Poll::Ready(Some(Err(failure))) => return Err(failure),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            *received += bytes_of(&frame);
            if let Some(trailers) = first.push(frame, 0) {
                return Ok(Self::whole(first.bytes(), Some(trailers)));
            }
        }
        let first = first.bytes();
        if body.is_end_stream() {
            return Ok(Self::whole(first, None));
        }
        Ok(Self::streamed(first, body))
    }

    /// The part that is sent in the message of the head, which has room for `most` bytes: all that has arrived, or nothing.
    pub(crate) fn inlined(&self, most: u32) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Inline(first, _) | Self::Incomplete(first, _) | Self::Streamed { first, .. }
                if first.len() as u64 <= most.into() =>
            {
                first
            }
            Self::Inline(..) | Self::Incomplete(..) | Self::Streamed { .. } => &[],
        }
    }

    /// Whether another attempt can send the same body.
    pub(crate) fn can_start_over(&self) -> bool {
        !matches!(self, Self::Streamed { body: None, .. })
    }

    fn streamed(first: Bytes, body: Inbound) -> Self {
        Self::Streamed {
            first,
            body: Some(body),
        }
    }

    fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        if bytes.is_empty() && trailers.is_none() {
            return Self::None;
        }
        Self::Inline(bytes, trailers)
    }
}

/// The length of a body that may cross in the message of its head.
pub(crate) fn inline_length(config: &HttpConfig, body: &Inbound) -> Option<usize> {
    let length = usize::try_from(body.size_hint().exact()?).ok()?;
    (length <= config.inline_body_bytes).then_some(length)
}

fn bytes_of(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

fn stalled() -> Failure {
    Failure::new(Reason::Stalled, "the request body did not arrive in time")
}

async fn read_whole(
    config: &HttpConfig,
    mut body: Inbound,
    length: usize,
    demand: &Demand,
    received: &mut u64,
) -> Result<RequestBody, Failure> {
    let mut pace = Pace::new(config.stall_timeout, config.min_rate_bytes_per_sec);
    let mut check = pin!(sleep(CHECK_INTERVAL));
    let mut all = Gathered::default();
    let mut trailers = None;
    loop {
        pace.wait();
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = check.as_mut() => {
                if pace.is_slow(config.shortage_grace) && demand.exists() {
                    return Err(stalled());
                }
                check.as_mut().reset(Instant::now() + CHECK_INTERVAL);
                continue;
            }
        };
        let frame = match frame {
            None => break,
            Some(Err(failure)) if failure.reason == Reason::Cancelled && all.len() > 0 => {
                return Ok(RequestBody::Incomplete(all.bytes(), failure));
            }
            Some(Err(failure)) => return Err(failure),
            Some(Ok(frame)) => frame,
        };
        *received += bytes_of(&frame);
        pace.moved(bytes_of(&frame));
        trailers = all.push(frame, length);
        if body.is_end_stream() {
            break;
        }
    }
    Ok(RequestBody::whole(all.bytes(), trailers))
}

/// Joins pieces into one. Usually there is only one.
#[derive(Default)]
struct Gathered {
    one: Bytes,
    more: BytesMut,
}

impl Gathered {
    /// Adds a piece, or returns the trailers. `all` bytes are expected.
    fn push(&mut self, frame: Frame<Bytes>, all: usize) -> Option<HeaderMap> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return frame.into_trailers().ok(),
        };
        if self.more.is_empty() && self.one.is_empty() {
            self.one = data;
            return None;
        }
        if self.more.is_empty() {
            self.more.reserve(all.max(self.one.len() + data.len()));
            self.more.extend_from_slice(&std::mem::take(&mut self.one));
        }
        self.more.extend_from_slice(&data);
        None
    }

    fn len(&self) -> usize {
        self.one.len() + self.more.len()
    }

    fn bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.one
        } else {
            self.more.freeze()
        }
    }
}
