//! The first message of a visitor over TLS, read without consuming it.

use std::{future::poll_fn, io};

use adit_net::Stream;
use rustls::{Error as RustlsError, SignatureScheme, server::Acceptor};

use crate::{
    error::{Cause, TlsError},
    peer::Peer,
};

/// The most bytes of a first message that are read. One with a key exchange that resists quantum computers has two
/// kilobytes.
const MAX_BYTES: usize = 16 * 1024;

/// The type of a record of TLS that carries a handshake, which is its first byte.
const HANDSHAKE: u8 = 22;

/// The protocol of a certificate authority that validates a host (RFC 8737).
const CHALLENGE: &[u8] = b"acme-tls/1";

/// What a visitor sends first.
#[derive(Debug)]
pub enum Opening {
    /// The first message of TLS.
    Tls(ClientHello),
    /// Something else: the visitor does not speak TLS.
    ClearText,
    /// The end of the connection.
    Nothing,
}

/// What the first message of a visitor asks for.
#[derive(Debug)]
pub struct ClientHello {
    /// In lower case.
    server_name: Option<Box<str>>,
    is_challenge: bool,
    schemes: Box<[SignatureScheme]>,
}

/// A first message that is not valid, with the alert for the visitor.
#[derive(Debug)]
pub struct InvalidHello {
    pub(crate) error: RustlsError,
    pub(crate) alert: Vec<u8>,
}

/// Why the first message of a visitor cannot be read.
#[derive(Debug)]
pub enum OpeningError {
    /// The connection has failed.
    Io(io::Error),
    /// The message is not valid.
    Invalid(InvalidHello),
}

impl Opening {
    /// Waits for the first message of a visitor, which the next reader of the stream receives again. The caller bounds the
    /// wait.
    ///
    /// # Errors
    /// [`OpeningError`].
    ///
    /// # Cancel safety
    /// No byte is lost.
    ///
    /// # Cost
    /// At most 16 KiB of memory, and none before the first byte arrives. The message is copied for each read in which a part
    /// of it arrives.
    pub async fn read(stream: &mut Stream) -> Result<Self, OpeningError> {
        let mut acceptor = Acceptor::default();
        let mut fed = 0;
        loop {
            if poll_fn(|cx| stream.poll_read_ahead(cx))
                .await
                .map_err(OpeningError::Io)?
                == 0
            {
                return Ok(Self::Nothing);
            }
            let bytes = stream.read_ahead();
            if bytes.first() != Some(&HANDSHAKE) {
                return Ok(Self::ClearText);
            }
            while let Some(mut rest) = bytes.get(fed..).filter(|rest| !rest.is_empty()) {
                fed += acceptor.read_tls(&mut rest).map_err(OpeningError::Io)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Ok(Self::Tls(ClientHello::of(&accepted))),
                    Ok(None) => {}
                    Err((error, mut alert)) => {
                        let mut bytes = Vec::new();
                        // A vector takes every write.
                        let _ = alert.write(&mut bytes);
                        let alert = bytes;
                        return Err(OpeningError::Invalid(InvalidHello { error, alert }));
                    }
                }
            }
            if fed > MAX_BYTES {
                let long = format!("the first message has more than {MAX_BYTES} bytes");
                return Err(OpeningError::Invalid(InvalidHello {
                    error: RustlsError::General(long),
                    alert: Vec::new(),
                }));
            }
        }
    }
}

impl ClientHello {
    fn of(accepted: &rustls::server::Accepted) -> Self {
        let hello = accepted.client_hello();
        let mut offered = hello.alpn().into_iter().flatten();
        Self {
            server_name: { hello.server_name() }.map(|name| name.to_ascii_lowercase().into()),
            is_challenge: offered.next() == Some(CHALLENGE) && offered.next().is_none(),
            schemes: hello.signature_schemes().into(),
        }
    }

    /// The host that the visitor asks for (SNI), in lower case; `None` if it names none. It is the text of a valid DNS name.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether a certificate authority validates the host: the only protocol offered is `acme-tls/1`.
    #[must_use]
    pub const fn is_challenge(&self) -> bool {
        self.is_challenge
    }

    pub(crate) const fn schemes(&self) -> &[SignatureScheme] {
        &self.schemes
    }
}

impl OpeningError {
    /// The error of the handshake.
    pub(crate) fn into_tls(self) -> TlsError {
        TlsError::new(
            Peer::Visitor,
            match self {
                Self::Io(error) => Cause::of(error, ""),
                Self::Invalid(invalid) => Cause::Other(invalid.error),
            },
        )
    }
}
