//! A request to the control socket of the server that runs on a state directory.

use std::{fmt::Display, io::ErrorKind, time::Duration};

use adit_config::StateDir;
use adit_net::connect_unix;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tokio::time::timeout;

use crate::{admin_request, report::Failed, runtime::background};

/// Longest time for the response of a running server.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// Sends a body; `Value::Null` is a GET request. Returns the response, or `None` when no server runs.
///
/// # Errors
/// The server has rejected the request, or cannot be reached.
pub(crate) fn send(state: &StateDir, path: &str, body: &Value) -> Result<Option<Value>, Failed> {
    send_within(state, path, body, RESPONSE_WITHIN)
}

/// Sends a body as [`send`] does, with a time limit of its own.
///
/// # Errors
/// Those of [`send`].
pub(crate) fn send_within(
    state: &StateDir,
    path: &str,
    body: &Value,
    within: Duration,
) -> Result<Option<Value>, Failed> {
    let socket = state.admin_socket();
    let sending = async {
        let stream = match connect_unix(&socket).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let text = format!("cannot open {}: {error}", socket.display());
                return Err(Failed::other(text));
            }
        };
        let request = request(path, body).map_err(|error| unreachable(&error))?;
        let sent = admin_request::send(stream, request).await;
        sent.map(Some).map_err(|error| unreachable(&error))
    };
    let sent = background()?.block_on(async { timeout(within, sending).await });
    let Ok(sent) = sent else {
        let text = format!("the server at {} does not respond", socket.display());
        return Err(Failed::other(text));
    };
    match sent? {
        Some(body) => match body["error"].as_str() {
            Some(error) => Err(Failed::other(error)),
            None => Ok(Some(body)),
        },
        None => Ok(None),
    }
}

fn request(path: &str, body: &Value) -> http::Result<http::Request<Full<Bytes>>> {
    let request = http::Request::builder()
        .uri(path)
        .header(http::header::HOST, "localhost");
    if body.is_null() {
        return request.body(Full::default());
    }
    request
        .method(http::Method::POST)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
}

fn unreachable(error: &dyn Display) -> Failed {
    Failed::other(format!("cannot reach the running server: {error}"))
}

/// The failure when the response is not one that this version knows.
pub(crate) fn unknown(body: &Value) -> Failed {
    unreachable(body)
}
