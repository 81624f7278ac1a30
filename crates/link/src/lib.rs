//! Drives one mux over a transport: owns the clock and the tasks that the cores must not have.
//!
//! A [`Lane`] is one data stream: a mux (`adit-mux`), the table of its requests (`adit-pending`) and the gauges. Tasks
//! of `ingress` and `egress` hold an [`Exchange`], the handle on one request, split into a [`SendHalf`] and a
//! [`RecvHalf`]. Both ends of a link use the same types: whichever side opens, the other gets the request through its
//! [`Dispatch`].
//!
//! The seam to transports is small: a [`Source`] gives the bytes that arrive, an [`Outbound`] gives the bytes that are
//! to leave, and [`drive`] runs the rest. [`grpc`] is one transport; a framed one needs these two and nothing else.
//!
//! Promises:
//! - each request settles exactly once: completed, failed, cancelled or expired, whoever comes first;
//! - the reader of a lane never waits for anybody; credit bounds what waits for a slow consumer;
//! - credit goes back when a payload has left the process: when the last slice of it is dropped (P-4.5);
//! - dropping handles is always safe: what was not finished is cancelled on the other side.
//!
//! Beside it stand [`turn`], for every task that reads what a peer sends: what it may do before the others run; and
//! [`PacedStream`], an HTTP/2 connection that is read so and ended when its frames carry nothing.
//!
//! Leaves to others: which lane to use (`registry`), what a request means (`ingress`, `egress`).

mod clock;
pub mod compress;
pub mod control;
mod credit_wait;
mod dispatch;
mod drive;
mod exchange;
mod failure;
pub mod frames;
pub mod grpc;
mod in_turns;
mod inbox;
mod lane;
mod liveness;
mod log_limit;
pub mod overhead;
mod part;
mod payload;
mod pinned;
mod transport;
pub mod turn;

pub use adit_codec::{Compression, RequestHead, ResponseHead};

pub use credit_wait::{CreditWait, Waited};
pub use dispatch::{Dispatch, IncomingRequest};
pub use drive::drive;
pub use exchange::{Canceller, Exchange, RecvHalf, SendHalf};
pub use failure::{Failure, Reason, Retry};
pub use in_turns::{FramePacer, PacedStream};
pub use lane::{Lane, LaneConfig, LaneStats};
pub use log_limit::LogLimit;
pub use part::Part;
pub use payload::Payload;
pub use transport::{TransportError, TransportReader, TransportWriter};
pub use turn::Turn;
