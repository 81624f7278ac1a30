//! Bounds and times of the way to the services.

use std::time::Duration;

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in clear text, with prior knowledge.
    H2c,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Replaces the visitor's `Host`.
    pub host_rewrite: Option<String>,
    /// Headers added to each request, replacing those of the same name.
    pub custom_headers: Vec<(String, String)>,
}

/// Bounds and times; one for all services, each bound counts for each service on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Connecting may take this long.
    pub dial_timeout: Duration,
    /// The answer must begin within this, from when the request has been written.
    pub answer_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A service that reads nothing of a request for this long is given up.
    pub stall_timeout: Duration,
    /// A service that has answered may go on reading the request; one that reads nothing for this long will not.
    pub early_answer_timeout: Duration,
    /// Connections at a time; over HTTP/2, requests at a time on the one connection.
    pub max_connections: usize,
    /// Idle connections kept.
    pub max_idle: usize,
    /// Requests that wait for a connection; more are reset with `LIMIT`.
    pub max_waiting: usize,
    /// An answer's body of at most this many bytes rides in the head's message when it is there with the head.
    pub inline_body_bytes: usize,
    /// Flow-control window of each HTTP/2 stream: what a service may have sent that no visitor has taken yet.
    pub h2c_stream_window_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            early_answer_timeout: Duration::from_secs(1),
            max_connections: 4_096,
            max_idle: 512,
            max_waiting: 1_024,
            inline_body_bytes: 8 * 1024,
            h2c_stream_window_bytes: 64 * 1024,
        }
    }
}
