//! The definition of a tunnel, validated.

use std::time::Duration;

use adit_balance::Policy;
use adit_codec::{Compression, ProtocolType};
use adit_proto::Tunnel as Announced;
use adit_router::{HostPattern, PathPrefix};

use crate::{port::Transport, settings::Limits};

/// A UDP flow may be silent for this long unless the tunnel sets another time.
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// The definition of a tunnel: the same for all of its clients, except for the weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) protocol: ProtocolType,
    /// The requested port. 0: a port of the server's choice (TCP, UDP), or no port.
    pub(crate) remote_port: u16,
    pub(crate) hosts: Vec<HostPattern>,
    /// The paths that it serves; at least one.
    pub(crate) paths: Vec<PathPrefix>,
    pub(crate) policy: Policy,
    pub(crate) hash_on: HashOn,
    pub(crate) session_timeout: Duration,
    pub(crate) compression: Option<Compression>,
}

/// The part of a request that consistent hashing hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HashOn {
    Host,
    Header(String),
    Cookie(String),
}

impl Definition {
    /// Parses an announcement into its normal form, within the bounds for one tunnel. `domain` is the server's own.
    ///
    /// # Errors
    /// The reason, for the author of the announcement.
    pub(crate) fn parse(
        announced: &Announced,
        domain: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, String> {
        check_bounds(announced, limits)?;
        let protocol = match announced.protocol_type() {
            adit_proto::ProtocolType::Http => ProtocolType::Http,
            adit_proto::ProtocolType::Grpc => ProtocolType::Grpc,
            adit_proto::ProtocolType::Websocket => ProtocolType::WebSocket,
            adit_proto::ProtocolType::Tcp => ProtocolType::Tcp,
            adit_proto::ProtocolType::Udp => ProtocolType::Udp,
            other => {
                return Err(format!(
                    "tunnel type {} is not supported by this server; use http, grpc, websocket, tcp or udp",
                    other.as_str_name()
                ));
            }
        };
        let remote_port = u16::try_from(announced.remote_port).map_err(|_| {
            format!(
                "invalid remote port {}: expected 1 to 65535, or 0 for a port of the server's choice",
                announced.remote_port
            )
        })?;
        let is_http = is_http(protocol);
        let by_host = !announced.domains.is_empty() || !announced.locations.is_empty();
        if by_host && !is_http {
            return Err(format!(
                "a tunnel of type {} has neither domains nor locations: it is reached by its port",
                protocol.as_str()
            ));
        }
        let hosts = match (is_http, announced.domains.as_slice()) {
            (false, _) => Vec::new(),
            // It is reached by its port.
            (true, []) if remote_port != 0 => Vec::new(),
            (true, []) => {
                let domains = std::iter::once("localhost").chain(domain);
                hosts(domains.map(|domain| format!("{}.{domain}", announced.name)))?
            }
            (true, domains) => hosts(domains.iter().cloned())?,
        };
        let paths = paths(&announced.locations)?;
        let routes = hosts.len().saturating_mul(paths.len());
        if routes > limits.max_routes_per_tunnel {
            return Err(format!(
                "{} domains with {} locations each make {routes} routes; a tunnel may have {} \
                 (`server.limits.max_routes_per_tunnel`)",
                hosts.len(),
                paths.len(),
                limits.max_routes_per_tunnel
            ));
        }
        let policy = if announced.load_balance.is_empty() {
            Policy::RoundRobin
        } else {
            announced
                .load_balance
                .parse()
                .map_err(|error: adit_balance::ParsePolicyError| error.to_string())?
        };
        let hash_on = HashOn::parse(&announced.hash_on).ok_or_else(|| {
            format!(
                "hash_on `{}`: expected `host`, `header:NAME` or `cookie:NAME`",
                announced.hash_on
            )
        })?;
        let compression =
            match &*announced.compression {
                "" | "none" => None,
                name => Some(Compression::from_name(name).ok_or_else(|| {
                    format!("compression `{name}`: expected `gzip`, `zstd` or none")
                })?),
            };
        Ok(Self {
            protocol,
            remote_port,
            hosts,
            paths,
            policy,
            hash_on,
            session_timeout: match announced.session_timeout_millis {
                0 => SESSION_TIMEOUT,
                millis => Duration::from_millis(millis.into()),
            },
            compression,
        })
    }

    /// Whether its visitors use HTTP, gRPC or WebSocket.
    pub(crate) const fn is_http(&self) -> bool {
        is_http(self.protocol)
    }

    /// The transport of its public port; `None` when it is reached by host alone.
    pub(crate) const fn transport(&self) -> Option<Transport> {
        match self.protocol {
            ProtocolType::Udp => Some(Transport::Udp),
            ProtocolType::Tcp => Some(Transport::Tcp),
            _ if self.remote_port != 0 => Some(Transport::Tcp),
            _ => None,
        }
    }

    /// Whether it serves this path, which a query may follow.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        self.paths.iter().any(|prefix| prefix.matches(path))
    }

    /// How many rules lead to it.
    pub(crate) fn routes(&self) -> usize {
        self.hosts.len().saturating_mul(self.paths.len())
    }
}

impl HashOn {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text.is_empty() || text == "host" => Some(Self::Host),
            Some(("header", name)) if !name.is_empty() => {
                Some(Self::Header(name.to_ascii_lowercase()))
            }
            Some(("cookie", name)) if !name.is_empty() => Some(Self::Cookie(name.to_owned())),
            _ => None,
        }
    }
}

const fn is_http(protocol: ProtocolType) -> bool {
    matches!(
        protocol,
        ProtocolType::Http | ProtocolType::Grpc | ProtocolType::WebSocket
    )
}

/// Longest text other than a location, in bytes.
const LONGEST_TEXT: usize = 256;

/// Checks counts and lengths before any text is read (P-1.10): a refusal costs next to nothing.
fn check_bounds(announced: &Announced, limits: &Limits) -> Result<(), String> {
    let (domains, locations) = (announced.domains.len(), announced.locations.len());
    if domains > limits.max_domains_per_tunnel {
        return Err(format!(
            "{domains} domains; a tunnel may have {} (`server.limits.max_domains_per_tunnel`)",
            limits.max_domains_per_tunnel
        ));
    }
    if locations > limits.max_locations_per_tunnel {
        return Err(format!(
            "{locations} locations; a tunnel may have {} (`server.limits.max_locations_per_tunnel`)",
            limits.max_locations_per_tunnel
        ));
    }
    let longest = announced.locations.iter().map(String::len).max();
    if let Some(length) = longest.filter(|length| *length > limits.max_location_bytes) {
        return Err(format!(
            "a location of {length} bytes; it may have {} (`server.limits.max_location_bytes`)",
            limits.max_location_bytes
        ));
    }
    let texts = [
        &announced.load_balance,
        &announced.hash_on,
        &announced.compression,
    ];
    // Names of hosts have the bound of DNS; this one keeps the refusal of a longer text short.
    let texts = texts.into_iter().chain(&announced.domains);
    if let Some(text) = texts.into_iter().find(|text| text.len() > LONGEST_TEXT) {
        let start: String = text.chars().take(32).collect();
        return Err(format!(
            "{start:?}... has {} bytes; no more than {LONGEST_TEXT} are allowed",
            text.len()
        ));
    }
    Ok(())
}

/// The patterns, each once, in order.
fn hosts(given: impl Iterator<Item = String>) -> Result<Vec<HostPattern>, String> {
    let parse = |host: String| {
        let parsed = host.parse();
        parsed.map_err(|error| format!("domain `{host}`: {error}"))
    };
    let mut hosts: Vec<HostPattern> = given.map(parse).collect::<Result<_, _>>()?;
    hosts.sort_unstable();
    hosts.dedup();
    Ok(hosts)
}

/// The prefixes, each once, in order; without any, the root.
fn paths(given: &[String]) -> Result<Vec<PathPrefix>, String> {
    let parse = |location: &String| {
        let parsed = location.parse();
        parsed.map_err(|error| format!("location `{location}`: {error}"))
    };
    let mut paths: Vec<PathPrefix> = given.iter().map(parse).collect::<Result<_, _>>()?;
    if paths.is_empty() {
        paths.push(PathPrefix::root());
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(protocol: adit_proto::ProtocolType, remote_port: u32) -> Announced {
        Announced {
            name: "a".into(),
            protocol_type: protocol.into(),
            remote_port,
            ..Announced::default()
        }
    }

    fn parse(announced: &Announced) -> Result<Definition, String> {
        Definition::parse(announced, Some("example.com"), &Limits::default())
    }

    fn texts(hosts: &[HostPattern]) -> Vec<String> {
        hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn http_is_found_by_host_unless_it_has_a_port() {
        for protocol in [
            adit_proto::ProtocolType::Http,
            adit_proto::ProtocolType::Grpc,
            adit_proto::ProtocolType::Websocket,
        ] {
            let by_host = parse(&announced(protocol, 0)).unwrap();
            assert_eq!(texts(&by_host.hosts), ["a.example.com", "a.localhost"]);
            assert_eq!(by_host.transport(), None);
            let by_port = parse(&announced(protocol, 8081)).unwrap();
            assert!(by_port.hosts.is_empty() && by_port.is_http());
            assert_eq!(by_port.transport(), Some(Transport::Tcp));
            let mut both = announced(protocol, 8081);
            both.domains = vec!["B.test".into(), "b.test.".into()];
            assert_eq!(texts(&parse(&both).unwrap().hosts), ["b.test"]);
        }
    }

    #[test]
    fn tcp_and_udp_are_found_by_port_alone() {
        let mut tcp = announced(adit_proto::ProtocolType::Tcp, 0);
        let parsed = parse(&tcp).unwrap();
        assert_eq!(parsed.transport(), Some(Transport::Tcp));
        assert!(parsed.hosts.is_empty() && !parsed.is_http());
        tcp.domains = vec!["a.test".into()];
        assert!(parse(&tcp).unwrap_err().contains("reached by its port"));
        let mut udp = announced(adit_proto::ProtocolType::Udp, 65_535);
        udp.session_timeout_millis = 1_500;
        let parsed = parse(&udp).unwrap();
        assert_eq!(parsed.transport(), Some(Transport::Udp));
        assert_eq!(parsed.session_timeout, Duration::from_millis(1_500));
        assert_eq!(parsed.remote_port, 65_535);
    }

    #[test]
    fn invalid_ports_types_and_compressions_are_rejected() {
        let mut tunnel = announced(adit_proto::ProtocolType::Tcp, 65_536);
        assert!(parse(&tunnel).unwrap_err().contains("65536"));
        tunnel.remote_port = 1;
        tunnel.compression = "brotli".into();
        assert!(parse(&tunnel).unwrap_err().contains("`brotli`"));
        let control = announced(adit_proto::ProtocolType::Control, 1);
        assert!(parse(&control).unwrap_err().contains("not supported"));
    }

    #[test]
    fn locations_bound_a_port_as_they_bound_a_host() {
        let mut tunnel = announced(adit_proto::ProtocolType::Http, 8081);
        assert!(parse(&tunnel).unwrap().has_path("/x?y"));
        tunnel.locations = vec!["/api".into()];
        let parsed = parse(&tunnel).unwrap();
        assert!(parsed.has_path("/api/1?y") && !parsed.has_path("/apix"));
    }

    #[test]
    fn equivalent_locations_are_merged() {
        let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
        tunnel.locations = vec!["/api/".into(), "/api".into()];
        assert_eq!(parse(&tunnel).unwrap().paths.len(), 1);
        tunnel.locations = vec!["/".into()];
        let whole = parse(&tunnel).unwrap();
        tunnel.locations.clear();
        assert_eq!(parse(&tunnel).unwrap(), whole);
    }

    /// 1,500 domains with 1,500 locations once made 2,250,000 rules of one message of 34 KB.
    #[test]
    fn domains_locations_and_their_product_are_bounded() {
        let names = |count: usize, name: &str| (0..count).map(|n| format!("{name}{n}")).collect();
        let error = |domains: usize, locations: usize| {
            let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
            tunnel.domains = names(domains, "a.test-");
            tunnel.locations = names(locations, "/");
            parse(&tunnel).err().unwrap_or_default()
        };
        assert_eq!((&*error(32, 8), &*error(4, 64)), ("", ""));
        for (domains, locations, key) in [
            (33, 1, "server.limits.max_domains_per_tunnel"),
            (1, 65, "server.limits.max_locations_per_tunnel"),
            (32, 9, "server.limits.max_routes_per_tunnel"),
            (1_500, 1_500, "server.limits.max_domains_per_tunnel"),
        ] {
            let error = error(domains, locations);
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn long_texts_are_rejected_with_short_messages() {
        let huge = "x".repeat(1 << 20);
        let mut located = announced(adit_proto::ProtocolType::Http, 0);
        located.locations = vec![format!("/{huge}")];
        let mut named = announced(adit_proto::ProtocolType::Http, 0);
        named.domains = vec![huge.clone()];
        let mut hashed = announced(adit_proto::ProtocolType::Http, 0);
        hashed.hash_on = format!("header:{huge}");
        for tunnel in [located, named, hashed] {
            let error = parse(&tunnel).unwrap_err();
            assert!(error.len() < 300 && error.contains("bytes"), "{error}");
        }
    }
}
