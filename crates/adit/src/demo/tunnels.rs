//! The names of the tunnels.

/// The tunnel to the service.
pub(super) const TUNNEL: &str = "demo";

/// The tunnel to the same service over HTTP/2, for the checks.
pub(super) const TUNNEL_H2C: &str = "demo-h2c";

/// The tunnels to its TCP and UDP echoes, for the checks.
pub(super) const TUNNEL_TCP: &str = "demo-tcp";
pub(super) const TUNNEL_UDP: &str = "demo-udp";
