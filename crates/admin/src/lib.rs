//! Health and status over HTTP, on loopback.
//!
//! `/healthz` says that the process runs, `/readyz` whether it can do its work, `/api/status` what it is doing, as JSON.
//! The routes know nothing of server or client: they ask a [`Source`]. There is no authentication: whoever can open a
//! loopback port of this machine may read what is here, and nothing can be changed.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header::HOST, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;

/// Whom the routes ask.
pub trait Source: Send + Sync + 'static {
    /// Whether the process can do its work; text that says why not.
    ///
    /// # Errors
    /// The reason why it is not ready.
    fn ready(&self) -> Result<Value, String>;

    /// Everything there is to say.
    fn status(&self) -> Value;

    /// Which rule takes this URL, in words; `None` where there are no rules.
    fn route(&self, url: &str) -> Option<Value>;
}

/// Why the admin port is not there.
#[derive(Debug, Error)]
#[error(
    "cannot listen for status on {addr}: {error}; choose another address with --admin, or `off`"
)]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// Why.
    pub error: std::io::Error,
}

/// A bound admin port.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Admin {
    /// Binds.
    ///
    /// # Errors
    /// [`BindError`] when the address is taken or not ours.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let fail = |error| BindError { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// Those of the listening socket.
    pub async fn serve(self, source: Arc<dyn Source>) -> std::io::Result<()> {
        axum::serve(self.listener, routes(source)).await
    }
}

fn routes(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .route("/api/route", get(route))
        .layer(middleware::from_fn(only_by_address))
        .with_state(source)
}

/// A page of a stranger's web site can make a browser on this machine ask here, under a name of the stranger's choice
/// that points to 127.0.0.1 (DNS rebinding). Who asks for us by address or as `localhost` means us.
async fn only_by_address(request: axum::extract::Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if is_by_address(&parts) {
        return next
            .run(axum::extract::Request::from_parts(parts, body))
            .await;
    }
    let text = "ask by address or as localhost\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_by_address(parts: &Parts) -> bool {
    let Some(host) = parts.headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    match source.ready() {
        Ok(value) => Json(value).into_response(),
        Err(reason) => {
            let body = Json(json!({ "ready": false, "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn status(State(source): State<Arc<dyn Source>>) -> Json<Value> {
    Json(source.status())
}

#[derive(Deserialize)]
struct RouteQuery {
    url: String,
}

async fn route(State(source): State<Arc<dyn Source>>, Query(query): Query<RouteQuery>) -> Response {
    match source.route(&query.url) {
        Some(value) => Json(value).into_response(),
        None => (StatusCode::NOT_FOUND, "no rules here\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    struct Fixed(bool);

    impl Source for Fixed {
        fn ready(&self) -> Result<Value, String> {
            if self.0 {
                Ok(json!({ "ready": true }))
            } else {
                Err("not yet".into())
            }
        }

        fn status(&self) -> Value {
            json!({ "clients": [] })
        }

        fn route(&self, url: &str) -> Option<Value> {
            (url == "http://a/").then(|| json!({ "tunnel": "a" }))
        }
    }

    async fn ask(ready: bool, path: &str, host: &str) -> String {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = admin.addr();
        let serving = tokio::spawn(admin.serve(Arc::new(Fixed(ready))));
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn health_readiness_and_status_answer() {
        let answer = ask(true, "/healthz", "localhost:1").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
            "{answer}"
        );
        assert!(
            ask(true, "/readyz", "127.0.0.1:1")
                .await
                .starts_with("HTTP/1.1 200")
        );
        let answer = ask(false, "/readyz", "[::1]:1").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("not yet"),
            "{answer}"
        );
        assert!(
            ask(true, "/api/status", "localhost")
                .await
                .contains("\"clients\":[]")
        );
        let answer = ask(true, "/api/route?url=http%3A%2F%2Fa%2F", "localhost").await;
        assert!(answer.contains("\"tunnel\":\"a\""), "{answer}");
        assert!(
            ask(true, "/api/route?url=x", "localhost")
                .await
                .starts_with("HTTP/1.1 404")
        );
    }

    #[tokio::test]
    async fn a_strangers_name_is_not_answered() {
        let answer = ask(true, "/api/status", "evil.example:7500").await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    }
}
