//! Connections to services: addresses, TCP, TLS, and the PROXY header.

pub(crate) mod chosen_protocol;
pub(crate) mod dial;
pub(crate) mod proxy_protocol;
pub(crate) mod tls;
