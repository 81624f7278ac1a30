//! PROXY protocol headers in front of visitors' connections (P-15.11).

use std::{future::poll_fn, io, net::SocketAddr, time::Duration};

use adit_ingress::TrustedProxies;
use adit_net::{Stream, canonical_addr};
use proxy_header::{Error as ParseError, ParseConfig, ProxyHeader};
use thiserror::Error;
use tokio::{io::AsyncReadExt, time::timeout};

/// The longest header: addresses, and the TLV fields that load balancers add.
const MAX_HEADER_BYTES: usize = 4 * 1024;

const PARSE: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// Whose connections begin with a header.
#[derive(Debug, Clone)]
pub struct ProxyHeaders {
    /// The proxies, each of whose connections begins with one; `None` if no connection does.
    pub proxies: Option<TrustedProxies>,
    /// The longest time until a header is complete.
    pub within: Duration,
}

/// Why a connection of a proxy is closed.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// Other bytes than those of a header.
    #[error("it does not begin with a PROXY protocol header (`server.proxy_protocol`)")]
    Missing,
    /// A header that is longer than any is.
    #[error("its PROXY protocol header is longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    /// The header has not ended in time.
    #[error("its PROXY protocol header was not complete within {0:?}")]
    Late(Duration),
    /// The connection has ended.
    #[error("its PROXY protocol header cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl ProxyHeaders {
    /// The address of the visitor whose connection this is: that of the header if `peer` is a proxy, else `peer`. The
    /// stream continues behind the header.
    ///
    /// # Errors
    /// [`HeaderError`]: the connection of a proxy has no valid header.
    ///
    /// # Cancel safety
    /// No: a part of the header may have been read.
    pub async fn visitor_of(
        &self,
        stream: &mut Stream,
        peer: SocketAddr,
    ) -> Result<SocketAddr, HeaderError> {
        let is_proxy = |proxies: &TrustedProxies| proxies.contains(peer.ip());
        if !self.proxies.as_ref().is_some_and(is_proxy) {
            return Ok(peer);
        }
        // Boxed: every connection of a visitor would otherwise have room for a header.
        let reading = Box::pin(timeout(self.within, read(stream)));
        match reading.await {
            // A proxy that connects for itself, to check its target, reports no visitor.
            Ok(read) => Ok(read?.map_or(peer, canonical_addr)),
            Err(_) => Err(HeaderError::Late(self.within)),
        }
    }
}

/// Reads a header. Returns the visitor that it reports.
async fn read(stream: &mut Stream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = [0; MAX_HEADER_BYTES];
    loop {
        if poll_fn(|cx| stream.poll_read_ahead(cx)).await? == 0 {
            return Err(HeaderError::Missing);
        }
        let count = poll_fn(|cx| stream.poll_peek(cx, &mut bytes)).await?;
        let read = bytes.get(..count).unwrap_or_default();
        let (visitor, length) = match ProxyHeader::parse(read, PARSE) {
            Ok((header, length)) => {
                let visitor = header.proxied_address().map(|address| address.source);
                (visitor, length)
            }
            Err(ParseError::BufferTooShort) if count == MAX_HEADER_BYTES => {
                return Err(HeaderError::TooLong);
            }
            Err(ParseError::BufferTooShort) => continue,
            Err(_) => return Err(HeaderError::Missing),
        };
        if let Some(header) = bytes.get_mut(..length) {
            stream.read_exact(header).await?;
        }
        return Ok(visitor);
    }
}

#[cfg(test)]
mod tests {
    use adit_net::MemoryStream;
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn peer() -> SocketAddr {
        ([192, 0, 2, 1], 1).into()
    }

    fn memory_pair(capacity: usize) -> (MemoryStream, Stream) {
        let (proxy, server) = MemoryStream::pair(capacity, peer(), peer());
        (proxy, server.into())
    }

    fn headers() -> ProxyHeaders {
        let network = "192.0.2.0/24".parse().unwrap();
        ProxyHeaders {
            proxies: Some([network].into_iter().collect()),
            within: WITHIN,
        }
    }

    fn v2(visitor: &str) -> Vec<u8> {
        let visitor: SocketAddr = visitor.parse().unwrap();
        let header = ProxyHeader::with_address(ProxiedAddress::stream(visitor, visitor));
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        bytes
    }

    /// The visitor of a connection with these bytes, which arrive in pieces of `piece` bytes, and what follows.
    async fn visitor(bytes: &[u8], piece: usize) -> Result<(SocketAddr, Vec<u8>), HeaderError> {
        let (mut proxy, mut server) = memory_pair(64 * 1024);
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                let _ = proxy.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let visitor = headers().visitor_of(&mut server, peer()).await?;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await?;
        sending.await.unwrap();
        Ok((visitor, rest))
    }

    #[tokio::test]
    async fn p_15_11_headers_of_both_versions_report_the_visitor() {
        let get = b"GET / HTTP/1.1\r\n";
        let v1 = b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 80\r\n".to_vec();
        let unknown = b"PROXY UNKNOWN\r\n".to_vec();
        let visitor_of = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (header, expected) in [
            (v1, visitor_of("198.51.100.7:4711")),
            (v2("198.51.100.7:4711"), visitor_of("198.51.100.7:4711")),
            (v2("[2001:db8::7]:4711"), visitor_of("[2001:db8::7]:4711")),
            (
                v2("[::ffff:198.51.100.7]:4711"),
                visitor_of("198.51.100.7:4711"),
            ),
            (unknown, peer()),
        ] {
            for piece in [1, 7, 1_000] {
                let bytes = [&header[..], get].concat();
                let (visitor, rest) = visitor(&bytes, piece).await.unwrap();
                assert_eq!((visitor, &rest[..]), (expected, &get[..]));
            }
        }
    }

    #[tokio::test]
    async fn p_15_11_a_proxy_without_a_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 x\r\n",
            b"",
            b"\r\n\r\n\0",
        ] {
            let refused = visitor(bytes, 1_000).await;
            assert!(refused.is_err(), "{bytes:?}");
        }
        // A header of version 2 that announces more than the bound.
        let mut long = v2("198.51.100.7:4711");
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        long.resize(70_000, 0);
        let refused = visitor(&long, 1_000).await.unwrap_err();
        assert!(matches!(refused, HeaderError::TooLong), "{refused}");
    }

    #[tokio::test]
    async fn p_15_11_the_header_of_an_unlisted_peer_is_not_read() {
        let (mut visitor, mut server) = memory_pair(1024);
        let bytes = v2("198.51.100.7:4711");
        visitor.write_all(&bytes).await.unwrap();
        drop(visitor);
        let outside = ([203, 0, 113, 1], 1).into();
        let found = headers().visitor_of(&mut server, outside).await.unwrap();
        assert_eq!(found, outside);
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn p_15_11_a_header_that_never_ends_is_late() {
        let (mut proxy, mut server) = memory_pair(1024);
        proxy.write_all(b"PROXY TCP4 198").await.unwrap();
        let late = headers().visitor_of(&mut server, peer()).await.unwrap_err();
        assert!(matches!(late, HeaderError::Late(WITHIN)), "{late}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(
            start in prop_oneof![Just(&b"PROXY "[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n"[..]), Just(&b""[..])],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // It ends: the other side is closed.
            let _ = runtime.block_on(visitor(&bytes, 64));
        }
    }
}
