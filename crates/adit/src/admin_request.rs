//! A request to the admin port or the control socket of a running program.

use std::error::Error;

use adit_net::Stream;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Sends one request over a connection of its own, and parses the response, whatever its status.
///
/// # Errors
/// There is no response, or it is not valid JSON.
pub(crate) async fn send(
    stream: Stream,
    request: Request<Full<Bytes>>,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = send.send_request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(serde_json::from_slice(&body)?)
}
