//! Why the machine has stopped.

/// Why the machine has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// [`Event::Stop`](crate::Event::Stop).
    Requested,
    /// The retries that the settings allow resulted in no stable link.
    RetriesExhausted {
        /// How many were made.
        retries: u32,
    },
    /// The server refused the client and does not want a retry.
    Refused,
    /// The credentials were not accepted, and the settings stop the machine then.
    Unauthenticated,
}
