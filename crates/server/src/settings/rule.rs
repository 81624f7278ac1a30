//! Rules.

use adit_ingress::layers::LayerConfig;

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
    /// The target of the rule.
    pub to: RuleTarget,
    /// The layers that requests of the rule pass, in this order, before the layers of the tunnel.
    pub layers: Vec<LayerConfig>,
}

/// The target of a rule (`to`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleTarget {
    /// A tunnel, by its name, once a client has announced it.
    Tunnel(String),
    /// An upstream, by its name.
    Upstream(String),
}
