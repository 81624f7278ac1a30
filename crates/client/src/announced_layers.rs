//! The layers of a tunnel's settings in the form of an announcement (P-1.16).

use std::time::Duration;

use adit_ingress::layers::{
    self, AccessConfig, AccessRule, LayerConfig, PasswordHash, RateOf, TokenHash,
};
use adit_proto::{
    Ban, BasicAuth, BasicUser, Header, HeaderEdit, HeaderToken, IpRules, Layer, LocalResponse,
    Rate, RateLimit, Redirect, RequiredHeader, layer::Kind,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// The layers in their order.
pub(crate) fn announced_layers(layers: &[LayerConfig]) -> Vec<Layer> {
    let announced = layers.iter().map(|layer| match layer {
        LayerConfig::Access(config) => access(config),
        layer => Layer {
            kind: kind(layer),
            ..Layer::default()
        },
    });
    announced.collect()
}

/// An access layer.
fn access(config: &AccessConfig) -> Layer {
    Layer {
        kind: Some(match config.rule() {
            AccessRule::Ip(ip) => Kind::Ip(IpRules {
                allow: ip.allowed().iter().map(ToString::to_string).collect(),
                deny: ip.denied().iter().map(ToString::to_string).collect(),
            }),
            AccessRule::BasicAuth(basic) => Kind::BasicAuth(BasicAuth {
                users: basic.users().iter().map(user).collect(),
                realm: basic.realm().to_owned(),
                keep: basic.keeps(),
            }),
            AccessRule::HeaderToken(tokens) => Kind::HeaderToken(HeaderToken {
                hashes: tokens.tokens().iter().map(token).collect(),
                keep: tokens.keeps(),
            }),
            AccessRule::RateLimit(limit) => Kind::RateLimit(RateLimit {
                requests: limit.requests.as_ref().map(rate),
                total_requests: limit.total_requests.as_ref().map(rate),
                connections: limit.connections.as_ref().map(rate),
            }),
            AccessRule::ForwardAuth(name) => Kind::ForwardAuth(name.clone()),
            AccessRule::Ban(ban) => Kind::Ban(Ban {
                after: ban.after(),
                within_seconds: seconds(ban.within()),
                duration_seconds: seconds(ban.duration()),
            }),
        }),
        dry_run: !config.enforces(),
        sufficient: config.is_sufficient(),
    }
}

fn user((name, hash): &(String, PasswordHash)) -> BasicUser {
    BasicUser {
        name: name.clone(),
        hash: hash.to_string(),
    }
}

fn token(hash: &TokenHash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

fn rate(rate: &RateOf) -> Rate {
    Rate {
        count: rate.count(),
        period_seconds: seconds(rate.period()),
        burst: rate.burst(),
    }
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// Any other layer.
fn kind(layer: &LayerConfig) -> Option<Kind> {
    Some(match layer {
        LayerConfig::RequestHeaders(edit) => Kind::RequestHeaders(header_edit(edit)),
        LayerConfig::ResponseHeaders(edit) => Kind::ResponseHeaders(header_edit(edit)),
        LayerConfig::RequireHeader(header) => Kind::RequireHeader(RequiredHeader {
            name: name(header.name()),
            values: header.values().iter().map(value).collect(),
            status: header.status().as_u16().into(),
        }),
        LayerConfig::Redirect(redirect) => Kind::Redirect(Redirect {
            scheme: redirect
                .scheme()
                .map_or("", |scheme| scheme.as_str())
                .into(),
            host: redirect.host().unwrap_or_default().into(),
            status: redirect.status().as_u16().into(),
        }),
        LayerConfig::Respond(respond) => Kind::Respond(LocalResponse {
            status: respond.status().as_u16().into(),
            headers: lines(respond.headers()),
            body: respond.body().clone(),
        }),
        LayerConfig::Access(_) => return None,
    })
}

fn header_edit(edit: &layers::HeaderEdit) -> HeaderEdit {
    HeaderEdit {
        remove: edit.lines_removed().iter().map(name).collect(),
        set: lines(edit.lines_set()),
        add: lines(edit.lines_added()),
    }
}

fn lines(lines: &[(HeaderName, HeaderValue)]) -> Vec<Header> {
    let lines = lines.iter().map(|line| Header {
        name: name(&line.0),
        value: value(&line.1),
    });
    lines.collect()
}

fn name(name: &HeaderName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}

fn value(value: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}
