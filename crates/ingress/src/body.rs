//! The body of an answer on its way to the visitor.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use adit_codec::{ProtocolType, ResetCode};
use adit_link::{Failure, Part, Payload, Reason, RecvHalf, SendHalf};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::{
    access::Access,
    answer::of_peer,
    grpc::{self, Deadline, Watch},
    parked::Parked,
    pump::Pump,
    websocket::WebSocket,
};

/// A piece of an answer's body.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// From a service. Its credit goes back when hyper or h2 drops it, which is when it has been written; what is
    /// parked goes first.
    Service(
        #[expect(dead_code, reason = "tells when it is dropped")] Option<Arc<Parked>>,
        Payload,
    ),
    /// From here.
    Own(Bytes),
    /// Nothing. It is dropped when all that goes before it has been written.
    Mark(#[expect(dead_code, reason = "tells when it is dropped")] oneshot::Sender<()>),
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

/// The body of an answer: from a service, or a text of ours.
pub(crate) enum ResponseBody {
    Service(Box<ServiceBody>),
    /// None: the frames of a WebSocket follow, on a stream of HTTP/2.
    WebSocket(Box<WebSocket>),
    Own(
        Option<Bytes>,
        #[expect(dead_code, reason = "accounts when it is dropped")] Option<Box<Access>>,
    ),
}

/// What a service sends after its head.
pub(crate) struct ServiceBody {
    /// None when it is over.
    recv: Option<RecvHalf>,
    /// What came with the head.
    first: Option<Part>,
    /// Bytes that are owed, when the length is known.
    owed: Option<u64>,
    sending: Sending,
    /// Of a call that has one.
    deadline: Option<Deadline>,
    #[expect(dead_code, reason = "ends the exchange at the deadline")]
    watch: Option<Watch>,
    /// It broke off, and ends when the visitor has all that came before.
    failing: Option<Failing>,
    access: Access,
}

/// An answer that broke off while what came before is on its way.
struct Failing {
    failure: Failure,
    /// Over HTTP/2: ends when all of that has been written.
    written: Option<oneshot::Receiver<()>>,
}

/// What becomes of the visitor's body while its answer is on the way.
pub(crate) enum Sending {
    /// It has been sent.
    Done,
    /// It is being sent.
    Pumped(Pump),
    /// The answer came without it, and it is not read. This direction must not end as if it had been: it stays open as
    /// long as the answer lasts, unless the other side stops it.
    Unasked(#[expect(dead_code, reason = "ends the direction when it is dropped")] SendHalf),
    /// There is none, but the direction goes on: of a WebSocket that is accepted, or until it is refused.
    Open(SendHalf),
}

impl Sending {
    /// What was wrong with the visitor's body.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Pumped(pump) => pump.failure(),
            Self::Done | Self::Unasked(_) | Self::Open(_) => None,
        }
    }

    /// Whether some of the visitor's body is never going to be read.
    pub(crate) fn is_cut(&self) -> bool {
        match self {
            Self::Done | Self::Open(_) => false,
            Self::Pumped(pump) => pump.is_stopped(),
            Self::Unasked(_) => true,
        }
    }

    /// The answer is whole: a body that is being sent may come to its end.
    pub(crate) fn detach(self) {
        if let Self::Pumped(pump) = self {
            pump.detach();
        }
    }
}

impl ServiceBody {
    pub(crate) fn new(
        recv: RecvHalf,
        first: Option<Part>,
        length: Option<u64>,
        sending: Sending,
        access: Access,
        deadline: Option<Deadline>,
    ) -> Self {
        // One that is here whole has a length, even if the service did not say it.
        let here = match &first {
            None => Some(0),
            Some(Part::Data(payload)) => Some(payload.bytes().len() as u64),
            Some(_) => None,
        };
        let here = here.filter(|_| recv.is_ended());
        if let Some(parked) = &access.parked {
            parked.hand_over();
        }
        // Whether more is asked for is up to the visitor; the deadline is not.
        let watch = deadline
            .filter(|_| !recv.is_complete())
            .map(|deadline| Watch::start(deadline, recv.canceller()));
        Self {
            recv: Some(recv),
            first,
            owed: length.or(here),
            sending,
            deadline,
            watch,
            failing: None,
            access,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.recv {
            _ if self.failing.is_some() => false,
            None => true,
            Some(recv) => {
                self.first.is_none() && self.owed.is_none_or(|owed| owed == 0) && recv.is_ended()
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Failure>>> {
        loop {
            if let Some(Failing { failure, written }) = &mut self.failing {
                let (Some(written), Some(recv)) = (written, &self.recv) else {
                    // The socket ends it.
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
                None if self.owed.is_some_and(|owed| owed > 0) => Err(short()),
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
                // Dropping it gives its credit back.
                Some(Ok(Part::Data(payload))) if payload.bytes().is_empty() => continue,
                Some(Ok(Part::Data(payload))) => self.on_data(payload),
                Some(Ok(Part::Trailers(_))) if self.owed.is_some_and(|owed| owed > 0) => {
                    Err(short())
                }
                Some(Ok(Part::Trailers(block))) => {
                    let trailers = trailers(&block);
                    self.access.on_trailers(&trailers);
                    self.end();
                    Ok(Frame::trailers(trailers))
                }
                // The mux lets neither a second answer nor another protocol's payload pass.
                Some(Ok(_)) => Err(Failure::new(Reason::ProtocolError, "no part of a body")),
                Some(Err(failure)) => Err(self.reason_of(failure)),
            };
            return match part {
                Ok(frame) => Poll::Ready(Some(Ok(frame))),
                Err(failure) => self.break_off(failure),
            };
        }
    }

    /// Why the exchange failed: when it was reset from here, the failure does not know.
    fn reason_of(&self, failure: Failure) -> Failure {
        if let Some(deadline) = self.deadline.filter(Deadline::is_over) {
            return deadline.exceeded();
        }
        self.sending.failure().unwrap_or(of_peer(failure))
    }

    fn on_data(&mut self, payload: Payload) -> Result<Frame<Chunk>, Failure> {
        let bytes = payload.bytes().len() as u64;
        if let Some(owed) = &mut self.owed {
            let Some(left) = owed.checked_sub(bytes) else {
                let more = "the service sent more than its content-length";
                return Err(Failure::new(Reason::ServiceAborted, more));
            };
            *owed = left;
        }
        self.access.sent_bytes += bytes;
        Ok(Frame::data(Chunk::Service(
            self.access.parked.clone(),
            payload,
        )))
    }

    fn end(&mut self) {
        self.access.parked = None;
        self.recv = None;
        self.access.on_end();
        std::mem::replace(&mut self.sending, Sending::Done).detach();
    }

    /// The answer broke off, and must not look whole (P-7.1): behind all that came before.
    fn break_off(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Chunk>, Failure>>> {
        let is_http1 = self.access.visit.version < Version::HTTP_2;
        if self.is_call() || failure.reason == Reason::Stalled {
            // A status goes behind what came before; a visitor who takes nothing has nothing to wait for.
            return Poll::Ready(Some(self.fail(failure)));
        }
        if is_http1 {
            // hyper would throw away what it has not written. It waits for more instead, and flushes; then the socket
            // ends it.
            let _ = self.fail(failure.clone());
            self.access.connection().break_off();
            self.failing = Some(Failing {
                failure,
                written: None,
            });
            return Poll::Pending;
        }
        // The stream would be reset, and h2 throw away what it has not written.
        let (mark, written) = oneshot::channel();
        self.failing = Some(Failing {
            failure,
            written: Some(written),
        });
        Poll::Ready(Some(Ok(Frame::data(Chunk::Mark(mark)))))
    }

    /// HTTP/2 resets the stream by itself; what ends a call is a status in its trailers (P-8.4).
    fn fail(&mut self, failure: Failure) -> Result<Frame<Chunk>, Failure> {
        if self.access.visit.version < Version::HTTP_2 {
            self.access.connection().reset_on_drop();
        }
        self.access.on_failure(&failure);
        self.access.parked = None;
        self.recv = None;
        self.sending = Sending::Done;
        if self.is_call() {
            let trailers = grpc::trailers(&failure, &self.access.visit.uuid);
            self.access.on_trailers(&trailers);
            return Ok(Frame::trailers(trailers));
        }
        Err(failure)
    }

    fn is_call(&self) -> bool {
        self.access.visit.protocol == ProtocolType::Grpc
    }
}

impl Drop for ServiceBody {
    fn drop(&mut self) {
        self.access.parked = None;
        // Nothing is asked for when all is known to have come.
        let whole = match (&self.recv, self.owed) {
            (None, _) => return,
            _ if self.first.is_some() => false,
            (Some(_), Some(owed)) => owed == 0,
            (Some(recv), None) => recv.is_ended(),
        };
        if whole {
            self.end();
        } else if self.is_call()
            && let Some(recv) = self.recv.take()
        {
            // At once, whatever is still on its way to the visitor (P-8.3).
            recv.reset(ResetCode::Cancelled, "the visitor left");
        }
    }
}

fn short() -> Failure {
    let less = "the service sent less than its content-length";
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
    /// A text of ours.
    pub(crate) fn own(text: Bytes, mut access: Access) -> Self {
        access.sent_bytes = text.len() as u64;
        Self::Own((!text.is_empty()).then_some(text), Some(Box::new(access)))
    }

    /// A text of ours for a request that was none.
    pub(crate) fn bare(text: Bytes) -> Self {
        Self::Own((!text.is_empty()).then_some(text), None)
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
            Self::WebSocket(_) => Poll::Ready(None),
            Self::Own(text, _) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(Chunk::Own(text)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Service(body) => body.is_end_stream(),
            Self::WebSocket(_) => true,
            Self::Own(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // The visitor would be promised a length, which a call that ends with a status of ours may not keep.
            Self::Service(body) if body.is_call() => SizeHint::default(),
            Self::Service(body) => body
                .owed
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::WebSocket(_) => SizeHint::default(),
            Self::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
        }
    }
}
