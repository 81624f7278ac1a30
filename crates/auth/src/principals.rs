//! All credentials that a server accepts, and the decisions about them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use secrecy::{ExposeSecret, SecretString};

use crate::{
    AccessKey, Attempt, CertificateNames, Credential, CredentialId, CredentialRecord, DenialReason,
    Denied, Grant, KeyKind, Lapsed, MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, Proof, Records, Scopes,
    SecretHash, TokenSetError, UserName, Wanted,
    client_certificate::{CertificateRules, Certificates},
    credential::CredentialKey,
    jwt::{JwtIssuer, JwtText, VerifiedJwt, looks_like_jwt, verify},
    token::{check_token, hash_token},
};

/// A token of the server's configuration. A user may have several, so that one can be replaced while both work.
#[derive(Debug, Clone)]
pub struct StaticToken {
    /// The user that the token authenticates.
    pub user: UserName,
    /// The token.
    pub token: SecretString,
    /// What it may use.
    pub scopes: Scopes,
}

impl PartialEq for StaticToken {
    fn eq(&self, other: &Self) -> bool {
        let tokens = (self.token.expose_secret(), other.token.expose_secret());
        self.user == other.user && tokens.0 == tokens.1 && self.scopes == other.scopes
    }
}

impl Eq for StaticToken {}

/// All credentials of a server at one time.
///
/// Tokens are found by their hashes, keys and certificates by their ids. Only hashes are kept: the time of a look-up reveals
/// nothing of a secret, because no one can choose the hash of a text.
#[derive(Clone, Default)]
pub struct Principals {
    tokens: HashMap<[u8; 32], Known>,
    /// Keys and certificates.
    by_id: HashMap<CredentialId, Known>,
    /// Those whose JWTs are accepted.
    issuers: Vec<JwtIssuer>,
    /// Certificates of CAs of the users, if they are accepted.
    certificates: Option<Certificates>,
    /// Of the records: of all credentials of a user.
    users: HashMap<UserName, Arc<Scopes>>,
    /// Users of the records that have been removed: nothing of theirs is accepted, wherever it comes from.
    removed: HashSet<UserName>,
}

/// A credential.
#[derive(Clone)]
struct Known {
    key: CredentialKey,
    /// Of certificates: no secret has this hash.
    hash: SecretHash,
    user: UserName,
    expires_at: Option<u64>,
    is_revoked: bool,
    awaits_approval: Option<CredentialId>,
    scopes: Vec<Arc<Scopes>>,
}

impl Principals {
    /// The credentials of the records, and the tokens of the configuration. The scopes of a user in the records apply to the
    /// user's tokens too.
    ///
    /// # Errors
    /// [`TokenSetError`] with the user of an invalid token.
    pub fn new(records: &Records, tokens: &[StaticToken]) -> Result<Self, TokenSetError> {
        let users = { records.users.iter() }
            .map(|user| (user.name.clone(), Arc::new(user.scopes.clone())))
            .collect();
        let removed: HashSet<UserName> = { records.users.iter() }
            .filter(|user| user.revoked_at.is_some())
            .map(|user| user.name.clone())
            .collect();
        let mut principals = Self {
            users,
            removed,
            ..Self::default()
        };
        for token in tokens {
            let hash = checked_hash(token)?;
            let scopes = principals.scopes(&token.user, [&Arc::new(token.scopes.clone())]);
            let is_revoked = principals.removed.contains(&token.user);
            principals.add_token(token, hash, is_revoked, scopes)?;
        }
        for record in &records.credentials {
            let scopes = principals.scopes(&record.user, [&Arc::new(record.scopes.clone())]);
            let known = Known::of_record(record, scopes);
            match record.proof {
                // The same token of the configuration takes precedence.
                Proof::Token(hash) => {
                    principals.tokens.entry(*hash.bytes()).or_insert(known);
                }
                Proof::Key(_) | Proof::Certificate => {
                    principals.by_id.insert(record.id, known);
                }
            }
        }
        Ok(principals)
    }

    /// The same credentials, and the JWTs of these issuers.
    #[must_use]
    pub fn with_issuers(mut self, issuers: Vec<JwtIssuer>) -> Self {
        self.issuers = issuers;
        self
    }

    /// The same credentials, and the certificates of these CAs.
    #[must_use]
    pub fn with_certificates(
        mut self,
        rules: &CertificateRules,
        cas: impl IntoIterator<Item = [u8; 32]>,
    ) -> Self {
        self.certificates = Some(Certificates::new(rules, cas));
        self
    }

    /// The issuers whose JWTs are accepted.
    #[must_use]
    pub fn issuers(&self) -> &[JwtIssuer] {
        &self.issuers
    }

    /// The scopes of a user and of a credential that restrict anything.
    fn scopes<const N: usize>(&self, user: &UserName, own: [&Arc<Scopes>; N]) -> Vec<Arc<Scopes>> {
        let all = self.users.get(user).into_iter().chain(own);
        all.filter(|scopes| !scopes.is_unrestricted())
            .cloned()
            .collect()
    }

    fn add_token(
        &mut self,
        token: &StaticToken,
        hash: SecretHash,
        is_revoked: bool,
        scopes: Vec<Arc<Scopes>>,
    ) -> Result<(), TokenSetError> {
        if let Some(other) = self.tokens.get(hash.bytes()) {
            let (first, second) = (other.user.clone(), token.user.clone());
            return Err(if first == second {
                TokenSetError::Repeated { user: first }
            } else {
                TokenSetError::Shared { first, second }
            });
        }
        let known = Known {
            key: CredentialKey::Token(hash),
            hash,
            user: token.user.clone(),
            expires_at: None,
            is_revoked,
            awaits_approval: None,
            scopes,
        };
        self.tokens.insert(*hash.bytes(), known);
        Ok(())
    }

    /// The grant of a client, or why there is none. The public text of a denial is the same for every cause.
    ///
    /// # Errors
    /// [`Denied`].
    ///
    /// # Complexity
    /// Constant; the same for every text up to [`MAX_TOKEN_BYTES`]. For a JWT, besides, the verification of at most eight
    /// signatures.
    pub fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Grant, Denied> {
        let known = match attempt.credential {
            Credential::None => self.by_text("").map_err(|_| DenialReason::NoCredential),
            Credential::Token(text) => self.by_text(text.expose_secret()),
            Credential::Certificate(id) => {
                let known = self.by_id.get(id);
                let known = known.filter(|one| matches!(one.key, CredentialKey::Certificate(_)));
                known.ok_or(DenialReason::UnknownCertificate)
            }
            Credential::ClientCertificate(names) => return self.by_certificate(names, attempt),
        };
        let known = match (known, attempt.credential) {
            (Ok(known), _) => known,
            (Err(_), Credential::Token(text)) if looks_like_jwt(text.expose_secret()) => {
                return self.by_jwt(text.expose_secret(), attempt);
            }
            (Err(reason), _) => return Err(Denied::new(reason)),
        };
        known.admit(attempt.address, seconds(attempt.now))?;
        Ok(Grant::earned_by(
            known.user.clone(),
            attempt.claim.clone(),
            Some(known.key),
            known.scopes.clone(),
        ))
    }

    /// Whether the credential of this grant is still accepted, with the same scopes.
    ///
    /// # Errors
    /// [`Lapsed`].
    pub fn check(&self, grant: &Grant, now: SystemTime) -> Result<(), Lapsed> {
        let known = match grant.credential() {
            Some(CredentialKey::Token(hash)) => self.tokens.get(hash.bytes()),
            Some(key @ (CredentialKey::Key(id, _) | CredentialKey::Certificate(id))) => {
                self.by_id.get(&id).filter(|one| one.key == key)
            }
            Some(CredentialKey::ClientCertificate {
                rule,
                ca,
                expires_at,
            }) => {
                let certificates = { self.certificates.as_ref() }
                    .filter(|one| *one.id() == rule && one.trusts(&ca))
                    .ok_or(Lapsed::Revoked)?;
                let scopes = self.scopes_of_certificate(certificates, grant.user());
                let scopes = scopes.map_err(|_| Lapsed::Revoked)?;
                return if expires_at <= seconds(now) {
                    Err(Lapsed::Expired)
                } else if scopes != grant.scopes() {
                    Err(Lapsed::Changed)
                } else {
                    Ok(())
                };
            }
            Some(CredentialKey::Jwt {
                signer,
                expires_at,
                has_scopes,
            }) => {
                if self.removed.contains(grant.user()) {
                    return Err(Lapsed::Revoked);
                }
                let trusting = self.issuers.iter().filter(|one| one.trusts(signer));
                // Of several entries with the same keys, the first one that the token has not expired for would accept it.
                let mut lapsed = Lapsed::Revoked;
                let mut valid = trusting.filter(|one| {
                    let has_expired = one.has_expired(expires_at, seconds(now));
                    if has_expired {
                        lapsed = Lapsed::Expired;
                    }
                    !has_expired
                });
                let Some(issuer) = valid.next() else {
                    return Err(lapsed);
                };
                let scopes = self.scopes(grant.user(), [issuer.scopes()]);
                let of_token = usize::from(has_scopes);
                return match grant.scopes().split_at_checked(scopes.len()) {
                    Some((same, rest)) if *same == scopes && rest.len() == of_token => Ok(()),
                    _ => Err(Lapsed::Changed),
                };
            }
            None => None,
        };
        let known = known.filter(|one| one.user == *grant.user() && !one.is_revoked);
        let known = known.ok_or(Lapsed::Revoked)?;
        if known.has_expired(seconds(now)) {
            Err(Lapsed::Expired)
        } else if known.scopes != grant.scopes() {
            Err(Lapsed::Changed)
        } else {
            Ok(())
        }
    }

    /// All users that have a credential.
    pub fn users(&self) -> impl Iterator<Item = &UserName> {
        let known = self.tokens.values().chain(self.by_id.values());
        let of_certificates = self.certificates.iter().flat_map(Certificates::users);
        known.map(|known| &known.user).chain(of_certificates)
    }

    /// The credential of a text. The work is the same whatever the text is: the cause is found after it.
    fn by_text(&self, text: &str) -> Result<&Known, DenialReason> {
        let token = self.tokens.get(hash_token(text).bytes());
        let key = AccessKey::parse(text);
        // A text that is not a key costs the same as one that is.
        let stand_in = || AccessKey::from_random(KeyKind::Api, [0; crate::ACCESS_KEY_RANDOM_BYTES]);
        let presented = key
            .as_ref()
            .map_or_else(|_| stand_in().hash(), AccessKey::hash);
        let known = key.as_ref().ok().and_then(|key| self.by_id.get(&key.id()));
        let hash = known.map_or(SecretHash::new([0; 32]), |known| known.hash);
        let is_same = hash == presented;
        if let Some(token) = token {
            return Ok(token);
        }
        match (text, key, known) {
            ("", ..) => Err(DenialReason::EmptyToken),
            (long, ..) if long.len() > MAX_TOKEN_BYTES => Err(DenialReason::TokenTooLong),
            (text, Err(_), _) if AccessKey::is_like(text) => Err(DenialReason::DamagedKey),
            (_, Err(_), _) => Err(DenialReason::UnknownToken),
            (_, Ok(key), _) if key.kind() != KeyKind::Api => Err(DenialReason::OtherPurpose),
            (_, Ok(_), None) => Err(DenialReason::UnknownKey),
            (_, Ok(_), Some(known)) if is_same => Ok(known),
            (_, Ok(_), Some(_)) => Err(DenialReason::WrongSecret),
        }
    }

    /// The grant of a client with a certificate of a CA of the users.
    fn by_certificate(
        &self,
        names: &CertificateNames,
        attempt: &Attempt<'_>,
    ) -> Result<Grant, Denied> {
        let certificates = self.certificates.as_ref();
        let certificates = certificates.ok_or(Denied::new(DenialReason::NoCredential))?;
        if !certificates.trusts(&names.ca) {
            return Err(Denied::new(DenialReason::UnknownCertificate));
        }
        // A handshake may have ended before this moment.
        if names.expires_at <= seconds(attempt.now) {
            return Err(Denied::new(DenialReason::Expired));
        }
        let user = certificates.user_of(names).map_err(Denied::new)?;
        let scopes = self.scopes_of_certificate(certificates, &user);
        let scopes = scopes.map_err(Denied::new)?;
        let wanted = Wanted::Address(attempt.address);
        if { scopes.iter() }.any(|scopes| scopes.refuses(wanted).is_some()) {
            return Err(Denied::new(DenialReason::Address));
        }
        let credential = CredentialKey::ClientCertificate {
            rule: *certificates.id(),
            ca: names.ca,
            expires_at: names.expires_at,
        };
        let claim = attempt.claim.clone();
        Ok(Grant::earned_by(user, claim, Some(credential), scopes))
    }

    /// The scopes of a user with a certificate, who is one of the configuration or of the records.
    fn scopes_of_certificate(
        &self,
        certificates: &Certificates,
        user: &UserName,
    ) -> Result<Vec<Arc<Scopes>>, DenialReason> {
        if self.removed.contains(user) {
            return Err(DenialReason::Revoked);
        }
        match certificates.scopes(user) {
            Some(own) => Ok(self.scopes(user, [own])),
            None if self.users.contains_key(user) => Ok(self.scopes(user, [])),
            None => Err(DenialReason::CertificateUser),
        }
    }

    /// The grant of a JWT.
    fn by_jwt(&self, text: &str, attempt: &Attempt<'_>) -> Result<Grant, Denied> {
        let token = JwtText::parse(text).map_err(Denied::new)?;
        let verified = verify(&self.issuers, &token, seconds(attempt.now)).map_err(Denied::new)?;
        let VerifiedJwt {
            issuer,
            signer,
            user,
            scopes: own,
            expires_at,
        } = verified;
        if self.removed.contains(&user) {
            return Err(Denied::new(DenialReason::Revoked));
        }
        let own = own.filter(|own| !own.is_unrestricted()).map(Arc::new);
        let mut scopes = self.scopes(&user, [issuer.scopes()]);
        let has_scopes = own.is_some();
        scopes.extend(own);
        let wanted = Wanted::Address(attempt.address);
        if { scopes.iter() }.any(|scopes| scopes.refuses(wanted).is_some()) {
            return Err(Denied::new(DenialReason::Address));
        }
        let credential = CredentialKey::Jwt {
            signer,
            expires_at,
            has_scopes,
        };
        let claim = attempt.claim.clone();
        Ok(Grant::earned_by(user, claim, Some(credential), scopes))
    }
}

impl Known {
    fn of_record(record: &CredentialRecord, scopes: Vec<Arc<Scopes>>) -> Self {
        let (key, hash) = match record.proof {
            Proof::Token(hash) => (CredentialKey::Token(hash), hash),
            Proof::Key(hash) => (CredentialKey::Key(record.id, hash), hash),
            Proof::Certificate => (
                CredentialKey::Certificate(record.id),
                SecretHash::new([0; 32]),
            ),
        };
        Self {
            key,
            hash,
            user: record.user.clone(),
            expires_at: record.expires_at,
            is_revoked: record.revoked_at.is_some(),
            awaits_approval: record.awaits_approval.then_some(record.id),
            scopes,
        }
    }

    fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether the credential is accepted now, from this address.
    fn admit(&self, address: IpAddr, now: u64) -> Result<(), Denied> {
        let wanted = Wanted::Address(address);
        let reason = if self.is_revoked {
            DenialReason::Revoked
        } else if self.has_expired(now) {
            DenialReason::Expired
        } else if { self.scopes.iter() }.any(|scopes| scopes.refuses(wanted).is_some()) {
            DenialReason::Address
        } else if let Some(id) = self.awaits_approval {
            DenialReason::AwaitsApproval(id)
        } else {
            return Ok(());
        };
        Err(Denied::new(reason))
    }
}

impl fmt::Debug for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principals ")?;
        let users: BTreeSet<_> = self.users().collect();
        f.debug_set().entries(users).finish()
    }
}

/// The hash of a token of the configuration, which must not be guessable.
fn checked_hash(token: &StaticToken) -> Result<SecretHash, TokenSetError> {
    let text = token.token.expose_secret();
    let user = || token.user.clone();
    if let Err(problem) = check_token(text) {
        return Err(TokenSetError::Bad {
            user: user(),
            problem,
        });
    }
    if text.len() < MIN_TOKEN_BYTES {
        return Err(TokenSetError::TooShort { user: user() });
    }
    Ok(hash_token(text))
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
