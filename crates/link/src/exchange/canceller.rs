//! Ends a request from another task.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use adit_codec::ResetCode;

use super::request::Request;

/// Ends a request whose task may not run in time: a task that waits for a slow visitor does not run. Does not keep the
/// request alive.
#[derive(Clone)]
pub struct Canceller {
    request: Weak<Request>,
}

impl Canceller {
    pub(super) fn new(request: &Arc<Request>) -> Self {
        let request = Arc::downgrade(request);
        Self { request }
    }

    /// Ends both directions with a reason; its halves fail with [`Reason::Cancelled`](crate::Reason::Cancelled). Does nothing when the request is
    /// over.
    pub fn reset(&self, code: ResetCode, reason: &str) {
        if let Some(request) = self.request.upgrade()
            && !request.is_over()
        {
            request.reset(code, reason);
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}
