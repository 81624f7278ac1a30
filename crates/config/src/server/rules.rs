//! The list `rules` of a server.

use std::path::Path;

use adit_auth::TunnelName;
use adit_router::{GrpcPattern, HeaderMatch, PathPrefix, Rule, Table};
use adit_server::{
    RuleSettings, RuleTarget, UpstreamProtocol, UpstreamSettings, layers::LayerConfig,
};

use crate::{
    error::ConfigError,
    fields::{host_pattern, name_of},
    key_names,
    read::{Item, Section},
    request_layers,
};

pub(super) fn read(
    server: &mut Section<'_>,
    upstreams: &[UpstreamSettings],
    file: Option<&Path>,
) -> Result<Vec<RuleSettings>, ConfigError> {
    let Some(item) = server.item("rules") else {
        return Ok(Vec::new());
    };
    let (mut settings, mut rules) = (Vec::new(), Vec::new());
    for rule in item.list("rules")? {
        let mut section = rule.section()?;
        let (rule, layers) = read_rule(&mut section, upstreams, file)?;
        settings.push(RuleSettings {
            host: rule.host.as_ref().map(ToString::to_string),
            path: rule.path.as_ref().map(ToString::to_string),
            headers: rule
                .headers
                .iter()
                .map(|header| (header.name().to_owned(), header.value().to_owned()))
                .collect(),
            grpc: rule.grpc.as_ref().map(ToString::to_string),
            to: rule.target.clone(),
            layers,
        });
        rules.push(rule);
    }
    // The router's table detects rules that contradict each other.
    Table::try_new(rules).map_err(|error| item.conflict(error.to_string()))?;
    Ok(settings)
}

fn read_rule(
    section: &mut Section<'_>,
    upstreams: &[UpstreamSettings],
    file: Option<&Path>,
) -> Result<(Rule<RuleTarget>, Vec<LayerConfig>), ConfigError> {
    let mut rule = Rule::new(RuleTarget::Tunnel(String::new()));
    if let Some(item) = section.item("host") {
        rule.host = Some(host_pattern(
            &item,
            "a path belongs in `path`, and the port is not compared",
        )?);
    }
    if let Some(item) = section.item("path") {
        rule.path = Some(item.parse::<PathPrefix>("a path prefix such as /api")?);
    }
    if let Some(item) = section.item("header") {
        for (name, value) in item.section()?.pairs() {
            let header = HeaderMatch::try_new(name, value.text("the value of a header")?)
                .map_err(|error| value.error(error.to_string()))?;
            rule.headers.push(header);
        }
    }
    if let Some(item) = section.item("grpc") {
        rule.grpc = Some(item.parse::<GrpcPattern>("a gRPC service or method")?);
    }
    let mut to = section.section("to")?;
    let layers = request_layers::read(section, file)?;
    section.finish(&key_names::RULE)?;
    let tunnel = match to.item("tunnel") {
        Some(item) => Some(item.parse::<TunnelName>("the name of a tunnel")?),
        None => None,
    };
    let upstream = match to.item("upstream") {
        Some(item) => Some(upstream_of(&item, upstreams)?),
        None => None,
    };
    to.finish(&key_names::RULE_TARGET)?;
    rule.target = match (tunnel, upstream) {
        (Some(tunnel), None) => RuleTarget::Tunnel(tunnel.as_str().to_owned()),
        (None, Some(upstream)) => RuleTarget::Upstream(upstream),
        (None, None) => {
            let what = "`to: { tunnel: NAME }` or `to: { upstream: NAME }`";
            return Err(section.missing("to", what));
        }
        (Some(_), Some(_)) => {
            return Err(to.conflict(&["upstream"], "expected either `tunnel` or `upstream`"));
        }
    };
    Ok((rule, layers))
}

/// Reads the upstream of a rule. Rules match HTTP requests, so it must not be an upstream of TCP.
fn upstream_of(item: &Item<'_>, upstreams: &[UpstreamSettings]) -> Result<String, ConfigError> {
    let name = name_of(item, "upstream name")?;
    match upstreams.iter().find(|upstream| upstream.name == name) {
        None => Err(item
            .conflict(format!("unknown upstream {name}"))
            .with_help("define it in `server.upstreams`")),
        Some(upstream) if upstream.protocol == UpstreamProtocol::Tcp => Err(item.error(format!(
            "the upstream {name} uses TCP, and rules are for HTTP"
        ))),
        Some(_) => Ok(name.as_str().to_owned()),
    }
}
