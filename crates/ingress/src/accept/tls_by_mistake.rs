//! Visitors that speak TLS on a port for clear text.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use adit_link::LogLimit;

use crate::{
    accept::unreadable,
    forward::{connection::Connection, context::HttpContext},
};

/// One limit for the whole process: anybody can cause these lines.
static LINES: LazyLock<Arc<LogLimit<(SocketAddr, u16)>>> = LazyLock::new(|| {
    LogLimit::new(|(peer, port): &(SocketAddr, u16), count| {
        tracing::info!(
            %peer,
            port,
            count,
            "connection closed: received a TLS handshake on a port for HTTP in clear text; use `http://`, or the port `https.bind_port` for HTTPS"
        );
    })
});

/// Whether these are the first bytes of TLS: the record of a handshake, of a version 3.
pub(super) fn is_tls(first: &[u8]) -> bool {
    matches!(first, [0x16, 0x03, ..])
}

/// Counts, records and logs a connection that is closed for this reason.
pub(super) fn report(context: &HttpContext, connection: &Connection) {
    unreadable::record(context, connection, &"TLS on a port for HTTP in clear text");
    let visitor = &connection.visitor;
    LINES.note((visitor.addr(), visitor.local_port()));
}
