//! Entries of `auth` with `method: jwt`: issuers whose tokens the server accepts.

use std::{collections::BTreeMap, path::Path, time::Duration};

use adit_auth::{JwtAlgorithm, JwtRules, JwtUser, UserName};
use adit_server::{IssuerSettings, JwksUrl, KeySource, UrlSource};
use adit_tls::Trust;

use crate::{
    certificates::roots,
    error::ConfigError,
    fields::path,
    key_names,
    read::{Item, Section},
    scopes, secret_file,
};

/// A leeway beyond some minutes is not for clocks any more.
const LONGEST_LEEWAY: Duration = Duration::from_secs(600);

/// The keys of which exactly one names the keys of the issuer.
const SOURCES: [&str; 4] = ["key_file", "secret_file", "jwks_file", "jwks_url"];

/// Reads an entry, without its `method`.
pub(super) fn read(
    auth: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<IssuerSettings, ConfigError> {
    let mut rules = JwtRules::default();
    if let Some(item) = auth.item("issuer") {
        rules.issuer = Some(item.text("the `iss` of the tokens")?.to_owned());
    }
    let audience = auth.item("audience").ok_or_else(|| {
        auth.missing(
            "audience",
            "the `aud` of tokens for this server: without it, tokens for other systems would be accepted",
        )
    })?;
    rules.audience = texts(&audience, "audiences")?;
    leeway(auth, &mut rules.leeway)?;
    rules.user = user(auth)?;
    if let Some(item) = auth.item("claims") {
        rules.required = required(&item)?;
    }
    if let Some(item) = auth.item("scopes_claim") {
        item.text("the name of a claim")?
            .clone_into(&mut rules.scopes_claim);
    }
    if let Some(item) = auth.item("scopes") {
        rules.scopes = scopes::read(&item)?;
    }
    let keys = source(auth, file, warnings)?;
    auth.finish(&key_names::ISSUER)?;
    Ok(IssuerSettings { rules, keys })
}

fn leeway(auth: &mut Section<'_>, leeway: &mut Duration) -> Result<(), ConfigError> {
    auth.set_wait("leeway", Duration::ZERO, leeway)?;
    if *leeway > LONGEST_LEEWAY {
        return Err(auth.conflict(
            &["leeway"],
            format!("expected a time of at most {LONGEST_LEEWAY:?}: the leeway is for the difference between two clocks"),
        ));
    }
    Ok(())
}

fn user(auth: &mut Section<'_>) -> Result<JwtUser, ConfigError> {
    let fixed = auth.item("user");
    let (claim, prefix) = (auth.item("user_claim"), auth.item("user_prefix"));
    match (fixed, claim, prefix) {
        (Some(item), None, None) => Ok(JwtUser::Fixed(item.parse::<UserName>("a user name")?)),
        (Some(_), ..) => Err(auth.conflict(
            &["user"],
            "expected either `user`, one for all tokens, or `user_claim` and `user_prefix`",
        )),
        (None, claim, prefix) => {
            let prefix = match prefix {
                // The beginning of a name is a name.
                Some(item) => item
                    .parse::<UserName>("the beginning of user names")?
                    .as_str()
                    .to_owned(),
                None => String::new(),
            };
            let name = match claim {
                Some(item) => item.text("the name of a claim")?.to_owned(),
                None => "sub".to_owned(),
            };
            Ok(JwtUser::Claim { name, prefix })
        }
    }
}

/// Claims with one text or a list of them.
fn required(item: &Item<'_>) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let section = item.section()?;
    let pairs = section.pairs();
    pairs
        .map(|(name, item)| Ok((name.to_owned(), texts(&item, "texts")?)))
        .collect()
}

fn texts(item: &Item<'_>, what: &str) -> Result<Vec<String>, ConfigError> {
    let items = item.one_or_more(what)?;
    if items.is_empty() {
        return Err(item.error("the list is empty, so that no token would be accepted"));
    }
    items
        .iter()
        .map(|item| item.text("a text").map(str::to_owned))
        .collect()
}

/// Where the keys come from. A file is read here too, so that an error has its place.
fn source(
    auth: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<KeySource, ConfigError> {
    let [key, secret, jwks, url] = SOURCES.map(|name| auth.item(name));
    let algorithm = auth.item("algorithm");
    let algorithm = algorithm.map(|item| item.parse::<JwtAlgorithm>("an algorithm"));
    let algorithm = algorithm.transpose()?;
    let needed = |auth: &Section<'_>, of: &str| {
        algorithm.ok_or_else(|| {
            auth.missing(
                "algorithm",
                &format!("the algorithm of `{of}`, such as `RS256`, `ES256`, `EdDSA` or `HS256`"),
            )
        })
    };
    let given = [&key, &secret, &jwks, &url].into_iter().flatten().count();
    if given > 1 {
        return Err(auth.conflict(&SOURCES, format!("expected one of {}", SOURCES.join(", "))));
    }
    let (item, source) = if let Some(item) = key {
        let path = path(&item, file)?;
        let algorithm = needed(auth, "key_file")?;
        (item, KeySource::PemFile { path, algorithm })
    } else if let Some(item) = secret {
        let path = path(&item, file)?;
        let largest = adit_server::MAX_KEY_BYTES as u64;
        secret_file::read(&path, largest, warnings)
            .map_err(|problem| item.error(format!("the file {} {problem}", path.display())))?;
        let algorithm = needed(auth, "secret_file")?;
        (item, KeySource::SecretFile { path, algorithm })
    } else if let Some(item) = jwks {
        let path = path(&item, file)?;
        (item, KeySource::JwksFile { path, algorithm })
    } else if let Some(item) = url {
        let mut source = UrlSource::new(item.parse::<JwksUrl>("a URL")?);
        source.algorithm = algorithm;
        if let Some(item) = auth.item("ca_file") {
            source.trust = Trust::Roots(roots(&item, file)?);
        }
        auth.set_wait("refresh", Duration::from_secs(1), &mut source.refresh)?;
        auth.set_wait(
            "fetch_timeout",
            Duration::from_millis(1),
            &mut source.timeout,
        )?;
        (item, KeySource::JwksUrl(source))
    } else {
        let expected = format!("or one of {}", SOURCES[1..].join(", "));
        return Err(auth.missing(SOURCES[0], &format!("the keys of the issuer; {expected}")));
    };
    source
        .check()
        .map_err(|error| item.error(error.to_string()))?;
    Ok(source)
}
