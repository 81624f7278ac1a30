//! gRPC calls over HTTP/2 in clear text, with frames built by this module: one message in each direction, or messages
//! that are echoed in a long-lived call. A call that does not end with status 0 has failed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{Mutex, mpsc};

use super::{connect, wrong_bytes};
use crate::failure::{Failed, Failure};
use crate::pattern::Pattern;
use crate::pool::Driver;
use crate::scenario::Mix;
use crate::services::grpc::{CONNECTION_WINDOW, STREAM_WINDOW, grpc_message};
use crate::tally::Tally;
use crate::targets::Web;

/// The method; the service echoes the messages of any method.
const METHOD: &str = "/adit.load.v1.Load/Echo";

/// The length of a message's prefix: a flag and the length of the message.
const PREFIX: usize = 5;

/// HTTP/2 connections that calls use in turn.
struct Channels {
    web: Web,
    slots: Vec<Mutex<Option<SendRequest<Messages>>>>,
    next: AtomicUsize,
}

impl Channels {
    fn new(web: &Web, connections: usize) -> Self {
        let slots = (0..connections.max(1)).map(|_| Mutex::new(None));
        Self {
            web: web.clone(),
            slots: slots.collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Returns the next connection. The first user opens the connection, and the other users wait until it is open.
    async fn take(&self) -> Result<SendRequest<Messages>, Failed> {
        let place = self.next.fetch_add(1, Relaxed) % self.slots.len();
        let mut slot = self.slots[place].lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let stream = connect(self.web.addr).await?;
        let (open, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failed::new(Failure::Connect, error))?;
        // The connection ends when the last sender of the connection is dropped.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        *slot = Some(open.clone());
        Ok(open)
    }

    /// Starts a call and waits for the head of its response.
    async fn call(
        &self,
        channel: &mut SendRequest<Messages>,
        messages: Messages,
    ) -> Result<Incoming, Failed> {
        channel
            .ready()
            .await
            .map_err(|error| Failed::new(Failure::Cut, error))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{METHOD}", self.web.host))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header("te", "trailers")
            .body(messages)
            .map_err(|error| Failed::new(Failure::Write, error))?;
        let response = channel
            .send_request(request)
            .await
            .map_err(|error| Failed::new(Failure::Read, error))?;
        if response.status() != 200 {
            return Err(Failed::new(Failure::Status, response.status().as_u16()));
        }
        if response.headers().contains_key("grpc-status") {
            status(response.headers())?;
            return Err(Failed::new(Failure::Cut, "no message"));
        }
        Ok(response.into_body())
    }
}

/// Checks the status in the trailers of a call.
fn status(trailers: &HeaderMap) -> Result<(), Failed> {
    let text = |name| {
        trailers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(Failed::new(
                Failure::Status,
                format!("grpc {code} {message}"),
            ))
        }
        None => Err(Failed::new(Failure::Cut, "no grpc-status")),
    }
}

/// Reads until `have` contains the given number of bytes; returns the trailers when the response ends before.
async fn fill(
    response: &mut Incoming,
    have: &mut BytesMut,
    wanted: usize,
) -> Result<Option<HeaderMap>, Failed> {
    while have.len() < wanted {
        let frame = match response.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Failed::new(Failure::Read, error)),
            None => return Err(Failed::new(Failure::Cut, "no trailers")),
        };
        match frame.into_data() {
            Ok(data) => have.extend_from_slice(&data),
            Err(frame) => return Ok(frame.into_trailers().ok()),
        }
    }
    Ok(None)
}

/// A message in its wire format, and its payload.
fn message(sizes: &Mix, number: u64) -> (Bytes, &'static [u8]) {
    let payload = Pattern::shared().piece(Pattern::place(number), sizes.pick(number));
    (grpc_message(payload), payload)
}

/// Takes one message from the response and compares its payload.
async fn receive(
    web: &Web,
    response: &mut Incoming,
    have: &mut BytesMut,
    payload: &[u8],
    tally: &Tally,
) -> Result<(), Failed> {
    let wanted = PREFIX + payload.len();
    if let Some(trailers) = fill(response, have, wanted).await? {
        status(&trailers)?;
        return Err(Failed::new(Failure::Cut, "a response is missing"));
    }
    let mut got = have.split_to(wanted);
    let (flag, length) = (got.get_u8(), got.get_u32());
    if flag != 0 || length as usize != payload.len() || got != payload {
        return Err(wrong_bytes(web, "another message"));
    }
    tally.body_bytes.fetch_add(payload.len() as u64, Relaxed);
    Ok(())
}

/// Checks that the call ends now, with status 0 and without further bytes.
async fn finish(web: &Web, response: &mut Incoming, have: &mut BytesMut) -> Result<(), Failed> {
    match fill(response, have, 1).await? {
        Some(trailers) => status(&trailers),
        None => Err(wrong_bytes(web, "a message after the last one")),
    }
}

/// A new call for each exchange.
pub(super) struct Unary {
    channels: Channels,
    sizes: Mix,
    tally: Arc<Tally>,
}

impl Unary {
    pub(super) fn new(web: &Web, connections: usize, sizes: Mix, tally: Arc<Tally>) -> Self {
        Self {
            channels: Channels::new(web, connections),
            sizes,
            tally,
        }
    }
}

impl Driver for Unary {
    type Session = SendRequest<Messages>;

    async fn open(&self) -> Result<Self::Session, Failed> {
        self.channels.take().await
    }

    async fn exchange(&self, channel: &mut Self::Session, number: u64) -> Result<bool, Failed> {
        let (wire, payload) = message(&self.sizes, number);
        let mut response = self
            .channels
            .call(channel, Messages::Once(Some(wire)))
            .await?;
        let (web, mut have) = (&self.channels.web, BytesMut::new());
        receive(web, &mut response, &mut have, payload, &self.tally).await?;
        finish(web, &mut response, &mut have).await?;
        Ok(!channel.is_closed())
    }

    async fn close(&self, _: Self::Session) -> Result<(), Failed> {
        Ok(())
    }
}

/// Long-lived calls: an exchange is one message in each direction.
pub(super) struct Stream {
    channels: Channels,
    sizes: Mix,
    tally: Arc<Tally>,
}

impl Stream {
    pub(super) fn new(web: &Web, connections: usize, sizes: Mix, tally: Arc<Tally>) -> Self {
        Self {
            channels: Channels::new(web, connections),
            sizes,
            tally,
        }
    }
}

/// A call in progress.
pub(super) struct Call {
    sender: mpsc::Sender<Bytes>,
    response: Incoming,
    have: BytesMut,
    _channel: SendRequest<Messages>,
}

impl Driver for Stream {
    type Session = Call;

    async fn open(&self) -> Result<Call, Failed> {
        let mut channel = self.channels.take().await?;
        let (sender, messages) = mpsc::channel(1);
        let response = self
            .channels
            .call(&mut channel, Messages::Stream(messages))
            .await?;
        Ok(Call {
            sender,
            response,
            have: BytesMut::new(),
            _channel: channel,
        })
    }

    async fn exchange(&self, call: &mut Call, number: u64) -> Result<bool, Failed> {
        let (wire, payload) = message(&self.sizes, number);
        // The receiver ended together with the call, whose end is read below.
        let _ = call.sender.send(wire).await;
        let web = &self.channels.web;
        receive(
            web,
            &mut call.response,
            &mut call.have,
            payload,
            &self.tally,
        )
        .await?;
        Ok(true)
    }

    async fn close(&self, call: Call) -> Result<(), Failed> {
        let Call {
            sender,
            mut response,
            mut have,
            _channel,
        } = call;
        drop(sender);
        finish(&self.channels.web, &mut response, &mut have).await
    }
}

/// The request messages of a call.
pub(super) enum Messages {
    Once(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Messages {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Once(message) => Poll::Ready(message.take().map(|it| Ok(Frame::data(it)))),
            Self::Stream(messages) => messages
                .poll_recv(cx)
                .map(|message| message.map(|it| Ok(Frame::data(it)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once(None))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
