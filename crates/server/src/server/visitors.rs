//! The visitors' side of a server: what its settings make of layers and protocols.

use std::sync::Arc;

use adit_flow::Gate;
use adit_ingress::{HttpConfig, Layer, TcpConfig, UdpConfig, layers};

use crate::settings::{Limits, Settings, Timeouts};

/// Every request passes these, in this order.
pub(super) fn chain(settings: &Settings, permits: &Arc<Gate>) -> Vec<Box<dyn Layer>> {
    let permit_wait = settings.timeouts.permit_wait;
    vec![
        Box::new(layers::HopByHop),
        Box::new(layers::Via::new(rand::random())),
        Box::new(layers::Forwarded::new(settings.trusted_proxies.clone())),
        Box::new(layers::Permits::new(permits.clone(), permit_wait)),
    ]
}

pub(super) fn http_config(limits: &Limits, timeouts: &Timeouts) -> HttpConfig {
    HttpConfig {
        head_timeout: timeouts.head,
        idle_timeout: timeouts.idle,
        stall_timeout: timeouts.stall,
        min_rate_bytes_per_sec: limits.min_rate_bytes_per_sec,
        shortage_grace: timeouts.shortage_grace,
        service_timeout: timeouts.service,
        continue_wait: timeouts.continue_wait,
        half_close_timeout: timeouts.half_close,
        release_timeout: timeouts.release,
        session_stall: timeouts.session_stall,
        session_keepalive: Some(timeouts.session_keepalive).filter(|silence| !silence.is_zero()),
        close_timeout: timeouts.session_close,
        max_connections: limits.max_connections,
        turn_bytes: limits.turn_bytes,
        inline_body_bytes: (8 * 1024).min(limits.initial_window_bytes as usize / 2),
        ..HttpConfig::default()
    }
}

pub(super) fn tcp_config(limits: &Limits, timeouts: &Timeouts) -> TcpConfig {
    TcpConfig {
        max_connections: limits.max_tcp_connections,
        accept_timeout: timeouts.session_setup,
        stall: timeouts.session_stall,
        shortage_grace: timeouts.shortage_grace,
        keepalive: Some(timeouts.session_keepalive).filter(|silence| !silence.is_zero()),
        ..TcpConfig::default()
    }
}

pub(super) fn udp_config(limits: &Limits, timeouts: &Timeouts) -> UdpConfig {
    UdpConfig {
        max_flows: limits.max_udp_flows,
        end_timeout: timeouts.session_close,
        ..UdpConfig::default()
    }
}
