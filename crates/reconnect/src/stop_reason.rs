//! Why the machine has stopped.

/// Why the machine has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// [`Event::Stop`](crate::Event::Stop).
    Requested,
    /// No retry within the configured limit led to a stable link.
    RetriesExhausted {
        /// The number of retries.
        retries: u32,
    },
    /// The server refused the client and forbids a retry.
    Refused,
    /// The credentials were not accepted, and the settings require a stop then.
    Unauthenticated,
}
