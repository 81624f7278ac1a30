//! Why a request was not inserted into the table.

use std::fmt;

/// Why [`Table::insert`](crate::Table::insert) failed. Each variant returns the value.
#[derive(thiserror::Error)]
pub enum InsertError<T> {
    /// The bound of waiting requests is reached. Reject the request, or wait until one is settled.
    #[error(
        "the request table is full: {max_entries} requests wait; try again when one is settled"
    )]
    Full {
        /// The bound.
        max_entries: usize,
        /// The value of the request.
        value: T,
    },
    /// The data stream or its epoch is lost. Use another lane.
    #[error("the request table is closed: its data stream is lost; use another lane")]
    Closed {
        /// The value of the request.
        value: T,
    },
    /// A request with this id already waits: an id was assigned twice.
    #[error("request {id} is already waiting; ids of a data stream must increase")]
    Duplicate {
        /// The id.
        id: u64,
        /// The value of the request.
        value: T,
    },
}

impl<T> InsertError<T> {
    /// The value of the request.
    pub fn into_value(self) -> T {
        match self {
            Self::Full { value, .. } | Self::Closed { value } | Self::Duplicate { value, .. } => {
                value
            }
        }
    }
}

// `Debug` is not derived, so that the value need not implement `Debug`.
impl<T> fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { max_entries, .. } => f
                .debug_struct("Full")
                .field("max_entries", max_entries)
                .finish_non_exhaustive(),
            Self::Closed { .. } => f.debug_struct("Closed").finish_non_exhaustive(),
            Self::Duplicate { id, .. } => f
                .debug_struct("Duplicate")
                .field("id", id)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use super::*;

    #[test]
    fn errors_return_the_value_with_advice() {
        let full = InsertError::Full {
            max_entries: 7,
            value: 'a',
        };
        assert_eq!(
            full.to_string(),
            "the request table is full: 7 requests wait; try again when one is settled"
        );
        assert_eq!(format!("{full:?}"), "Full { max_entries: 7, .. }");
        assert_eq!(full.into_value(), 'a');

        let closed = InsertError::Closed { value: 'b' };
        assert_eq!(
            closed.to_string(),
            "the request table is closed: its data stream is lost; use another lane"
        );
        assert_eq!(format!("{closed:?}"), "Closed { .. }");
        assert_eq!(closed.into_value(), 'b');

        let duplicate = InsertError::Duplicate { id: 9, value: 'c' };
        assert_eq!(
            duplicate.to_string(),
            "request 9 is already waiting; ids of a data stream must increase"
        );
        assert_eq!(format!("{duplicate:?}"), "Duplicate { id: 9, .. }");
        assert_eq!(duplicate.into_value(), 'c');
    }
}
