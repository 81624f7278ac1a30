//! The properties of a request's head that its record needs, for any protocol.

use adit_codec::{
    GrpcRequest, HeaderBlock, HttpRequest, Open, ProtocolType, RequestHead, TcpOpen, UdpOpen,
    WebSocketRequest,
};
use adit_trace::split_port;

/// The properties of a request's head that its record needs. Fields that its protocol does not have are empty.
pub(crate) struct RequestSummary<'h> {
    pub(crate) protocol: ProtocolType,
    pub(crate) open: &'h Open,
    scheme: &'h [u8],
    method: &'h [u8],
    /// Host and port of the request; of a session the local address that the visitor connected to.
    authority: &'h [u8],
    path: &'h [u8],
}

impl RequestSummary<'_> {
    pub(crate) fn scheme(&self) -> &'static str {
        match self.scheme {
            b"http" => "http",
            b"https" => "https",
            _ => "",
        }
    }

    pub(crate) fn method(&self) -> &str {
        text(self.method)
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        text(self.path).split('?').next().unwrap_or_default()
    }

    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let authority = text(self.authority);
        let (host, port) = split_port(authority);
        let port = port.unwrap_or(0);
        match self.protocol {
            // A session names no host: the text is the address of the server.
            ProtocolType::Tcp | ProtocolType::Udp => ("", port),
            _ => (host, port),
        }
    }
}

/// Whether the target of a request is allowed (P-3.10): a path, or `*` for OPTIONS. An absolute target would override
/// the host (RFC 9112, 3.2.2), and bytes that end the target would let its sender inject header lines.
pub(crate) fn has_valid_target(head: &RequestHead) -> bool {
    let (path, is_options) = match head {
        RequestHead::Http(head) => (&head.path, head.method == "OPTIONS"),
        RequestHead::Grpc(head) => (&head.path, false),
        RequestHead::WebSocket(head) => (&head.path, false),
        RequestHead::Tcp(_) | RequestHead::Udp(_) => return true,
    };
    let is_path = path.starts_with(b"/") && path.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    is_path || (is_options && path == &b"*"[..])
}

/// The bytes as text. Bytes of heads are usually text; other bytes are recorded as an empty text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn authority<'h>(authority: &'h [u8], headers: &'h HeaderBlock) -> &'h [u8] {
    if authority.is_empty() {
        headers.first(b"host").unwrap_or_default()
    } else {
        authority
    }
}

/// The head of a request of any protocol, with the properties that its record needs.
pub(crate) trait RequestInfo {
    fn summary(&self) -> RequestSummary<'_>;
}

impl RequestInfo for Box<HttpRequest> {
    fn summary(&self) -> RequestSummary<'_> {
        RequestSummary {
            protocol: ProtocolType::Http,
            open: &self.open,
            scheme: &self.scheme,
            method: &self.method,
            authority: authority(&self.authority, &self.headers),
            path: &self.path,
        }
    }
}

impl RequestInfo for Box<GrpcRequest> {
    fn summary(&self) -> RequestSummary<'_> {
        RequestSummary {
            protocol: ProtocolType::Grpc,
            open: &self.open,
            scheme: b"",
            method: b"POST",
            authority: authority(&self.authority, &self.metadata),
            path: &self.path,
        }
    }
}

impl RequestInfo for Box<WebSocketRequest> {
    fn summary(&self) -> RequestSummary<'_> {
        RequestSummary {
            protocol: ProtocolType::WebSocket,
            open: &self.open,
            scheme: b"",
            method: b"GET",
            authority: authority(&self.authority, &self.headers),
            path: &self.path,
        }
    }
}

impl RequestInfo for Box<TcpOpen> {
    fn summary(&self) -> RequestSummary<'_> {
        session(ProtocolType::Tcp, &self.open, &self.local)
    }
}

impl RequestInfo for Box<UdpOpen> {
    fn summary(&self) -> RequestSummary<'_> {
        session(ProtocolType::Udp, &self.open, &self.local)
    }
}

impl RequestInfo for RequestHead {
    fn summary(&self) -> RequestSummary<'_> {
        match self {
            Self::Http(head) => head.summary(),
            Self::Grpc(head) => head.summary(),
            Self::WebSocket(head) => head.summary(),
            Self::Tcp(head) => head.summary(),
            Self::Udp(head) => head.summary(),
        }
    }
}

fn session<'h>(protocol: ProtocolType, open: &'h Open, local: &'h str) -> RequestSummary<'h> {
    RequestSummary {
        protocol,
        open,
        scheme: b"",
        method: b"",
        authority: local.as_bytes(),
        path: b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_host_and_sessions_a_port() {
        let open = Open::default();
        let of = |protocol, authority: &[u8]| {
            let summary = RequestSummary {
                protocol,
                open: &open,
                scheme: b"",
                method: b"",
                authority,
                path: b"",
            };
            let (host, port) = summary.host_and_port();
            (host.to_owned(), port)
        };
        let named = of(ProtocolType::Http, b"a.example:8080");
        assert_eq!(named, ("a.example".into(), 8080));
        assert_eq!(of(ProtocolType::Http, b"[::1]"), ("[::1]".into(), 0));
        let session = of(ProtocolType::Tcp, b"192.0.2.1:22");
        assert_eq!(session, (String::new(), 22));
        assert_eq!(of(ProtocolType::Http, b"\xff:80"), (String::new(), 0));
    }
}
