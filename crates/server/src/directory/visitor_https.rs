//! HTTPS of a tunnel: its public URL, and the layers that lead visitors there.

use adit_ingress::{
    Layer, Layers,
    layers::{Hsts, LayerList, RedirectToHttps},
};
use adit_router::HostPattern;

use super::{
    Directory, DirectoryConfig,
    refusal::{Refusal, refusal},
};
use crate::{definition::Definition, settings::Scheme, tunnel::TunnelKey};

impl DirectoryConfig {
    /// Scheme and port of the public URLs of a host; no port is the default one of the scheme.
    pub(super) fn url_of(&self, host: Option<&HostPattern>) -> (Scheme, Option<u16>) {
        let has_certificate = |host: &HostPattern| {
            let https = self.https.as_ref();
            https.is_some_and(|https| https.certificates.is_for(&host.to_string()))
        };
        match &self.https {
            Some(https)
                if self.public_url.scheme.is_none() && host.is_some_and(has_certificate) =>
            {
                (Scheme::Https, (https.port != 443).then_some(https.port))
            }
            _ => self.public_url.resolve(self.public_port),
        }
    }

    /// The public URL of a host whose TLS is passed through.
    pub(super) fn tls_url(&self, host: Option<&HostPattern>) -> String {
        match (host, self.https_port()) {
            (Some(host), Some(port)) => format!("tls://{host}:{port}"),
            _ => String::new(),
        }
    }

    /// The port on which visitors find HTTPS: that of a proxy in front of the server, or the server's own.
    fn https_port(&self) -> Option<u16> {
        match self.public_url.scheme {
            Some(Scheme::Https) => Some(self.public_url.port.unwrap_or(443)),
            _ => self.https.as_ref().map(|https| https.port),
        }
    }
}

impl Directory {
    /// The layers that the requests of a tunnel pass after routing.
    pub(super) fn layers(
        &self,
        key: &TunnelKey,
        definition: &Definition,
    ) -> Result<Layers, Refusal> {
        if definition.visitor_tls.is_some() && self.config.load().https.is_none() {
            return Err(refusal(
                "bad_request",
                "the server has no HTTPS (`server.https`): it neither passes through nor terminates the TLS of visitors"
                    .to_owned(),
            ));
        }
        let https = definition.https;
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        // It is first, so that the responses of the layers behind it have it as well.
        if let Some(hsts) = https.hsts {
            layers.push(Box::new(Hsts::new(hsts.max_age, hsts.include_subdomains)));
        }
        if https.redirect {
            let Some(port) = self.config.load().https_port() else {
                return Err(refusal(
                    "bad_request",
                    "`redirect_https` needs HTTPS on the server (`server.https`, or `server.public_url` with \
                     `scheme: https` for a proxy in front of it)"
                        .to_owned(),
                ));
            };
            layers.push(Box::new(RedirectToHttps::new(port)));
        }
        let of_definition = LayerList {
            layers: &definition.layers,
            place: &format!("tunnel {}/{}", key.group, key.name),
            access: &self.access,
        };
        layers.extend(of_definition.layers());
        Ok(Layers::new(layers))
    }
}
