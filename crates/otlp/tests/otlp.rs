//! Spans of requests, received over the wire as a collector does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod otlp {
    mod collector;
    mod delivery;
    mod errors;
    mod protocols;
    mod record;
    mod sampling;
    mod settings;
    mod sink;
    mod tree;
}
