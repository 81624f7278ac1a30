//! Read buffers that return to a pool.
//!
//! A socket is read into a [`PooledBuffer`]; frozen, it becomes `Bytes` whose last slice returns the buffer when it is
//! dropped, on any thread. Buffers beyond the pool's bound are freed, so that a burst does not stay in memory.

use std::fmt;

use bytes::Bytes;

use crate::sync::{Arc, Mutex, lock};

struct Shelf {
    free: Mutex<Vec<Box<[u8]>>>,
    buffer_bytes: usize,
    max_free: usize,
}

impl Shelf {
    fn put_back(&self, memory: Box<[u8]>) {
        let mut free = lock(&self.free);
        if free.len() < self.max_free {
            free.push(memory);
        }
    }
}

/// Buffers of one size.
#[derive(Clone)]
pub struct Pool {
    shelf: Arc<Shelf>,
}

impl Pool {
    /// Buffers of `buffer_bytes`, of which at most `max_free` are kept unused.
    pub fn new(buffer_bytes: usize, max_free: usize) -> Self {
        Self {
            shelf: Arc::new(Shelf {
                free: Mutex::new(Vec::new()),
                buffer_bytes,
                max_free,
            }),
        }
    }

    /// A buffer: a returned one, or a new one. Its content is undefined.
    pub fn take(&self) -> PooledBuffer {
        let memory = lock(&self.shelf.free).pop();
        let memory = memory.unwrap_or_else(|| vec![0; self.shelf.buffer_bytes].into_boxed_slice());
        PooledBuffer {
            memory,
            filled: 0,
            shelf: self.shelf.clone(),
        }
    }

    /// Number of unused buffers.
    pub fn free(&self) -> usize {
        lock(&self.shelf.free).len()
    }

    /// Size of each buffer in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.shelf.buffer_bytes
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("buffer_bytes", &self.shelf.buffer_bytes)
            .field("max_free", &self.shelf.max_free)
            .finish_non_exhaustive()
    }
}

/// A buffer of a [`Pool`]; returned when dropped.
pub struct PooledBuffer {
    memory: Box<[u8]>,
    filled: usize,
    shelf: Arc<Shelf>,
}

impl PooledBuffer {
    /// The unfilled part.
    pub fn unfilled(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// Marks `count` more bytes as filled, at most all of them.
    pub fn advance(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.memory.len());
    }

    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// The filled bytes, which return the buffer when their last slice is dropped.
    #[cfg(not(adit_loom))]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.shelf.put_back(std::mem::take(&mut self.memory));
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuffer")
            .field("filled", &self.filled)
            .field("capacity", &self.memory.len())
            .finish()
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_home_with_its_last_slice() {
        let pool = Pool::new(64, 2);
        assert_eq!((pool.free(), pool.buffer_bytes()), (0, 64));
        let mut buffer = pool.take();
        assert_eq!(buffer.unfilled().len(), 64);
        buffer.unfilled()[..3].copy_from_slice(b"abc");
        buffer.advance(3);
        assert_eq!(buffer.unfilled().len(), 61);
        let bytes = buffer.freeze();
        assert_eq!(bytes, "abc");
        let slice = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(pool.free(), 0, "still pinned by a slice");
        drop(slice);
        assert_eq!(pool.free(), 1);
        assert!(pool.take().filled().is_empty(), "comes back empty");
    }

    #[test]
    fn no_more_than_the_bound_wait_for_use() {
        let pool = Pool::new(8, 2);
        let taken: Vec<_> = (0..5).map(|_| pool.take()).collect();
        drop(taken);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn pools_and_buffers_print_their_sizes_not_their_content() {
        let pool = Pool::new(8, 2);
        let mut buffer = pool.take();
        buffer.advance(3);
        assert_eq!(buffer.as_ref(), [0; 3]);
        assert_eq!(
            format!("{pool:?}"),
            "Pool { buffer_bytes: 8, max_free: 2, .. }"
        );
        assert_eq!(
            format!("{buffer:?}"),
            "PooledBuffer { filled: 3, capacity: 8 }"
        );
    }

    #[test]
    fn advancing_stops_at_the_end() {
        let pool = Pool::new(8, 1);
        let mut buffer = pool.take();
        buffer.advance(usize::MAX >> 1);
        assert_eq!(buffer.filled().len(), 8);
        buffer.clear();
        assert_eq!(buffer.filled().len(), 0);
    }
}
