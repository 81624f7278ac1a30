//! Health and status over HTTP, on loopback.
//!
//! `/healthz` responds while the process runs, `/readyz` reports whether it can serve, `/api/status` returns its state as
//! JSON, and `/metrics` its metrics for Prometheus. The routes are the same for server and client: they read a
//! [`StatusSource`]. They need no authentication, since they only read, and only programs on this machine reach loopback.
//! Operations that change state use a unix socket ([`Control`]).

mod control;
mod listener;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use adit_net::Listener;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HOST},
        request::Parts,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;

use self::listener::Accepting;
pub use control::{Control, ControlError, Operator};

/// The state behind the routes.
pub trait StatusSource: Send + Sync + 'static {
    /// Whether the process can serve, with details.
    ///
    /// # Errors
    /// The reason why it is not ready.
    fn ready(&self) -> Result<Value, String>;

    /// The complete state.
    fn status(&self) -> Value;

    /// The phase for `/healthz`, such as `running` or `draining`.
    fn phase(&self) -> &'static str {
        "running"
    }

    /// The metrics; `None` when they are turned off.
    fn metrics(&self) -> Option<MetricsPage> {
        None
    }

    /// The rule that matches this URL, with an explanation; `None` where there are no rules.
    fn route(&self, url: &str) -> Option<Value>;
}

/// The metrics in a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsPage {
    /// The content type of the format.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

/// The admin port cannot be bound.
#[derive(Debug, Error)]
#[error(
    "cannot listen for status on {addr}: {error}; choose another address with --admin, or `off`"
)]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// The error of the system.
    pub error: std::io::Error,
}

/// A bound admin port.
#[derive(Debug)]
pub struct Admin {
    started: Instant,
    accepting: Accepting,
    addr: SocketAddr,
    hosts: Vec<String>,
}

impl Admin {
    /// Binds an address for the admin port.
    ///
    /// # Errors
    /// [`BindError`] when the address is in use or does not belong to this machine.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let fail = |error| BindError { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        Ok(Self {
            started: Instant::now(),
            accepting: Accepting::new(Listener::from(listener), "the admin port"),
            addr,
            hosts: Vec::new(),
        })
    }

    /// Accepts requests for these host names, in lower case, in addition to the address and `localhost`.
    #[must_use]
    pub fn allow_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// The address of the port.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// Errors of the listening socket.
    pub async fn serve(self, source: Arc<dyn StatusSource>) -> std::io::Result<()> {
        axum::serve(self.accepting, routes(source, self.started, self.hosts)).await
    }
}

const PATHS: &str = "/healthz, /readyz, /metrics, /api/status, /api/route?url=URL";

fn routes(source: Arc<dyn StatusSource>, started: Instant, hosts: Vec<String>) -> Router {
    let hosts: Arc<[String]> = hosts.into();
    let health = async move |State(source): State<Arc<dyn StatusSource>>| health(&*source, started);
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/route", get(route))
        .method_not_allowed_fallback(only_read)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(hosts, only_known_hosts))
        .with_state(source)
}

/// Responds as long as the process runs, also while it drains.
fn health(source: &dyn StatusSource, started: Instant) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "phase": source.phase(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": started.elapsed().as_secs(),
    }))
}

async fn metrics(State(source): State<Arc<dyn StatusSource>>) -> Response {
    match source.metrics() {
        Some(page) => ([(CONTENT_TYPE, page.content_type)], page.text).into_response(),
        None => {
            let text = "metrics are turned off; set telemetry.metrics to turn them on\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

async fn only_read() -> Response {
    let text = "only GET is supported\n";
    (StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

async fn unknown() -> Response {
    let text = format!("unknown path; try {PATHS}\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

/// A web page can make a browser on this machine send requests here, under a host name that resolves to 127.0.0.1 (DNS
/// rebinding). Requests by address, for `localhost` or for a name of the settings are accepted.
async fn only_known_hosts(
    State(hosts): State<Arc<[String]>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(unknown) = unknown_host(&parts, &hosts) else {
        return next
            .run(axum::extract::Request::from_parts(parts, body))
            .await;
    };
    let text = format!(
        "unknown host {unknown:?}; use an address or localhost, or add the name to admin.allowed_hosts, in the section server \
         or client\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// The host of the request, if it is not accepted.
fn unknown_host(parts: &Parts, hosts: &[String]) -> Option<String> {
    /// Longest host name.
    const LONGEST: usize = 255;
    let host = parts.headers.get(HOST)?.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    (!is_known).then(|| name.chars().take(LONGEST).collect())
}

async fn ready(State(source): State<Arc<dyn StatusSource>>) -> Response {
    match source.ready() {
        Ok(value) => Json(value).into_response(),
        Err(reason) => {
            let body = Json(json!({ "ready": false, "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn status(State(source): State<Arc<dyn StatusSource>>) -> Json<Value> {
    Json(source.status())
}

#[derive(Deserialize)]
struct RouteQuery {
    url: String,
}

async fn route(
    State(source): State<Arc<dyn StatusSource>>,
    Query(query): Query<RouteQuery>,
) -> Response {
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

    impl StatusSource for Fixed {
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

        fn phase(&self) -> &'static str {
            if self.0 { "running" } else { "draining" }
        }

        fn metrics(&self) -> Option<MetricsPage> {
            self.0.then(|| MetricsPage {
                content_type: "text/plain; version=0.0.4",
                text: "adit_up 1\n".to_owned(),
            })
        }

        fn route(&self, url: &str) -> Option<Value> {
            (url == "http://a/").then(|| json!({ "tunnel": "a" }))
        }
    }

    async fn get(ready: bool, path: &str, host: &str) -> String {
        request("GET", ready, path, host).await
    }

    async fn request(method: &'static str, ready: bool, path: &str, host: &str) -> String {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let admin = admin.allow_hosts(vec!["adit.example".to_owned()]);
        let addr = admin.addr();
        let serving = tokio::spawn(admin.serve(Arc::new(Fixed(ready))));
        let text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let response = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            response
        });
        let response = response.await.unwrap();
        serving.abort();
        response
    }

    #[tokio::test]
    async fn health_readiness_and_status_respond() {
        for (ready, phase) in [(true, "running"), (false, "draining")] {
            let response = get(ready, "/healthz", "localhost:1").await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (&body["status"], &body["phase"]),
                (&json!("ok"), &json!(phase))
            );
            assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
            assert!(body["uptime_seconds"].is_u64(), "{body}");
        }
        assert!(
            get(true, "/readyz", "127.0.0.1:1")
                .await
                .starts_with("HTTP/1.1 200")
        );
        let response = get(false, "/readyz", "[::1]:1").await;
        assert!(
            response.starts_with("HTTP/1.1 503") && response.contains("not yet"),
            "{response}"
        );
        assert!(
            get(true, "/api/status", "localhost")
                .await
                .contains("\"clients\":[]")
        );
        let response = get(true, "/api/route?url=http%3A%2F%2Fa%2F", "localhost").await;
        assert!(response.contains("\"tunnel\":\"a\""), "{response}");
        assert!(
            get(true, "/api/route?url=x", "localhost")
                .await
                .starts_with("HTTP/1.1 404")
        );
    }

    #[tokio::test]
    async fn metrics_have_their_content_type_or_are_off() {
        let response = get(true, "/metrics", "localhost").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let head = response.to_lowercase();
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{response}"
        );
        assert!(response.ends_with("\r\n\r\nadit_up 1\n"), "{response}");
        let response = get(false, "/metrics", "localhost").await;
        assert!(response.starts_with("HTTP/1.1 404"), "{response}");
        assert!(
            response.ends_with("telemetry.metrics to turn them on\n"),
            "{response}"
        );
    }

    #[tokio::test]
    async fn errors_name_the_right_path_and_method() {
        let response = get(true, "/metric", "localhost").await;
        assert!(response.starts_with("HTTP/1.1 404"), "{response}");
        assert!(response.ends_with(&format!("try {PATHS}\n")), "{response}");
        let response = request("POST", true, "/metrics", "localhost").await;
        assert!(response.starts_with("HTTP/1.1 405"), "{response}");
        assert!(response.ends_with("only GET is supported\n"), "{response}");
        let head = request("HEAD", true, "/healthz", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let rejected = request("POST", true, "/healthz", "evil.example").await;
        assert!(rejected.starts_with("HTTP/1.1 421"), "{rejected}");
    }

    #[tokio::test]
    async fn an_unknown_host_is_rejected() {
        let response = get(true, "/api/status", "evil.example:7500").await;
        assert!(response.starts_with("HTTP/1.1 421"), "{response}");
        assert!(
            response.contains("\"evil.example\"") && response.contains("admin.allowed_hosts"),
            "{response}"
        );
    }

    #[tokio::test]
    async fn a_host_of_the_settings_is_accepted() {
        for host in ["adit.example", "ADIT.example:7500"] {
            let response = get(true, "/metrics", host).await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
        let response = get(true, "/metrics", "www.adit.example").await;
        assert!(response.starts_with("HTTP/1.1 421"), "{response}");
    }
}
