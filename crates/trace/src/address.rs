//! Texts of records that name a host and a port.

use std::net::Ipv6Addr;

/// Splits `HOST:PORT`; the brackets of an IPv6 address stay. A text of another form, such as an IPv6 address without
/// brackets, is returned whole, without a port.
#[must_use]
pub fn split_port(text: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = text.rsplit_once(':') else {
        return (text, None);
    };
    let is_bare = host.contains(':') && !host.ends_with(']') && text.parse::<Ipv6Addr>().is_ok();
    match port.parse() {
        Ok(port) if !is_bare => (host, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off_hosts_and_addresses() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::1]", "[::1]", None),
            ("::1", "::1", None),
            ("fe80::1:80", "fe80::1:80", None),
            ("shop.example:8080", "shop.example", Some(8_080)),
            ("shop.example", "shop.example", None),
            ("shop.example:0", "shop.example", Some(0)),
            ("shop.example:65536", "shop.example:65536", None),
            ("unix:/run/app.sock", "unix:/run/app.sock", None),
            ("", "", None),
        ] {
            assert_eq!(split_port(text), (host, port), "{text}");
        }
    }
}
