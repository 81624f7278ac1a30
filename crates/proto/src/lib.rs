//! The gRPC service and messages of `adit.tunnel.v1`, generated from `proto/adit/tunnel/v1/tunnel.proto`.
//!
//! Holds generated code and the few names that must be the same at both ends. The code is committed, so that a build
//! needs no generator; `tests/generated.rs` generates it again and fails on any difference (`UPDATE=1` writes it).
//!
//! The `Proxy` method is left out of the generated client and server: the data stream is served by hand under the
//! same path (`adit-link`), because a generated service copies every payload. See `docs/decisions/0002-data-stream-by-hand.md`.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]
#[rustfmt::skip]
#[path = "generated/adit.tunnel.v1.rs"]
mod generated;

mod hidden;

pub use generated::*;
pub use hidden::SECRET_MESSAGES;

/// The version of the protocol that this build supports. A peer with another version is refused with an error that
/// names it.
pub const PROTOCOL_VERSION: u32 = 1;

/// Path of the data stream's method.
pub const PROXY_PATH: &str = "/adit.tunnel.v1.TunnelService/Proxy";

/// Path of the method with which a client begins.
pub const REGISTER_PATH: &str = "/adit.tunnel.v1.TunnelService/Register";

/// Path of the method with which a client gets its first credential.
pub const ENROL_PATH: &str = "/adit.tunnel.v1.TunnelService/Enrol";

/// Call metadata that names the session on `ControlStream` and `Proxy`.
pub const SESSION_METADATA: &str = "adit-session";

/// Call metadata that names the lane on `Proxy`, from 0.
pub const LANE_METADATA: &str = "adit-lane";

/// Metadata of a failed call: the reason code of `docs/protocol.md`, section 7.
pub const REASON_METADATA: &str = "adit-reason";
