//! Sends payload no faster than limits allow: each chunk waits for a slot (P-16.1, P-16.2).
//!
//! [`Pace`] is the interface to the limits. Each direction of a limited request has a [`Pacer`], which keeps the slot that
//! has been reserved and not used yet: at most one chunk, of 64 KiB or one message.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a slot that has begun may be used. A sender that is late, because it waits for credit or its peer does not send,
/// reserves another one: otherwise many late senders could send at the same moment.
const USABLE: Duration = Duration::from_millis(50);

/// The limits of one direction of a request, shared with other requests.
pub trait Pace: Send + Sync + 'static {
    /// The bytes to send at a time.
    fn chunk_bytes(&self) -> usize;

    /// Reserves a slot. Returns the time until it begins.
    fn reserve(&self, bytes: usize) -> Duration;

    /// Returns bytes of a slot that will not be used.
    fn give_back(&self, bytes: usize);

    /// Counts bytes that have been sent, with or without a slot.
    fn on_moved(&self, bytes: usize);
}

/// The slot of one direction of one request.
pub(crate) struct Pacer {
    pace: Arc<dyn Pace>,
    slot: Slot,
    /// Kept, because a new one costs more than a reset.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    None,
    /// It begins at this time.
    Reserved {
        bytes: usize,
        begins: Instant,
    },
    /// `bytes` may be sent, and `left` more in the same turn.
    Begun {
        bytes: usize,
        left: usize,
        until: Instant,
    },
}

impl Pacer {
    pub(crate) fn new(pace: Arc<dyn Pace>) -> Self {
        Self {
            pace,
            slot: Slot::None,
            timer: None,
        }
    }

    /// Waits until at least `least` bytes may be sent, of `wanted` that are there. Returns how many. A turn has at most
    /// `most`, or `least`: what comes while it lasts is sent at once, and delays later slots. Otherwise a request whose
    /// bytes come in small pieces would get less than others.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        least: usize,
        wanted: usize,
        most: usize,
    ) -> Poll<usize> {
        let now = Instant::now();
        match &mut self.slot {
            Slot::Begun { bytes, left, until } if *bytes + *left >= least && now < *until => {
                let more = wanted.min(*bytes + *left).saturating_sub(*bytes);
                if more > 0 {
                    self.pace.reserve(more);
                    *bytes += more;
                    *left -= more;
                }
                return Poll::Ready((*bytes).min(wanted));
            }
            Slot::Begun { .. } => self.give_back(),
            // More is needed at a time than was wanted before.
            Slot::Reserved { bytes, .. } if *bytes < least => self.give_back(),
            Slot::Reserved { .. } | Slot::None => {}
        }
        let (bytes, begins) = match self.slot {
            Slot::Reserved { bytes, begins } => (bytes, begins),
            _ => {
                let bytes = wanted.min(most).max(least);
                (bytes, now + self.pace.reserve(bytes))
            }
        };
        if begins > now {
            self.slot = Slot::Reserved { bytes, begins };
            let timer = self.timer.take();
            let mut timer = timer.unwrap_or_else(|| Box::pin(sleep_until(begins)));
            if timer.deadline() != begins {
                timer.as_mut().reset(begins);
            }
            let is_over = timer.as_mut().poll(cx).is_ready();
            self.timer = Some(timer);
            if !is_over {
                return Poll::Pending;
            }
        }
        let more = wanted.min(most).saturating_sub(bytes);
        if more > 0 {
            self.pace.reserve(more);
        }
        let bytes = bytes + more;
        self.slot = Slot::Begun {
            bytes,
            left: most.saturating_sub(bytes),
            until: Instant::now() + USABLE,
        };
        Poll::Ready(bytes.min(wanted))
    }

    /// The bytes to send at a time.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.pace.chunk_bytes()
    }

    /// When the slot begins that is waited for.
    pub(crate) const fn begins(&self) -> Option<Instant> {
        match self.slot {
            Slot::Reserved { begins, .. } => Some(begins),
            _ => None,
        }
    }

    /// Called when bytes have been sent. Bytes beyond the slot delay the next one.
    pub(crate) fn on_sent(&mut self, sent: usize) {
        self.on_part(sent.min(self.granted()), sent);
        self.release();
    }

    /// Called when a part has been sent, of several that were waited for together.
    pub(crate) fn on_part_sent(&mut self, sent: usize) {
        self.on_part(sent.min(self.granted()), sent);
    }

    fn on_part(&mut self, within: usize, sent: usize) {
        self.pace.on_moved(sent);
        if let Slot::Begun { bytes, .. } = &mut self.slot {
            *bytes -= within;
        }
        if sent > within {
            self.pace.reserve(sent - within);
        }
    }

    const fn granted(&self) -> usize {
        match self.slot {
            Slot::Begun { bytes, .. } => bytes,
            _ => 0,
        }
    }

    /// Gives the rest of the slot to others. The turn goes on.
    pub(crate) fn release(&mut self) {
        match &mut self.slot {
            Slot::Begun { bytes, left, .. } => {
                let rest = std::mem::take(bytes);
                *left += rest;
                if rest > 0 {
                    self.pace.give_back(rest);
                }
            }
            Slot::Reserved { .. } => self.give_back(),
            Slot::None => {}
        }
    }

    /// Gives the slot to others.
    pub(crate) fn give_back(&mut self) {
        if let Slot::Reserved { bytes, .. } | Slot::Begun { bytes, .. } =
            std::mem::replace(&mut self.slot, Slot::None)
            && bytes > 0
        {
            self.pace.give_back(bytes);
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
