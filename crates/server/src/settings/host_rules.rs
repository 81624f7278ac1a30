//! The hosts that tunnels may have.

use std::fmt;

use adit_router::HostPattern;

/// Hosts that tunnels may have, in addition to those below the server's own domain and below `localhost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// Whether every exact name (`*`) is allowed; wildcards are not.
    pub any_name: bool,
    /// The allowed hosts. A wildcard allows itself, and every host and wildcard below its name; an exact one also a host
    /// that is reserved for the server.
    pub patterns: Vec<HostPattern>,
}

impl HostRules {
    /// Whether a tunnel may have this host. `domain` is the server's own.
    pub fn allow(&self, host: &HostPattern, domain: Option<&str>) -> bool {
        if is_reserved(host, domain) {
            return self.patterns.contains(host);
        }
        let own = ["localhost"].into_iter().chain(domain);
        let below = |own: &str| {
            let above = host.name().strip_suffix(own);
            above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
        };
        (self.any_name && !host.is_wildcard())
            || own.into_iter().any(below)
            || self.patterns.iter().any(|pattern| pattern.covers(host))
    }
}

/// Whether a host stands for the server itself: its own domain, this machine, an address, or a name that the server's
/// certificate for clients has. The operator alone gives such a host to tunnels, by its name.
pub(crate) fn is_reserved(host: &HostPattern, domain: Option<&str>) -> bool {
    let name = host.name();
    let is_internal = name == adit_tls::SERVER_NAME || name.ends_with(".adit.internal");
    let is_own = name == "localhost" || domain.is_some_and(|own| own == name);
    let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    is_internal || (!host.is_wildcard() && (is_own || is_address))
}

impl Default for HostRules {
    fn default() -> Self {
        Self {
            any_name: true,
            patterns: Vec::new(),
        }
    }
}

impl fmt::Display for HostRules {
    /// The form used in settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.any_name {
            f.write_str("*")?;
            separator = ", ";
        }
        for pattern in &self.patterns {
            write!(f, "{separator}{pattern}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_1_10_wildcards_are_below_the_own_domain_and_hosts_of_the_server_are_reserved() {
        let host = |text: &str| text.parse::<HostPattern>().unwrap();
        let allowed = |rules: &HostRules, text| rules.allow(&host(text), Some("example.com"));
        let default = HostRules::default();
        for name in [
            "www.bank.com",
            "web.localhost",
            "*.web.localhost",
            "*.web.example.com",
            "*.a.web.example.com",
        ] {
            assert!(allowed(&default, name), "{name}");
        }
        for name in [
            "*.localhost",
            "*.com",
            "*.example.com",
            "*.bank.com",
            "*.notexample.com",
        ] {
            assert!(!allowed(&default, name), "{name}");
        }
        // Those that stand for the server are for the operator to give.
        for name in [
            "example.com",
            "localhost",
            "127.0.0.1",
            "[2001:db8::1]",
            "server.adit.internal",
            "a.client.adit.internal",
        ] {
            assert!(!allowed(&default, name), "{name}");
            let given = HostRules {
                patterns: vec![host(name)],
                ..HostRules::default()
            };
            assert!(allowed(&given, name), "{name}");
        }
        let listed = HostRules {
            any_name: false,
            patterns: vec![host("*.apps.test"), host("shop.test")],
        };
        for name in [
            "shop.test",
            "a.apps.test",
            "*.apps.test",
            "*.a.apps.test",
            "web.localhost",
        ] {
            assert!(allowed(&listed, name), "{name}");
        }
        for name in ["a.test", "apps.test", "*.shop.test", "*.test", "localhost"] {
            assert!(!allowed(&listed, name), "{name}");
        }
        assert_eq!(listed.to_string(), "*.apps.test, shop.test");
        assert_eq!(default.to_string(), "*");
    }
}
