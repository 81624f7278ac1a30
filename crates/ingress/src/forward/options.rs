//! The differences between the protocols of visitors while a request is forwarded.

use std::time::Duration;

use crate::forward::{deadline::Deadline, interim::SendInterim};

/// The differences between the protocols of visitors while a request is forwarded.
#[derive(Clone, Copy)]
pub(crate) struct ForwardOptions<'v> {
    /// The response must begin within this time, from the end of the request or the last part of it that has arrived.
    pub(crate) response_timeout: Option<Duration>,
    /// The visitor must continue its body within this time.
    pub(crate) stall_timeout: Option<Duration>,
    /// The visitor waits for `100 Continue` before it sends its body.
    pub(crate) expect_continue: bool,
    /// The visitor does not wait longer than this time.
    pub(crate) deadline: Option<Deadline>,
    /// A visitor that leaves while it sends has cancelled the request: the rest of its body is not delivered.
    pub(crate) cancel_at_once: bool,
    /// Sends interim responses on the visitor's HTTP/2 stream.
    pub(crate) interim: Option<&'v dyn SendInterim>,
}
