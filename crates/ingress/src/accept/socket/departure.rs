//! Departures of visitors whose streams are not read (P-7.3).

use std::time::Duration;

use adit_net::Stream;

use crate::accept::framing::Framing;

/// How often an unread stream is checked: a departure is noticed within a second.
pub(super) const LOOK: Duration = Duration::from_millis(400);

/// Unread bytes that are searched for the end of a request, at most.
const PEEK_BYTES: usize = 256 * 1024;

/// Whether the unread bytes before a FIN complete the request that `framing` is in. `None` when they cannot be known: too
/// many are unread, or TLS has not deciphered them.
pub(super) fn completes(stream: &mut Stream, framing: &Framing) -> Option<bool> {
    let mut unread = stream.peek_all(PEEK_BYTES)?;
    if unread.is_empty() {
        return Some(false);
    }
    framing.is_completed_by(&mut unread)
}
