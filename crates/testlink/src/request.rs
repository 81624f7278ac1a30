//! Requests that a test opens on a lane, and the responses that it reads.

use std::time::Duration;

use adit_codec::{
    EncodedHead, GrpcRequestHead, HttpRequestHead, Open, ResponseHead, TcpOpenHead, UdpOpenHead,
    WebSocketRequestHead,
};
use adit_link::{Failure, Part, RecvHalf};

use crate::{
    TUNNEL,
    exchanges::{block_text, lines},
    next_part,
};

/// The head of a request; each test sets the fields that matter to it.
#[derive(Debug, Clone)]
pub struct TunnelRequest<'a> {
    pub open: Open<&'a str>,
    pub method: &'a str,
    pub scheme: &'static str,
    pub authority: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    /// The address to which a TCP or UDP visitor connected.
    pub local: &'a str,
}

impl Default for TunnelRequest<'_> {
    fn default() -> Self {
        Self {
            open: Open {
                request_uuid: [7; 16],
                tunnel: TUNNEL,
                visitor: "192.0.2.1:4000",
                ..Open::default()
            },
            method: "GET",
            scheme: "http",
            authority: "visitor.example",
            path: "/",
            headers: &[],
            local: "198.51.100.7:2222",
        }
    }
}

impl<'a> TunnelRequest<'a> {
    pub fn get(path: &'a str) -> Self {
        Self::new("GET", path, &[])
    }

    pub fn new(method: &'a str, path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method,
            path,
            headers,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn tunnel(mut self, tunnel: &'a str) -> Self {
        self.open.tunnel = tunnel;
        self
    }

    pub fn http(&self, body: &[u8]) -> EncodedHead {
        self.offer("", body)
    }

    /// Encodes a request that also offers to change to the protocol `upgrade`.
    pub fn offer(&self, upgrade: &str, body: &[u8]) -> EncodedHead {
        let head = HttpRequestHead {
            open: &self.open,
            method: self.method,
            scheme: self.scheme,
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
        };
        let encoded = head.encode_offer(upgrade.as_bytes(), lines(self.headers), body);
        encoded.unwrap()
    }

    pub fn grpc(&self, timeout: Option<Duration>, body: &[u8]) -> EncodedHead {
        let head = GrpcRequestHead {
            open: &self.open,
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
            timeout,
        };
        head.encode(lines(self.headers), body).unwrap()
    }

    pub fn websocket(&self) -> EncodedHead {
        let head = WebSocketRequestHead {
            open: &self.open,
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
        };
        head.encode(lines(self.headers)).unwrap()
    }

    pub fn tcp(&self, body: &[u8]) -> EncodedHead {
        let (open, local) = (&self.open, self.local);
        TcpOpenHead { open, local }.encode(body).unwrap()
    }

    pub fn udp(&self) -> EncodedHead {
        let (open, local) = (&self.open, self.local);
        UdpOpenHead { open, local }.encode().unwrap()
    }
}

/// A complete response to an HTTP request or a gRPC call, as it left the lane or as a visitor of gRPC has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status codes of the interim responses before it.
    pub interim: Vec<u16>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Messages that carried payload.
    pub messages: usize,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The value in the trailers, or in the headers of a gRPC response that has no other part.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let lines = [&self.trailers, &self.headers];
        find(lines[usize::from(self.trailers.is_empty())], name)
    }

    /// Number and reason of a status of gRPC that adit generated.
    pub fn verdict(&self) -> (&str, &str) {
        let status = self.trailer("grpc-status").expect("a status");
        (status, self.trailer("adit-reason").unwrap_or_default())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn find<'l>(lines: &'l [(String, String)], name: &str) -> Option<&'l str> {
    let mut found = lines.iter().filter(|(n, _)| n == name);
    found.next().map(|(_, value)| &value[..])
}

/// Reads a response to its end.
pub async fn read(recv: &mut RecvHalf) -> Result<Response, Failure> {
    let mut response = Response::default();
    while let Some(part) = next_part(recv).await {
        match part? {
            Part::Response(ResponseHead::Http(head)) if head.status < 200 => {
                response.interim.push(head.status);
            }
            Part::Response(ResponseHead::Http(head)) => {
                response.status = head.status;
                response.headers = block_text(&head.headers);
            }
            Part::Response(ResponseHead::Grpc(head)) => {
                response.status = head.status;
                response.headers = block_text(&head.metadata);
            }
            Part::Data(data) => {
                response.body.extend_from_slice(data.as_ref());
                response.messages += 1;
            }
            Part::Trailers(block) => response.trailers = block_text(&block),
            other => panic!("unexpected part of a response: {other:?}"),
        }
    }
    Ok(response)
}
