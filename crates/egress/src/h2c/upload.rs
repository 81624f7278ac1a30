//! The request's body as hyper reads it, and what it tells the task that waits for the answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_codec::ResetCode;
use adit_link::{Part, Payload, RecvHalf};
use bytes::Buf as _;
use http::{HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::{fields::is_barred_from_trailers, job::Broken};

/// What the request's body tells the task that waits for the answer.
pub(super) struct Progress {
    /// When the body last moved; none once it has been sent: the answer is awaited from then on.
    state: Mutex<(Instant, bool)>,
    fault: Mutex<Option<&'static str>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new((Instant::now(), false)),
            fault: Mutex::default(),
        }
    }

    fn note(&self, done: bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), done);
    }

    fn set_fault(&self, why: &'static str) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(super) fn fault(&self) -> Option<Broken> {
        let why = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        why.map(|why| Broken::Reset(ResetCode::ProtocolError, why.into()))
    }

    /// Waits until the request has been sent and nothing has happened for `within`.
    pub(super) async fn silence(&self, within: Duration) {
        loop {
            let (since, done) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let deadline = if done { since + within } else { now + within };
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// The visitor's direction as a body. Each payload gives its credit back when hyper has written it and drops it.
pub(super) struct Upload {
    recv: Option<RecvHalf>,
    /// Of the announced length.
    left: Option<u64>,
    progress: Arc<Progress>,
}

impl Upload {
    /// Of a request that announces `length`, or does not.
    pub(super) fn new(recv: RecvHalf, length: Option<u64>, progress: Arc<Progress>) -> Self {
        Self {
            recv: Some(recv),
            left: length,
            progress,
        }
    }

    fn fault(&self, why: &'static str) -> Poll<Option<Result<Frame<Payload>, BadBody>>> {
        self.progress.set_fault(why);
        Poll::Ready(Some(Err(BadBody(why))))
    }
}

/// Ends the stream with an error.
#[derive(Debug)]
pub(super) struct BadBody(&'static str);

impl std::fmt::Display for BadBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadBody {}

impl Body for Upload {
    type Data = Payload;
    type Error = BadBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Payload>, BadBody>>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Ready(None);
        };
        let part = ready!(recv.poll_part(cx));
        let over = part.is_none() || recv.is_ended();
        self.progress.note(over);
        match part {
            Some(Ok(Part::Data(payload))) => {
                let length = payload.remaining() as u64;
                match &mut self.left {
                    Some(left) if *left < length => {
                        return self.fault("the request's body is longer than its content-length");
                    }
                    Some(left) => *left -= length,
                    None => {}
                }
                if over && self.left.is_some_and(|left| left > 0) {
                    return self.fault("the request's body is shorter than its content-length");
                }
                Poll::Ready(Some(Ok(Frame::data(payload))))
            }
            Some(Ok(Part::Trailers(trailers))) => {
                if self.left.is_some_and(|left| left > 0) {
                    return self.fault("the request's body is shorter than its content-length");
                }
                let lines = trailers
                    .lines()
                    .filter(|(name, _)| !is_barred_from_trailers(name));
                let map = lines
                    .filter_map(|(name, value)| {
                        Some((
                            HeaderName::from_bytes(name).ok()?,
                            HeaderValue::from_bytes(value).ok()?,
                        ))
                    })
                    .collect();
                Poll::Ready(Some(Ok(Frame::trailers(map))))
            }
            Some(Ok(Part::Answer(_))) => self.fault("an answer from the side that asked"),
            Some(Err(_)) => Poll::Ready(Some(Err(BadBody("the visitor left")))),
            None if self.left.is_some_and(|left| left > 0) => {
                self.fault("the request's body is shorter than its content-length")
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.recv.as_ref().is_none_or(RecvHalf::is_ended);
        if ended {
            self.progress.note(true);
        }
        // With a length still announced the end is a fault, which `poll_frame` reports.
        ended && self.left.is_none_or(|left| left == 0)
    }
}

impl Drop for Upload {
    /// Nobody reads on: the visitor is told, or the request would count as broken off after its answer (P-3.6).
    fn drop(&mut self) {
        if let Some(recv) = self.recv.take()
            && !recv.is_ended()
        {
            recv.stop(ResetCode::Cancelled);
        }
        self.progress.note(true);
    }
}
