//! Connections to services: addresses, TLS, and the header that names the visitor.

pub(crate) mod dial;
pub(crate) mod proxy_protocol;
pub(crate) mod tls;
