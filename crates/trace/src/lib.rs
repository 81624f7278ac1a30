//! The data that describes one request: its trace context, its timeline and its record.
//!
//! Holds [`TraceContext`], which crosses from hop to hop; [`Sampler`], which decides which requests are traced;
//! [`Timeline`], the phases of one request on this hop; [`Record`], the complete description of a finished request;
//! [`Observer`], which receives the records of the visitors' side (`ingress`) and of the services' side (`egress`); and
//! [`Sample`], one number of a side at one moment. Besides these, [`Printable`] text for logs.
//!
//! Promises:
//! - a request that is not traced costs one decision and no memory;
//! - a context is forwarded unchanged unless the request is traced here: then a child of it takes its place;
//! - an observer receives one record of each request, when the request is over, whatever its outcome.
//!
//! Leaves to others: random numbers, which are arguments; clocks; and the use of a record for metrics, a line of a log
//! and spans (`adit-telemetry`).
//!
//! Cost: parsing a context reads its 55 bytes once. A timeline is one allocation, and one more for its phases.
//!
//! Proof: the tests of each file; `tests/context.rs` for any text.

mod address;
mod context;
mod grpc_status;
mod observer;
mod printable;
mod record;
mod sample;
mod sampler;
mod timeline;

pub use address::split_port;
pub use context::{ParseContextError, SpanId, TraceContext, TraceId};
pub use grpc_status::GRPC_STATUSES;
pub use observer::{NoObserver, Observer};
pub use printable::{Printable, is_active};
pub use record::{Edge, Record};
pub use sample::{Family, Kind, Sample};
pub use sampler::{RatioError, Sampler};
pub use timeline::{Phase, Span, Timeline};
