//! Byte streams, and the listeners that accept them: the interface between adit and every socket of visitors, services, the
//! tunnel and the admin port.
//!
//! - [`Stream`]: one connection, whatever carries it (TCP, TLS over any stream, a Unix socket, memory). It reads and
//!   writes, reports its addresses and the scheme of its URLs, and defines for each kind the result of the functions
//!   that only TCP has in full: no delay, keepalive, a reset on close, detecting the peer's departure without reading,
//!   waiting for the delivery of written bytes.
//! - Detection *reads and replays*: [`Stream::poll_read_ahead`] reads from the transport and keeps the bytes for the next
//!   reader, [`Stream::poll_peek`] shows them. [`HttpVersion::detect`] is the detection of HTTP/2.
//! - [`SharedStream`]: the same connection for one task that drives both directions by shared reference.
//! - [`Tap`] and [`Tapped`]: code that follows the bytes of a stream, with the forwarding of the other methods written
//!   once.
//! - [`Listener`] and [`AcceptLoop`]: one listener for all kinds and the one accept loop of both programs, with a bound on
//!   file descriptors ([`Descriptors`]) and a pause when `accept` fails. [`TlsAcceptor`] stands above it: a handshake has
//!   a time limit, and few handshakes run at a time.
//! - [`HostNetwork`]: what counts as one address in bounds per address.
//! - [`HostPort`] and [`connect`]: the address of a service or server as users write it, and a connection to it.
//!
//! Promises:
//! - the kinds differ in an enum match: no boxed trait object, no copy and no system call besides those of the kind itself
//!   (`docs/decisions/0027-streams-are-an-enum.md`);
//! - bytes that were read ahead are never lost: the next read receives them first, by whichever method;
//! - every wait can be cancelled without losing bytes or connections;
//! - the documentation of each method states its result for the kinds that do not support it.
//!
//! Leaves to the caller: which certificates a TLS configuration holds, protocols, time limits of reads and writes, and
//! which thread serves a connection.
//!
//! Cost: TCP costs what tokio's own type costs, and one comparison for bytes read ahead.
//!
//! Proof: unit tests beside the code; `tests/` over real sockets, TLS and memory; the tests of `ingress` over memory
//! streams on paused time.

mod accept;
mod addr;
mod bind;
mod connect;
mod delivery;
mod departure;
mod descriptors;
mod detect;
mod host_network;
mod host_port;
mod listener;
mod memory;
mod scheme;
mod shared;
mod stream;
mod tap;
mod tcp;
mod tls;

pub use accept::{AcceptLoop, AcceptReport, Accepted};
pub use addr::canonical_addr;
pub use bind::{BindError, bind, bind_udp};
pub use connect::{connect, connect_unix};
pub use delivery::Delivery;
pub use departure::Departure;
pub use descriptors::{
    Descriptor, Descriptors, descriptors_for_visitors, raise_descriptor_limit, reserved_descriptors,
};
pub use detect::HttpVersion;
pub use host_network::{HostNetwork, ParseHostNetworkError};
pub use host_port::{HostPort, HostPortError};
pub use listener::{Listener, MemoryConnector};
pub use memory::MemoryStream;
pub use scheme::Scheme;
pub use shared::SharedStream;
pub use stream::{Detached, READ_AHEAD_BYTES, Stream};
pub use tap::{Tap, Tapped};
pub use tls::{HandshakeError, TlsAcceptor, reject};
pub use tokio_rustls;
