//! WebSockets (section 9 of the protocol): raw bytes, hyper or tungstenite before the entry, a script or the egress with
//! a service behind it.
#![allow(unreachable_pub, reason = "each file uses its part")]

mod endings;
mod frames;
mod handshakes;
mod http2;
mod stalls;
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
