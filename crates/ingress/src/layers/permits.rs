//! A bound on the requests at a time (F12).

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use adit_codec::ProtocolType;
use adit_flow::{Claim, Gate, GateError};
use adit_link::{Failure, Reason};

use crate::{
    layer::{Layer, Verdict},
    session::Session,
    visit::Visit,
};

/// A bound on the requests at a time. A request over it waits a bounded time, in the order of arrival, and then gets
/// the failure `limit`.
///
/// When permits run short they are shared: by the visitor's address, and by the host or port that it asks for, which
/// stands for the tunnel that is not known yet.
pub struct Permits {
    gate: Arc<Gate>,
    wait: Duration,
}

impl Permits {
    /// Permits of `gate`, each waited for at most `wait`.
    pub fn new(gate: Arc<Gate>, wait: Duration) -> Self {
        Self { gate, wait }
    }
}

impl Permits {
    fn take(&self, claim: impl FnOnce() -> Claim) -> Verdict {
        if let Some(permit) = self.gate.try_acquire_plenty() {
            return Verdict::Hold(Box::new(permit));
        }
        let claim = claim();
        if let Some(permit) = self.gate.try_acquire_for(claim) {
            return Verdict::Hold(Box::new(permit));
        }
        if self.wait.is_zero() {
            return Verdict::Stop(full());
        }
        let (permit, wait) = (self.gate.acquire_for(claim), self.wait);
        Verdict::Wait(Box::pin(async move {
            match tokio::time::timeout(wait, permit).await {
                Ok(Ok(permit)) => Ok(Box::new(permit) as _),
                Ok(Err(GateError::Closed)) => {
                    Err(Failure::new(Reason::Limit, "the server is shutting down"))
                }
                Ok(Err(GateError::Full)) | Err(_) => Err(full()),
            }
        }))
    }
}

impl Layer for Permits {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        self.take(|| Claim {
            tunnel: place(visit.host(), visit.visitor.local_port()),
            visitor: visitor_key(visit.visitor.addr().ip()),
        })
    }

    /// Flows of UDP have a bound of their own (P-11.2).
    fn on_session(&self, session: &Session) -> Verdict {
        match session.protocol {
            ProtocolType::Udp => Verdict::Continue,
            _ => self.take(|| Claim {
                tunnel: place("", session.local.port()),
                visitor: visitor_key(session.visitor.addr().ip()),
            }),
        }
    }
}

/// A visitor's address as permits are shared by it: a host of IPv6 chooses among the addresses of its /64.
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
    Failure::new(Reason::Limit, "too many requests at this moment")
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("gate", &self.gate)
            .field("wait", &self.wait)
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
    fn places_differ_by_host_or_port() {
        assert_eq!(place("A.example", 80), place("a.example", 80));
        assert_ne!(place("a.example", 80), place("a.example", 81));
        assert_ne!(place("a.example", 80), place("b.example", 80));
    }
}
