//! Hosts that exist on the internet.

/// Whether a CA could validate the host, or a wildcard pattern: a tunnel without domains has one below `localhost`.
pub(crate) fn is_public(pattern: &str) -> bool {
    let last = pattern.rsplit('.').next().unwrap_or_default();
    !last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_localhost_are_never_ordered() {
        for host in ["localhost", "web.localhost", "*.LOCALHOST"] {
            assert!(!is_public(host), "{host}");
        }
        assert!(is_public("localhost.example.com") && is_public("*.example.com"));
    }
}
