//! The sections `auth` and `shared_groups` of a server.

use std::path::Path;

use adit_auth::{
    CertificateRules, GroupId, MIN_TOKEN_BYTES, Principals, Records, Scopes, StaticToken, UserName,
};
use adit_server::{IssuerSettings, Settings, SharedGroup, TunnelTls};
use secrecy::{ExposeSecret, SecretString};

use super::{client_certificates, issuers};
use crate::{
    environment::Variables,
    error::{ConfigError, Kind, Origin},
    fields::path,
    key_names::NO_OTHER_KEYS,
    permissions::warn_of_inline_secret,
    read::Section,
    scopes, token,
};

/// The user of a token without a user.
const DEFAULT_USER: &str = "default";

/// What `auth` has.
#[derive(Default)]
pub(super) struct Auth {
    pub(super) tokens: Vec<StaticToken>,
    pub(super) issuers: Vec<IssuerSettings>,
    pub(super) certificates: Option<CertificateRules>,
}

/// Reads `auth`: one method or a list of methods. `ADIT__TOKEN` is always the token of the user `default`. Without both
/// the lists are empty, and the server generates a token.
pub(super) fn read(
    server: &mut Section<'_>,
    tls: &TunnelTls,
    file: Option<&Path>,
    variables: &Variables,
    warnings: &mut Vec<String>,
) -> Result<Auth, ConfigError> {
    let mut read = Auth::default();
    let tokens = &mut read.tokens;
    // Of the entry whose token is in the environment.
    let mut of_variable: Option<Scopes> = None;
    let auth = server.item("auth");
    if let Some(item) = &auth {
        for item in item.one_or_more("methods")? {
            match method(&mut item.section()?, file, warnings)? {
                Method::Token(token) => tokens.push(token),
                Method::NoToken {
                    user,
                    scopes,
                    is_restricted,
                } => {
                    let has_variable = variables.value("ADIT__TOKEN").is_some();
                    if is_restricted && (!has_variable || user.as_str() != DEFAULT_USER) {
                        let text = format!(
                            "the restrictions of user {user} are for a token, and none is given"
                        );
                        return Err(item.conflict(text).with_help(
                            "add `token` or `token_file`, or set the scopes of a stored user with `adit-server user set`",
                        ));
                    }
                    if of_variable.is_some() && has_variable {
                        let text = format!(
                            "two entries are for the token of the user {DEFAULT_USER} in ADIT__TOKEN"
                        );
                        return Err(item.conflict(text).with_help("remove one of them"));
                    }
                    of_variable = Some(scopes);
                }
                Method::Issuer(issuer) => read.issuers.push(*issuer),
                Method::Certificates(rules) => {
                    if read.certificates.is_some() {
                        return Err(item
                            .conflict("`method: mtls` is listed twice")
                            .with_help("list all users in one entry"));
                    }
                    if tls.client_cas().is_empty() {
                        return Err(item
                            .conflict("`method: mtls` needs the CA of the clients' certificates")
                            .with_help(
                                "set `server.tls.client_ca_file`, with `cert_file` and `key_file`",
                            ));
                    }
                    read.certificates = Some(rules);
                }
                Method::Store => {}
            }
        }
    }
    if let Some(text) = variables.value("ADIT__TOKEN") {
        let is_default = |token: &StaticToken| token.user.as_str() == DEFAULT_USER;
        if tokens.is_empty() || of_variable.is_some() || tokens.iter().any(is_default) {
            let refused = |problem: String| {
                ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", problem)
            };
            let token = long_enough(token::good(text).map_err(refused)?).map_err(refused)?;
            // The scopes of the file stay in force.
            let scopes = tokens.iter().find(|token| is_default(token));
            let scopes = scopes.map(|token| token.scopes.clone());
            let scopes = scopes.or(of_variable).unwrap_or_default();
            tokens.retain(|token| !is_default(token));
            tokens.push(StaticToken {
                user: default_user()?,
                token,
                scopes,
            });
        } else {
            warnings.push(format!(
                "ADIT__TOKEN is ignored: it is the token of the user `{DEFAULT_USER}`, and server.auth has only other users"
            ));
        }
    }
    if !tokens.is_empty() {
        let origin = auth.map_or(Origin::Default, |item| item.origin().clone());
        let refused = |message: String| {
            ConfigError::new(origin.clone(), "server.auth", message).of_kind(Kind::Together)
        };
        Principals::new(&Records::default(), tokens).map_err(|error| refused(error.to_string()))?;
    }
    Ok(read)
}

/// One entry of `auth`.
enum Method {
    Token(StaticToken),
    /// An entry without a token: that of the user `default` may be in the environment.
    NoToken {
        user: UserName,
        scopes: Scopes,
        /// It has a user or scopes.
        is_restricted: bool,
    },
    Issuer(Box<IssuerSettings>),
    Certificates(CertificateRules),
    /// The credentials of the store, which are always accepted.
    Store,
}

/// Whether the list of methods has one besides tokens: then no token is generated.
pub(super) fn needs_no_token(server: &mut Section<'_>) -> bool {
    let methods = server.item("auth").map(|item| item.one_or_more("methods"));
    let methods = methods.into_iter().flatten().flatten();
    let mut names = methods.filter_map(|item| item.section().ok()?.item("method"));
    names.any(|name| name.text("a method").is_ok_and(|name| name != "token"))
}

fn method(
    auth: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Method, ConfigError> {
    if let Some(item) = auth.item("method") {
        match item.text("`token`, `jwt`, `mtls` or `api_key`")? {
            "token" => {}
            "jwt" => {
                let issuer = issuers::read(auth, file, warnings)?;
                return Ok(Method::Issuer(issuer.into()));
            }
            "api_key" => {
                auth.finish(&NO_OTHER_KEYS)?;
                return Ok(Method::Store);
            }
            "mtls" => return client_certificates::read(auth).map(Method::Certificates),
            _ => {
                return Err(
                    item.error("unknown method, expected `token`, `jwt`, `mtls` or `api_key`")
                );
            }
        }
    }
    let is_restricted = auth.has("user") || auth.has("scopes");
    let user = match auth.item("user") {
        Some(item) => item.parse::<UserName>("a user name")?,
        None => default_user()?,
    };
    let scopes = match auth.item("scopes") {
        Some(item) => scopes::read(&item)?,
        None => Scopes::default(),
    };
    let text = auth.item("token");
    let file_item = auth.item("token_file");
    auth.finish(&NO_OTHER_KEYS)?;
    let token = match (text, file_item) {
        (Some(_), Some(_)) => {
            return Err(auth.conflict(&["token_file"], "expected either `token` or `token_file`"));
        }
        (Some(item), None) => {
            let refused = |problem: String| item.error(problem);
            let token = token::good(item.secret("a token")?).map_err(refused)?;
            warn_of_inline_secret(&item, file, warnings);
            Some(long_enough(token).map_err(refused)?)
        }
        (None, Some(item)) => {
            let refused = |problem: String| item.error(problem);
            let token = token::read_file(&path(&item, file)?, warnings).map_err(refused)?;
            Some(long_enough(token).map_err(refused)?)
        }
        (None, None) => None,
    };
    Ok(match token {
        Some(token) => Method::Token(StaticToken {
            user,
            token,
            scopes,
        }),
        None => Method::NoToken {
            user,
            scopes,
            is_restricted,
        },
    })
}

fn default_user() -> Result<UserName, ConfigError> {
    UserName::parse(DEFAULT_USER)
        .map_err(|error| ConfigError::new(Origin::Default, "server.auth.user", error.to_string()))
}

/// Rejects a token that is short enough to be guessed.
fn long_enough(token: SecretString) -> Result<SecretString, String> {
    if token.expose_secret().len() < MIN_TOKEN_BYTES {
        return Err(format!(
            "the token is shorter than {MIN_TOKEN_BYTES} characters and can be guessed, expected a long random one"
        ));
    }
    Ok(token)
}

/// Reads `shared_groups`: groups that several users share. Each may be listed once.
pub(super) fn shared_groups(
    server: &mut Section<'_>,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Vec<SharedGroup>, ConfigError> {
    let mut groups: Vec<SharedGroup> = Vec::new();
    let Some(item) = server.item("shared_groups") else {
        return Ok(groups);
    };
    let is_known = |user: &UserName| {
        let Settings {
            tokens,
            issuers,
            certificates,
            ..
        } = settings;
        let mut of_certificates = certificates.iter().flat_map(|rules| rules.users.keys());
        // If there are no tokens, the server generates one for this user.
        (tokens.is_empty() && user.as_str() == DEFAULT_USER)
            || tokens.iter().any(|known| known.user == *user)
            || issuers.iter().any(|issuer| issuer.rules.may_name(user))
            || of_certificates.any(|known| known == user)
    };
    for item in item.list("groups")? {
        let mut section = item.section()?;
        let (group, users) = (section.item("group"), section.item("users"));
        section.finish(&NO_OTHER_KEYS)?;
        let group_item = group.ok_or_else(|| section.missing("group", "the name of a group"))?;
        let group: GroupId = group_item.parse("the name of a group")?;
        if groups.iter().any(|known| known.group == group) {
            return Err(group_item.error(format!("the group {group} is listed twice")));
        }
        let list = users.ok_or_else(|| section.missing("users", "a list of users"))?;
        let mut users = Vec::new();
        for item in list.one_or_more("users")? {
            let user: UserName = item.parse("the name of a user")?;
            if !is_known(&user) {
                warnings.push(format!(
                    "`server.shared_groups` has the user {user}, who has no token in `server.auth`: only credentials that \
                     were added for this user with `adit-server user add` are in the group"
                ));
            }
            users.push(user);
        }
        groups.push(SharedGroup { group, users });
    }
    Ok(groups)
}
