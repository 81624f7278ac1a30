//! A connection to a service, or a text that says why there is none.

use std::{fmt, io, net::IpAddr, time::Duration};

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

/// Connects within `timeout`. The error is a text for people.
///
/// # Cancel safety
/// Yes.
pub(crate) async fn dial(address: &Address, timeout: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(explain(address, &error)),
        Err(_) => Err(format!("{address} does not answer within {timeout:?}")),
    }
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let stream = if let Ok(ip) = host.parse::<IpAddr>() {
        TcpStream::connect((ip, address.port)).await?
    } else if host.eq_ignore_ascii_case("localhost") {
        // RFC 6761, 6.3: always loopback. Asking a resolver would take a thread for each connection.
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

fn explain(address: &Address, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens on {address} (connection refused)")
        }
        _ => format!("cannot connect to {address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_people_write_it() {
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
