//! The layers of a tunnel's settings in the form of an announcement (P-1.16).

use adit_ingress::layers::{self, LayerConfig};
use adit_proto::{Header, HeaderEdit, Layer, LocalResponse, Redirect, RequiredHeader, layer::Kind};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// The layers in their order.
pub(crate) fn announced_layers(layers: &[LayerConfig]) -> Vec<Layer> {
    let kinds = layers.iter().map(|layer| match layer {
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
    });
    kinds.map(|kind| Layer { kind: Some(kind) }).collect()
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
