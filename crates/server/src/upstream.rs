//! An upstream: a name, and the servers that share its requests.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use adit_auth::{NameError, TunnelName};
use adit_balance::{Balancer, Draw, InFlight, Load, Member, Policy, hash_bytes};
use adit_codec::{HeaderBlock, ResetCode};
use adit_egress::{Protocol, ServiceConfig};
use adit_link::RequestHead;
use adit_net::HostPort;
use adit_tls::Trust;
use thiserror::Error;

use crate::{
    cookie::cookie,
    definition::HashOn,
    settings::{UpstreamProtocol, UpstreamServer, UpstreamSettings},
    status::{UpstreamServerStatus, UpstreamStatus},
};

/// Why an upstream is invalid.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The settings of the upstream contradict each other.
    #[error("upstream `{name}`: {problem}")]
    Wrong {
        /// The upstream.
        name: TunnelName,
        /// The reason.
        problem: &'static str,
    },
    /// The server's own name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A name, and the servers that share its requests.
pub(crate) struct Upstream {
    settings: UpstreamSettings,
    hash_on: HashOn,
    balancer: Balancer<Server>,
}

/// A server of an upstream.
pub(crate) struct Server {
    /// Host and port.
    pub(crate) address: Box<str>,
    /// The name of the server's service in `egress`.
    pub(crate) service: Box<str>,
}

impl Upstream {
    /// The upstream of these settings. Servers that the `previous` upstream with this name also has keep their counts
    /// of requests in flight, and round robin keeps its turn.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        previous: Option<&Self>,
    ) -> Result<Self, UpstreamError> {
        let refused = |problem| UpstreamError::Wrong {
            name: settings.name.clone(),
            problem,
        };
        let hash_on = HashOn::parse(&settings.hash_on)
            .ok_or_else(|| refused("hash_on is not `host`, `header:NAME` or `cookie:NAME`"))?;
        if let Some(tls) = &settings.tls {
            if settings.protocol == UpstreamProtocol::Tcp {
                return Err(refused("supports TLS with HTTP only"));
            }
            if tls.trust == Trust::Anyone {
                tracing::warn!(
                    upstream = settings.name.as_str(),
                    "tls.insecure: certificates of its servers are not verified; an attacker on the path can read and \
                     change everything"
                );
            }
        }
        let mut members = Vec::new();
        let mut addresses = HashSet::new();
        for server in &settings.servers {
            let address = address_of(server);
            if !addresses.insert(address.clone()) {
                return Err(refused("lists one address twice"));
            }
            let key = hash_bytes(address.as_bytes());
            let load = previous.and_then(|previous| previous.load_of(&address));
            let member = Server {
                service: service_name(&settings.name, &address),
                address: address.into(),
            };
            members.push(Member::new(
                member,
                key,
                server.weight,
                load.unwrap_or_default(),
            ));
        }
        if members.is_empty() {
            return Err(refused("has no servers"));
        }
        let balancer = match previous {
            Some(previous) => previous.balancer.successor(settings.policy, members),
            None => Balancer::new(settings.policy, members),
        };
        Ok(Self {
            settings: settings.clone(),
            hash_on,
            balancer,
        })
    }

    fn load_of(&self, address: &str) -> Option<Load> {
        let mut members = self.balancer.members().iter();
        let member = members.find(|member| &*member.id().address == address)?;
        Some(member.load().clone())
    }

    /// The configuration of `egress` for each server, by the name of [`Server::service`].
    pub(crate) fn services(&self) -> impl Iterator<Item = (Box<str>, ServiceConfig)> + '_ {
        let settings = &self.settings;
        let protocol = match settings.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::Either => Protocol::Either,
            UpstreamProtocol::Tcp => Protocol::Tcp,
        };
        settings.servers.iter().map(move |server| {
            let mut config = ServiceConfig::new(&server.host, server.port, protocol);
            config.host_rewrite.clone_from(&settings.host_rewrite);
            config.tls.clone_from(&settings.tls);
            config.compression = settings.compression;
            (service_name(&settings.name, &address_of(server)), config)
        })
    }

    pub(crate) const fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    pub(crate) const fn name(&self) -> &TunnelName {
        &self.settings.name
    }

    pub(crate) fn policy(&self) -> Policy {
        self.balancer.policy()
    }

    /// Whether the servers of the upstream support the request.
    pub(crate) fn check(&self, head: &RequestHead) -> Result<(), (ResetCode, &'static str)> {
        match (head, self.settings.protocol) {
            // An absolute target would override the host that is sent (RFC 9112, 3.2.2).
            (
                RequestHead::Http(head),
                UpstreamProtocol::Http1 | UpstreamProtocol::Http2 | UpstreamProtocol::Either,
            ) if !head.path.starts_with(b"/") && head.path != b"*"[..] => Err((
                ResetCode::ProtocolError,
                "the request target must be a path",
            )),
            (
                RequestHead::Http(_) | RequestHead::Grpc(_) | RequestHead::WebSocket(_),
                UpstreamProtocol::Http1 | UpstreamProtocol::Http2 | UpstreamProtocol::Either,
            )
            | (RequestHead::Tcp(_), UpstreamProtocol::Tcp) => Ok(()),
            (RequestHead::Udp(_), _) => {
                Err((ResetCode::NoTunnel, "upstreams are not reached by UDP"))
            }
            (RequestHead::Tcp(_), _) => Err((
                ResetCode::NoTunnel,
                "the upstream uses HTTP; its entry must be `type: http`",
            )),
            (_, UpstreamProtocol::Tcp) => Err((
                ResetCode::NoTunnel,
                "the upstream uses TCP; its entry must be `type: tcp`",
            )),
        }
    }

    /// The server for a request.
    pub(crate) fn choose(&self, head: &RequestHead) -> Option<(&Server, InFlight)> {
        let policy = self.policy();
        let mut draw = Draw::default();
        if policy.uses_random() {
            draw.random = rand::random();
        }
        if policy.uses_hash() {
            draw.hash = self.hash(policy, head);
        }
        let member = self.balancer.choose(draw, |_| true)?;
        Some((member.id(), member.load().begin()))
    }

    fn hash(&self, policy: Policy, head: &RequestHead) -> u64 {
        let (authority, headers): (&[u8], Option<&HeaderBlock>) = match head {
            RequestHead::Http(head) => (&head.authority, Some(&head.headers)),
            RequestHead::Grpc(head) => (&head.authority, Some(&head.metadata)),
            RequestHead::WebSocket(head) => (&head.authority, Some(&head.headers)),
            RequestHead::Tcp(_) | RequestHead::Udp(_) => (b"", None),
        };
        let Some(headers) = headers.filter(|_| policy != Policy::IpHash) else {
            // For a connection only the visitor's address can be hashed, whatever `hash_on` is for requests.
            return hash_visitor(&head.open().visitor);
        };
        match &self.hash_on {
            HashOn::Host => hash_bytes(authority),
            HashOn::Header(name) => hash_bytes(headers.first(name.as_bytes()).unwrap_or_default()),
            HashOn::Cookie(name) => {
                let lines = headers.lines().filter(|(header, _)| *header == b"cookie");
                hash_bytes(cookie(lines.map(|(_, value)| value), name))
            }
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        let members = self.balancer.members();
        members.iter().map(|one| one.load().in_flight()).sum()
    }

    /// The requests in flight, except at servers that the other upstream also has.
    pub(crate) fn in_flight_beside(&self, other: Option<&Self>) -> usize {
        let members = self.balancer.members().iter();
        let own = members.filter(|member| {
            other.is_none_or(|other| other.load_of(&member.id().address).is_none())
        });
        own.map(|member| member.load().in_flight()).sum()
    }

    /// Number of requests for which a server was chosen.
    pub(crate) fn chosen(&self) -> u64 {
        self.balancer.stats().chosen
    }

    pub(crate) fn status(&self) -> UpstreamStatus {
        let members = self.balancer.members();
        UpstreamStatus {
            name: self.settings.name.to_string(),
            policy: self.policy().name(),
            protocol: match (self.settings.protocol, &self.settings.tls) {
                (UpstreamProtocol::Http2, Some(_)) => "h2",
                (UpstreamProtocol::Http1, Some(_)) => "https",
                (protocol, _) => protocol.as_str(),
            },
            requests: self.chosen(),
            servers: members
                .iter()
                .map(|member| UpstreamServerStatus {
                    address: member.id().address.to_string(),
                    weight: member.weight(),
                    requests_open: member.load().in_flight(),
                })
                .collect(),
        }
    }
}

/// Host and port as text.
fn address_of(server: &UpstreamServer) -> String {
    HostPort::new(&server.host, server.port).to_string()
}

/// An upstream's name has no slash, so that a client cannot name a service.
fn service_name(upstream: &TunnelName, address: &str) -> Box<str> {
    format!("{upstream}/{address}").into()
}

/// The address without the port, so that all connections of a visitor have the same hash.
fn hash_visitor(visitor: &str) -> u64 {
    match visitor.parse::<SocketAddr>().map(|addr| addr.ip()) {
        Ok(ip) => match ip.to_canonical() {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        },
        Err(_) => hash_bytes(visitor.as_bytes()),
    }
}
