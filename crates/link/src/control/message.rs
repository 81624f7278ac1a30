//! Control messages as both sides exchange them.

use std::pin::Pin;

use adit_proto::control::Kind;
use thiserror::Error;
use tokio_stream::Stream;

use super::refusal::Refusal;

/// A message of a control stream.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlMessage {
    /// Chosen by the sender of a request; the reply carries the same number. 0 for a message that has no reply.
    pub request_id: u64,
    /// What the message means. `None`: a kind that this version does not support, which is ignored (P-1.2).
    pub kind: Option<Kind>,
}

impl ControlMessage {
    /// A message that replies to `request_id`, or to nothing when that is 0.
    pub const fn new(request_id: u64, kind: Kind) -> Self {
        Self {
            request_id,
            kind: Some(kind),
        }
    }
}

/// Why the next message of a control stream cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlReadError {
    /// The connection or the stream ended; the loss of the link is reported elsewhere.
    #[error("the control stream was lost: {0}")]
    Lost(String),
    /// The bytes are not a message (P-1.13).
    #[error("the control stream cannot be read: {0}")]
    Unreadable(String),
}

/// The messages that a client sends on its control stream. They end when the client ends its direction.
pub type ControlInbound =
    Pin<Box<dyn Stream<Item = Result<ControlMessage, ControlReadError>> + Send>>;

/// The messages that a server sends on a control stream. An error ends the stream with its reason.
pub type ControlOutbound = Pin<Box<dyn Stream<Item = Result<ControlMessage, Refusal>> + Send>>;
