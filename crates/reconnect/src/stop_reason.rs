//! Why there will be no link any more.

/// Why the machine is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// [`Event::Stop`](crate::Event::Stop).
    Requested,
    /// As many retries as the settings allow brought no stable link.
    RetriesExhausted {
        /// How many were made.
        retries: u32,
    },
    /// The server said not to come back.
    Refused,
    /// The credentials were not accepted, and the settings say to stop then.
    Unauthenticated,
}
