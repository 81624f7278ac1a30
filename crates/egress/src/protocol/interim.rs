//! Interim answers (status 100 to 199) of a service on their way to the visitor (P-3.1).

use adit_codec::HttpResponseHead;
use adit_link::SendHalf;

use crate::{fields::is_hop_by_hop, request::broken::Broken};

/// As many cross; of the rest, which say nothing that the first ones have not said, nothing does. The last place is for
/// `100 Continue`, without which the request might not go on.
const MAX_PASSED: usize = 16;
/// A service that sends more of them before its answer is not going to answer.
const MAX_SEEN: usize = 1_024;

/// Counts the interim answers to one request.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    /// The request waits for `100 Continue`.
    expects_continue: bool,
    passed: usize,
    seen: usize,
}

impl Interim {
    /// To a request that asks for `100 Continue`, or does not.
    pub(crate) const fn new(expects_continue: bool) -> Self {
        Self {
            expects_continue,
            passed: 0,
            seen: 0,
        }
    }

    /// Passes one on. `100 Continue` crosses once, and only for a visitor who asked for it.
    ///
    /// # Errors
    /// [`Broken`]: the service sends them without end, or nobody waits for the answer any more.
    pub(crate) fn pass_on<'h>(
        &mut self,
        status: u16,
        lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        send: &SendHalf,
    ) -> Result<(), Broken> {
        self.seen += 1;
        if self.seen > MAX_SEEN {
            return Err(Broken::aborted("it sends interim answers without end"));
        }
        let passes = if status == 100 {
            std::mem::take(&mut self.expects_continue)
        } else {
            self.passed + 1 < MAX_PASSED
        };
        if !passes {
            return Ok(());
        }
        let lines = lines.filter(|(name, _)| !is_hop_by_hop(name) && *name != b"content-length");
        // One that is too long to cross is only a hint: the answer does not depend on it.
        if let Ok(head) = (HttpResponseHead { status }).encode(lines, b"") {
            self.passed += 1;
            send.respond(head, false)?;
        }
        Ok(())
    }
}
