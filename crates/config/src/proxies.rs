//! Proxies in front of an entry.

use adit_server::{Network, PublicUrl, Scheme, TrustedProxies};

use crate::{error::ConfigError, key_names, read::Section};

const PORT: std::ops::RangeInclusive<u64> = 1..=65_535;

/// Reads `trusted_proxies` of either side: a list of networks, or one text with commas, as in a variable.
pub(crate) fn trusted_proxies(section: &mut Section<'_>) -> Result<TrustedProxies, ConfigError> {
    let Some(item) = section.item("trusted_proxies") else {
        return Ok(TrustedProxies::default());
    };
    let mut networks = Vec::new();
    for item in item.one_or_more("networks")? {
        let text = item.text("networks such as 10.0.0.0/8")?;
        for network in text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let network = network.parse::<Network>();
            networks.push(network.map_err(|error| item.error(error.to_string()))?);
        }
    }
    Ok(networks.into_iter().collect())
}

/// Reads `proxy_protocol: required` or `off`.
pub(crate) fn proxy_protocol(
    section: &mut Section<'_>,
    trusted: &TrustedProxies,
) -> Result<bool, ConfigError> {
    let Some(item) = section.item("proxy_protocol") else {
        return Ok(false);
    };
    if item.is_off() {
        return Ok(false);
    }
    if !item.is_word("required") {
        return Err(item.error("expected `required` or `off`"));
    }
    if *trusted == TrustedProxies::default() {
        return Err(item
            .conflict(
                "a PROXY protocol header is read from `trusted_proxies` alone, and there are none",
            )
            .with_help("list the networks of the load balancers in `trusted_proxies`"));
    }
    Ok(true)
}

/// Reads `public_url: { scheme: https, port: 443 }`.
pub(crate) fn public_url(mut section: Section<'_>) -> Result<PublicUrl, ConfigError> {
    let mut public = PublicUrl::default();
    if let Some(item) = section.item("scheme") {
        public.scheme = Some(match item.text("`http` or `https`")? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => {
                let what = format!("unknown scheme {other:?}, expected `http` or `https`");
                return Err(item.error(what));
            }
        });
    }
    if let Some(item) = section.item("port") {
        public.port = Some(item.number::<u16>(PORT)?);
    }
    section.finish(&key_names::NO_OTHER_KEYS)?;
    Ok(public)
}
