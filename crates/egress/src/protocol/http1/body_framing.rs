//! How the body of a response ends, and where its payload is in the bytes from the service.

use std::ops::Range;

use adit_codec::HeaderBlock;

use super::chunked::{ChunkedDecoder, ChunkedError, Decoded};

/// How the body of a response ends (RFC 9112, 6.3).
#[derive(Debug)]
pub enum BodyFraming {
    /// The body ends after this many bytes; 0 for responses without a body.
    Length(u64),
    /// The body ends with the last chunk.
    Chunked(ChunkedDecoder),
    /// The body ends with the connection.
    Close,
}

impl BodyFraming {
    /// Takes the next bytes of the body, and returns where their payload is after decoding.
    ///
    /// # Errors
    /// [`ChunkedError`]; the connection must be closed then.
    pub(crate) fn decode(&mut self, data: &mut [u8]) -> Result<Decoded, ChunkedError> {
        let length = match self {
            Self::Chunked(decoder) => return decoder.decode(data),
            Self::Close => data.len(),
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= here as u64;
                here
            }
        };
        Ok(Decoded {
            payload: Range {
                start: 0,
                end: length,
            },
            consumed: length,
            chunks: 0,
        })
    }

    /// Whether the body has ended. False for a body that ends with the connection.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::Close => false,
        }
    }

    /// The trailers of a body that has ended.
    ///
    /// # Errors
    /// [`ChunkedError::Trailers`] if they are not valid header lines.
    pub(crate) fn take_trailers(&mut self) -> Result<Option<HeaderBlock>, ChunkedError> {
        match self {
            Self::Chunked(decoder) => decoder.take_trailers(),
            Self::Length(_) | Self::Close => Ok(None),
        }
    }
}
