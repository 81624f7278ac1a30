//! The bytes of one write: small messages joined, large payloads by reference.
//!
//! One batch becomes one DATA frame and one vectored write. Joining is what makes a multiplexed hop cheap: under
//! load one write carries many messages.

use std::{cmp::Ordering, collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// Payloads up to this are copied into the shared block; above it a reference costs less than the copy.
pub const COALESCE_BYTES: usize = 2048;

/// A block is passed on when it has this size, so that its memory can be reused soon.
const BLOCK_BYTES: usize = 16 * 1024;

/// Free room that a block needs before a write: any small payload and most heads fit. With less, a write would move the
/// whole block to a larger one.
const ROOM_BYTES: usize = COALESCE_BYTES + 64;

/// Gathers one batch after another. Blocks are split from one allocation, which is reused when everything that was
/// split from it has been written.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    block: BytesMut,
    /// The first segment, and the others: most batches have one segment and need no memory for a list.
    first: Bytes,
    more: VecDeque<Bytes>,
    bytes: usize,
}

impl BatchBuilder {
    /// Creates an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `write` append a small message to the block.
    pub fn put(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.block.capacity() - self.block.len() < ROOM_BYTES {
            self.seal();
            self.block.reserve(BLOCK_BYTES);
        }
        let before = self.block.len();
        write(&mut self.block);
        self.bytes += self.block.len() - before;
    }

    /// Appends payload bytes: a copy of small payloads, a reference to others.
    pub fn put_payload(&mut self, payload: Bytes) {
        if payload.len() <= COALESCE_BYTES {
            self.put(|block| block.extend_from_slice(&payload));
        } else {
            self.seal();
            self.bytes += payload.len();
            self.push(payload);
        }
    }

    /// Bytes in the batch so far.
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the batch is empty.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes the batch; `None` when it is empty.
    pub fn finish(&mut self) -> Option<Batch> {
        self.seal();
        let bytes = std::mem::take(&mut self.bytes);
        (bytes > 0).then(|| Batch {
            first: std::mem::take(&mut self.first),
            more: std::mem::take(&mut self.more),
            remaining: bytes,
        })
    }

    fn seal(&mut self) {
        if !self.block.is_empty() {
            let block = self.block.split().freeze();
            self.push(block);
        }
    }

    fn push(&mut self, segment: Bytes) {
        if self.first.is_empty() {
            self.first = segment;
        } else {
            self.more.push_back(segment);
        }
    }
}

/// Bytes ready to be written, in segments.
#[derive(Debug, Default)]
pub struct Batch {
    /// The first bytes; empty only if the batch is empty.
    first: Bytes,
    more: VecDeque<Bytes>,
    remaining: usize,
}

impl Batch {
    /// Takes the segments, for transports that write them one by one.
    pub fn into_segments(self) -> impl Iterator<Item = Bytes> {
        let first = (!self.first.is_empty()).then_some(self.first);
        first.into_iter().chain(self.more)
    }

    /// Moves on to the next segment; returns the one before.
    fn shift(&mut self) -> Bytes {
        let next = self.more.pop_front().unwrap_or_default();
        std::mem::replace(&mut self.first, next)
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let first = { std::iter::once(&self.first) }.filter(|first| !first.is_empty());
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(first.chain(&self.more)) {
            *slice = IoSlice::new(segment);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced past the end of a batch");
        self.remaining -= count;
        while count >= self.first.len() && !self.first.is_empty() {
            count -= self.first.len();
            self.shift();
        }
        if count > 0 {
            self.first.advance(count);
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        assert!(length <= self.remaining, "read past the end of a batch");
        match self.first.len().cmp(&length) {
            Ordering::Greater => {
                self.remaining -= length;
                self.first.split_to(length)
            }
            Ordering::Equal => {
                self.remaining -= length;
                self.shift()
            }
            Ordering::Less => {
                let mut joined = BytesMut::with_capacity(length);
                let mut left = length;
                while left > 0 {
                    let chunk = self.chunk();
                    let take = chunk.len().min(left);
                    joined.extend_from_slice(&chunk[..take]);
                    self.advance(take);
                    left -= take;
                }
                joined.freeze()
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut builder = BatchBuilder::new();
        builder.put(|block| block.extend_from_slice(b"head"));
        builder.put_payload(Bytes::from(vec![7; COALESCE_BYTES + 1]));
        builder.put_payload(Bytes::from_static(b"tail"));
        builder.finish().unwrap()
    }

    #[test]
    fn small_is_joined_and_large_is_passed() {
        let large = Bytes::from(vec![1; COALESCE_BYTES + 1]);
        let small = Bytes::from(vec![2; COALESCE_BYTES]);
        let mut builder = BatchBuilder::new();
        assert!(builder.is_empty());
        builder.put_payload(small.clone());
        builder.put_payload(large.clone());
        builder.put_payload(small);
        assert_eq!(builder.len(), 3 * COALESCE_BYTES + 1);
        let segments: Vec<_> = builder.finish().unwrap().into_segments().collect();
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), large.as_ptr(), "not copied");
        assert!(builder.is_empty() && builder.finish().is_none());
    }

    #[test]
    fn advancing_crosses_segments() {
        let whole: Vec<u8> = batch().into_segments().flatten().collect();
        for step in [1, 3, 4, 5, 2048, 2049, 2053] {
            let mut batch = batch();
            let mut read = Vec::new();
            while batch.has_remaining() {
                let take = step.min(batch.remaining());
                let mut part = vec![0; take];
                batch.copy_to_slice(&mut part);
                read.extend(part);
            }
            assert_eq!(read, whole);
        }
    }

    #[test]
    fn bytes_are_taken_across_segments() {
        let whole: Vec<u8> = batch().into_segments().flatten().collect();
        for length in [0, 2, 4, 5, 2053, 2057] {
            let mut batch = batch();
            assert_eq!(batch.copy_to_bytes(length), whole[..length]);
            assert_eq!(batch.remaining(), whole.len() - length);
            assert_eq!(batch.chunk().is_empty(), !batch.has_remaining());
            assert_eq!(batch.copy_to_bytes(batch.remaining()), whole[length..]);
        }
    }

    #[test]
    fn bytes_of_one_segment_are_taken_without_a_copy() {
        let payload = Bytes::from(vec![7; 2 * COALESCE_BYTES]);
        let mut builder = BatchBuilder::new();
        builder.put_payload(payload.clone());
        let mut batch = builder.finish().unwrap();
        let start = batch.copy_to_bytes(100);
        let rest = batch.copy_to_bytes(batch.remaining());
        assert_eq!(start.as_ptr(), payload.as_ptr());
        assert_eq!(rest.as_ptr(), payload[100..].as_ptr());
        assert_eq!(
            (start.len() + rest.len(), batch.remaining()),
            (payload.len(), 0)
        );
    }

    #[test]
    fn slices_show_every_segment() {
        let batch = batch();
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(batch.chunks_vectored(&mut slices), 3);
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        assert_eq!(total, batch.remaining());
        assert_eq!(batch.chunk(), b"head");
    }

    #[test]
    fn no_write_moves_a_block_to_a_larger_one() {
        let mut builder = BatchBuilder::new();
        for _ in 0..100 {
            builder.put_payload(Bytes::from(vec![3; COALESCE_BYTES]));
            builder.put(|block| block.extend_from_slice(b"small"));
        }
        let expected = 100 * (COALESCE_BYTES + 5);
        let batch = builder.finish().unwrap();
        assert_eq!(batch.remaining(), expected);
        let segments: Vec<_> = batch.into_segments().collect();
        assert!(segments.iter().all(|segment| segment.len() <= BLOCK_BYTES));
        assert!(segments.len() <= expected / (BLOCK_BYTES - ROOM_BYTES) + 1);
    }

    #[test]
    fn a_block_is_used_again_when_it_has_been_written() {
        let mut builder = BatchBuilder::new();
        builder.put(|block| block.extend_from_slice(b"one"));
        let first = builder.finish().unwrap();
        let start = first.chunk().as_ptr();
        drop(first);
        for _ in 0..10_000 {
            builder.put(|block| block.extend_from_slice(&[9; 100]));
            let batch = builder.finish().unwrap();
            let at = batch.chunk().as_ptr();
            assert!(at >= start && at < start.wrapping_add(BLOCK_BYTES));
        }
        assert!(builder.block.capacity() <= 2 * BLOCK_BYTES);
    }
}
