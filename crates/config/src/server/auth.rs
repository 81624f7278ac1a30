//! The sections `auth` and `shared_groups` of a server.

use std::path::Path;

use adit_auth::{GroupId, MIN_TOKEN_BYTES, Principals, Records, Scopes, StaticToken, UserName};
use adit_server::{IssuerSettings, Settings, SharedGroup};
use secrecy::{ExposeSecret, SecretString};

use super::issuers;
use crate::{
    environment::Variables,
    error::{ConfigError, Kind, Origin},
    fields::path,
    key_names::NO_OTHER_KEYS,
    read::Section,
    scopes, token,
};

/// The user of a token without a user.
const DEFAULT_USER: &str = "default";

/// Reads `auth`: one method or a list of methods. `ADIT__TOKEN` is always the token of the user `default`. Without both
/// the lists are empty, and the server generates a token.
pub(super) fn read(
    server: &mut Section<'_>,
    file: Option<&Path>,
    variables: &Variables,
    warnings: &mut Vec<String>,
) -> Result<(Vec<StaticToken>, Vec<IssuerSettings>), ConfigError> {
    let (mut tokens, mut issuers) = (Vec::new(), Vec::new());
    // Of an entry whose token is in the environment.
    let mut restricted = None;
    let auth = server.item("auth");
    if let Some(item) = &auth {
        for item in item.one_or_more("methods")? {
            match method(&mut item.section()?, file, warnings)? {
                Method::Token(token) => tokens.push(token),
                Method::NoToken { user, scopes } => {
                    let has_variable = variables.value("ADIT__TOKEN").is_some();
                    if !has_variable || user.as_str() != DEFAULT_USER {
                        let text = format!(
                            "the restrictions of user {user} are for a token, and none is given"
                        );
                        return Err(item.error(text).with_help(
                            "add `token` or `token_file`, or set the scopes of a stored user with `adit-server user set`",
                        ));
                    }
                    restricted = Some(scopes);
                }
                Method::Issuer(issuer) => issuers.push(*issuer),
                Method::Store => {}
            }
        }
    }
    if let Some(text) = variables.value("ADIT__TOKEN") {
        let is_default = |token: &StaticToken| token.user.as_str() == DEFAULT_USER;
        if tokens.is_empty() || tokens.iter().any(is_default) {
            let refused = |problem: String| {
                ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", problem)
            };
            let token = long_enough(token::good(text).map_err(refused)?).map_err(refused)?;
            // The scopes of the file stay in force.
            let scopes = tokens.iter().find(|token| is_default(token));
            let scopes = scopes.map(|token| token.scopes.clone());
            let scopes = scopes.or(restricted).unwrap_or_default();
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
        Principals::new(&Records::default(), &tokens)
            .map_err(|error| refused(error.to_string()))?;
    }
    Ok((tokens, issuers))
}

/// One entry of `auth`.
enum Method {
    Token(StaticToken),
    /// A user or scopes without a token.
    NoToken {
        user: UserName,
        scopes: Scopes,
    },
    Issuer(Box<IssuerSettings>),
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
        match item.text("`token`, `jwt` or `api_key`")? {
            "token" => {}
            "jwt" => {
                let issuer = issuers::read(auth, file, warnings)?;
                return Ok(Method::Issuer(issuer.into()));
            }
            "api_key" => {
                auth.finish(&NO_OTHER_KEYS)?;
                return Ok(Method::Store);
            }
            method @ "mtls" => {
                return Err(item
                    .error(format!(
                        "`method: {method}` is not supported by this version"
                    ))
                    .with_help(
                        "this version authenticates clients by `token`, `jwt` or `api_key`",
                    ));
            }
            _ => return Err(item.error("unknown method, expected `token`, `jwt` or `api_key`")),
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
        None if is_restricted => Method::NoToken { user, scopes },
        None => Method::Store,
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
            tokens, issuers, ..
        } = settings;
        // If there are no tokens, the server generates one for this user.
        (tokens.is_empty() && user.as_str() == DEFAULT_USER)
            || tokens.iter().any(|known| known.user == *user)
            || issuers.iter().any(|issuer| issuer.rules.may_name(user))
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
