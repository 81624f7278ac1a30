//! The demo service's WebSocket: every message goes back.

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::demo::body::Body;

/// Takes a handshake.
pub(super) fn accept(request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        let mut answer = Response::new(Body::text("this page is a WebSocket\n"));
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return answer;
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    tokio::spawn(async move {
        if let Err(error) = echo(request).await {
            tracing::debug!(error, "demo service: a WebSocket broke off");
        }
    });
    answer
}

async fn echo(request: Request<Incoming>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let upgraded = TokioIo::new(hyper::upgrade::on(request).await?);
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        // Pings and closes are answered by the library.
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
