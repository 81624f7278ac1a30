//! The body of a response to the visitor.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use adit_codec::{ProtocolType, ResetCode};
use adit_link::{Failure, Part, Payload, Reason, RecvHalf};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::forward::{
    buffered::BufferedResponse,
    deadline::{Deadline, Watch},
    local_response::LocalResponse,
    receive::{RequestSend, of_peer},
    record::{Outcome, RequestRecord},
};

/// A piece of a response body.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// A piece from a service. Its credit is returned when hyper or h2 drops it, which is when it has been written. The
    /// fields are dropped in this order.
    Service(
        #[expect(dead_code, reason = "its drop is counted")] Option<Arc<BufferedResponse>>,
        Payload,
    ),
    /// A piece that adit itself made.
    Own(Bytes),
    /// An empty piece. It is dropped when all pieces before it have been written.
    Mark(#[expect(dead_code, reason = "its drop notifies the receiver")] oneshot::Sender<()>),
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Service(_, payload) => payload.remaining(),
            Self::Own(bytes) => bytes.remaining(),
            Self::Mark(_) => 0,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Service(_, payload) => payload.chunk(),
            Self::Own(bytes) => bytes.chunk(),
            Self::Mark(_) => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Service(_, payload) => payload.advance(count),
            Self::Own(bytes) => bytes.advance(count),
            Self::Mark(_) => {}
        }
    }
}

/// The body of a response: from a service, or made by adit itself.
pub(crate) enum ResponseBody {
    Service(Box<ServiceBody>),
    Local(
        Option<Bytes>,
        #[expect(dead_code, reason = "the request is open until this is dropped")]
        Option<Box<RequestRecord>>,
    ),
}

/// The body of a service's response.
pub(crate) struct ServiceBody {
    /// `None` when the body is over.
    recv: Option<RecvHalf>,
    /// The part that arrived with the head.
    first: Option<Part>,
    /// Bytes that have not arrived yet, if the length is known.
    remaining: Option<u64>,
    request: RequestSend,
    /// The deadline of a gRPC call.
    deadline: Option<Deadline>,
    #[expect(dead_code, reason = "ends the exchange at the deadline")]
    watch: Option<Watch>,
    /// The body was cut off, and ends when the visitor has received all bytes before the cut.
    failing: Option<Failing>,
    record: Box<RequestRecord>,
}

/// A body that was cut off, while the bytes before the cut are still being sent.
struct Failing {
    failure: Failure,
    /// Notified when all bytes before the cut have been written, for HTTP/2 only.
    written: Option<oneshot::Receiver<()>>,
}

impl ServiceBody {
    pub(crate) fn new(
        recv: RecvHalf,
        first: Option<Part>,
        length: Option<u64>,
        request: RequestSend,
        record: Box<RequestRecord>,
        deadline: Option<Deadline>,
    ) -> Self {
        // A body that has arrived completely has a length, even if the service did not send it.
        let here = match &first {
            None => Some(0),
            Some(Part::Data(payload)) => Some(payload.bytes().len() as u64),
            Some(_) => None,
        };
        let here = here.filter(|_| recv.is_ended());
        if let Some(buffered) = &record.buffered {
            buffered.hand_over();
        }
        // Whether the body is polled depends on the visitor; the deadline must not depend on it.
        let watch = deadline
            .filter(|_| !recv.is_complete())
            .map(|deadline| Watch::start(deadline, recv.canceller()));
        Self {
            recv: Some(recv),
            first,
            remaining: length.or(here),
            request,
            deadline,
            watch,
            failing: None,
            record,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.recv {
            _ if self.failing.is_some() => false,
            None => true,
            Some(recv) => {
                self.first.is_none()
                    && self.remaining.is_none_or(|remaining| remaining == 0)
                    && recv.is_ended()
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Failure>>> {
        loop {
            if let Some(Failing { failure, written }) = &mut self.failing {
                let (Some(written), Some(recv)) = (written, &self.recv) else {
                    // The socket ends the connection, so the body stays pending.
                    return Poll::Pending;
                };
                if Pin::new(written).poll(cx).is_pending() {
                    ready!(recv.poll_failure(cx));
                }
                let failure = failure.clone();
                return Poll::Ready(Some(self.fail(failure)));
            }
            let Some(recv) = &mut self.recv else {
                return Poll::Ready(None);
            };
            let part = match self.first.take() {
                Some(first) => Some(Ok(first)),
                None => ready!(recv.poll_part(cx)),
            };
            let part = match part {
                None if self.remaining.is_some_and(|remaining| remaining > 0) => Err(short()),
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
                // Dropping the payload returns its credit.
                Some(Ok(Part::Data(payload))) if payload.bytes().is_empty() => continue,
                Some(Ok(Part::Data(payload))) => self.on_data(payload),
                Some(Ok(Part::Trailers(_)))
                    if self.remaining.is_some_and(|remaining| remaining > 0) =>
                {
                    Err(short())
                }
                Some(Ok(Part::Trailers(block))) => {
                    let trailers = trailers(&block);
                    self.record.on_trailers(&trailers);
                    self.end();
                    Ok(Frame::trailers(trailers))
                }
                // The mux rejects a second response and the payload of another protocol.
                Some(Ok(_)) => Err(Failure::new(
                    Reason::ProtocolError,
                    "unexpected message type in a response body",
                )),
                Some(Err(failure)) => Err(self.reason_of(failure)),
            };
            return match part {
                Ok(frame) => Poll::Ready(Some(Ok(frame))),
                Err(failure) => self.cut_off(failure),
            };
        }
    }

    /// The cause of a failure: the failure does not contain it if this side has reset the exchange.
    fn reason_of(&self, failure: Failure) -> Failure {
        if let Some(deadline) = self.deadline.filter(Deadline::is_over) {
            return deadline.exceeded();
        }
        self.request.failure().unwrap_or(of_peer(failure))
    }

    fn on_data(&mut self, payload: Payload) -> Result<Frame<Chunk>, Failure> {
        let bytes = payload.bytes().len() as u64;
        if let Some(remaining) = &mut self.remaining {
            let Some(left) = remaining.checked_sub(bytes) else {
                let more = "upstream sent more bytes than its Content-Length";
                return Err(Failure::new(Reason::ServiceAborted, more));
            };
            *remaining = left;
        }
        self.record.sent_bytes += bytes;
        Ok(Frame::data(Chunk::Service(
            self.record.buffered.clone(),
            payload,
        )))
    }

    /// Called when the body is complete.
    fn end(&mut self) {
        self.record.buffered = None;
        self.recv = None;
        self.record.finish(Outcome::Completed);
        std::mem::replace(&mut self.request, RequestSend::Done).detach();
    }

    /// Ends the body after the bytes that have arrived, in a way that does not look complete (P-7.1).
    fn cut_off(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Chunk>, Failure>>> {
        let is_http1 = self.record.request.version < Version::HTTP_2;
        if self.is_call() || failure.reason == Reason::Stalled {
            // The status of a call is sent after the bytes before; a stalled visitor does not read them.
            return Poll::Ready(Some(self.fail(failure)));
        }
        if is_http1 {
            // An error would make hyper drop unwritten bytes. A pending body makes it flush; then the socket ends the
            // connection.
            let _ = self.fail(failure.clone());
            self.record.connection().break_off();
            self.failing = Some(Failing {
                failure,
                written: None,
            });
            return Poll::Pending;
        }
        // An error would reset the stream, and make h2 drop unwritten bytes.
        let (mark, written) = oneshot::channel();
        self.failing = Some(Failing {
            failure,
            written: Some(written),
        });
        Poll::Ready(Some(Ok(Frame::data(Chunk::Mark(mark)))))
    }

    /// Ends the body with a failure: HTTP/1 resets the connection, HTTP/2 the stream, and a call of gRPC ends with a status
    /// in its trailers (P-8.4).
    fn fail(&mut self, failure: Failure) -> Result<Frame<Chunk>, Failure> {
        if self.record.request.version < Version::HTTP_2 {
            self.record.connection().reset_on_drop();
        }
        self.record.buffered = None;
        self.recv = None;
        self.request = RequestSend::Done;
        if self.is_call() {
            let trailers =
                LocalResponse::for_call(&failure, &self.record.request.uuid).into_trailers();
            self.record.on_trailers(&trailers);
            self.record.finish(Outcome::Failed(&failure));
            return Ok(Frame::trailers(trailers));
        }
        self.record.finish(Outcome::Failed(&failure));
        Err(failure)
    }

    fn is_call(&self) -> bool {
        self.record.request.protocol == ProtocolType::Grpc
    }
}

impl Drop for ServiceBody {
    fn drop(&mut self) {
        self.record.buffered = None;
        // hyper and h2 drop a body that is known to be complete without polling it again.
        let whole = match (&self.recv, self.remaining) {
            (None, _) => return,
            _ if self.first.is_some() => false,
            (Some(_), Some(remaining)) => remaining == 0,
            (Some(recv), None) => recv.is_ended(),
        };
        if whole {
            self.end();
        } else if self.is_call()
            && let Some(recv) = self.recv.take()
        {
            // The exchange is reset at once, even if bytes are still being sent to the visitor (P-8.3).
            recv.reset(ResetCode::Cancelled, "the visitor left");
        }
    }
}

fn short() -> Failure {
    let less = "upstream sent fewer bytes than its Content-Length";
    Failure::new(Reason::ServiceAborted, less)
}

fn trailers(block: &adit_codec::HeaderBlock) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(block.len());
    for (name, value) in block.iter() {
        if let Ok(name) = HeaderName::from_bytes(&name)
            && let Ok(value) = HeaderValue::from_maybe_shared(value)
        {
            trailers.append(name, value);
        }
    }
    trailers
}

impl ResponseBody {
    /// A body that adit itself made. The `record` is finished; it is kept until the body has been sent.
    pub(crate) fn local(body: Bytes, record: Option<Box<RequestRecord>>) -> Self {
        Self::Local((!body.is_empty()).then_some(body), record)
    }

    /// No body.
    pub(crate) const fn empty() -> Self {
        Self::Local(None, None)
    }
}

impl Body for ResponseBody {
    type Data = Chunk;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Failure>>> {
        match self.get_mut() {
            Self::Service(body) => body.poll_frame(cx),
            Self::Local(text, _) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(Chunk::Own(text)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Service(body) => body.is_end_stream(),
            Self::Local(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // A call may end early with a status that adit sets, so no length can be announced.
            Self::Service(body) if body.is_call() => SizeHint::default(),
            Self::Service(body) => body
                .remaining
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Local(text, _) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64))
            }
        }
    }
}
