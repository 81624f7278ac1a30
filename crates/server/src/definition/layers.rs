//! The layers of a tunnel, as they are announced (P-1.16).

use std::time::Duration;

use adit_ingress::layers::{
    AccessConfig, AccessRule, BanRule, BasicAuth, HeaderEdit, HeaderToken, IpRules, LayerConfig,
    LayerError, Network, PasswordHash, RateLimit, RateOf, Redirect, RequiredHeader, Respond,
    TokenHash,
};
use adit_proto::{Header, Layer, layer::Kind};

use crate::{definition::error::DefinitionError, settings::Limits};

/// Checks the number of layers and their size before any of them is read.
///
/// # Errors
/// The reason, for the author of the announcement.
pub(super) fn check_bounds(layers: &[Layer], limits: &Limits) -> Result<(), DefinitionError> {
    let (count, limit) = (layers.len(), limits.max_layers_per_tunnel);
    if count > limit {
        return Err(DefinitionError::Layers { count, limit });
    }
    let bytes: usize = layers.iter().map(size).sum();
    let limit = limits.max_layer_bytes_per_tunnel;
    if bytes > limit {
        return Err(DefinitionError::LayerBytes { bytes, limit });
    }
    Ok(())
}

/// What a layer occupies: its names, values and body, and 64 bytes for itself and each of its lines.
fn size(layer: &Layer) -> usize {
    const EACH: usize = 64;
    let lines = |lines: &[Header]| -> usize {
        let sizes = lines
            .iter()
            .map(|line| line.name.len() + line.value.len() + EACH);
        sizes.sum()
    };
    let texts =
        |texts: &[bytes::Bytes]| -> usize { texts.iter().map(|text| text.len() + EACH).sum() };
    EACH + match &layer.kind {
        Some(Kind::RequestHeaders(edit) | Kind::ResponseHeaders(edit)) => {
            texts(&edit.remove) + lines(&edit.set) + lines(&edit.add)
        }
        Some(Kind::RequireHeader(header)) => header.name.len() + texts(&header.values),
        Some(Kind::Redirect(redirect)) => redirect.scheme.len() + redirect.host.len(),
        Some(Kind::Respond(respond)) => lines(&respond.headers) + respond.body.len(),
        Some(Kind::Ip(ip)) => {
            let networks = ip.allow.iter().chain(&ip.deny);
            networks.map(|network| network.len() + EACH).sum()
        }
        Some(Kind::BasicAuth(basic)) => {
            let users = basic.users.iter();
            let users = users.map(|user| user.name.len() + user.hash.len() + EACH);
            basic.realm.len() + users.sum::<usize>()
        }
        Some(Kind::HeaderToken(token)) => texts(&token.hashes),
        Some(Kind::ForwardAuth(name)) => name.len(),
        Some(Kind::RateLimit(_) | Kind::Ban(_)) | None => 0,
    }
}

/// Reads the layers in their order.
///
/// # Errors
/// The number of the first layer that is invalid or of an unknown kind. An unknown layer is not left out: its purpose
/// may be to reject requests.
pub(super) fn parse(layers: &[Layer]) -> Result<Vec<LayerConfig>, DefinitionError> {
    let numbered = (1..).zip(layers);
    let read = numbered.map(|(number, layer)| {
        let Some(kind) = &layer.kind else {
            return Err(DefinitionError::LayerKind { number });
        };
        read(kind, layer).map_err(|source| DefinitionError::Layer { number, source })
    });
    read.collect()
}

fn read(kind: &Kind, layer: &Layer) -> Result<LayerConfig, LayerError> {
    let access =
        |rule| AccessConfig::new(rule, !layer.dry_run, layer.sufficient).map(LayerConfig::Access);
    Ok(match kind {
        Kind::Ip(ip) => access(AccessRule::Ip(ip_rules(ip)?))?,
        Kind::BasicAuth(basic) => {
            let user = |user: &adit_proto::BasicUser| -> Result<_, LayerError> {
                Ok((user.name.clone(), PasswordHash::parse(&user.hash)?))
            };
            let users = basic.users.iter().map(user).collect::<Result<_, _>>()?;
            let basic = BasicAuth::new(users, &basic.realm, basic.keep)?;
            access(AccessRule::BasicAuth(basic))?
        }
        Kind::HeaderToken(token) => {
            let hashes = token.hashes.iter().map(|hash| TokenHash::read(hash));
            let token = HeaderToken::new(hashes.collect::<Result<_, _>>()?, token.keep)?;
            access(AccessRule::HeaderToken(token))?
        }
        Kind::RateLimit(limit) => {
            let limit = RateLimit {
                requests: rate(limit.requests.as_ref())?,
                total_requests: rate(limit.total_requests.as_ref())?,
                connections: rate(limit.connections.as_ref())?,
            };
            access(AccessRule::RateLimit(limit.checked()?))?
        }
        Kind::ForwardAuth(name) => access(AccessRule::ForwardAuth(name.clone()))?,
        Kind::Ban(ban) => {
            let seconds = |seconds: u32| Duration::from_secs(seconds.into());
            let (within, duration) = (seconds(ban.within_seconds), seconds(ban.duration_seconds));
            access(AccessRule::Ban(BanRule::new(ban.after, within, duration)?))?
        }
        Kind::RequestHeaders(edit) => LayerConfig::RequestHeaders(header_edit(edit)?),
        Kind::ResponseHeaders(edit) => LayerConfig::ResponseHeaders(header_edit(edit)?),
        Kind::RequireHeader(header) => {
            let status = or_default(header.status, RequiredHeader::STATUS);
            let mut required = RequiredHeader::new(&header.name, status)?;
            for value in &header.values {
                required.accept(value)?;
            }
            LayerConfig::RequireHeader(required)
        }
        Kind::Redirect(redirect) => {
            let status = or_default(redirect.status, Redirect::STATUS);
            LayerConfig::Redirect(Redirect::new(&redirect.scheme, &redirect.host, status)?)
        }
        Kind::Respond(respond) => {
            let mut response = Respond::new(respond.status)?;
            for Header { name, value } in &respond.headers {
                response.add_header(name, value)?;
            }
            // The body is copied: a part of the message would keep all of it in memory.
            response.set_body(respond.body.to_vec())?;
            LayerConfig::Respond(response)
        }
    })
}

fn rate(announced: Option<&adit_proto::Rate>) -> Result<Option<RateOf>, LayerError> {
    let Some(rate) = announced else {
        return Ok(None);
    };
    let period = Duration::from_secs(rate.period_seconds.into());
    RateOf::new(rate.count, period, rate.burst).map(Some)
}

fn ip_rules(announced: &adit_proto::IpRules) -> Result<IpRules, LayerError> {
    let networks = |texts: &[String]| -> Result<Vec<Network>, LayerError> {
        let parse = |text: &String| text.parse().map_err(LayerError::Network);
        texts.iter().map(parse).collect()
    };
    IpRules::new(networks(&announced.allow)?, networks(&announced.deny)?)
}

fn header_edit(announced: &adit_proto::HeaderEdit) -> Result<HeaderEdit, LayerError> {
    let mut edit = HeaderEdit::default();
    for name in &announced.remove {
        edit.remove(name)?;
    }
    for Header { name, value } in &announced.set {
        edit.set(name, value)?;
    }
    for Header { name, value } in &announced.add {
        edit.add(name, value)?;
    }
    Ok(edit)
}

fn or_default(status: u32, default: u16) -> u32 {
    if status == 0 { default.into() } else { status }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: Kind) -> Layer {
        Layer {
            kind: Some(kind),
            ..Layer::default()
        }
    }

    fn page(status: u32, body: impl Into<bytes::Bytes>) -> Layer {
        layer(Kind::Respond(adit_proto::LocalResponse {
            status,
            body: body.into(),
            ..Default::default()
        }))
    }

    fn line(name: &'static str, value: &'static str) -> Header {
        Header {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn p_1_16_layers_are_read_in_their_order() {
        let edit = adit_proto::HeaderEdit {
            remove: vec!["x-a".into()],
            set: vec![line("x-b", "1")],
            add: vec![line("x-c", "2")],
        };
        let key = adit_proto::RequiredHeader {
            name: "x-key".into(),
            values: vec!["secret".into()],
            status: 0,
        };
        let redirect = adit_proto::Redirect {
            scheme: "https".into(),
            ..Default::default()
        };
        let announced = [
            layer(Kind::RequestHeaders(edit.clone())),
            layer(Kind::ResponseHeaders(edit)),
            layer(Kind::RequireHeader(key)),
            layer(Kind::Redirect(redirect)),
            page(503, "noon"),
        ];
        check_bounds(&announced, &Limits::default()).unwrap();
        let mut edit = HeaderEdit::default();
        edit.remove(b"x-a").unwrap();
        edit.set(b"x-b", b"1").unwrap();
        edit.add(b"x-c", b"2").unwrap();
        let mut key = RequiredHeader::new(b"x-key", 403).unwrap();
        key.accept(b"secret").unwrap();
        let mut response = Respond::new(503).unwrap();
        response.set_body("noon").unwrap();
        let expected = [
            LayerConfig::RequestHeaders(edit.clone()),
            LayerConfig::ResponseHeaders(edit),
            LayerConfig::RequireHeader(key),
            LayerConfig::Redirect(Redirect::new("https", "", 308).unwrap()),
            LayerConfig::Respond(response),
        ];
        assert_eq!(parse(&announced).unwrap(), expected);
    }

    #[test]
    fn p_1_16_unknown_and_invalid_layers_are_refused_by_number() {
        let error = |layers: &[Layer]| parse(layers).unwrap_err();
        assert_eq!(
            error(&[page(200, ""), Layer::default()]),
            DefinitionError::LayerKind { number: 2 }
        );
        assert!(matches!(
            error(&[page(99, "")]),
            DefinitionError::Layer { number: 1, .. }
        ));
        let host = adit_proto::HeaderEdit {
            set: vec![line("host", "a")],
            ..Default::default()
        };
        let error = error(&[layer(Kind::RequestHeaders(host))]).to_string();
        assert!(error.contains("`host`"), "{error}");
    }

    #[test]
    fn p_1_16_number_and_size_of_layers_are_bounded() {
        let limits = Limits::default();
        let check = |layers: &[Layer]| check_bounds(layers, &limits);
        let most = vec![Layer::default(); limits.max_layers_per_tunnel];
        assert_eq!(check(&most), Ok(()));
        let more = vec![Layer::default(); limits.max_layers_per_tunnel + 1];
        let limit = limits.max_layers_per_tunnel;
        let count = limit + 1;
        assert_eq!(check(&more), Err(DefinitionError::Layers { count, limit }));
        let room = limits.max_layer_bytes_per_tunnel - size(&page(200, ""));
        assert_eq!(check(&[page(200, vec![b'a'; room])]), Ok(()));
        let limit = limits.max_layer_bytes_per_tunnel;
        let bytes = limit + 1;
        assert_eq!(
            check(&[page(200, vec![b'a'; room + 1])]),
            Err(DefinitionError::LayerBytes { bytes, limit })
        );
    }
}
