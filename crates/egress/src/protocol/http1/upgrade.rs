//! A connection of HTTP/1.1 that has changed to another protocol (P-3.7): it carries bytes in both directions, as a TCP
//! connection does.

use adit_net::Stream;
use bytes::Bytes;

use super::request::Http1Request;
use crate::{
    forward::resources::Resources,
    protocol::carry::{begin, carry},
};

/// Forwards both directions to their ends and finishes the request's record. `early` has arrived from the service after
/// its response.
pub(super) async fn run(
    stream: Stream,
    request: Http1Request,
    early: Bytes,
    resources: &Resources,
) {
    let Http1Request { record, exchange } = request;
    let socket = begin(stream, &exchange, &resources.config);
    let length = early.len() as u64;
    // This fails if the visitor has left; its bytes still reach the service.
    if exchange.send.send_all(early, false).await.is_ok() {
        record.payload.add_to_visitor(length);
    }
    carry(socket, exchange, record, Bytes::new(), resources, |_| {}).await;
}
