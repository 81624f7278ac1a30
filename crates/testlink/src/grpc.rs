//! Visitors of gRPC, frame by frame.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Response, http2, within};

/// A visitor with one connection.
pub struct Visitor(h2::client::SendRequest<Bytes>);

/// A call whose request has begun.
pub struct Call {
    pub response: ResponseFuture,
    pub send: SendStream<Bytes>,
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
        let begun = within(self.response).await;
        rest(begun.map_err(|error| error.reason())?).await
    }

    /// The response whose head has arrived.
    pub async fn head(self) -> (http::Response<RecvStream>, SendStream<Bytes>) {
        (within(self.response).await.unwrap(), self.send)
    }
}

/// Reads a response whose head has arrived to its end.
pub async fn rest(begun: http::Response<RecvStream>) -> Result<Response, Option<Reason>> {
    let (parts, mut body) = begun.into_parts();
    let mut response = Response {
        status: parts.status.as_u16(),
        headers: text(&parts.headers),
        body: body_of(&mut body).await?,
        ..Response::default()
    };
    let trailers = within(body.trailers()).await;
    if let Some(trailers) = trailers.map_err(|error| error.reason())? {
        assert!(!trailers.is_empty());
        response.trailers = text(&trailers);
    }
    Ok(response)
}

fn text(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
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
