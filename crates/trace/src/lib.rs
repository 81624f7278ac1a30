//! What is known of one request: its place in a trace, when what happened to it, how it ended, and who is told.
//!
//! Holds [`TraceContext`], which crosses from hop to hop; [`Sampler`], which decides what is traced; [`Timeline`], the
//! phases of one request on this hop; [`Record`], everything about a request at its end; [`Observer`], whom the
//! visitors' side (`ingress`) and the services' side (`egress`) tell; and [`Sample`], a number that a side tells of
//! itself at one moment. Beside these, what every log needs: [`Printable`] text.
//!
//! Promises:
//! - a request that is not traced costs one decision and no memory;
//! - a context is passed on unless it is traced here: then ours stands in its place, as its child;
//! - an observer is told of each request once, when it is over, whatever became of it.
//!
//! Leaves to others: dice (random numbers are arguments), clocks, and what becomes of a record: metrics, a line of a
//! log, spans (`adit-telemetry`).
//!
//! Cost: parsing a context reads its 55 bytes once. A timeline is one allocation, and one more for its phases.
//!
//! Proof: the tests of each file; `tests/context.rs` for any text.

mod context;
mod observer;
mod printable;
mod record;
mod sample;
mod sampler;
mod timeline;

pub use context::{ParseContextError, SpanId, TraceContext, TraceId};
pub use observer::{NoObserver, Observer};
pub use printable::{Printable, is_active};
pub use record::{Edge, Record};
pub use sample::{Family, Kind, Sample};
pub use sampler::{RatioError, Sampler};
pub use timeline::{Phase, Span, Timeline};
