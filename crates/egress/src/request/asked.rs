//! What a request asks for, whatever it speaks.

use adit_codec::{
    GrpcRequest, HeaderBlock, HttpRequest, Open, ProtocolType, RequestHead, TcpOpen, UdpOpen,
    WebSocketRequest,
};

/// What a head says of its request. Empty where it says nothing.
pub(crate) struct Asked<'h> {
    pub(crate) protocol: ProtocolType,
    pub(crate) open: &'h Open,
    scheme: &'h [u8],
    method: &'h [u8],
    /// Host and port as they were asked for; of a session where the visitor came to.
    authority: &'h [u8],
    path: &'h [u8],
}

impl Asked<'_> {
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

    /// Without the query.
    pub(crate) fn path(&self) -> &str {
        text(self.path).split('?').next().unwrap_or_default()
    }

    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let authority = text(self.authority);
        let (host, port) = authority
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .unwrap_or((authority, 0));
        match self.protocol {
            // Nobody asks for a host: it is this machine's address.
            ProtocolType::Tcp | ProtocolType::Udp => ("", port),
            _ => (host, port),
        }
    }
}

/// Whether the target of a request is one that crosses (P-3.10): a path, or `*` for OPTIONS. An absolute one would overrule
/// the host (RFC 9112, 3.2.2), and bytes that could end the target would let its sender write lines of its own.
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

/// Bytes of heads are mostly text; what is none is not told.
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

/// A head of which it can be told what was asked for.
pub(crate) trait Told {
    fn asked(&self) -> Asked<'_>;
}

impl Told for Box<HttpRequest> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            protocol: ProtocolType::Http,
            open: &self.open,
            scheme: &self.scheme,
            method: &self.method,
            authority: authority(&self.authority, &self.headers),
            path: &self.path,
        }
    }
}

impl Told for Box<GrpcRequest> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            protocol: ProtocolType::Grpc,
            open: &self.open,
            scheme: b"",
            method: b"POST",
            authority: authority(&self.authority, &self.metadata),
            path: &self.path,
        }
    }
}

impl Told for Box<WebSocketRequest> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            protocol: ProtocolType::WebSocket,
            open: &self.open,
            scheme: b"",
            method: b"GET",
            authority: authority(&self.authority, &self.headers),
            path: &self.path,
        }
    }
}

impl Told for Box<TcpOpen> {
    fn asked(&self) -> Asked<'_> {
        session(ProtocolType::Tcp, &self.open, &self.local)
    }
}

impl Told for Box<UdpOpen> {
    fn asked(&self) -> Asked<'_> {
        session(ProtocolType::Udp, &self.open, &self.local)
    }
}

impl Told for RequestHead {
    fn asked(&self) -> Asked<'_> {
        match self {
            Self::Http(head) => head.asked(),
            Self::Grpc(head) => head.asked(),
            Self::WebSocket(head) => head.asked(),
            Self::Tcp(head) => head.asked(),
            Self::Udp(head) => head.asked(),
        }
    }
}

fn session<'h>(protocol: ProtocolType, open: &'h Open, local: &'h str) -> Asked<'h> {
    Asked {
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
    fn host_and_port_are_told_apart() {
        let open = Open::default();
        let of = |protocol, authority: &[u8]| {
            let asked = Asked {
                protocol,
                open: &open,
                scheme: b"",
                method: b"",
                authority,
                path: b"",
            };
            let (host, port) = asked.host_and_port();
            (host.to_owned(), port)
        };
        for (authority, host, port) in [
            ("a.example", "a.example", 0),
            ("a.example:8080", "a.example", 8080),
            ("[::1]:80", "[::1]", 80),
            ("[::1]", "[::1]", 0),
            ("a:99999", "a:99999", 0),
            ("", "", 0),
        ] {
            let found = of(ProtocolType::Http, authority.as_bytes());
            assert_eq!(found, (host.to_owned(), port), "{authority}");
        }
        let session = of(ProtocolType::Tcp, b"192.0.2.1:22");
        assert_eq!(session, (String::new(), 22));
        assert_eq!(of(ProtocolType::Http, b"\xff:80"), (String::new(), 0));
    }
}
