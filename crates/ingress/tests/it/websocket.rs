//! WebSockets (section 9 of the protocol). The visitor sends raw bytes, or uses hyper or tungstenite; the other end is
//! a script, or the egress with a service.
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

/// A configuration with a short timeout for close frames.
fn short() -> HttpConfig {
    HttpConfig {
        close_timeout: Duration::from_millis(300),
        ..http_config()
    }
}
