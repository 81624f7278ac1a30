//! An access layer of a configuration.

use crate::layers::{
    access::{
        bans::BanRule, basic_auth::BasicAuth, header_token::HeaderToken, ip::IpRules,
        rate_limit::RateLimit,
    },
    layer_error::LayerError,
};

/// An access layer of a configuration, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    rule: AccessRule,
    enforce: bool,
    sufficient: bool,
}

/// What an access layer asks of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessRule {
    /// An address.
    Ip(IpRules),
    /// A user's name and password.
    BasicAuth(BasicAuth),
    /// A token in a header.
    HeaderToken(HeaderToken),
    /// A rate that is not exceeded.
    RateLimit(RateLimit),
    /// The consent of a provider, which the server's configuration defines under this name.
    ForwardAuth(String),
    /// An address whose visitors were not denied too often.
    Ban(BanRule),
}

impl AccessConfig {
    /// A layer that asks `rule` of each visitor. Without `enforce` it only logs and counts the visitors that it would not
    /// admit. A visitor that meets a `sufficient` rule need not meet the rules behind it in the list.
    ///
    /// # Errors
    /// `sufficient` with a rule that proves nothing about a visitor.
    pub fn new(rule: AccessRule, enforce: bool, sufficient: bool) -> Result<Self, LayerError> {
        if sufficient && !rule.grants() {
            return Err(LayerError::NeverSufficient { kind: rule.kind() });
        }
        Ok(Self {
            rule,
            enforce,
            sufficient,
        })
    }

    /// The rule.
    pub const fn rule(&self) -> &AccessRule {
        &self.rule
    }

    /// Whether visitors that do not meet the rule are denied.
    pub const fn enforces(&self) -> bool {
        self.enforce
    }

    /// Whether visitors that meet the rule need not meet those behind it.
    pub const fn is_sufficient(&self) -> bool {
        self.sufficient
    }

    /// Distinguishes the state of this layer from that of every other: of another list, of another place in the list, or with
    /// another rule.
    pub(super) fn identity(&self, place: &str, index: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(place.as_bytes());
        part(&(index as u64).to_le_bytes());
        part(self.rule.kind().as_bytes());
        match &self.rule {
            AccessRule::BasicAuth(basic) => {
                for (name, hash) in basic.users() {
                    part(name.as_bytes());
                    part(hash.to_string().as_bytes());
                }
            }
            AccessRule::HeaderToken(tokens) => {
                tokens
                    .tokens()
                    .iter()
                    .for_each(|hash| part(hash.as_bytes()));
            }
            AccessRule::ForwardAuth(name) => part(name.as_bytes()),
            // These have no secrets, which `Debug` would hide.
            AccessRule::Ip(_) | AccessRule::RateLimit(_) | AccessRule::Ban(_) => {
                part(format!("{:?}", self.rule).as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl AccessRule {
    /// The key of the layer in a configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ip(_) => "ip",
            Self::BasicAuth(_) => "basic_auth",
            Self::HeaderToken(_) => "header_token",
            Self::RateLimit(_) => "rate_limit",
            Self::ForwardAuth(_) => "forward_auth",
            Self::Ban(_) => "ban",
        }
    }

    /// Whether TCP connections and UDP flows can be asked, which have no headers.
    pub const fn fits_sessions(&self) -> bool {
        match self {
            Self::Ip(_) | Self::RateLimit(_) | Self::Ban(_) => true,
            Self::BasicAuth(_) | Self::HeaderToken(_) | Self::ForwardAuth(_) => false,
        }
    }

    /// Whether a visitor can prove something by meeting the rule.
    pub(super) fn grants(&self) -> bool {
        match self {
            Self::Ip(ip) => !ip.allowed().is_empty(),
            Self::BasicAuth(_) | Self::HeaderToken(_) | Self::ForwardAuth(_) => true,
            Self::RateLimit(_) | Self::Ban(_) => false,
        }
    }

    /// The bytes of the texts of the rule.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Ip(ip) => {
                let networks = ip.allowed().iter().chain(ip.denied());
                networks.map(|network| network.to_string().len()).sum()
            }
            Self::BasicAuth(basic) => {
                let users = basic.users().iter();
                let users = users.map(|(name, hash)| name.len() + hash.to_string().len());
                basic.realm().len() + users.sum::<usize>()
            }
            Self::HeaderToken(tokens) => size_of_val(tokens.tokens()),
            Self::ForwardAuth(name) => name.len(),
            Self::RateLimit(_) | Self::Ban(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::access::password::PasswordHash;

    fn basic(user: &str, password: &str) -> AccessConfig {
        let hash = PasswordHash::of_user(user, password).unwrap();
        let basic = BasicAuth::new(vec![(user.to_owned(), hash)], "", false).unwrap();
        AccessConfig::new(AccessRule::BasicAuth(basic), true, false).unwrap()
    }

    #[test]
    fn identities_differ_by_list_place_and_rule() {
        let one = basic("alice", "correct horse").identity("tunnel a/web", 0);
        assert_eq!(
            one,
            basic("alice", "correct horse").identity("tunnel a/web", 0)
        );
        for other in [
            basic("alice", "correct horse").identity("tunnel b/web", 0),
            basic("alice", "correct horse").identity("tunnel a/web", 1),
            basic("alice", "another horse").identity("tunnel a/web", 0),
            basic("bob", "correct horse").identity("tunnel a/web", 0),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_rules_that_prove_something_suffice() {
        let ban = AccessRule::Ban(
            BanRule::new(BanRule::AFTER, BanRule::WITHIN, BanRule::DURATION).unwrap(),
        );
        let error = AccessConfig::new(ban, true, true).unwrap_err();
        assert_eq!(error, LayerError::NeverSufficient { kind: "ban" });
    }
}
