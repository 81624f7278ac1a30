//! Large transfers, in both directions.

use std::time::Instant;

use http::Method;

use super::{
    super::{
        body::Body,
        pattern::{self, Pattern},
        visitor::{self, Site},
    },
    streams::reported,
};
use crate::demo::table::Measured;

const LENGTH: u64 = 256 << 20;

/// A large response arrives completely and unchanged.
pub(super) async fn download(site: &Site) -> Result<Measured, String> {
    let expected = pattern::digest(LENGTH);
    let mut visitor = site.http1().await?;
    let started = Instant::now();
    let response = visitor.visit(&format!("/bytes/{LENGTH}")).await?;
    let arrived = visitor::digest(visitor::found(response)?).await?;
    let within = started.elapsed();
    arrived.same_as(&expected)?;
    Ok(Measured::moved(LENGTH, within))
}

/// A large upload arrives completely and unchanged.
pub(super) async fn upload(site: &Site) -> Result<Measured, String> {
    let expected = pattern::digest(LENGTH);
    let mut visitor = site.http1().await?;
    let body = Body::Pattern(Pattern::new(LENGTH));
    let request = visitor::request(Method::POST, "/upload", body)?;
    let started = Instant::now();
    let response = visitor.send(request).await?;
    let report = visitor::text(visitor::found(response)?).await?;
    let within = started.elapsed();
    reported(&report, &expected)?;
    Ok(Measured::moved(LENGTH, within))
}
