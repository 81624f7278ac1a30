//! How a visitor's body crosses.

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
    demand::{Demand, LOOK},
    http::Http,
    inbound::Inbound,
    pace::Pace,
};

/// The visitor's body, as it is going to cross.
pub(crate) enum Upload {
    None,
    /// Whole, with its trailers.
    Inline(Bytes, Option<HeaderMap>),
    /// The beginning of a small one that its visitor broke off (P-6.2).
    Broken(Bytes, Failure),
    /// Read as it is sent.
    Streamed {
        /// What came with the head.
        first: Bytes,
        /// The rest; none once it has been read from.
        body: Option<Inbound>,
    },
}

impl Upload {
    /// Decides how a body crosses, and reads a small one. `received` counts what has been read.
    pub(crate) async fn read_ahead(
        http: &Http,
        body: Inbound,
        expects: bool,
        demand: &Demand,
        received: &mut u64,
    ) -> Result<Self, Failure> {
        if body.is_end_stream() {
            return Ok(Self::None);
        }
        let length = match inline_length(http, &body) {
            Some(length) if !expects => length,
            _ => return Ok(Self::streamed(Bytes::new(), body)),
        };
        // One time for all of it: drop by drop it would hold its permit for days.
        timeout(
            http.config.stall_timeout,
            read_whole(http, body, length, demand, received),
        )
        .await
        .unwrap_or_else(|_| Err(stalled()))
    }

    /// Takes what has come with the head, until `enough` bytes are there, and waits for nothing: the other side may have
    /// to speak first. `received` counts it.
    pub(crate) fn begun(
        mut body: Inbound,
        enough: usize,
        received: &mut u64,
    ) -> Result<Self, Failure> {
        let mut first = Gathered::default();
        while !body.is_end_stream() && first.len() < enough {
            // No waker is left behind: whoever reads on asks again.
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

    /// Whether another try would send the same.
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

/// The length of a body that may ride in its head's message.
pub(crate) fn inline_length(http: &Http, body: &Inbound) -> Option<usize> {
    let length = usize::try_from(body.size_hint().exact()?).ok()?;
    (length <= http.config.inline_body_bytes).then_some(length)
}

fn bytes_of(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

fn stalled() -> Failure {
    Failure::new(Reason::Stalled, "the body did not come in time")
}

async fn read_whole(
    http: &Http,
    mut body: Inbound,
    length: usize,
    demand: &Demand,
    received: &mut u64,
) -> Result<Upload, Failure> {
    let config = &http.config;
    let mut pace = Pace::new(config.stall_timeout, config.min_rate_bytes_per_sec);
    let mut look = pin!(sleep(LOOK));
    let mut all = Gathered::default();
    let mut trailers = None;
    loop {
        pace.wait();
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = look.as_mut() => {
                if pace.is_slow(config.shortage_grace) && demand.is_there() {
                    return Err(stalled());
                }
                look.as_mut().reset(Instant::now() + LOOK);
                continue;
            }
        };
        let frame = match frame {
            None => break,
            Some(Err(failure)) if failure.reason == Reason::Cancelled && all.len() > 0 => {
                return Ok(Upload::Broken(all.bytes(), failure));
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
    Ok(Upload::whole(all.bytes(), trailers))
}

/// Pieces that become one. Mostly there is only one.
#[derive(Default)]
struct Gathered {
    one: Bytes,
    more: BytesMut,
}

impl Gathered {
    /// Takes a piece; gives the trailers, if that is what it is. `all` bytes are expected.
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
