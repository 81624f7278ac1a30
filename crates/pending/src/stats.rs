//! How requests end, and how many did.

/// How a request left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// Both directions ended as they should.
    Completed,
    /// The lane, the peer or the service broke it.
    Failed,
    /// The visitor went away.
    Cancelled,
    /// Its deadline passed.
    Expired,
}

/// What a table has seen since it was made.
///
/// Always `inserted == completed + failed + cancelled + expired + waiting`, also in a snapshot taken
/// while others insert and settle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests taken in.
    pub inserted: u64,
    /// Requests settled as [`Settled::Completed`].
    pub completed: u64,
    /// Requests settled as [`Settled::Failed`], those of a closed table among them.
    pub failed: u64,
    /// Requests settled as [`Settled::Cancelled`].
    pub cancelled: u64,
    /// Requests settled as [`Settled::Expired`].
    pub expired: u64,
    /// Lookups and settles that found nothing: the request had already been settled, or never was.
    pub late: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// The most that ever waited at once.
    pub peak: u64,
    /// Slots that are allocated now: what the table costs in memory.
    pub slots: u64,
}
