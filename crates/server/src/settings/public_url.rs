//! The public URLs of tunnels that are reached by host.

use adit_ingress::Scheme;

/// Scheme and port of the public URLs of tunnels that are reached by host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublicUrl {
    /// `None`: HTTP, which the visitors' port serves.
    pub scheme: Option<Scheme>,
    /// `None`: the port of the scheme where one is set, else the visitors' port.
    pub port: Option<u16>,
}

impl PublicUrl {
    /// The scheme, and the port unless it is the default port of the scheme; `visitors_port` is the port that the
    /// server listens on.
    pub(crate) fn resolve(self, visitors_port: u16) -> (Scheme, Option<u16>) {
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let own = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => own,
            (None, None) => visitors_port,
        };
        (scheme, (port != own).then_some(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_defaults_to_the_port_of_its_scheme() {
        let of = |scheme, port| PublicUrl { scheme, port }.resolve(7080);
        assert_eq!(of(None, None), (Scheme::Http, Some(7080)));
        assert_eq!(of(None, Some(80)), (Scheme::Http, None));
        assert_eq!(of(Some(Scheme::Http), None), (Scheme::Http, None));
        assert_eq!(of(Some(Scheme::Https), None), (Scheme::Https, None));
        assert_eq!(of(Some(Scheme::Https), Some(443)), (Scheme::Https, None));
        let other = of(Some(Scheme::Https), Some(8443));
        assert_eq!(other, (Scheme::Https, Some(8443)));
    }
}
