//! The record of a WebSocket's request, and the header lines of its handshake.

use adit_codec::WebSocketRequest;

use crate::forward::record::RequestRecord;

/// The record of the request that opens a WebSocket.
pub(super) type WebSocketRecord = RequestRecord<Box<WebSocketRequest>>;

/// A header line: name in lower case, and value.
pub(super) type HeaderLine = (Box<[u8]>, Box<[u8]>);
