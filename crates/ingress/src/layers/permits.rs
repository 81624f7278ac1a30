//! A limit of concurrent requests (F12).

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use adit_codec::ProtocolType;
use adit_flow::{Claim, Gate, GateError};
use adit_link::{Failure, Reason};

use crate::forward::{
    layer::{Layer, NoResponse, Verdict},
    request_meta::RequestMeta,
    session::Session,
};

/// A limit of concurrent requests. A request above it waits a bounded time, in the order of arrival, and then fails with
/// `limit`.
///
/// When permits run short they are shared by the visitor's address, and by host and port, instead of by the tunnel,
/// which is not known before routing; or by the number of the entry ([`Permits::of_entry`]).
pub struct Permits {
    gate: Arc<Gate>,
    wait: Duration,
    entry: Option<u64>,
}

impl Permits {
    /// Permits of `gate`, each waited for at most `wait`, shared by host and port.
    pub fn new(gate: Arc<Gate>, wait: Duration) -> Self {
        Self {
            gate,
            wait,
            entry: None,
        }
    }

    /// Permits of one of several entries that share a gate: the entry has one share for all its hosts.
    pub fn of_entry(gate: Arc<Gate>, wait: Duration, number: u64) -> Self {
        Self {
            gate,
            wait,
            entry: Some(number),
        }
    }

    fn claim(&self, host: &str, port: u16, visitor: IpAddr) -> Claim {
        Claim {
            tunnel: self.entry.unwrap_or_else(|| place(host, port)),
            visitor: visitor_key(visitor),
        }
    }

    fn take<'r, R>(&self, claim: impl FnOnce() -> Claim) -> Verdict<'r, R> {
        if let Some(permit) = self.gate.try_acquire_plenty() {
            return Verdict::Hold(Box::new(permit));
        }
        let claim = claim();
        if let Some(permit) = self.gate.try_acquire_for(claim) {
            return Verdict::Hold(Box::new(permit));
        }
        if self.wait.is_zero() {
            return Verdict::Reject(full());
        }
        let (permit, wait) = (self.gate.acquire_for(claim), self.wait);
        Verdict::Wait(Box::pin(async move {
            match tokio::time::timeout(wait, permit).await {
                Ok(Ok(permit)) => Verdict::Hold(Box::new(permit)),
                Ok(Err(GateError::Closed)) => {
                    Verdict::Reject(Failure::new(Reason::Limit, "the server is shutting down"))
                }
                Ok(Err(GateError::Full)) | Err(_) => Verdict::Reject(full()),
            }
        }))
    }
}

impl Layer for Permits {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let visitor = &request.visitor;
        self.take(|| self.claim(request.host(), visitor.local_port(), visitor.addr().ip()))
    }

    /// UDP flows have their own limit (P-11.2).
    fn on_session<'s>(&'s self, session: &'s Session) -> Verdict<'s, NoResponse> {
        match session.protocol {
            ProtocolType::Udp => Verdict::Continue,
            _ => {
                let visitor = session.visitor.addr().ip();
                self.take(|| self.claim("", session.local.port(), visitor))
            }
        }
    }
}

/// The key by which permits are shared among visitors: an IPv4 address, or the /64 of an IPv6 address, because a host
/// chooses among the addresses of its /64.
pub fn visitor_key(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        #[allow(clippy::cast_possible_truncation)] // the upper half
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

/// A host and a port as one number (FNV-1a).
fn place(host: &str, port: u16) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let host = host.bytes().map(|byte| byte.to_ascii_lowercase());
    host.chain(port.to_be_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        })
}

fn full() -> Failure {
    Failure::new(Reason::Limit, "too many concurrent requests")
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("gate", &self.gate)
            .field("wait", &self.wait)
            .field("entry", &self.entry)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_have_one_key() {
        let key = |ip: &str| visitor_key(ip.parse().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn entry_has_one_share_for_all_hosts() {
        let (gate, visitor) = (Gate::new(1, 1), IpAddr::from([192, 0, 2, 1]));
        let claim = |entry, host, port| {
            Permits::of_entry(gate.clone(), Duration::ZERO, entry).claim(host, port, visitor)
        };
        assert_eq!(claim(0, "a.example", 80), claim(0, "b.example", 81));
        assert_ne!(claim(0, "a.example", 80), claim(1, "a.example", 80));
    }

    #[test]
    fn places_differ_by_host_or_port() {
        assert_eq!(place("A.example", 80), place("a.example", 80));
        assert_ne!(place("a.example", 80), place("a.example", 81));
        assert_ne!(place("a.example", 80), place("b.example", 80));
    }
}
