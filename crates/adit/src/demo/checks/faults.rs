//! A failure affects only its own visitor.

use std::time::Instant;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{io::AsyncWriteExt, net::TcpSocket};

use super::{
    super::{
        pattern::{Digest, Pattern},
        service::PROMISED,
        visitor::{self, Site, Visitor},
    },
    same::same,
    small,
    streams::{name, release},
};
use crate::demo::table::{Measured, duration, size};

/// Bytes for the stalled reader: more than all windows and buffers on the path can hold.
const UNREAD: u64 = 64 << 20;

/// The smallest receive buffer that a kernel allows.
const RECEIVE_BUFFER: u32 = 4096;

/// A visitor that reads nothing of a large response does not delay the others.
pub(super) async fn stalled_reader(site: &Site) -> Result<Measured, String> {
    let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
    // The buffer is set before connecting, because the window that is announced with the handshake depends on it.
    socket
        .set_recv_buffer_size(RECEIVE_BUFFER)
        .map_err(|error| format!("SO_RCVBUF: {error}"))?;
    let mut stalled = socket
        .connect(site.addr)
        .await
        .map_err(|error| format!("cannot connect to {}: {error}", site.addr))?;
    let request = format!(
        "GET /bytes/{UNREAD} HTTP/1.1\r\nHost: {}\r\n\r\n",
        site.host()
    );
    stalled
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    // The response is being sent. No byte of it is read, now or later.
    stalled
        .readable()
        .await
        .map_err(|error| error.to_string())?;
    let started = Instant::now();
    small::fetch(site)
        .await
        .map_err(|error| format!("with a stalled reader: {error}"))?;
    let within = started.elapsed();
    drop(stalled);
    Ok(Measured::words(format!(
        "200 requests in {} while {} were unread",
        duration(within),
        size(UNREAD)
    )))
}

/// A response that the service aborts does not look complete.
pub(super) async fn abort(site: &Site) -> Result<Measured, String> {
    let named = |how: &'static str| move |error: String| format!("{how}: {error}");
    let sized = broken(site, site.http1().await?, "").await;
    sized.map_err(named("HTTP/1.1 with a length"))?;
    let chunked = broken(site, site.http1().await?, "?chunked").await;
    chunked.map_err(named("HTTP/1.1 in chunks"))?;
    let http2 = broken(site, site.http2().await?, "?chunked").await;
    http2.map_err(named("HTTP/2"))?;
    Ok(Measured::words(
        "detected with a length, in chunks, and over HTTP/2",
    ))
}

async fn broken(site: &Site, mut visitor: Visitor, query: &str) -> Result<(), String> {
    let name = name();
    let mut controller = site.http1().await?;
    let response = visitor.visit(&format!("/abort/{name}{query}")).await?;
    let mut body = visitor::found(response)?.into_body();
    let mut arrived = Digest::default();
    // The service aborts when a part of its response has arrived: an earlier failure would be a different failure.
    let first = body.frame().await.ok_or("the response was empty")?;
    let first =
        first.map_err(|error| format!("aborted too early: {}", visitor::with_causes(&error)))?;
    arrived.update(first.data_ref().map_or(&[][..], |data| data));
    release(&mut controller, &name).await?;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return begins_like_the_pattern(&arrived);
        };
        arrived.update(frame.data_ref().map_or(&[][..], |data| data));
    }
    Err(format!(
        "looks complete, with {} of {PROMISED} bytes",
        arrived.length()
    ))
}

/// The bytes before the abort are those that the service sent.
fn begins_like_the_pattern(arrived: &Digest) -> Result<(), String> {
    let mut expected = Digest::default();
    for piece in Pattern::new(arrived.length()) {
        expected.update(&piece);
    }
    arrived.same_as(&expected)
}

/// A request for an unknown host gets 404 with its reason.
pub(super) async fn unknown_host(site: &Site) -> Result<Measured, String> {
    let mut visitor = site.under("unknown.localhost").http1().await?;
    let response = visitor.visit("/").await?;
    let found = (
        response.status(),
        visitor::reason(&response).unwrap_or_default(),
    );
    if found.0 != StatusCode::NOT_FOUND {
        return Err(format!("status {} ({})", found.0, found.1));
    }
    same("adit-reason", found.1, "no_tunnel")?;
    Ok(Measured::words("404, adit-reason: no_tunnel"))
}
