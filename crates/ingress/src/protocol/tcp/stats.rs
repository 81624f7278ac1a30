//! Counters of the TCP entry.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use adit_link::Reason;
use adit_net::HostNetwork;

use crate::{
    config::TcpConfig,
    connection_shares::{ConnectionShares, Counted},
    failure_counters::{FailureCounters, FailureCounts},
};

/// Counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Connections open now.
    pub open: usize,
    /// Connections accepted so far.
    pub total: u64,
    /// Connections reset at once because too many were open, in all, of the address or to the tunnel.
    pub refused: u64,
    /// Attempts on another client.
    pub retries: u64,
    /// Bytes from visitors.
    pub received_bytes: u64,
    /// Bytes to visitors.
    pub sent_bytes: u64,
    /// Failed connections, by reason.
    pub failures: FailureCounts,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    open: AtomicUsize,
    total: AtomicU64,
    refused: AtomicU64,
    by_address: ConnectionShares<HostNetwork>,
    by_tunnel: ConnectionShares<Gateway>,
    pub(super) retries: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    failures: FailureCounters,
}

impl Counters {
    /// Counts a connection of `peer` until the result is dropped.
    ///
    /// # Errors
    /// What there is too much of: as many connections are open already as may be.
    pub(super) fn open(
        &self,
        config: &TcpConfig,
        peer: IpAddr,
        gateway: Gateway,
    ) -> Result<Open<'_>, &'static str> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let opened = self.open_within(config, peer, gateway);
        if opened.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    fn open_within(
        &self,
        config: &TcpConfig,
        peer: IpAddr,
        gateway: Gateway,
    ) -> Result<Open<'_>, &'static str> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let mut open = Open {
            counters: self,
            of_address: None,
            of_tunnel: None,
        };
        if before >= config.max_connections {
            return Err("too many connections are open");
        }
        let (max, proxies) = (config.max_connections_per_address, &config.trusted_proxies);
        let of_address = self.by_address.enter_from(peer, max, proxies);
        open.of_address = of_address.map_err(|_| "too many connections of the address are open")?;
        let max = config.max_connections_per_tunnel;
        let of_tunnel = self.by_tunnel.enter(gateway, max);
        open.of_tunnel = Some(of_tunnel.ok_or("too many connections to the tunnel are open")?);
        Ok(open)
    }

    pub(super) fn count_failure(&self, reason: Reason) {
        self.failures.count(reason);
    }

    pub(super) fn stats(&self) -> SessionStats {
        SessionStats {
            open: self.open.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            failures: self.failures.counts(),
        }
    }
}

/// Counts one open connection.
#[derive(Debug)]
pub(super) struct Open<'c> {
    counters: &'c Counters,
    /// `None` for a trusted proxy.
    of_address: Option<Counted<'c, HostNetwork>>,
    of_tunnel: Option<Counted<'c, Gateway>>,
}

/// Where connections to one tunnel come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Gateway {
    /// The public port of the tunnel.
    Port(u16),
    /// The port for HTTPS, for the tunnel of this name (P-14.8).
    Tls(Arc<str>),
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn other(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_connection_over_the_limit_does_not_count_as_open() {
        let counters = Counters::default();
        let config = TcpConfig {
            max_connections: 1,
            ..TcpConfig::default()
        };
        let open = || counters.open(&config, PEER, Gateway::Port(1));
        let one = open().unwrap();
        assert!(open().is_err());
        let stats = counters.stats();
        assert_eq!((stats.open, stats.total, stats.refused), (1, 2, 1));
        drop(one);
        assert!(open().is_ok());
        assert_eq!(counters.stats().open, 0);
    }

    #[test]
    fn p_10_6_an_address_and_a_tunnel_leave_connections_to_the_others() {
        let counters = Counters::default();
        let config = TcpConfig {
            max_connections: 10,
            max_connections_per_address: 2,
            max_connections_per_tunnel: 3,
            trusted_proxies: ["198.51.100.1".parse().unwrap()].into_iter().collect(),
            ..TcpConfig::default()
        };
        let port = Gateway::Port;
        let tls = |name: &str| Gateway::Tls(name.into());
        let open = |peer, gateway| counters.open(&config, peer, gateway);
        let mut held = vec![
            open(other(1), port(1)).unwrap(),
            open(other(1), tls("a")).unwrap(),
        ];
        let refused = open(other(1), port(2)).unwrap_err();
        assert!(refused.contains("the address"), "{refused}");
        // A trusted proxy has no share of its own.
        let proxy = IpAddr::from([198, 51, 100, 1]);
        held.extend([(); 2].map(|()| open(proxy, port(1)).unwrap()));
        let refused = open(other(2), port(1)).unwrap_err();
        assert!(refused.contains("the tunnel"), "{refused}");
        held.extend([(); 2].map(|()| open(proxy, tls("a")).unwrap()));
        assert!(open(other(2), tls("a")).is_err());
        held.push(open(other(2), tls("b")).unwrap());
        held.push(open(other(2), port(2)).unwrap());
        assert_eq!((counters.stats().open, counters.stats().refused), (8, 3));
        drop(held);
        assert_eq!(counters.stats().open, 0);
        assert!(open(other(1), port(1)).is_ok());
    }
}
