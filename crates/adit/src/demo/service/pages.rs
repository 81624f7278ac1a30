//! The pages of the demo service.

use std::{fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, TRAILER},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::{Responses, Steps, rpc, socket};
use crate::demo::{
    body::Body,
    pattern::{Digest, Pattern},
};

/// The time between two events of `/events`.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Events of `/steps`, each sent on request.
pub(in crate::demo) const STEPS: u32 = 5;

/// The length that the aborting page announces.
pub(in crate::demo) const PROMISED: u64 = 1 << 20;
const SENT_BEFORE_ABORT: u64 = 64 * 1024;

/// The trailer that the service sends.
pub(in crate::demo) const DOWN: &str = "x-demo-down";
/// The value of `DOWN`.
pub(in crate::demo) const DOWN_VALUE: &str = "after the body";
/// The trailer that a visitor may send; the service returns it.
pub(in crate::demo) const UP: &str = "x-demo-up";

/// The list of pages.
const HELP: &str = "\
/hello           a line of text; /hello/ANYTHING echoes it
/events          an event every second (SSE)
/bytes/N         N bytes, the same ones each time
/upload          POST: length and BLAKE3 checksum of what was sent
/trailers        a response with trailers, which repeat those of the request
/at-once         POST: responds while the upload still runs
/socket          a WebSocket that echoes messages
/unread          POST: responds without reading the upload
";

/// Responds to a request.
pub(super) async fn response(request: Request<Incoming>, shared: Arc<Responses>) -> Response<Body> {
    if rpc::is_call(&request) {
        return rpc::response(request);
    }
    let path = request.uri().path().to_owned();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    match (request.method(), &*segments) {
        (&Method::GET, [""]) => text(front(&request)),
        (&Method::GET, ["hello"]) => text("hello\n".into()),
        (&Method::GET, ["hello", name]) => text(format!("hello {name}\n")),
        (&Method::GET, ["events"]) => events(&shared),
        (&Method::GET, ["socket"]) => socket::accept(request),
        (&Method::GET, ["steps", name]) => steps(Steps::new(shared, name)),
        (&Method::GET, ["abort", name]) => {
            let sized = request.uri().query() != Some("chunked");
            abort(Steps::new(shared, name), sized)
        }
        (&Method::POST, ["next", name]) => {
            if shared.release(name) {
                text("released\n".into())
            } else {
                nothing("no response with this name waits\n")
            }
        }
        (&Method::GET, ["bytes", length]) => match length.parse() {
            Ok(length) => bytes(length),
            Err(_) => {
                let mut response = text(format!("invalid number of bytes `{length}`\n"));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        },
        (&Method::POST | &Method::PUT, ["upload"]) => upload(request.into_body()).await,
        (&Method::GET | &Method::POST, ["trailers"]) => trailers(request.into_body()),
        (&Method::POST, ["at-once"]) => at_once(request.into_body()),
        (&Method::POST, ["unread"]) => text("not read\n".into()),
        _ => nothing(HELP),
    }
}

fn text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::text(text));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn nothing(help: &str) -> Response<Body> {
    let mut response = text(format!("unknown page; these pages exist:\n\n{help}"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A page for browsers, which shows the request as it arrived.
fn front(request: &Request<Incoming>) -> String {
    let mut page = format!(
        "It works: you went through an adit to get here.\n\n{} {} {:?}\n",
        request.method(),
        request.uri(),
        request.version()
    );
    for (name, value) in request.headers() {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    page.push_str("\nOther pages:\n\n");
    page.push_str(HELP);
    page
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn events(shared: &Responses) -> Response<Body> {
    let (sender, body) = Body::frames();
    let mut go_on = shared.events.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(EVENT_EVERY);
        for count in 1_u64.. {
            tokio::select! {
                _ = tick.tick() => {}
                _ = go_on.wait_for(|go_on| !*go_on) => break,
                () = sender.closed() => break,
            }
            if sender.data(format!("data: {count}\n\n")).await.is_err() {
                break;
            }
        }
    });
    event_stream(body)
}

/// Sends the first event at once, and each further one when another request releases it.
fn steps(mut steps: Steps) -> Response<Body> {
    let (sender, body) = Body::frames();
    tokio::spawn(async move {
        for count in 1..=STEPS {
            if sender.data(format!("data: {count}\n\n")).await.is_err() {
                break;
            }
            if count < STEPS {
                tokio::select! {
                    released = steps.next() => if !released { break },
                    () = sender.closed() => break,
                }
            }
        }
    });
    event_stream(body)
}

/// Sends less than the announced length, and aborts when another request releases it.
fn abort(mut steps: Steps, sized: bool) -> Response<Body> {
    let (sender, body) = Body::frames();
    tokio::spawn(async move {
        for piece in Pattern::new(SENT_BEFORE_ABORT) {
            if sender.data(piece).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = steps.next() => {}
            () = sender.closed() => {}
        }
        let _ = sender.abort().await;
    });
    let mut response = Response::new(body);
    if sized {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(PROMISED));
    }
    response
}

fn bytes(length: u64) -> Response<Body> {
    let mut response = Response::new(Body::Pattern(Pattern::new(length)));
    let binary = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, binary);
    response
}

/// Reads a body to its end.
async fn read(mut body: Incoming) -> Result<(Digest, HeaderMap), hyper::Error> {
    let mut digest = Digest::default();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => digest.update(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((digest, trailers))
}

fn report(digest: &Digest) -> String {
    let checksum = digest.checksum().to_string();
    let report = json!({ "length": digest.length(), "blake3": checksum });
    format!("{report}\n")
}

async fn upload(body: Incoming) -> Response<Body> {
    match read(body).await {
        Ok((digest, _)) => {
            let mut response = text(report(&digest));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(error) => {
            let mut response = text(format!("the upload was aborted: {error}\n"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}

fn trailers(body: Incoming) -> Response<Body> {
    let (sender, frames) = Body::frames();
    tokio::spawn(async move {
        let Ok((digest, up)) = read(body).await else {
            let _ = sender.abort().await;
            return;
        };
        let mut trailers = HeaderMap::new();
        trailers.insert(DOWN, HeaderValue::from_static(DOWN_VALUE));
        if let Some(value) = up.get(UP) {
            trailers.insert(UP, value.clone());
        }
        if sender.data(report(&digest)).await.is_ok() {
            let _ = sender.trailers(trailers).await;
        }
    });
    let mut response = Response::new(frames);
    let names = HeaderValue::from_static("x-demo-down, x-demo-up");
    response.headers_mut().insert(TRAILER, names);
    response
}

/// Sends a line at once, and the report when the upload is over.
fn at_once(body: Incoming) -> Response<Body> {
    let (sender, frames) = Body::frames();
    tokio::spawn(async move {
        if sender.data(Bytes::from_static(b"at once\n")).await.is_err() {
            return;
        }
        let _ = match read(body).await {
            Ok((digest, _)) => sender.data(report(&digest)).await,
            Err(_) => sender.abort().await,
        };
    });
    Response::new(frames)
}
