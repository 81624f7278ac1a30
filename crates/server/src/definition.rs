//! The definition of a tunnel, validated.

mod error;
mod layers;

use std::time::Duration;

use adit_balance::Policy;
use adit_codec::{Compression, ProtocolType};
use adit_ingress::{SESSION_TIMEOUT, layers::LayerConfig};
use adit_proto::Tunnel as Announced;
use adit_router::{HostPattern, PathPrefix};

pub(crate) use self::error::DefinitionError;
use crate::{port::Transport, settings::Limits};

/// The definition of a tunnel: the same for all of its clients, except for the weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) protocol: ProtocolType,
    /// The requested port. 0: a port of the server's choice (TCP, UDP), or no port.
    pub(crate) remote_port: u16,
    pub(crate) hosts: Vec<HostPattern>,
    /// The paths that the tunnel serves, at least one.
    pub(crate) paths: Vec<PathPrefix>,
    pub(crate) policy: Policy,
    pub(crate) hash_on: HashOn,
    pub(crate) session_timeout: Duration,
    pub(crate) compression: Option<Compression>,
    /// The layers that requests of the tunnel pass after routing, in this order.
    pub(crate) layers: Vec<LayerConfig>,
    pub(crate) https: VisitorHttps,
    pub(crate) visitor_tls: Option<VisitorTls>,
    /// Certificates are obtained for the hosts (P-14.10).
    pub(crate) obtains_certificates: bool,
}

/// What the server does with the TLS of a TCP tunnel's visitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VisitorTls {
    /// It stays closed: the host that the visitor asks for selects the tunnel, on the port for HTTPS (P-14.8).
    PassThrough,
    /// It ends at the tunnel's port, with the certificate of its host (P-14.9).
    Terminate,
}

/// What visitors of HTTP find over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VisitorHttps {
    /// Requests over HTTP are redirected to HTTPS (P-14.6).
    pub(crate) redirect: bool,
    /// `Strict-Transport-Security` in responses (P-14.7).
    pub(crate) hsts: Option<HstsAge>,
}

/// How long browsers use HTTPS only, and whether for the hosts below as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HstsAge {
    pub(crate) max_age: Duration,
    pub(crate) include_subdomains: bool,
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
    /// [`DefinitionError`], for the author of the announcement.
    pub(crate) fn parse(
        announced: &Announced,
        domain: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, DefinitionError> {
        check_bounds(announced, limits)?;
        let protocol = match announced.protocol_type() {
            adit_proto::ProtocolType::Http => ProtocolType::Http,
            adit_proto::ProtocolType::Grpc => ProtocolType::Grpc,
            adit_proto::ProtocolType::Websocket => ProtocolType::WebSocket,
            adit_proto::ProtocolType::Tcp => ProtocolType::Tcp,
            adit_proto::ProtocolType::Udp => ProtocolType::Udp,
            other => {
                let name = other.as_str_name();
                return Err(DefinitionError::Type { name });
            }
        };
        let remote_port = u16::try_from(announced.remote_port)
            .map_err(|_| DefinitionError::RemotePort(announced.remote_port))?;
        let visitor_tls = visitor_tls(announced, protocol, remote_port)?;
        let is_http = is_http(protocol);
        let has_hosts = is_http || visitor_tls.is_some();
        if !announced.locations.is_empty() && !is_http && has_hosts {
            return Err(DefinitionError::LocationsOfTls);
        }
        let by_host = !announced.domains.is_empty() || !announced.locations.is_empty();
        if by_host && !has_hosts {
            return Err(DefinitionError::HostsOfPort { protocol });
        }
        if announced.https.is_some() && !is_http {
            return Err(DefinitionError::HttpsOfPort { protocol });
        }
        let has_certificates = is_http || visitor_tls == Some(VisitorTls::Terminate);
        if announced.obtain_certificates && !has_certificates {
            return Err(DefinitionError::CertificatesOfPort { protocol });
        }
        let hosts = match (has_hosts, announced.domains.as_slice()) {
            (false, _) => Vec::new(),
            // The port alone selects the tunnel.
            (true, []) if is_http && remote_port != 0 => Vec::new(),
            (true, []) => {
                let domains = std::iter::once("localhost").chain(domain);
                hosts(domains.map(|domain| format!("{}.{domain}", announced.name)))?
            }
            (true, domains) => hosts(domains.iter().cloned())?,
        };
        let paths = paths(&announced.locations)?;
        let routes = hosts.len().saturating_mul(paths.len());
        if routes > limits.max_routes_per_tunnel {
            return Err(DefinitionError::Routes {
                domains: hosts.len(),
                locations: paths.len(),
                routes,
                limit: limits.max_routes_per_tunnel,
            });
        }
        let policy = if announced.load_balance.is_empty() {
            Policy::RoundRobin
        } else {
            announced.load_balance.parse()?
        };
        let hash_on = HashOn::parse(&announced.hash_on)
            .ok_or_else(|| DefinitionError::HashOn(announced.hash_on.clone()))?;
        let compression = match &*announced.compression {
            "" | "none" => None,
            name => Some(
                Compression::from_name(name)
                    .ok_or_else(|| DefinitionError::Compression(name.to_owned()))?,
            ),
        };
        let layers = layers::parse(&announced.layers)?;
        if !is_http && let Some(layer) = layers.iter().find(|layer| !layer.fits_sessions()) {
            let kind = layer.kind();
            return Err(DefinitionError::LayerOfPort { protocol, kind });
        }
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
            layers,
            visitor_tls,
            obtains_certificates: announced.obtain_certificates,
            https: announced
                .https
                .as_ref()
                .map(VisitorHttps::of)
                .unwrap_or_default(),
        })
    }

    /// Whether the visitors of the tunnel use HTTP, gRPC or WebSocket.
    pub(crate) const fn is_http(&self) -> bool {
        is_http(self.protocol)
    }

    /// The transport of the tunnel's public port; `None` when the tunnel is selected by host alone.
    pub(crate) const fn transport(&self) -> Option<Transport> {
        match self.protocol {
            ProtocolType::Udp => Some(Transport::Udp),
            _ if self.passes_through() => None,
            ProtocolType::Tcp => Some(Transport::Tcp),
            _ if self.remote_port != 0 => Some(Transport::Tcp),
            _ => None,
        }
    }

    /// Whether the TLS of visitors is passed through.
    pub(crate) const fn passes_through(&self) -> bool {
        matches!(self.visitor_tls, Some(VisitorTls::PassThrough))
    }

    /// Whether TLS ends at the tunnel's port.
    pub(crate) const fn terminates(&self) -> bool {
        matches!(self.visitor_tls, Some(VisitorTls::Terminate))
    }

    /// The number of rules that select the tunnel.
    pub(crate) fn routes(&self) -> usize {
        self.hosts.len().saturating_mul(self.paths.len())
    }
}

impl VisitorHttps {
    fn of(announced: &adit_proto::VisitorHttps) -> Self {
        Self {
            redirect: announced.redirect,
            hsts: announced.hsts.as_ref().map(|hsts| HstsAge {
                max_age: Duration::from_secs(hsts.max_age_seconds),
                include_subdomains: hsts.include_subdomains,
            }),
        }
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

fn visitor_tls(
    announced: &Announced,
    protocol: ProtocolType,
    remote_port: u16,
) -> Result<Option<VisitorTls>, DefinitionError> {
    let tls = match announced.visitor_tls() {
        adit_proto::VisitorTls::Unspecified if announced.visitor_tls == 0 => return Ok(None),
        adit_proto::VisitorTls::Unspecified => {
            return Err(DefinitionError::VisitorTls(announced.visitor_tls));
        }
        adit_proto::VisitorTls::PassThrough => VisitorTls::PassThrough,
        adit_proto::VisitorTls::Terminate => VisitorTls::Terminate,
    };
    if protocol != ProtocolType::Tcp {
        return Err(DefinitionError::TlsOfOther { protocol });
    }
    if tls == VisitorTls::PassThrough && remote_port != 0 {
        return Err(DefinitionError::PortOfTls);
    }
    Ok(Some(tls))
}

const fn is_http(protocol: ProtocolType) -> bool {
    matches!(
        protocol,
        ProtocolType::Http | ProtocolType::Grpc | ProtocolType::WebSocket
    )
}

/// Longest text other than a location, in bytes.
const LONGEST_TEXT: usize = 256;

/// Checks counts and lengths before any text is read (P-1.10): a refusal costs very little.
fn check_bounds(announced: &Announced, limits: &Limits) -> Result<(), DefinitionError> {
    let (count, limit) = (announced.domains.len(), limits.max_domains_per_tunnel);
    if count > limit {
        return Err(DefinitionError::Domains { count, limit });
    }
    let (count, limit) = (announced.locations.len(), limits.max_locations_per_tunnel);
    if count > limit {
        return Err(DefinitionError::Locations { count, limit });
    }
    let longest = announced.locations.iter().map(String::len).max();
    let limit = limits.max_location_bytes;
    if let Some(bytes) = longest.filter(|bytes| *bytes > limit) {
        return Err(DefinitionError::LocationBytes { bytes, limit });
    }
    layers::check_bounds(&announced.layers, limits)?;
    let texts = [
        &announced.load_balance,
        &announced.hash_on,
        &announced.compression,
    ];
    // The limit of host names is that of DNS; this limit keeps the refusal of a longer text short.
    let texts = texts.into_iter().chain(&announced.domains);
    if let Some(text) = texts.into_iter().find(|text| text.len() > LONGEST_TEXT) {
        return Err(DefinitionError::TextBytes {
            start: text.chars().take(32).collect(),
            bytes: text.len(),
            limit: LONGEST_TEXT,
        });
    }
    Ok(())
}

/// The patterns without duplicates, in order.
fn hosts(given: impl Iterator<Item = String>) -> Result<Vec<HostPattern>, DefinitionError> {
    let parse = |domain: String| {
        let parsed = domain.parse();
        parsed.map_err(|source| DefinitionError::Domain { domain, source })
    };
    let mut hosts: Vec<HostPattern> = given.map(parse).collect::<Result<_, _>>()?;
    hosts.sort_unstable();
    hosts.dedup();
    Ok(hosts)
}

/// The prefixes without duplicates, in order; the root if none is given.
fn paths(given: &[String]) -> Result<Vec<PathPrefix>, DefinitionError> {
    let parse = |location: &String| {
        let parsed = location.parse();
        parsed.map_err(|source| DefinitionError::Location {
            location: location.clone(),
            source,
        })
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
    use adit_balance::ParsePolicyError;

    use super::*;

    fn announced(protocol: adit_proto::ProtocolType, remote_port: u32) -> Announced {
        Announced {
            name: "a".into(),
            protocol_type: protocol.into(),
            remote_port,
            ..Announced::default()
        }
    }

    fn parse(announced: &Announced) -> Result<Definition, DefinitionError> {
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
        let protocol = ProtocolType::Tcp;
        let error = DefinitionError::HostsOfPort { protocol };
        assert_eq!(parse(&tcp), Err(error));
        let mut udp = announced(adit_proto::ProtocolType::Udp, 65_535);
        udp.session_timeout_millis = 1_500;
        let parsed = parse(&udp).unwrap();
        assert_eq!(parsed.transport(), Some(Transport::Udp));
        assert_eq!(parsed.session_timeout, Duration::from_millis(1_500));
        assert_eq!(parsed.remote_port, 65_535);
    }

    #[test]
    fn p_14_8_and_14_9_tls_of_visitors_is_for_tcp() {
        let tcp = |tls: adit_proto::VisitorTls, remote_port| Announced {
            visitor_tls: tls.into(),
            ..announced(adit_proto::ProtocolType::Tcp, remote_port)
        };
        let passing = tcp(adit_proto::VisitorTls::PassThrough, 0);
        let parsed = parse(&passing).unwrap();
        assert_eq!(texts(&parsed.hosts), ["a.example.com", "a.localhost"]);
        assert!(parsed.passes_through() && parsed.transport().is_none());
        let parsed = parse(&tcp(adit_proto::VisitorTls::Terminate, 0)).unwrap();
        assert_eq!(texts(&parsed.hosts), ["a.example.com", "a.localhost"]);
        assert!(parsed.terminates());
        assert_eq!(parsed.transport(), Some(Transport::Tcp));
        let port = tcp(adit_proto::VisitorTls::PassThrough, 443);
        assert_eq!(parse(&port), Err(DefinitionError::PortOfTls));
        let mut path = passing.clone();
        path.locations = vec!["/a".into()];
        assert_eq!(parse(&path), Err(DefinitionError::LocationsOfTls));
        let mut unknown = passing.clone();
        unknown.visitor_tls = 7;
        assert_eq!(parse(&unknown), Err(DefinitionError::VisitorTls(7)));
        let mut http = passing;
        http.protocol_type = adit_proto::ProtocolType::Http.into();
        let protocol = ProtocolType::Http;
        assert_eq!(parse(&http), Err(DefinitionError::TlsOfOther { protocol }));
    }

    #[test]
    fn p_14_6_and_14_7_https_is_for_tunnels_of_http() {
        let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
        tunnel.https = Some(adit_proto::VisitorHttps {
            redirect: true,
            hsts: Some(adit_proto::Hsts {
                max_age_seconds: 60,
                include_subdomains: true,
            }),
        });
        let hsts = HstsAge {
            max_age: Duration::from_secs(60),
            include_subdomains: true,
        };
        let expected = VisitorHttps {
            redirect: true,
            hsts: Some(hsts),
        };
        assert_eq!(parse(&tunnel).unwrap().https, expected);
        tunnel.protocol_type = adit_proto::ProtocolType::Udp.into();
        let protocol = ProtocolType::Udp;
        assert_eq!(
            parse(&tunnel),
            Err(DefinitionError::HttpsOfPort { protocol })
        );
    }

    #[test]
    fn p_14_10_certificates_are_for_tunnels_whose_tls_ends_at_the_server() {
        let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
        assert!(!parse(&tunnel).unwrap().obtains_certificates);
        tunnel.obtain_certificates = true;
        assert!(parse(&tunnel).unwrap().obtains_certificates);
        tunnel.protocol_type = adit_proto::ProtocolType::Tcp.into();
        let protocol = ProtocolType::Tcp;
        let refused = Err(DefinitionError::CertificatesOfPort { protocol });
        assert_eq!(parse(&tunnel), refused);
        tunnel.visitor_tls = adit_proto::VisitorTls::PassThrough.into();
        assert_eq!(parse(&tunnel), refused);
        tunnel.visitor_tls = adit_proto::VisitorTls::Terminate.into();
        assert!(parse(&tunnel).unwrap().obtains_certificates);
    }

    #[test]
    fn p_1_16_tunnels_of_ports_have_layers_without_heads() {
        let mut tunnel = announced(adit_proto::ProtocolType::Grpc, 0);
        tunnel.layers = vec![adit_proto::Layer {
            kind: Some(adit_proto::layer::Kind::ResponseHeaders(
                adit_proto::HeaderEdit::default(),
            )),
            ..adit_proto::Layer::default()
        }];
        assert_eq!(parse(&tunnel).unwrap().layers.len(), 1);
        tunnel.protocol_type = adit_proto::ProtocolType::Tcp.into();
        let (protocol, kind) = (ProtocolType::Tcp, "response_headers");
        assert_eq!(
            parse(&tunnel),
            Err(DefinitionError::LayerOfPort { protocol, kind })
        );
        let rules = adit_proto::IpRules {
            deny: vec!["192.0.2.0/24".to_owned()],
            ..adit_proto::IpRules::default()
        };
        tunnel.layers = vec![adit_proto::Layer {
            kind: Some(adit_proto::layer::Kind::Ip(rules)),
            ..adit_proto::Layer::default()
        }];
        assert_eq!(parse(&tunnel).unwrap().layers.len(), 1);
    }

    #[test]
    fn invalid_ports_types_and_compressions_are_rejected() {
        let mut tunnel = announced(adit_proto::ProtocolType::Tcp, 65_536);
        assert_eq!(parse(&tunnel), Err(DefinitionError::RemotePort(65_536)));
        tunnel.remote_port = 1;
        tunnel.compression = "brotli".into();
        let error = DefinitionError::Compression("brotli".into());
        assert_eq!(parse(&tunnel), Err(error));
        let control = announced(adit_proto::ProtocolType::Control, 1);
        let name = "PROTOCOL_TYPE_CONTROL";
        assert_eq!(parse(&control), Err(DefinitionError::Type { name }));
    }

    #[test]
    fn invalid_hosts_paths_policies_and_hash_keys_are_rejected() {
        let error = |change: fn(&mut Announced)| {
            let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
            change(&mut tunnel);
            parse(&tunnel).unwrap_err()
        };
        let domain = error(|tunnel| tunnel.domains = vec!["a.test".into(), "b c".into()]);
        assert!(
            matches!(&domain, DefinitionError::Domain { domain, .. } if domain == "b c"),
            "{domain:?}"
        );
        let location = error(|tunnel| tunnel.locations = vec!["/a".into(), "b".into()]);
        assert!(
            matches!(&location, DefinitionError::Location { location, .. } if location == "b"),
            "{location:?}"
        );
        let policy = error(|tunnel| tunnel.load_balance = "best".into());
        let refused = "best".into();
        let expected = DefinitionError::Policy(ParsePolicyError { refused });
        assert_eq!(policy, expected);
        let hash_on = error(|tunnel| tunnel.hash_on = "header:".into());
        assert_eq!(hash_on, DefinitionError::HashOn("header:".into()));
    }

    #[test]
    fn locations_bound_a_port_as_they_bound_a_host() {
        let mut tunnel = announced(adit_proto::ProtocolType::Http, 8081);
        assert_eq!(parse(&tunnel).unwrap().paths, [PathPrefix::root()]);
        tunnel.locations = vec!["/api".into()];
        let parsed = parse(&tunnel).unwrap();
        let of = |path| PathPrefix::any_matches(&parsed.paths, path);
        assert_eq!((of("/api/1?y"), of("/apix")), (Ok(true), Ok(false)));
        assert!(of("/api/../x").is_err());
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

    /// Regression: 1,500 domains with 1,500 locations made 2,250,000 rules from one message of 34 KB.
    #[test]
    fn domains_locations_and_their_product_are_bounded() {
        let names = |count: usize, name: &str| (0..count).map(|n| format!("{name}{n}")).collect();
        let error = |domains: usize, locations: usize| {
            let mut tunnel = announced(adit_proto::ProtocolType::Http, 0);
            tunnel.domains = names(domains, "a.test-");
            tunnel.locations = names(locations, "/");
            parse(&tunnel).err()
        };
        assert_eq!((error(32, 8), error(4, 64)), (None, None));
        let domains = |count| DefinitionError::Domains { count, limit: 32 };
        assert_eq!(error(33, 1), Some(domains(33)));
        assert_eq!(error(1_500, 1_500), Some(domains(1_500)));
        let (count, limit) = (65, 64);
        let locations = DefinitionError::Locations { count, limit };
        assert_eq!(error(1, 65), Some(locations));
        let routes = DefinitionError::Routes {
            domains: 32,
            locations: 9,
            routes: 288,
            limit: 256,
        };
        assert_eq!(error(32, 9), Some(routes));
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
        for (tunnel, length) in [
            (located, huge.len() + 1),
            (named, huge.len()),
            (hashed, huge.len() + "header:".len()),
        ] {
            let error = parse(&tunnel).unwrap_err();
            assert!(error.to_string().len() < 300, "{error}");
            let (DefinitionError::LocationBytes { bytes, .. }
            | DefinitionError::TextBytes { bytes, .. }) = error
            else {
                panic!("{error}");
            };
            assert_eq!(bytes, length);
        }
    }
}
