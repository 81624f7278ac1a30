//! Names of header lines that a visitor cannot set, also not in the trailers of its request.

use adit_codec::HeaderBlock;
use adit_link::header_lines;
use http::{HeaderMap, HeaderName};

/// The name of the user that a layer has verified (P-15.5).
pub(crate) const USER: HeaderName = HeaderName::from_static("adit-user");

/// The fields of trailers that identify a visitor or its connection. A service that takes trailers for header lines must
/// not take these from a visitor (RFC 9110, 6.5.1): the layers have seen the lines of the head alone.
const OF_VISITOR: [&str; 8] = [
    "adit-",
    "authorization",
    "cookie",
    "forwarded",
    "proxy-",
    "x-forwarded-",
    "x-real-ip",
    "x-request-id",
];

/// The lines with which a proxy reports a visitor (P-3.4).
const REPORTS: [&str; 3] = ["forwarded", "x-forwarded-", "x-real-ip"];

/// Names that the providers of forward auth set for one request, beside those that are reserved for every request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reserved(Vec<HeaderName>);

impl Reserved {
    /// Reserves names.
    pub(crate) fn add(&mut self, names: &[HeaderName]) {
        self.0.extend_from_slice(names);
    }

    /// The trailers of the request, without lines that are reserved.
    pub(crate) fn block_of(&self, trailers: &HeaderMap) -> HeaderBlock {
        let lines = header_lines(trailers);
        lines.filter(|(name, _)| !self.has(name)).collect()
    }

    fn has(&self, name: &[u8]) -> bool {
        is_one_of(name, &OF_VISITOR) || { self.0.iter() }.any(|known| is_same(name, known.as_str()))
    }
}

/// Whether a line reports the visitor's address, host or scheme, or could be taken for one that does.
pub(crate) fn reports_visitor(name: &HeaderName) -> bool {
    is_one_of(name.as_str().as_bytes(), &REPORTS)
}

/// Whether a line of a visitor could be taken for one that is reserved: programs that pass headers as variables do not
/// tell a hyphen from an underscore.
pub(crate) fn could_be(name: &HeaderName, reserved: &HeaderName) -> bool {
    is_same(name.as_str().as_bytes(), reserved.as_str())
}

/// Whether a name is one of a list, in which a name that ends in a hyphen stands for all that begin with it.
fn is_one_of(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|known| {
        if known.ends_with('-') {
            { name.get(..known.len()) }.is_some_and(|start| is_same(start, known))
        } else {
            is_same(name, known)
        }
    })
}

fn is_same(name: &[u8], reserved: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let mut bytes = name.iter().zip(reserved.as_bytes());
    name.len() == reserved.len() && bytes.all(|(one, other)| plain(*one) == plain(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_are_hyphens() {
        for (name, could) in [
            ("adit-user", true),
            ("adit_user", true),
            ("adit-users", false),
            ("x-adit-user", false),
        ] {
            assert_eq!(
                could_be(&HeaderName::from_static(name), &USER),
                could,
                "{name}"
            );
        }
    }

    #[test]
    fn p_3_4_reports_with_underscores_are_reports() {
        for (name, reports) in [
            ("x-forwarded-for", true),
            ("x_forwarded_for", true),
            ("x-forwarded_for", true),
            ("x_real_ip", true),
            ("forwarded", true),
            ("x_forwarder", false),
            ("x-real-ips", false),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(reports_visitor(&name), reports, "{name}");
        }
    }

    #[test]
    fn p_15_5_trailers_identify_nobody() {
        let mut reserved = Reserved::default();
        reserved.add(&[HeaderName::from_static("remote-user")]);
        for (name, is_reserved) in [
            ("adit-user", true),
            ("adit_user", true),
            ("adit_access_token", true),
            ("remote-user", true),
            ("remote_user", true),
            ("x-forwarded-for", true),
            ("x_forwarded_proto", true),
            ("forwarded", true),
            ("authorization", true),
            ("cookie", true),
            ("x-checksum", false),
            ("adit", false),
            ("remote-users", false),
            ("grpc-status", false),
        ] {
            let name = HeaderName::from_static(name);
            let trailers = HeaderMap::from_iter([(name.clone(), "a".parse().unwrap())]);
            let crosses = reserved
                .block_of(&trailers)
                .first(name.as_str().as_bytes())
                .is_some();
            assert_eq!(crosses, !is_reserved, "{name}");
        }
    }
}
