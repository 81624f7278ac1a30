//! Health and status over HTTP, on loopback.
//!
//! `/healthz` says that the process runs, `/readyz` whether it can do its work, `/api/status` what it is doing, as JSON;
//! `/metrics` is what Prometheus reads.
//! The routes know nothing of server or client: they ask a [`StatusSource`]. There is no authentication: whoever can open a
//! loopback port of this machine may read what is here, and nothing can be changed. What can be changed is behind a unix
//! socket ([`Control`]).

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

/// Whom the routes ask.
pub trait StatusSource: Send + Sync + 'static {
    /// Whether the process can do its work; text that says why not.
    ///
    /// # Errors
    /// The reason why it is not ready.
    fn ready(&self) -> Result<Value, String>;

    /// Everything there is to say.
    fn status(&self) -> Value;

    /// `running`, `draining` and the like, for `/healthz`.
    fn phase(&self) -> &'static str {
        "running"
    }

    /// What Prometheus reads, in its text format 0.0.4; `None` where nothing is counted.
    fn metrics(&self) -> Option<String> {
        None
    }

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
    started: Instant,
    accepting: Accepting,
    addr: SocketAddr,
    hosts: Vec<String>,
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
        Ok(Self {
            started: Instant::now(),
            accepting: Accepting::new(Listener::from(listener), "the admin port"),
            addr,
            hosts: Vec::new(),
        })
    }

    /// Answers under these host names too, in lower case, beside its address and `localhost`.
    #[must_use]
    pub fn allow_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// Those of the listening socket.
    pub async fn serve(self, source: Arc<dyn StatusSource>) -> std::io::Result<()> {
        axum::serve(self.accepting, routes(source, self.started, self.hosts)).await
    }
}

/// What Prometheus calls the text that [`StatusSource::metrics`] gives.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

/// The process runs: whatever answers at all is alive, also while it drains.
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
        Some(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        None => {
            let text = "metrics are turned off; set telemetry.metrics to turn them on\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

async fn only_read() -> Response {
    let text = "nothing can be changed here; use GET\n";
    (StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

async fn unknown() -> Response {
    let text = format!("there is nothing here; try {PATHS}\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

/// A page of a stranger's web site can make a browser on this machine ask here, under a name of the stranger's choice
/// that points to 127.0.0.1 (DNS rebinding). A request by address, as `localhost` or under a name that the settings
/// allow is meant for us.
async fn only_known_hosts(
    State(hosts): State<Arc<[String]>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(stranger) = stranger(&parts, &hosts) else {
        return next
            .run(axum::extract::Request::from_parts(parts, body))
            .await;
    };
    let text = format!(
        "{stranger:?} is not a name of this port, which answers by address and as localhost; to allow the name, add it to \
         admin.allowed_hosts, in the section server or client\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// The name under which the request came, when nothing allows it.
fn stranger(parts: &Parts, hosts: &[String]) -> Option<String> {
    /// No name is longer.
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

        fn metrics(&self) -> Option<String> {
            self.0.then(|| "adit_up 1\n".to_owned())
        }

        fn route(&self, url: &str) -> Option<Value> {
            (url == "http://a/").then(|| json!({ "tunnel": "a" }))
        }
    }

    async fn ask(ready: bool, path: &str, host: &str) -> String {
        ask_by("GET", ready, path, host).await
    }

    async fn ask_by(method: &'static str, ready: bool, path: &str, host: &str) -> String {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let admin = admin.allow_hosts(vec!["adit.example".to_owned()]);
        let addr = admin.addr();
        let serving = tokio::spawn(admin.serve(Arc::new(Fixed(ready))));
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
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
        for (ready, phase) in [(true, "running"), (false, "draining")] {
            let answer = ask(ready, "/healthz", "localhost:1").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (&body["status"], &body["phase"]),
                (&json!("ok"), &json!(phase))
            );
            assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
            assert!(body["uptime_seconds"].is_u64(), "{body}");
        }
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
    async fn metrics_are_text_of_their_own_type_or_turned_off() {
        let answer = ask(true, "/metrics", "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let head = answer.to_lowercase();
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nadit_up 1\n"), "{answer}");
        let answer = ask(false, "/metrics", "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(
            answer.ends_with("telemetry.metrics to turn them on\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_wrong_path_and_a_wrong_method_are_told_what_is_right() {
        let answer = ask(true, "/metric", "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(answer.ends_with(&format!("try {PATHS}\n")), "{answer}");
        let answer = ask_by("POST", true, "/metrics", "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert!(answer.ends_with("use GET\n"), "{answer}");
        let head = ask_by("HEAD", true, "/healthz", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let strange = ask_by("POST", true, "/healthz", "evil.example").await;
        assert!(strange.starts_with("HTTP/1.1 421"), "{strange}");
    }

    #[tokio::test]
    async fn a_strangers_name_is_not_answered() {
        let answer = ask(true, "/api/status", "evil.example:7500").await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert!(
            answer.contains("\"evil.example\"") && answer.contains("admin.allowed_hosts"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_name_that_the_settings_allow_is_answered() {
        for host in ["adit.example", "ADIT.example:7500"] {
            let answer = ask(true, "/metrics", host).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let answer = ask(true, "/metrics", "www.adit.example").await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    }
}
