//! Forwards the interim responses of a service (status 100 to 199) to the visitor (P-3.1).

use adit_codec::{HttpResponseHead, fields::is_hop_by_hop};
use adit_link::SendHalf;

use crate::forward::error::ForwardError;

/// The most interim responses that are forwarded; the rest are dropped. The last place is reserved for `100 Continue`,
/// without which the visitor might not send the body.
const MAX_FORWARDED: usize = 16;
/// A service that sends more interim responses than this fails the request.
const MAX_RECEIVED: usize = 1_024;

/// Counts the interim responses to one request.
#[derive(Debug, Default)]
pub(crate) struct InterimResponses {
    /// The visitor waits for `100 Continue`.
    expects_continue: bool,
    forwarded: usize,
    received: usize,
}

impl InterimResponses {
    /// A counter for a request with or without `Expect: 100-continue`.
    pub(crate) const fn new(expects_continue: bool) -> Self {
        Self {
            expects_continue,
            forwarded: 0,
            received: 0,
        }
    }

    /// Forwards an interim response. `100 Continue` is forwarded once, and only to a visitor that expects it.
    ///
    /// # Errors
    ///
    /// [`ForwardError`]: the service sends too many, or the opener does not wait for the response any more.
    pub(crate) fn forward<'h>(
        &mut self,
        status: u16,
        lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        send: &SendHalf,
    ) -> Result<(), ForwardError> {
        self.received += 1;
        if self.received > MAX_RECEIVED {
            return Err(ForwardError::service_aborted(
                "the service sent too many interim responses",
            ));
        }
        let is_forwarded = if status == 100 {
            std::mem::take(&mut self.expects_continue)
        } else {
            self.forwarded + 1 < MAX_FORWARDED
        };
        if !is_forwarded {
            return Ok(());
        }
        let lines = lines.filter(|(name, _)| !is_hop_by_hop(name) && *name != b"content-length");
        // A head that is too long is dropped: the final response does not depend on it.
        if let Ok(head) = (HttpResponseHead { status }).encode(lines, b"") {
            self.forwarded += 1;
            send.respond(head, false)?;
        }
        Ok(())
    }
}
