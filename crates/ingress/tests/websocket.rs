//! WebSockets (section 9 of the protocol): raw bytes, hyper or tungstenite before the entry, a script or the egress with
//! a service behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(unreachable_pub, reason = "each file uses its part")]

#[path = "websocket/endings.rs"]
mod endings;
#[path = "websocket/frames.rs"]
mod frames;
#[path = "websocket/handshakes.rs"]
mod handshakes;
#[path = "websocket/http2.rs"]
mod http2;
#[path = "websocket/stalls.rs"]
mod stalls;
#[path = "websocket/through.rs"]
mod through;

use std::time::Duration;

use adit_ingress::HttpConfig;
use adit_testlink::http_config;

/// Waits for close frames that a test can await.
fn short() -> HttpConfig {
    HttpConfig {
        close_timeout: Duration::from_millis(300),
        ..http_config()
    }
}
