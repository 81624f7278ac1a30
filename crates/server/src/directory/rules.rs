//! The rules of the settings.

use std::sync::Arc;

use adit_ingress::{
    Layers,
    layers::{Access, LayerList},
};
use adit_router::{GrpcPattern, HeaderMatch, HostPattern, PathPrefix, Rule};
use thiserror::Error;

use super::target::Static;
use crate::{
    settings::{RuleSettings, RuleTarget},
    shortcuts::Shortcuts,
    upstreams::UpstreamSet,
};

/// A rule of the configuration that is invalid, or contradicts another rule or a tunnel.
#[derive(Debug, Error)]
#[error("rule {index}: {problem}")]
pub struct RuleError {
    /// The position of the rule in the list, from 1.
    pub index: usize,
    /// Why the rule is rejected.
    pub problem: String,
}

/// Parses the rules.
///
/// # Errors
/// The first invalid rule.
pub(super) fn read(
    rules: &[RuleSettings],
    shortcuts: &Arc<Shortcuts>,
    upstreams: &UpstreamSet,
    access: &Arc<Access>,
) -> Result<Vec<Rule<Static>>, RuleError> {
    let numbered = rules.iter().enumerate();
    let read = numbered.map(|(index, rule)| {
        let index = index + 1;
        let layers = LayerList {
            layers: &rule.layers,
            place: &format!("rule {index}"),
            access,
        };
        let read = read_one(rule, layers.list(), shortcuts, upstreams);
        read.map_err(|problem| RuleError { index, problem })
    });
    read.collect()
}

fn read_one(
    rule: &RuleSettings,
    layers: Layers,
    shortcuts: &Arc<Shortcuts>,
    upstreams: &UpstreamSet,
) -> Result<Rule<Static>, String> {
    let host = rule
        .host
        .as_deref()
        .map(|host| {
            host.parse::<HostPattern>()
                .map_err(|error| format!("host `{host}`: {error}"))
        })
        .transpose()?;
    let path = rule
        .path
        .as_deref()
        .map(|path| {
            path.parse::<PathPrefix>()
                .map_err(|error| format!("path `{path}`: {error}"))
        })
        .transpose()?;
    let headers = rule
        .headers
        .iter()
        .map(|(name, value)| HeaderMatch::try_new(name, value).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let grpc = rule
        .grpc
        .as_deref()
        .map(|grpc| {
            grpc.parse::<GrpcPattern>()
                .map_err(|error| format!("grpc `{grpc}`: {error}"))
        })
        .transpose()?;
    Ok(Rule {
        host,
        path,
        headers,
        grpc,
        any_content_type: !layers.is_empty(),
        target: match &rule.to {
            RuleTarget::Tunnel(name) => Static::Tunnel(name.as_str().into(), layers),
            RuleTarget::Upstream(name) => {
                let upstream = upstreams.find(name);
                let upstream = upstream.ok_or_else(|| format!("unknown upstream `{name}`"))?;
                Static::Upstream(shortcuts.route_to(upstream, layers))
            }
        },
    })
}
