//! The gRPC of the demo service: an echo of messages, with a status in the trailers.

use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONTENT_TYPE, HeaderName},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::demo::body::Body;

/// The one method.
pub(in crate::demo) const METHOD: &str = "/adit.demo.v1.Echo/Chat";

/// Metadata that the trailers repeat.
pub(in crate::demo) const METADATA: HeaderName = HeaderName::from_static("x-demo-bin");

/// Whether a request is a call.
pub(super) fn is_call(request: &Request<Incoming>) -> bool {
    let value = request.headers().get(CONTENT_TYPE);
    value.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Responds to a call: messages have the same framing in both directions, so bytes are echoed as they arrive.
pub(super) fn response(request: Request<Incoming>) -> Response<Body> {
    let (sender, body) = Body::frames();
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    let known = request.uri().path() == METHOD;
    let (parts, mut messages) = request.into_parts();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        for value in parts.headers.get_all(&METADATA) {
            trailers.append(METADATA, value.clone());
        }
        if known {
            while let Some(Ok(frame)) = messages.frame().await {
                if let Ok(data) = frame.into_data()
                    && sender.data(data).await.is_err()
                {
                    return;
                }
            }
        }
        let status = if known { "0" } else { "12" };
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        let _ = sender.trailers(trailers).await;
    });
    response
}
