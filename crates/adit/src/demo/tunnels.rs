//! The names of the tunnels.

/// The tunnel to the service.
pub(super) const TUNNEL: &str = "demo";

/// The tunnel that speaks HTTP/2 to the same service, for the checks.
pub(super) const TUNNEL_H2C: &str = "demo-h2c";

/// The tunnels to its echoes, for the checks.
pub(super) const TUNNEL_TCP: &str = "demo-tcp";
pub(super) const TUNNEL_UDP: &str = "demo-udp";
