//! Runs lanes over connections: has the clock and the tasks that the cores must not have.
//!
//! A [`Lane`] is one data stream: a mux (`adit-mux`), the table of its requests (`adit-pending`) and the gauges. Tasks
//! of `ingress` and `egress` hold an [`Exchange`], the handle on one request, split into a [`SendHalf`] and a
//! [`RecvHalf`]. Both ends of a link use the same types: either side opens a request, and the other one receives it
//! through its [`Dispatch`].
//!
//! The state of a lane is separate from its connection. The lane is *attached* to a [`Connection`], runs, and is
//! *detached* by the loss of the connection, whichever half of it detects the loss first; the requests of the
//! connection fail then. A lane created by [`Lane::new`] ends then; a lane created by [`Lane::reattachable`] can be
//! attached to another connection and opens new requests over it. `lane/attachment.rs` has the states.
//!
//! The interface to transports is small: a [`TransportReader`] provides the bytes that arrive, a [`TransportWriter`] the bytes
//! that leave, and [`drive`] runs the rest; [`control`] has the traits for registration, control streams and the opening of
//! lanes. [`grpc`] is one transport; another one is a module beside it. A [`LocalReader`] joins two lanes of one process.
//!
//! Promises:
//! - each request settles exactly once: completed, failed, cancelled or expired, by the first event;
//! - the reader of a lane never waits for a consumer; credit bounds the payload that waits for a slow consumer;
//! - credit returns to the sender when a payload has left the process: when the last slice of it is dropped (P-4.5);
//! - dropping handles is always safe: an unfinished request is cancelled on the other side.
//!
//! The crate also has [`turn`], the work that a task which reads from a peer may do before other tasks run; and
//! [`FramePacer`], which reads an HTTP/2 connection in such turns and ends it when its frames carry no content.
//!
//! Leaves to others: which lane to use (`registry`), what a request means (`ingress`, `egress`).

mod boxed;
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
mod grpc_status;
mod header_lines;
mod in_turns;
mod inbox;
mod lane;
mod liveness;
mod local;
mod log_limit;
pub mod overhead;
mod pace;
mod part;
mod payload;
mod pinned;
mod transport;
pub mod turn;
mod wait;

pub use adit_codec::{Compression, RequestHead, ResponseHead};

pub use boxed::BoxFuture;
pub use credit_wait::{CreditWait, Waited};
pub use dispatch::{Dispatch, IncomingRequest};
pub use drive::drive;
pub use exchange::{Canceller, Exchange, RecvHalf, SendHalf};
pub use failure::{Failure, Reason, Retry};
pub use grpc_status::{GRPC_CONTENT_TYPE, GrpcStatus, encode_grpc_message, parse_grpc_status};
pub use header_lines::header_lines;
pub use in_turns::FramePacer;
pub use lane::{Connection, Lane, LaneConfig, LaneStats};
pub use local::LocalReader;
pub use log_limit::LogLimit;
pub use pace::Pace;
pub use part::Part;
pub use payload::Payload;
pub use transport::{TransportError, TransportReader, TransportWriter};
pub use turn::Turn;
pub use wait::{Timer, signalled, until};
