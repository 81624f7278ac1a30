//! Visitors of gRPC, frame by frame.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, Request, response::Parts};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{http2, within};

/// A visitor with one connection.
pub struct Visitor(h2::client::SendRequest<Bytes>);

/// A call whose request has begun.
pub struct Call {
    pub response: ResponseFuture,
    pub send: SendStream<Bytes>,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Response {
    /// The value in the trailers, or in the headers when the response has no other part.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        trailers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Number and reason of a status that adit generated.
    pub fn verdict(&self) -> (&str, &str) {
        let status = self.trailer("grpc-status").expect("a status");
        (status, self.trailer("adit-reason").unwrap_or_default())
    }
}

impl Visitor {
    pub async fn connect(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(http2::frames(stream, 65_535).await)
    }

    /// Begins a call; `end` ends its messages.
    pub async fn open(&mut self, path: &str, headers: &[(&str, &str)], end: bool) -> Call {
        let mut request = Request::post(format!("http://calls.example{path}"));
        for usual in [("content-type", "application/grpc"), ("te", "trailers")] {
            if !headers.iter().any(|(name, _)| *name == usual.0) {
                request = request.header(usual.0, usual.1);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(()).unwrap(), end).await
    }

    pub async fn request(&mut self, request: Request<()>, end: bool) -> Call {
        poll_fn(|cx| self.0.poll_ready(cx)).await.unwrap();
        let (response, send) = self.0.send_request(request, end).unwrap();
        Call { response, send }
    }

    /// A call with one message.
    pub async fn call(&mut self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Response {
        let mut call = self.open(path, headers, false).await;
        call.send.send_data(framed(message), true).unwrap();
        call.whole().await.unwrap()
    }
}

impl Call {
    /// The complete response, or how it was aborted.
    pub async fn whole(self) -> Result<Response, Option<Reason>> {
        let response = within(self.response).await;
        let (parts, body) = response.map_err(|error| error.reason())?.into_parts();
        rest(parts, body).await
    }

    /// The head of the response, and the rest.
    pub async fn head(self) -> (Parts, RecvStream, SendStream<Bytes>) {
        let (parts, body) = within(self.response).await.unwrap().into_parts();
        (parts, body, self.send)
    }
}

/// Reads a response whose head has arrived to its end.
pub async fn rest(parts: Parts, mut body: RecvStream) -> Result<Response, Option<Reason>> {
    let all = body_of(&mut body).await?;
    let trailers = within(body.trailers()).await;
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: all,
        trailers: trailers.map_err(|error| error.reason())?,
    })
}

/// Reads a body to its end and returns its credit; `Err` has the code of a reset.
pub async fn body_of(body: &mut RecvStream) -> Result<Vec<u8>, Option<Reason>> {
    let mut all = Vec::new();
    while let Some(data) = within(body.data()).await {
        let data = data.map_err(|error| error.reason())?;
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// A length-prefixed message, not compressed.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// Sends bytes as fast as credit allows.
pub async fn send_all(send: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let allowed = within(poll_fn(|cx| send.poll_capacity(cx))).await;
        let part = bytes.split_to(allowed.unwrap().unwrap().min(bytes.len()));
        let last = end && bytes.is_empty();
        send.send_data(part, last).unwrap();
    }
}
