//! The hosts that tunnels may have.

use std::fmt;

use adit_router::HostPattern;

/// Hosts that tunnels may have, in addition to those below the server's own domain and below `localhost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// Whether every exact name (`*`) is allowed; wildcards are not.
    pub any_name: bool,
    /// The allowed hosts. A wildcard allows itself, and every host and wildcard below its name.
    pub patterns: Vec<HostPattern>,
}

impl HostRules {
    /// Whether a tunnel may have this host. `domain` is the server's own.
    pub fn allow(&self, host: &HostPattern, domain: Option<&str>) -> bool {
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
    fn wildcards_are_allowed_only_below_the_own_domain() {
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
