//! The decision about a token: its signer, its audience, its times, its user, and what the user may use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{key::JwtKey, signer::SignerId, text::JwtText};
use crate::{DenialReason, Scopes, UserName};

/// Signatures that are verified for one token at most. A token without an id of its key is tried with every key of its
/// issuer, and a verification costs some tens of microseconds.
const MAX_SIGNATURES: usize = 8;

/// The end of the year 9999, the last second that common forms of dates have (RFC 3339). A later time, such as one in
/// another unit, is a mistake of the issuer, and would make a token that never expires.
const LATEST: u64 = 253_402_300_799;

/// What the tokens of an issuer must have, and what they give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRules {
    /// `iss` must be this; `None`: anything.
    pub issuer: Option<String>,
    /// `aud` must have one of these. With an empty list no token is accepted.
    pub audience: Vec<String>,
    /// For the difference between the clocks of both sides.
    pub leeway: Duration,
    /// The user of a token.
    pub user: JwtUser,
    /// Claims that a token must have with one of these texts. A claim that is a list must contain one of them.
    pub required: BTreeMap<String, Vec<String>>,
    /// The claim with scopes, an object in the form of [`Scopes`]. It may be absent.
    pub scopes_claim: String,
    /// What every token may use at most, besides the scopes of its claim.
    pub scopes: Scopes,
}

/// The user of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtUser {
    /// The text of a claim, after a prefix that keeps the users of several issuers apart.
    Claim {
        /// The claim.
        name: String,
        /// The prefix; may be empty.
        prefix: String,
    },
    /// The same user for every token.
    Fixed(UserName),
}

impl JwtRules {
    /// Whether a token can be of this user.
    #[must_use]
    pub fn may_name(&self, user: &UserName) -> bool {
        match &self.user {
            JwtUser::Fixed(fixed) => fixed == user,
            JwtUser::Claim { prefix, .. } => user.as_str().starts_with(prefix),
        }
    }
}

impl Default for JwtRules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::from_secs(60),
            user: JwtUser::Claim {
                name: "sub".to_owned(),
                prefix: String::new(),
            },
            required: BTreeMap::new(),
            scopes_claim: "adit".to_owned(),
            scopes: Scopes::default(),
        }
    }
}

/// An issuer whose tokens are accepted: one entry of the configuration, with its keys at one time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JwtIssuer {
    rules: Arc<JwtRules>,
    scopes: Arc<Scopes>,
    keys: Arc<[JwtKey]>,
    /// Of each key.
    signers: Arc<[SignerId]>,
    /// Identifies the rules that decide what a token is worth, but for their scopes and the leeway.
    id: [u8; 32],
}

/// A token that is accepted.
#[derive(Debug)]
pub(crate) struct VerifiedJwt<'a> {
    pub(crate) issuer: &'a JwtIssuer,
    pub(crate) signer: SignerId,
    pub(crate) user: UserName,
    /// The scopes of the token itself, if it has any.
    pub(crate) scopes: Option<Scopes>,
    /// `exp`: seconds since 1970, without the leeway.
    pub(crate) expires_at: u64,
}

impl JwtIssuer {
    /// An issuer with these keys.
    #[must_use]
    pub fn new(rules: JwtRules, keys: Arc<[JwtKey]>) -> Self {
        let id = id_of(&rules);
        Self {
            scopes: Arc::new(rules.scopes.clone()),
            rules: Arc::new(rules),
            signers: signers(&id, &keys),
            keys,
            id,
        }
    }

    /// The same issuer with other keys.
    #[must_use]
    pub fn with_keys(&self, keys: Arc<[JwtKey]>) -> Self {
        Self {
            signers: signers(&self.id, &keys),
            keys,
            ..self.clone()
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[JwtKey] {
        &self.keys
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &JwtRules {
        &self.rules
    }

    /// Whether tokens that name this issuer, or none, are for this entry.
    #[must_use]
    pub fn is_for(&self, issuer: Option<&str>) -> bool {
        self.rules.issuer.is_none() || self.rules.issuer.as_deref() == issuer
    }

    /// What every token may use at most.
    pub(crate) const fn scopes(&self) -> &Arc<Scopes> {
        &self.scopes
    }

    /// Whether a key of this issuer has this id, under the same rules.
    pub(crate) fn trusts(&self, signer: SignerId) -> bool {
        self.signers.contains(&signer)
    }

    /// Whether a token with this `exp` has expired, by the leeway of now.
    pub(crate) fn has_expired(&self, expires_at: u64, now: u64) -> bool {
        expires_at.saturating_add(self.rules.leeway.as_secs()) <= now
    }

    fn verify(
        &self,
        token: &JwtText<'_>,
        now: u64,
        signatures: &mut usize,
    ) -> Result<VerifiedJwt<'_>, DenialReason> {
        let signer = self.signer_of(token, signatures)?;
        let claims = &token.claims;
        if !self.is_audience(claims.get("aud")) {
            return Err(DenialReason::WrongAudience);
        }
        let leeway = self.rules.leeway.as_secs();
        let expires_at = time(claims, "exp")?.ok_or(DenialReason::NoExpiry)?;
        if expires_at > LATEST {
            return Err(DenialReason::DamagedJwt);
        }
        if self.has_expired(expires_at, now) {
            return Err(DenialReason::Expired);
        }
        for begin in [time(claims, "nbf")?, time(claims, "iat")?] {
            if begin.is_some_and(|begin| begin > now.saturating_add(leeway)) {
                return Err(DenialReason::NotYetValid);
            }
        }
        let has = |(name, allowed): (&String, &Vec<String>)| {
            let texts = texts(claims.get(name));
            texts.is_some_and(|mut texts| texts.any(|text| allowed.iter().any(|one| one == text)))
        };
        if !self.rules.required.iter().all(has) {
            return Err(DenialReason::RequiredClaim);
        }
        Ok(VerifiedJwt {
            issuer: self,
            signer,
            user: self.user(claims)?,
            scopes: self.own_scopes(claims)?,
            expires_at,
        })
    }

    /// The key that signed the token, by the algorithm of the key.
    fn signer_of(
        &self,
        token: &JwtText<'_>,
        signatures: &mut usize,
    ) -> Result<SignerId, DenialReason> {
        let is_named = |key: &JwtKey| match (key.id(), token.key_id.as_deref()) {
            (Some(id), Some(named)) => id == named,
            // A key from PEM has no id, and a token does not have to name one.
            (None, _) | (_, None) => true,
        };
        let mut reason = DenialReason::UnknownSigningKey;
        let keys = self.keys.iter().zip(self.signers.iter());
        for (key, signer) in keys.filter(|(key, _)| is_named(key)) {
            if Some(key.algorithm()) != token.algorithm {
                if reason != DenialReason::WrongSignature {
                    reason = DenialReason::WrongAlgorithm;
                }
                continue;
            }
            reason = DenialReason::WrongSignature;
            let Some(left) = signatures.checked_sub(1) else {
                break;
            };
            *signatures = left;
            if key.has_signed(token.signed, token.signature) {
                return Ok(*signer);
            }
        }
        // Keys without an id were tried for it as well. The one that it names may be a new one.
        let is_known = |named: &str| self.keys.iter().any(|key| key.id() == Some(named));
        if { token.key_id.as_deref() }.is_some_and(|named| !is_known(named)) {
            return Err(DenialReason::UnknownSigningKey);
        }
        Err(reason)
    }

    fn is_audience(&self, claim: Option<&Value>) -> bool {
        let expected = |text: &str| self.rules.audience.iter().any(|one| one == text);
        texts(claim).is_some_and(|mut texts| texts.any(expected))
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<UserName, DenialReason> {
        match &self.rules.user {
            JwtUser::Fixed(user) => Ok(user.clone()),
            JwtUser::Claim { name, prefix } => {
                let text = claims.get(name).and_then(Value::as_str);
                let text = text.ok_or(DenialReason::InvalidUser)?;
                UserName::parse(&format!("{prefix}{text}")).map_err(|_| DenialReason::InvalidUser)
            }
        }
    }

    fn own_scopes(&self, claims: &Map<String, Value>) -> Result<Option<Scopes>, DenialReason> {
        match claims.get(&self.rules.scopes_claim) {
            None => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|_| DenialReason::InvalidScopes),
        }
    }
}

/// The decision about a token, by the issuers that it may be of.
///
/// # Errors
/// The cause at the issuer that came closest to accept it.
///
/// # Complexity
/// At most [`MAX_SIGNATURES`] signatures are verified.
pub(crate) fn verify<'a>(
    issuers: &'a [JwtIssuer],
    token: &JwtText<'_>,
    now: u64,
) -> Result<VerifiedJwt<'a>, DenialReason> {
    if token.algorithm.is_none() {
        return Err(DenialReason::WrongAlgorithm);
    }
    let mut closest = DenialReason::WrongIssuer;
    let mut signatures = MAX_SIGNATURES;
    for issuer in issuers.iter().filter(|one| one.is_for(token.issuer())) {
        match issuer.verify(token, now, &mut signatures) {
            Ok(verified) => return Ok(verified),
            Err(reason) if steps(reason) >= steps(closest) => closest = reason,
            Err(_) => {}
        }
    }
    Err(closest)
}

/// How far an issuer came with a token. An unknown key counts more than a wrong signature: the key may be found elsewhere.
const fn steps(reason: DenialReason) -> u8 {
    match reason {
        DenialReason::WrongIssuer => 0,
        DenialReason::WrongAlgorithm => 1,
        DenialReason::WrongSignature => 2,
        DenialReason::UnknownSigningKey => 3,
        _ => 4,
    }
}

/// A claim that is a text or a list of texts; other elements of a list are skipped.
fn texts(claim: Option<&Value>) -> Option<impl Iterator<Item = &str>> {
    let list = match claim? {
        text @ Value::String(_) => std::slice::from_ref(text),
        Value::Array(list) => list,
        _ => return None,
    };
    Some(list.iter().filter_map(Value::as_str))
}

/// A time of the claims, in seconds since 1970; fractions are cut (RFC 7519, 2: `NumericDate`).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Such a cast ends at the bounds of u64.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, DenialReason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(match number.as_u64() {
            Some(seconds) => seconds,
            None => number.as_f64().unwrap_or(0.0) as u64,
        })),
        Some(_) => Err(DenialReason::DamagedJwt),
    }
}

fn signers(id: &[u8; 32], keys: &[JwtKey]) -> Arc<[SignerId]> {
    let signers = keys.iter().map(|key| SignerId::new(id, key.fingerprint()));
    signers.collect()
}

/// Identifies the rules that decide whether a token is accepted, for which user, and which of its claims has its scopes. The
/// scopes of the rules are compared apart, and the leeway is added to the expiry at each look.
fn id_of(rules: &JwtRules) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("adit 2026 issuer of JWT");
    let mut text = |text: &str| {
        hasher
            .update(&text.len().to_le_bytes())
            .update(text.as_bytes());
    };
    text(if rules.issuer.is_some() { "issuer" } else { "" });
    text(rules.issuer.as_deref().unwrap_or_default());
    text(&rules.audience.len().to_string());
    rules.audience.iter().for_each(|one| text(one));
    match &rules.user {
        JwtUser::Claim { name, prefix } => ["claim", name, prefix].map(&mut text),
        JwtUser::Fixed(user) => ["fixed", user.as_str(), ""].map(&mut text),
    };
    text(&rules.scopes_claim);
    for (name, values) in &rules.required {
        text(name);
        text(&values.len().to_string());
        values.iter().for_each(|one| text(one));
    }
    *hasher.finalize().as_bytes()
}
