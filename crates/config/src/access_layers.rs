//! Reads the layers that decide who may visit.

use std::{num::NonZeroU32, time::Duration};

use adit_server::layers::{
    AccessConfig, AccessRule, BanRule, BasicAuth, HeaderToken, IpRules, LayerError, Network,
    PasswordHash, RateLimit, RateOf, TokenHash,
};

use crate::{
    error::{ConfigError, Kind},
    key_names,
    read::{Item, Section},
};

/// Reads the value of one kind of layer.
pub(crate) type ReadRule = fn(&Item<'_>) -> Result<AccessRule, ConfigError>;

/// The kinds, in the order in which an error lists them.
pub(crate) const KINDS: [(&str, ReadRule); 6] = [
    ("ip", |item| ip(item).map(AccessRule::Ip)),
    ("basic_auth", |item| {
        basic_auth(item).map(AccessRule::BasicAuth)
    }),
    ("header_token", |item| {
        header_token(item).map(AccessRule::HeaderToken)
    }),
    ("rate_limit", |item| {
        rate_limit(item).map(AccessRule::RateLimit)
    }),
    ("ban", |item| ban(item).map(AccessRule::Ban)),
    ("forward_auth", |item| {
        provider(item).map(AccessRule::ForwardAuth)
    }),
];

/// The keys beside the kind: whether the layer denies, and whether it suffices.
pub(crate) struct Flags<'n> {
    enforce: Option<Item<'n>>,
    sufficient: Option<Item<'n>>,
}

impl<'n> Flags<'n> {
    /// Reads the keys of an item of the list.
    pub(crate) fn read(section: &mut Section<'n>) -> Self {
        Self {
            enforce: section.item("enforce"),
            sufficient: section.item("sufficient"),
        }
    }

    /// The layer of a rule with these keys.
    pub(crate) fn layer(
        &self,
        item: &Item<'_>,
        rule: AccessRule,
    ) -> Result<AccessConfig, ConfigError> {
        let flag = |item: &Option<Item<'_>>, default| match item {
            Some(item) => item.boolean(),
            None => Ok(default),
        };
        let (enforce, sufficient) = (flag(&self.enforce, true)?, flag(&self.sufficient, false)?);
        let layer = AccessConfig::new(rule, enforce, sufficient);
        layer.map_err(|error| {
            let at = self.sufficient.as_ref().unwrap_or(item);
            at.error(error.to_string())
        })
    }

    /// The error for a layer of another kind, which has none of the keys.
    pub(crate) fn reject(&self, kind: &str) -> Result<(), ConfigError> {
        let names = [("enforce", &self.enforce), ("sufficient", &self.sufficient)];
        for (name, item) in names {
            if let Some(item) = item {
                let kinds = KINDS.map(|(kind, _)| kind).join(", ");
                return Err(item
                    .conflict(format!("`{name}` is not a key of a layer `{kind}`"))
                    .with_help(format!("it is for {kinds}")));
            }
        }
        Ok(())
    }
}

/// Reads `{ allow: [10.0.0.0/8], deny: [10.1.0.0/16] }`.
fn ip(item: &Item<'_>) -> Result<IpRules, ConfigError> {
    let mut section = item.section()?;
    let (allow, deny) = (section.item("allow"), section.item("deny"));
    section.finish(&key_names::IP_RULES)?;
    let networks = |item: Option<Item<'_>>| match item {
        Some(item) => networks(&item),
        None => Ok(Vec::new()),
    };
    let rules = IpRules::new(networks(allow)?, networks(deny)?);
    rules.map_err(|error| item.error(error.to_string()).of_kind(Kind::Missing))
}

/// Reads one network or a list of networks.
fn networks(item: &Item<'_>) -> Result<Vec<Network>, ConfigError> {
    let networks = item.one_or_more("networks")?;
    if networks.is_empty() {
        let what = "expected at least one network, such as 10.0.0.0/8";
        return Err(item.error(what).of_kind(Kind::Missing));
    }
    let read = |item: &Item<'_>| item.parse("a network such as 10.0.0.0/8");
    networks.iter().map(read).collect()
}

/// Reads `{ users: [{ name: alice, hash: $argon2id$... }], realm: office, keep: false }`.
fn basic_auth(item: &Item<'_>) -> Result<BasicAuth, ConfigError> {
    let mut section = item.section()?;
    let (users, realm) = (section.item("users"), section.item("realm"));
    let keep = flag(&mut section, "keep")?;
    section.finish(&key_names::BASIC_AUTH)?;
    let Some(users) = users else {
        return Err(section.missing("users", "a list of users with names and hashes"));
    };
    let items = users.one_or_more("users")?;
    let read: Result<Vec<_>, _> = items.iter().map(user).collect();
    let name = match &realm {
        Some(item) => item.text("the name of a realm")?,
        None => BasicAuth::REALM,
    };
    BasicAuth::new(read?, name, keep).map_err(|error| match (&error, &realm) {
        (LayerError::Realm { .. }, Some(realm)) => realm.error(error.to_string()),
        (LayerError::Users { .. }, _) => users.error(error.to_string()).of_kind(Kind::Missing),
        _ => users.error(error.to_string()),
    })
}

/// Reads a user, and hashes a password.
fn user(item: &Item<'_>) -> Result<(String, PasswordHash), ConfigError> {
    let mut section = item.section()?;
    let name = section.item("name");
    let (hash, password) = (section.item("hash"), section.item("password"));
    section.finish(&key_names::BASIC_USER)?;
    let Some(name) = name else {
        return Err(section.missing("name", "the name of the user"));
    };
    let name = name.text("the name of the user")?.to_owned();
    let (at, hash) = match (&hash, &password) {
        (Some(item), None) => {
            let text = item.secret("the hash of a password")?;
            (item, PasswordHash::parse(text))
        }
        (None, Some(item)) => {
            let text = item.secret("a password")?;
            (item, PasswordHash::of_user(&name, text))
        }
        (Some(_), Some(_)) => {
            return Err(section.conflict(&["password"], "expected either `hash` or `password`"));
        }
        (None, None) => return Err(section.missing("hash", "the hash of the password")),
    };
    let hash = hash.map_err(|error| at.error(error.to_string()))?;
    Ok((name, hash))
}

/// Reads `{ tokens: [token], keep: false }`.
fn header_token(item: &Item<'_>) -> Result<HeaderToken, ConfigError> {
    let mut section = item.section()?;
    let tokens = section.item("tokens");
    let keep = flag(&mut section, "keep")?;
    section.finish(&key_names::HEADER_TOKEN)?;
    let Some(tokens) = tokens else {
        return Err(section.missing("tokens", "a list of tokens"));
    };
    let items = tokens.one_or_more("tokens")?;
    let read = items.iter().map(|item| {
        let hash = TokenHash::of(item.secret("a token")?);
        hash.map_err(|error| item.error(error.to_string()))
    });
    let tokens_of = HeaderToken::new(read.collect::<Result<_, _>>()?, keep);
    tokens_of.map_err(|error| tokens.error(error.to_string()).of_kind(Kind::Missing))
}

/// Reads `{ requests: 10/s, burst: 20, total_requests: 500/s, connections: 5/s }`.
fn rate_limit(item: &Item<'_>) -> Result<RateLimit, ConfigError> {
    let mut section = item.section()?;
    let limit = RateLimit {
        requests: rate(&mut section, "requests", "burst")?,
        total_requests: rate(&mut section, "total_requests", "total_burst")?,
        connections: rate(&mut section, "connections", "connection_burst")?,
    };
    section.finish(&key_names::RATE_LIMIT)?;
    limit
        .checked()
        .map_err(|error| item.error(error.to_string()).of_kind(Kind::Missing))
}

/// Reads a rate and its burst.
fn rate(
    section: &mut Section<'_>,
    key: &'static str,
    burst_key: &'static str,
) -> Result<Option<RateOf>, ConfigError> {
    const BURST: std::ops::RangeInclusive<u64> = 1..=1_000_000;
    let (rate, burst) = (section.item(key), section.item(burst_key));
    let burst = match &burst {
        Some(item) => NonZeroU32::new(item.number(BURST)?),
        None => None,
    };
    match (rate, burst) {
        (Some(item), burst) => {
            item.text_with("a rate such as 10/s", "add a unit, such as `20/s`")?;
            let rate: RateOf = item.parse("a rate such as 10/s")?;
            Ok(Some(burst.map_or(rate, |burst| rate.with_burst(burst))))
        }
        (None, Some(_)) => {
            let what = format!("`{burst_key}` has no effect without `{key}`");
            Err(section.conflict(&[burst_key], what))
        }
        (None, None) => Ok(None),
    }
}

/// Reads `{ after: 10, within: 10m, duration: 1h }`.
fn ban(item: &Item<'_>) -> Result<BanRule, ConfigError> {
    const DENIALS: std::ops::RangeInclusive<u64> = 1..=1_000_000;
    const SHORTEST: Duration = Duration::from_secs(1);
    let mut section = item.section()?;
    let mut after = BanRule::AFTER;
    let (mut within, mut duration) = (BanRule::WITHIN, BanRule::DURATION);
    section.set_number("after", DENIALS, &mut after)?;
    section.set_wait("within", SHORTEST, &mut within)?;
    section.set_wait("duration", SHORTEST, &mut duration)?;
    section.finish(&key_names::BAN)?;
    BanRule::new(after, within, duration).map_err(|error| item.error(error.to_string()))
}

/// Reads the name of a provider of the server.
fn provider(item: &Item<'_>) -> Result<String, ConfigError> {
    const LONGEST: usize = 128;
    let name = item.text("the name of a provider of `server.forward_auth`")?;
    if name.is_empty() || name.len() > LONGEST {
        return Err(item.error("expected a name of 1 to 128 bytes"));
    }
    Ok(name.to_owned())
}

/// A key that is true or false, and false without a value.
fn flag(section: &mut Section<'_>, key: &'static str) -> Result<bool, ConfigError> {
    match section.item(key) {
        Some(item) => item.boolean(),
        None => Ok(false),
    }
}
