//! Requests without bodies.

use std::time::Instant;

use http::Version;
use tokio::task::JoinSet;

use super::{
    super::{
        pattern,
        visitor::{self, Site},
    },
    same::same,
    streams,
};
use crate::demo::table::{Measured, duration};

/// The number of connections, and of requests on each connection, one after the other.
const CONNECTIONS: u32 = 8;
const EACH: u32 = 25;

/// Large enough to use a window more than once.
const SOME_BYTES: u64 = 1 << 20;

/// Many small requests: each gets its own response.
pub(super) async fn requests(site: &Site) -> Result<Measured, String> {
    let started = Instant::now();
    fetch(site).await?;
    let count = CONNECTIONS * EACH;
    let each = started.elapsed() / count;
    Ok(Measured::words(format!(
        "{count} requests on {CONNECTIONS} connections, {} each",
        duration(each)
    )))
}

/// Two hundred small requests, with their responses compared.
pub(super) async fn fetch(site: &Site) -> Result<(), String> {
    let mut connections: JoinSet<Result<(), String>> = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let site = site.clone();
        connections.spawn(async move {
            let mut visitor = site.http1().await?;
            for count in 0..EACH {
                let name = format!("{connection}-{count}");
                let response = visitor.text(&format!("/hello/{name}")).await?;
                same("response", &response, &format!("hello {name}\n"))?;
            }
            Ok(())
        });
    }
    while let Some(done) = connections.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// A visitor of HTTP/2 with prior knowledge, with concurrent requests.
pub(super) async fn http2(site: &Site) -> Result<Measured, String> {
    let started = Instant::now();
    let mut visitor = site.http2().await?;
    let hello = visitor::found(visitor.visit("/hello").await?)?;
    if hello.version() != Version::HTTP_2 {
        return Err(format!("response in {:?}", hello.version()));
    }
    same("response", &visitor::text(hello).await?, "hello\n")?;
    // All heads arrive before any body is read: the streams are concurrent.
    let mut responses = Vec::new();
    for _ in 0..4 {
        let response = visitor.visit(&format!("/bytes/{SOME_BYTES}")).await?;
        responses.push(visitor::found(response)?);
    }
    let streams = responses.len();
    let expected = pattern::digest(SOME_BYTES);
    for response in responses {
        visitor::digest(response).await?.same_as(&expected)?;
    }
    Ok(Measured::words(format!(
        "{streams} concurrent streams of 1 MiB in {}",
        duration(started.elapsed())
    )))
}

/// A service that is reached over HTTP/2.
pub(super) async fn h2c_service(site: &Site) -> Result<Measured, String> {
    let site = site.over_h2c();
    let mut visitor = site.http1().await?;
    let front = visitor.text("/").await?;
    if !front.contains("HTTP/2.0") {
        return Err("the service was not reached over HTTP/2".into());
    }
    let response = visitor.visit(&format!("/bytes/{SOME_BYTES}")).await?;
    let arrived = visitor::digest(visitor::found(response)?).await?;
    arrived.same_as(&pattern::digest(SOME_BYTES))?;
    streams::trailers_over(&mut site.http2().await?).await?;
    Ok(Measured::words("page, 1 MiB, and trailers both ways"))
}
