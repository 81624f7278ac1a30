//! The transport between two lanes of one process.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use crate::transport::{TransportError, TransportReader, TransportWriter};

/// Reads the bytes that another lane of this process sends, without a task or a queue between them. Two lanes that are driven with
/// the writers of each other are the ends of one link.
#[derive(Debug)]
pub struct LocalReader {
    peer: TransportWriter,
    /// The segments of the last batch that have not been read.
    segments: VecDeque<Bytes>,
}

impl From<TransportWriter> for LocalReader {
    fn from(peer: TransportWriter) -> Self {
        Self {
            peer,
            segments: VecDeque::new(),
        }
    }
}

impl TransportReader for LocalReader {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            if let Some(bytes) = self.segments.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match ready!(self.peer.poll_batch(cx)) {
                Some(batch) => self.segments.extend(batch.into_segments()),
                None => return Poll::Ready(None),
            }
        }
    }
}
