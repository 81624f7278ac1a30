//! A gRPC call without a library: length-prefixed messages over HTTP/2.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::super::{
    body::Body,
    service::{METADATA, METHOD},
    visitor::{Site, found, request, with_causes},
};
use super::same::same;
use crate::demo::table::{Measured, duration};

/// The number of messages: each is sent when the previous one has been echoed.
const TURNS: u32 = 100;

fn message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}

fn call(body: Body) -> Result<http::Request<Body>, String> {
    let mut call = request(Method::POST, METHOD, body)?;
    let headers = call.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    for value in ["AAEC", "//79"] {
        headers.append(METADATA, HeaderValue::from_static(value));
    }
    Ok(call)
}

/// A bidirectional stream in which each message waits for the echo of the previous one, then the trailers with repeated
/// binary metadata.
pub(in crate::demo) async fn chat(site: &Site) -> Result<Measured, String> {
    let mut visitor = site.http2().await?;
    let (sender, body) = Body::frames();
    let mut response = found(visitor.send(call(body)?).await?)?;
    let started = Instant::now();
    for turn in 0..TURNS {
        let sent = message(format!("turn {turn}").as_bytes());
        let gone = || format!("turn {turn}: the call is over");
        sender.data(sent.clone()).await.map_err(|_| gone())?;
        let mut back = BytesMut::new();
        while back.len() < sent.len() {
            back.extend_from_slice(&data(&mut response).await?.ok_or_else(gone)?);
        }
        if back != sent {
            return Err(format!("turn {turn}: the received message differs"));
        }
    }
    let each = started.elapsed() / TURNS;
    drop(sender);
    let trailers = trailers(response).await?;
    same("status", &text(&trailers, "grpc-status"), "0")?;
    let back: Vec<_> = trailers.get_all(METADATA).iter().collect();
    if back != ["AAEC", "//79"] {
        return Err(format!("the echoed metadata is {back:?}"));
    }
    Ok(Measured::words(format!(
        "{TURNS} turns on one stream, {} each",
        duration(each)
    )))
}

/// A failure of the tunnel is a gRPC status.
pub(in crate::demo) async fn unknown_host(site: &Site) -> Result<Measured, String> {
    let nowhere = site.under("unknown.localhost");
    let mut visitor = nowhere.http2().await?;
    let call = call(Body::Whole(Some(message(b"hello"))))?;
    let response = found(visitor.send(call).await?)?;
    let headers = response.headers().clone();
    same("status", &text(&headers, "grpc-status"), "12")?;
    same("reason", &text(&headers, "adit-reason"), "no_tunnel")?;
    Ok(Measured::words("status 12 (UNIMPLEMENTED), no_tunnel"))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The next bytes; `None` at the end.
async fn data(response: &mut http::Response<Incoming>) -> Result<Option<Bytes>, String> {
    match response.body_mut().frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(frame.into_data().ok()),
        Some(Err(error)) => Err(with_causes(&error)),
    }
}

async fn trailers(mut response: http::Response<Incoming>) -> Result<HeaderMap, String> {
    while let Some(frame) = response.body_mut().frame().await {
        if let Ok(trailers) = frame.map_err(|error| with_causes(&error))?.into_trailers() {
            return Ok(trailers);
        }
    }
    Err("the call ended without trailers".into())
}
