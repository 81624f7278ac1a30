//! Opens TCP connections to services.

use std::{fmt, io, net::IpAddr, time::Duration};

use thiserror::Error;
use tokio::net::TcpStream;

/// Host and port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.starts_with('[') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why no connection to a service was made. Its text is reported to the opener of the request, and logged.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// No process listens at the address.
    #[error("nothing listens on {address} (connection refused)")]
    Refused {
        address: Address,
        #[source]
        error: io::Error,
    },
    /// The name cannot be resolved, or the system reports another failure.
    #[error("cannot connect to {address}: {error}")]
    Failed {
        address: Address,
        #[source]
        error: io::Error,
    },
    /// Neither a connection nor a refusal in time.
    #[error("no connection to {address} within {timeout:?}")]
    TimedOut { address: Address, timeout: Duration },
}

/// Connects within `timeout`.
///
/// # Errors
/// [`DialError`].
///
/// # Cancel safety
/// Dropped, it closes the connection that it was making.
pub(crate) async fn dial(address: &Address, timeout: Duration) -> Result<TcpStream, DialError> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(DialError::new(address.clone(), error)),
        Err(_) => Err(DialError::TimedOut {
            address: address.clone(),
            timeout,
        }),
    }
}

impl DialError {
    fn new(address: Address, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address, error },
            _ => Self::Failed { address, error },
        }
    }
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let stream = if let Ok(ip) = host.parse::<IpAddr>() {
        TcpStream::connect((ip, address.port)).await?
    } else if host.eq_ignore_ascii_case("localhost") {
        // RFC 6761, 6.3: always loopback. A query to the resolver would take a thread for each connection.
        let v4 = TcpStream::connect((IpAddr::from([127, 0, 0, 1]), address.port)).await;
        match v4 {
            Ok(stream) => stream,
            Err(error) => {
                TcpStream::connect((IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]), address.port))
                    .await
                    .map_err(|_| error)?
            }
        }
    } else {
        TcpStream::connect((host, address.port)).await?
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_displayed_with_brackets_around_ipv6() {
        let text = |host: &str| {
            Address {
                host: host.into(),
                port: 80,
            }
            .to_string()
        };
        assert_eq!(text("127.0.0.1"), "127.0.0.1:80");
        assert_eq!(text("::1"), "[::1]:80");
        assert_eq!(text("[::1]"), "[::1]:80");
    }
}
