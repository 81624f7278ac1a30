//! The proxy on the client's way to the server: `client.proxy`.

use adit_client::{HostPort, Proxy, ProxyUrlError};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use crate::{
    environment::{NO_PROXY_VARIABLES, PROXY_VARIABLES, Variables},
    error::ConfigError,
    read::{Item, Section},
};

/// Which proxy is used.
#[derive(Debug)]
pub(crate) enum Choice {
    /// That of the environment, for a server beyond loopback.
    Auto,
    /// None.
    Off,
    /// This one.
    On(Proxy),
}

/// Reads `client.proxy`: `auto`, `off`, or a URL.
pub(crate) fn read(section: &mut Section<'_>) -> Result<Choice, ConfigError> {
    let Some(item) = section.item("proxy") else {
        return Ok(Choice::Auto);
    };
    if item.is_off() {
        Ok(Choice::Off)
    } else if item.is_word("auto") {
        Ok(Choice::Auto)
    } else {
        url(&item).map(Choice::On)
    }
}

fn url(item: &Item<'_>) -> Result<Proxy, ConfigError> {
    // The value may contain a password, which no error shows.
    let text = item.secret("the URL of a proxy")?;
    text.parse()
        .map_err(|error: ProxyUrlError| item.error(error.to_string()))
}

/// The proxy of these variables for a server, for a connection over TLS.
#[must_use]
pub fn proxy_of_environment(
    server: &HostPort,
    variables: impl IntoIterator<Item = (String, String)>,
    warnings: &mut Vec<String>,
) -> Option<Proxy> {
    if server.is_loopback() {
        return None;
    }
    of_environment(&Variables::new(variables), server, warnings)
}

/// The proxy of the environment for a server that is not on loopback. A value that is not a proxy of adit's is a warning:
/// it may be for other programs.
pub(crate) fn of_environment(
    variables: &Variables,
    server: &HostPort,
    warnings: &mut Vec<String>,
) -> Option<Proxy> {
    let find = |names: &[&'static str]| {
        let mut set = names
            .iter()
            .filter_map(|name| Some((*name, variables.value(name)?)));
        set.next()
    };
    let (name, value) = find(&PROXY_VARIABLES)?;
    if let Some((_, exceptions)) = find(&NO_PROXY_VARIABLES) {
        let all = Matcher::builder()
            .all("http://proxy")
            .no(exceptions)
            .build();
        let server: Option<Uri> = format!("https://{server}").parse().ok();
        if server.is_some_and(|server| all.intercept(&server).is_none()) {
            return None;
        }
    }
    let with_scheme = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    match with_scheme.parse() {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            let error: ProxyUrlError = error;
            warnings.push(format!(
                "{name} is ignored: {error}; `client.proxy` can name another proxy, or be `off`"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], host: &str) -> (Option<String>, usize) {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let mut warnings = Vec::new();
        let proxy = of_environment(
            &Variables::new(owned),
            &HostPort::new(host, 7000),
            &mut warnings,
        );
        (proxy.map(|proxy| proxy.to_string()), warnings.len())
    }

    #[test]
    fn the_environment_names_a_proxy_and_its_exceptions() {
        let proxy = ("HTTPS_PROXY", "http://user:secret@proxy:3128");
        let expected = Some("http://proxy:3128".to_owned());
        assert_eq!(found(&[proxy], "tunnel.example.com"), (expected.clone(), 0));
        let except = |list| [proxy, ("NO_PROXY", list)];
        for (list, host, is_used) in [
            ("*", "tunnel.example.com", false),
            ("example.com", "tunnel.example.com", false),
            (".example.com", "tunnel.example.com", false),
            (
                "other.example,tunnel.example.com",
                "tunnel.example.com",
                false,
            ),
            ("ample.com", "tunnel.example.com", true),
            ("192.0.2.0/24", "192.0.2.9", false),
            ("192.0.2.0/24", "192.0.3.9", true),
            ("2001:db8::/32", "2001:db8::9", false),
        ] {
            let proxy = is_used.then(|| expected.clone()).flatten();
            assert_eq!(found(&except(list), host), (proxy, 0), "{list} {host}");
        }
        let bare = [("all_proxy", "proxy")];
        assert_eq!(found(&bare, "a"), (Some("http://proxy:80".to_owned()), 0));
        let socks = [
            ("ALL_PROXY", "socks5h://proxy"),
            ("https_proxy", "http://first"),
        ];
        assert_eq!(found(&socks, "a"), (Some("http://first:80".to_owned()), 0));
    }

    #[test]
    fn a_proxy_of_another_protocol_is_a_warning() {
        assert_eq!(found(&[("ALL_PROXY", "socks4://proxy")], "a"), (None, 1));
        assert_eq!(found(&[], "a"), (None, 0));
    }
}
