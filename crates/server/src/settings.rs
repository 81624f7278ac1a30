//! What the server is told: typed, checked, complete. `adit-config` makes it from files, environment and flags.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use adit_auth::{GroupId, TunnelName, UserName};
use adit_balance::Policy;
pub use adit_egress::Tls;
pub use adit_ingress::{Network, Scheme, TrustedProxies};
pub use adit_link::Compression;
use adit_router::HostPattern;
use secrecy::{ExposeSecret, SecretString};

/// Everything a server needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect (`bind_addr`, `bind_port`). Port 0: any free one.
    pub tunnel_addr: SocketAddr,
    /// Where HTTP visitors connect (`http.bind_port`).
    pub http_addr: SocketAddr,
    /// Where health and status are served; `None` turns them off.
    pub admin_addr: Option<SocketAddr>,
    /// Clients at a time.
    pub max_clients: usize,
    /// Data threads, each a runtime of its own; at least 1.
    pub threads: usize,
    /// Host under which tunnels without a domain appear: `NAME.<domain>` beside `NAME.localhost`.
    pub domain: Option<String>,
    /// How clients prove who they are. Empty: a generated token kept in the state directory.
    pub tokens: Vec<NamedToken>,
    /// Groups that several users share. Every other group belongs to the user who first registers it (P-1.9).
    pub shared_groups: Vec<SharedGroup>,
    /// Where the generated token, the owners of names and the addresses of the running server are kept.
    pub state_dir: PathBuf,
    /// Proxies in front of the visitors' port whose `X-Forwarded-*` and `Forwarded` are believed (P-3.4).
    pub trusted_proxies: TrustedProxies,
    /// How visitors reach the visitors' port, where a proxy in front of it makes that differ.
    pub public_url: PublicUrl,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Static rules, before those that tunnels bring with them.
    pub rules: Vec<RuleSettings>,
    /// What clients' entries may lead to, and rules.
    pub upstreams: Vec<UpstreamSettings>,
}

/// Scheme and port of the public URLs of tunnels that are reached by host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublicUrl {
    /// `None`: what the visitors' port speaks, HTTP.
    pub scheme: Option<Scheme>,
    /// `None`: the port of the scheme where one is set, else the visitors' port.
    pub port: Option<u16>,
}

impl PublicUrl {
    /// The scheme, and the port unless it is that of the scheme; `visitors_port` is the one that is listened on.
    pub(crate) fn resolve(self, visitors_port: u16) -> (Scheme, Option<u16>) {
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let own = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => own,
            (None, None) => visitors_port,
        };
        (scheme, (port != own).then_some(port))
    }
}

/// A token and whose it is.
#[derive(Debug, Clone)]
pub struct NamedToken {
    /// The user it stands for.
    pub user: String,
    /// The secret.
    pub token: SecretString,
}

impl PartialEq for NamedToken {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.token.expose_secret() == other.token.expose_secret()
    }
}

impl Eq for NamedToken {}

/// One entry of `server.shared_groups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedGroup {
    /// The group.
    pub group: GroupId,
    /// The users whose clients may be in it, and nobody else's.
    pub users: Vec<UserName>,
}

/// One entry of `server.rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// Exact host or `*.example.com`.
    pub host: Option<String>,
    /// Path prefix.
    pub path: Option<String>,
    /// Headers that must have these values.
    pub headers: Vec<(String, String)>,
    /// `pkg.Service` or `pkg.Service/Method`.
    pub grpc: Option<String>,
    /// Where it leads.
    pub to: RuleTarget,
}

/// Where a rule leads (`to`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleTarget {
    /// To a tunnel, by its name, once a client has announced it.
    Tunnel(String),
    /// To an upstream, by its name.
    Upstream(String),
}

/// One entry of `server.upstreams`: addresses on this side that share the requests of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// What clients know it by, and nothing else of it.
    pub name: TunnelName,
    /// How its servers share the load.
    pub policy: Policy,
    /// What `consistent_hash` hashes: `host`, `header:NAME`, `cookie:NAME`.
    pub hash_on: String,
    /// What its servers speak.
    pub protocol: UpstreamProtocol,
    /// How they are reached over TLS, for HTTP/2 only; `None` is clear text.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host`, which passes as it is otherwise.
    pub host_rewrite: Option<String>,
    /// How its answers cross to clients.
    pub compression: Option<Compression>,
    /// Where it is; at least one.
    pub servers: Vec<UpstreamServer>,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Its share relative to the others.
    pub weight: u32,
}

/// What the servers of an upstream speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: in clear text with prior knowledge, or over TLS.
    Http2,
    /// Bytes.
    Tcp,
}

impl UpstreamProtocol {
    /// Its name in settings and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "h2c",
            Self::Tcp => "tcp",
        }
    }
}

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time, over all clients (F12).
    pub max_requests: usize,
    /// Requests at a time on one client (F12).
    pub max_requests_per_client: usize,
    /// Visitors that may wait for a permit; more are answered at once.
    pub max_waiting: usize,
    /// The part of all permits, in percent, that one tunnel may take. The rest is left to others.
    pub tunnel_share_percent: u8,
    /// The part of all permits, in percent, that one visitor's address (IPv6: its /64) may take. 100 where a proxy stands
    /// before the server and all visitors come from it.
    pub visitor_share_percent: u8,
    /// A visitor that owes a body, or takes an answer, more slowly than this over `stall` is reset; 0: no lowest rate.
    pub min_rate_bytes_per_sec: u64,
    /// Visitor connections at a time.
    pub max_connections: usize,
    /// TCP connections of visitors at a time, over all public ports.
    pub max_tcp_connections: usize,
    /// UDP flows at a time of one tunnel; the one that has been silent longest makes room for a new one (P-11.2).
    pub max_udp_flows: usize,
    /// Public ports that tunnels may hold.
    pub allow_ports: PortRanges,
    /// Hosts that tunnels may have.
    pub allow_hosts: HostRules,
    /// Connections of clients without a session at a time (P-1.12).
    pub max_unauthenticated: usize,
    /// Those of them that one address may have, or one /64 of IPv6.
    pub max_unauthenticated_per_address: usize,
    /// Tunnels one client may announce.
    pub max_tunnels_per_client: usize,
    /// Domains of one tunnel.
    pub max_domains_per_tunnel: usize,
    /// Locations of one tunnel.
    pub max_locations_per_tunnel: usize,
    /// Routes of one tunnel: its domains times its locations.
    pub max_routes_per_tunnel: usize,
    /// Length of one location, in bytes.
    pub max_location_bytes: usize,
    /// Routes of all tunnels together, those included whose clients are away.
    pub max_routes: usize,
    /// Names that are kept for one user while nothing uses them; those that were used longest ago go first.
    pub max_kept_names_per_user: usize,
    /// Data streams per link.
    pub max_lanes: u32,
    /// Credit of each direction of each request at its start, in bytes (P-4.2).
    pub initial_window_bytes: u32,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// What windows may grow by in all, per link, in bytes.
    pub link_budget_bytes: u64,
    /// What windows may grow by in all, for the process, in bytes.
    pub process_budget_bytes: u64,
    /// Work of one connection or lane before the others of its thread have their turn, in bytes; each read and each message
    /// counts as 256 bytes more.
    pub turn_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 10_000,
            max_requests_per_client: 1_000,
            max_waiting: 1_000,
            tunnel_share_percent: 80,
            visitor_share_percent: 60,
            min_rate_bytes_per_sec: 64,
            max_connections: 20_000,
            max_tcp_connections: 20_000,
            max_udp_flows: 4_096,
            allow_ports: PortRanges::default(),
            allow_hosts: HostRules::default(),
            max_unauthenticated: 256,
            max_unauthenticated_per_address: 32,
            max_tunnels_per_client: 10,
            max_domains_per_tunnel: 32,
            max_locations_per_tunnel: 64,
            max_routes_per_tunnel: 256,
            max_location_bytes: 256,
            max_routes: 200_000,
            max_kept_names_per_user: 32_768,
            max_lanes: 8,
            initial_window_bytes: 32 * 1024,
            max_window_bytes: 4 << 20,
            link_budget_bytes: 16 << 20,
            process_budget_bytes: 64 << 20,
            turn_bytes: adit_link::turn::TURN_BYTES,
        }
    }
}

/// Hosts that tunnels may have, beside those below the server's own domain and below `localhost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// Every exact name (`*`), which does not include wildcards.
    pub any_name: bool,
    /// These hosts; of a wildcard, every host and every wildcard below its name, and itself.
    pub patterns: Vec<HostPattern>,
}

impl HostRules {
    /// Whether a tunnel may have this host. `domain` is the server's own.
    pub fn allow(&self, host: &HostPattern, domain: Option<&str>) -> bool {
        let own = ["localhost"].into_iter().chain(domain);
        let below = |own: &str| {
            let above = host.name().strip_suffix(own);
            above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
        };
        (self.any_name && !host.is_wildcard())
            || own.into_iter().any(below)
            || self.patterns.iter().any(|pattern| pattern.covers(host))
    }
}

impl Default for HostRules {
    fn default() -> Self {
        Self {
            any_name: true,
            patterns: Vec::new(),
        }
    }
}

impl fmt::Display for HostRules {
    /// As it is written in settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.any_name {
            f.write_str("*")?;
            separator = ", ";
        }
        for pattern in &self.patterns {
            write!(f, "{separator}{pattern}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// Ports, as ranges that neither touch nor overlap, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// All of these, in any order. Port 0 is none and is left out.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut ranges: Vec<_> = ranges
            .into_iter()
            .map(|range| *range.start().max(&1)..=*range.end())
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// The ports in ascending order from the one at `index` on, and then those before it.
    pub fn from_index(&self, index: usize) -> impl Iterator<Item = u16> {
        let all = || self.0.iter().cloned().flatten();
        all().skip(index).chain(all().take(index))
    }

    /// Those of them that are in `range`.
    #[must_use]
    pub fn within(&self, range: &RangeInclusive<u16>) -> Self {
        let clip = |own: &RangeInclusive<u16>| {
            *own.start().max(range.start())..=*own.end().min(range.end())
        };
        Self::new(self.0.iter().map(clip))
    }
}

impl Default for PortRanges {
    /// Those that need no privilege.
    fn default() -> Self {
        Self::new([1024..=u16::MAX])
    }
}

impl fmt::Display for PortRanges {
    /// `1024-2000, 2222`, as it is written in settings; `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{start}")?,
                (start, end) => write!(f, "{start}-{end}")?,
            }
        }
        Ok(())
    }
}

/// Times of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Unknown names wait this long after a start, for clients to return.
    pub startup_grace: Duration,
    /// A visitor waits this long for a client that is (re)connecting.
    pub client_wait: Duration,
    /// A visitor waits this long for a permit.
    pub permit_wait: Duration,
    /// Connecting to a server of an upstream.
    pub dial: Duration,
    /// The service's answer must begin within this.
    pub service: Duration,
    /// A visitor who makes no progress for this long is reset.
    pub stall: Duration,
    /// While requests wait for permits: a TCP connection over which no byte has gone, or a body slower than the lowest rate,
    /// for this long is reset.
    pub shortage_grace: Duration,
    /// A visitor's request head must be whole within this.
    pub head: Duration,
    /// An idle keep-alive connection of a visitor, or to a server of an upstream, is closed after this.
    pub idle: Duration,
    /// A visitor over TCP for whom something waits and who takes nothing for this long is reset.
    pub session_stall: Duration,
    /// A client must have reached its service for a TCP connection within this.
    pub session_setup: Duration,
    /// A visitor over TCP that has been silent for this long is asked whether it is still there; zero: never.
    pub session_keepalive: Duration,
    /// The end of a WebSocket, or of a UDP flow, once it has begun, is not waited for longer than this.
    pub session_close: Duration,
    /// A service that has answered may go on reading the request; one that reads nothing for this long will not.
    pub early_answer: Duration,
    /// A body that waits for `100 Continue` is read after this much silence of the service (P-3.5).
    pub continue_wait: Duration,
    /// A visitor of HTTP/1 that has shut its sending side gets its answer if it comes within this, from when the request
    /// is whole.
    pub half_close: Duration,
    /// A visitor of HTTP/2 that does not let go of answers that have failed is told to end after this, and ended after
    /// this again.
    pub release: Duration,
    /// A connection of a client must carry a session within this, and a session its first data stream.
    pub setup: Duration,
    /// An old link is probed this long before another instance may take its name (P-1.8).
    pub takeover_probe: Duration,
    /// Probes are sent after this much silence (P-6.5).
    pub heartbeat: Duration,
    /// A link is dead after this much silence with a probe outstanding (P-6.5).
    pub dead_after: Duration,
    /// Running requests may take this long to finish after SIGTERM.
    pub drain: Duration,
    /// A tunnel none of whose clients is connected is forgotten after this.
    pub tunnel_retention: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            startup_grace: Duration::from_secs(10),
            client_wait: Duration::from_secs(5),
            permit_wait: Duration::from_secs(5),
            dial: Duration::from_secs(5),
            service: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            shortage_grace: Duration::from_secs(3),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            // A terminal may be paused over lunch.
            session_stall: Duration::from_secs(3_600),
            session_setup: Duration::from_secs(15),
            session_keepalive: Duration::from_secs(60),
            session_close: Duration::from_secs(5),
            early_answer: Duration::from_secs(1),
            continue_wait: Duration::from_secs(1),
            half_close: Duration::from_secs(5),
            release: Duration::from_secs(10),
            setup: Duration::from_secs(10),
            takeover_probe: Duration::from_secs(2),
            heartbeat: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            tunnel_retention: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_are_joined_and_read_as_they_are_written() {
        let ranges = PortRanges::new([80..=80, 20..=29, 30..=40, 25..=35, 0..=0]);
        assert_eq!(ranges.to_string(), "20-40, 80");
        assert_eq!(ranges.count(), 22);
        assert!(ranges.contains(20) && ranges.contains(40) && ranges.contains(80));
        assert!(!ranges.contains(0) && !ranges.contains(41));
        assert_eq!(PortRanges::default().to_string(), "1024-65535");
        assert_eq!(PortRanges::new([0..=u16::MAX]).count(), 65_535);
        assert_eq!(PortRanges::new([]).to_string(), "none");
        assert_eq!(
            PortRanges::new([u16::MAX..=u16::MAX, 65_534..=u16::MAX]).count(),
            2
        );
    }

    #[test]
    fn a_public_url_has_the_port_of_its_scheme_unless_one_is_set() {
        let of = |scheme, port| PublicUrl { scheme, port }.resolve(7080);
        assert_eq!(of(None, None), (Scheme::Http, Some(7080)));
        assert_eq!(of(None, Some(80)), (Scheme::Http, None));
        assert_eq!(of(Some(Scheme::Http), None), (Scheme::Http, None));
        assert_eq!(of(Some(Scheme::Https), None), (Scheme::Https, None));
        assert_eq!(of(Some(Scheme::Https), Some(443)), (Scheme::Https, None));
        let other = of(Some(Scheme::Https), Some(8443));
        assert_eq!(other, (Scheme::Https, Some(8443)));
    }

    #[test]
    fn every_port_is_tried_once_whichever_is_first() {
        let ranges = PortRanges::new([1..=3, 7..=8]);
        let from = |index| ranges.from_index(index).collect::<Vec<_>>();
        assert_eq!(from(0), [1, 2, 3, 7, 8]);
        assert_eq!(from(4), [8, 1, 2, 3, 7]);
        assert_eq!(ranges.within(&(3..=7)).to_string(), "3, 7");
        assert_eq!(ranges.within(&(9..=20)).count(), 0);
    }

    #[test]
    fn wildcards_are_allowed_below_a_name_of_the_own_domain_alone() {
        let host = |text: &str| text.parse::<HostPattern>().unwrap();
        let allowed = |rules: &HostRules, text| rules.allow(&host(text), Some("example.com"));
        let default = HostRules::default();
        for name in [
            "www.bank.com",
            "web.localhost",
            "*.web.localhost",
            "*.web.example.com",
            "*.a.web.example.com",
        ] {
            assert!(allowed(&default, name), "{name}");
        }
        for name in [
            "*.localhost",
            "*.com",
            "*.example.com",
            "*.bank.com",
            "*.notexample.com",
        ] {
            assert!(!allowed(&default, name), "{name}");
        }
        let listed = HostRules {
            any_name: false,
            patterns: vec![host("*.apps.test"), host("shop.test")],
        };
        for name in [
            "shop.test",
            "a.apps.test",
            "*.apps.test",
            "*.a.apps.test",
            "web.localhost",
        ] {
            assert!(allowed(&listed, name), "{name}");
        }
        for name in ["a.test", "apps.test", "*.shop.test", "*.test", "localhost"] {
            assert!(!allowed(&listed, name), "{name}");
        }
        assert_eq!(listed.to_string(), "*.apps.test, shop.test");
        assert_eq!(default.to_string(), "*");
    }
}
