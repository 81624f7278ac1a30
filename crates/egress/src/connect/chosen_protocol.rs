//! The version of HTTP that a service over TLS chooses (ALPN), for a service to which both are offered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use adit_net::HttpVersion;

use super::tls::{ConnectError, Dialer};

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// The choice of one service, found out by one handshake and kept until a connection shows that it is another one.
pub(crate) struct ChosenProtocol {
    dialer: Arc<Dialer>,
    known: AtomicU8,
}

impl ChosenProtocol {
    /// The choice is found out by this dialer, which offers both.
    pub(crate) fn new(dialer: Arc<Dialer>) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            known: AtomicU8::new(UNKNOWN),
        })
    }

    /// The choice, if it is known.
    pub(crate) fn known(&self) -> Option<HttpVersion> {
        match self.known.load(Ordering::Relaxed) {
            HTTP1 => Some(HttpVersion::Http1),
            HTTP2 => Some(HttpVersion::Http2),
            _ => None,
        }
    }

    /// Finds out the choice by a connection, which is closed. Requests that arrive meanwhile do the same.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn find_out(&self, timeout: Duration) -> Result<HttpVersion, ConnectError> {
        let stream = self.dialer.dial(timeout).await?;
        let (known, version) = match stream.alpn() {
            Some(b"h2") => (HTTP2, HttpVersion::Http2),
            // A service that does not know ALPN speaks HTTP/1.1.
            _ => (HTTP1, HttpVersion::Http1),
        };
        self.known.store(known, Ordering::Relaxed);
        Ok(version)
    }

    /// Called when a connection could not be opened: a service that has changed its choice is asked again.
    pub(crate) fn on_failed(&self, error: &ConnectError) {
        if error.is_other_protocol() {
            self.known.store(UNKNOWN, Ordering::Relaxed);
        }
    }
}
