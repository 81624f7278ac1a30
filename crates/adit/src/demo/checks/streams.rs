//! Requests and responses that overlap in time.

use std::time::{Duration, Instant};

use http::{
    HeaderMap, HeaderValue, Method,
    header::{TE, TRAILER},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    super::{
        body::Body,
        pattern::{self, Digest, Pattern},
        service::{DOWN, DOWN_VALUE, STEPS, UP},
        visitor::{self, Site, Visitor, with_causes},
    },
    same::same,
};
use crate::demo::table::{Measured, duration, size};

/// The time within which bytes that are sent at once must arrive.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The size of an upload that continues after its response has begun.
const UPLOAD: u64 = 4 << 20;

/// The size of an upload that is not read: more than all windows and buffers on the path can hold.
const UNREAD: u64 = 64 << 20;

/// Compares the service's report of an upload with the sent bytes.
pub(super) fn reported(report: &str, sent: &Digest) -> Result<(), String> {
    let found: Value = serde_json::from_str(report)
        .map_err(|error| format!("the service's report {report:?}: {error}"))?;
    if found["length"] != sent.length() {
        return Err(format!(
            "{} bytes arrived instead of {}",
            found["length"],
            sent.length()
        ));
    }
    let checksum = found["blake3"].as_str().unwrap_or_default();
    same(
        "checksum of what arrived",
        checksum,
        &sent.checksum().to_string(),
    )
}

/// Releases the next step of a response.
pub(super) async fn release(visitor: &mut Visitor, name: &str) -> Result<(), String> {
    let request = visitor::request(Method::POST, &format!("/next/{name}"), Body::empty())?;
    let response = visitor::found(visitor.send(request).await?)?;
    same("response", &visitor::text(response).await?, "released\n")
}

/// A name that is unique among the checks.
pub(super) fn name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Each event arrives before the next one is sent: no part of the path waits for more.
pub(super) async fn events(site: &Site) -> Result<Measured, String> {
    let name = name();
    let mut visitor = site.http1().await?;
    let mut controller = site.http1().await?;
    let response = visitor::found(visitor.visit(&format!("/steps/{name}")).await?)?;
    let mut events = Events {
        body: response.into_body(),
        text: String::new(),
    };
    let mut slowest = Duration::ZERO;
    for count in 1..=STEPS {
        let started = Instant::now();
        if count > 1 {
            release(&mut controller, &name).await?;
        }
        let event = timeout(AT_ONCE, events.next())
            .await
            .map_err(|_| format!("event {count} does not arrive before the next one is sent"))??;
        same("event", &event, &format!("data: {count}"))?;
        slowest = slowest.max(started.elapsed());
    }
    events.end().await?;
    Ok(Measured::words(format!(
        "{STEPS} events, the slowest after {}",
        duration(slowest)
    )))
}

struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn next(&mut self) -> Result<String, String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                return Ok(event);
            }
            let frame = self
                .body
                .frame()
                .await
                .ok_or("the stream ended too early")?;
            let frame = frame.map_err(|error| with_causes(&error))?;
            if let Some(data) = frame.data_ref() {
                self.text.push_str(&String::from_utf8_lossy(data));
            }
        }
    }

    async fn end(mut self) -> Result<(), String> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| with_causes(&error))?;
            if let Some(data) = frame.data_ref() {
                self.text.push_str(&String::from_utf8_lossy(data));
            }
        }
        same("after the last event", &self.text, "")
    }
}

/// Trailers of request and response, from visitors of both versions.
pub(super) async fn trailers(site: &Site) -> Result<Measured, String> {
    let over = |version: &'static str| move |error: String| format!("{version}: {error}");
    trailers_over(&mut site.http1().await?)
        .await
        .map_err(over("HTTP/1.1"))?;
    trailers_over(&mut site.http2().await?)
        .await
        .map_err(over("HTTP/2"))?;
    Ok(Measured::words("both ways, in HTTP/1.1 and HTTP/2"))
}

/// Trailers of request and response, on one connection.
pub(super) async fn trailers_over(visitor: &mut Visitor) -> Result<(), String> {
    let value = name();
    let (sender, body) = Body::frames();
    let mut request = visitor::request(Method::POST, "/trailers", body)?;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(TRAILER, HeaderValue::from_static(UP));
    let mut trailers = HeaderMap::new();
    let sent = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
    trailers.insert(UP, sent);
    let mut sent = Digest::default();
    sent.update(b"a body\n");
    let send = async {
        let gone = |_| "the request was not read".to_owned();
        sender.data("a body\n").await.map_err(gone)?;
        sender.trailers(trailers).await.map_err(gone)
    };
    let (response, sending) = tokio::join!(visitor.send(request), send);
    sending?;
    let response = visitor::found(response?)?;
    let response = response
        .into_body()
        .collect()
        .await
        .map_err(|error| with_causes(&error))?;
    let found = response.trailers().cloned().unwrap_or_default();
    reported(&String::from_utf8_lossy(&response.to_bytes()), &sent)?;
    let found = |name: &str| {
        let value = found.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    same("trailer of the response", &found(DOWN), DOWN_VALUE)?;
    same("trailer of the request", &found(UP), &value)
}

/// A response that begins while the upload still runs, and ends after it.
pub(super) async fn early_response(site: &Site) -> Result<Measured, String> {
    let mut visitor = site.http1().await?;
    let (sender, body) = Body::frames();
    let gone = |_| "the upload was not read to its end".to_owned();
    let mut pieces = Pattern::new(UPLOAD);
    let first = pieces.next().unwrap_or_default();
    let begin = async { sender.data(first).await.map_err(gone) };
    let started = Instant::now();
    let sending = visitor.send(visitor::request(Method::POST, "/at-once", body)?);
    let (response, begun) = timeout(AT_ONCE, async { tokio::join!(sending, begin) })
        .await
        .map_err(|_| "no response while the upload runs")?;
    begun?;
    let mut response = visitor::found(response?)?.into_body();
    let first = timeout(AT_ONCE, response.frame())
        .await
        .map_err(|_| "no body of the response while the upload runs")?
        .ok_or("the response has no body")?
        .map_err(|error| with_causes(&error))?;
    let early = started.elapsed();
    let first = first.into_data().unwrap_or_default();
    same(
        "start of the response",
        &String::from_utf8_lossy(&first),
        "at once\n",
    )?;
    for piece in pieces {
        sender.data(piece).await.map_err(gone)?;
    }
    drop(sender);
    let rest = response
        .collect()
        .await
        .map_err(|error| with_causes(&error))?;
    reported(
        &String::from_utf8_lossy(&rest.to_bytes()),
        &pattern::digest(UPLOAD),
    )?;
    Ok(Measured::words(format!(
        "200 after {}, then the rest of {}",
        duration(early),
        size(UPLOAD)
    )))
}

/// The complete response of a service that does not read the upload reaches the visitor.
pub(super) async fn unread_upload(site: &Site) -> Result<Measured, String> {
    let mut visitor = site.http1().await?;
    let body = Body::Pattern(Pattern::new(UNREAD));
    let started = Instant::now();
    let response = visitor
        .send(visitor::request(Method::POST, "/unread", body)?)
        .await?;
    let response = visitor::text(visitor::found(response)?).await?;
    same("response", &response, "not read\n")?;
    Ok(Measured::words(format!(
        "200 after {}, during an upload of {}",
        duration(started.elapsed()),
        size(UNREAD)
    )))
}
