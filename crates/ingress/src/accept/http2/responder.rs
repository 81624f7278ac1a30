//! Sends the interim responses and the head of the final response of a stream.

use std::task::{Context, Poll};

use adit_codec::MAX_HEAD_BYTES;
use h2::{Reason, SendStream, server::SendResponse};
use http::{Response, StatusCode};
use parking_lot::Mutex;

use crate::forward::{interim::SendInterim, response_body::Chunk};

/// Sends the responses to one request: interim ones while the request is served and its stream is polled for a reset.
pub(super) struct Responder(Mutex<State>);

struct State {
    respond: SendResponse<Chunk>,
    /// Bytes of header lines that may still be sent before the final response: h2 buffers them until they are written.
    left_bytes: usize,
    has_continued: bool,
}

impl Responder {
    pub(super) fn new(respond: SendResponse<Chunk>) -> Self {
        Self(Mutex::new(State {
            respond,
            left_bytes: MAX_HEAD_BYTES,
            has_continued: false,
        }))
    }

    /// Ready when the visitor has reset the stream, or its connection is over.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().respond.poll_reset(cx).map(drop)
    }

    /// Sends the head of the final response.
    pub(super) fn send(
        self,
        response: Response<()>,
        is_whole: bool,
    ) -> Result<SendStream<Chunk>, h2::Error> {
        let mut respond = self.0.into_inner().respond;
        let sent = respond.send_response(response, is_whole);
        sent.inspect_err(|_| respond.send_reset(Reason::INTERNAL_ERROR))
    }

    pub(super) fn reset(self, reason: Reason) {
        self.0.into_inner().respond.send_reset(reason);
    }
}

impl SendInterim for Responder {
    fn send_interim(&self, cx: &mut Context<'_>, mut response: Response<()>) {
        let mut state = self.0.lock();
        let is_continue = response.status() == StatusCode::CONTINUE;
        if is_continue && std::mem::replace(&mut state.has_continued, true) {
            return;
        }
        let lines = response.headers().iter();
        let bytes = lines.map(|(name, value)| name.as_str().len() + value.len());
        let bytes: usize = bytes.sum();
        if let Some(left) = state.left_bytes.checked_sub(bytes) {
            state.left_bytes = left;
        } else if is_continue {
            response.headers_mut().clear();
        } else {
            return;
        }
        if state.respond.poll_reset(cx).is_pending() {
            // An interim response is only a hint: an error is ignored.
            let _ = state.respond.send_informational(response);
        }
    }
}
