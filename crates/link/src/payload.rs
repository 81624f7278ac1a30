//! Payload that returns its credit.

use std::{fmt, sync::Arc};

use bytes::{Buf, Bytes};

use crate::exchange::request::Request;

/// Payload that is to be written to a socket. The credit returns to the sender when the payload is dropped: pass it to
/// the writer, which drops it when it has been written (P-4.5).
pub struct Payload {
    bytes: Bytes,
    _credit: Credit,
}

/// The cost of a payload, owed to the peer until it is dropped.
struct Credit {
    request: Arc<Request>,
    cost: u64,
}

impl Payload {
    pub(crate) const fn new(bytes: Bytes, request: Arc<Request>, cost: u64) -> Self {
        let _credit = Credit { request, cost };
        Self { bytes, _credit }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.request.consume(self.cost);
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
