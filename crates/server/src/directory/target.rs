//! Targets of rules.

use std::{fmt, sync::Arc};

use adit_ingress::Layers;

use crate::{shortcuts::ToUpstream, tunnel::Tunnel};

/// The target of a rule.
#[derive(Clone)]
pub(crate) enum Target {
    /// A tunnel, with the layers that its requests pass: those of the rule, then those of the tunnel.
    Tunnel(Arc<Tunnel>, Layers),
    /// A rule of the configuration to a tunnel that no client has announced.
    Unannounced(Arc<str>),
    /// A rule of the configuration to an upstream.
    Upstream(ToUpstream),
}

/// The target of a rule of the configuration, before tunnels are looked up.
pub(super) enum Static {
    /// A tunnel of this name, with the layers of the rule.
    Tunnel(Arc<str>, Layers),
    Upstream(ToUpstream),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tunnel(tunnel, _) => &tunnel.name,
            Self::Unannounced(name) => name,
            Self::Upstream(to) => to.name().as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(tunnel, _) => write!(
                f,
                "tunnel {} of group {}",
                tunnel.key.name, tunnel.key.group
            ),
            Self::Unannounced(name) => write!(f, "tunnel {name}, which no client has announced"),
            Self::Upstream(to) => write!(f, "upstream {}", to.name()),
        }
    }
}
