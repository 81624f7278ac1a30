//! How requests were settled, with counters.

/// How a request left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// Both directions have ended properly.
    Completed,
    /// The lane, the peer or the service has failed.
    Failed,
    /// The visitor has left.
    Cancelled,
    /// The deadline of the request has passed.
    Expired,
}

/// Counters of a table since its creation.
///
/// Always `inserted == completed + failed + cancelled + expired + waiting`, also in a snapshot taken
/// while others insert and settle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests inserted.
    pub inserted: u64,
    /// Requests settled as [`Settled::Completed`].
    pub completed: u64,
    /// Requests settled as [`Settled::Failed`], including those of a closed table.
    pub failed: u64,
    /// Requests settled as [`Settled::Cancelled`].
    pub cancelled: u64,
    /// Requests settled as [`Settled::Expired`].
    pub expired: u64,
    /// Lookups and settles without an entry: the request was already settled, or never existed.
    pub late: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// The most that have waited at once.
    pub peak: u64,
    /// Allocated slots: the memory cost of the table.
    pub slots: u64,
}
