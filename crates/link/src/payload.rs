//! Payload that gives its credit back.

use std::{fmt, sync::Arc};

use adit_codec::Compressed;

use bytes::{Buf, Bytes};

use crate::exchange::Core;

/// Payload bytes on their way to a socket. Its credit goes back to the sender when it is dropped: hand it to whoever
/// writes and let that one drop it when it has been written (P-4.5).
pub struct Payload {
    bytes: Bytes,
    /// How `bytes` are still compressed; nobody outside of this crate sees one that is.
    compressed: Option<Compressed>,
    _credit: Credit,
}

/// The cost of a payload, owed to the peer until it is dropped.
pub(crate) struct Credit {
    core: Option<Arc<Core>>,
    cost: u64,
}

impl Credit {
    pub(crate) const fn new(cost: u64) -> Self {
        Self { core: None, cost }
    }
}

impl Payload {
    pub(crate) const fn new(bytes: Bytes, compressed: Option<Compressed>, cost: u64) -> Self {
        Self {
            bytes,
            compressed,
            _credit: Credit::new(cost),
        }
    }

    /// Ties the credit to its request. A payload that is dropped unread (with its inbox) needs no such tie: its
    /// request is over.
    pub(crate) fn attach(mut self, core: &Arc<Core>) -> Self {
        self._credit.core = Some(core.clone());
        self
    }

    /// Replaces compressed bytes by what `unpack` makes of them.
    pub(crate) fn unpack<E>(
        &mut self,
        unpack: impl FnOnce(Compressed, &[u8]) -> Result<Bytes, E>,
    ) -> Result<(), E> {
        if let Some(compressed) = self.compressed.take() {
            self.bytes = unpack(compressed, &self.bytes)?;
        }
        Ok(())
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.consume(self.cost);
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
