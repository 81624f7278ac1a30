//! The settings of a table.

/// The settings of a [`Table`](crate::Table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How many requests may wait at once; one more is refused. Zero refuses all.
    pub max_entries: usize,
}

impl Default for Config {
    /// As many as the default of the process-wide permits (F12), so that the permits, where requests wait and get a
    /// proper response, are exhausted first.
    fn default() -> Self {
        Self {
            max_entries: 10_000,
        }
    }
}
