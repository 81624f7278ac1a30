//! Users, credentials and enrolments as they are stored, and the changes that an administrator and the server make to them.
//!
//! No secret is stored, only hashes. Times are seconds since 1970. A revoked or expired record stays for a while, so that a
//! list shows it. A removed user stays: its name may be in the configuration, whose tokens it revokes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AccessKey, CredentialId, DenialReason, Denied, KeyKind, Scopes, SecretHash, UserName};

/// Seconds for which a credential or an enrolment stays in the records after its end.
const KEPT_AFTER_END: u64 = 30 * 24 * 60 * 60;

/// The largest number of credentials and of enrolments.
pub const MAX_RECORDS: usize = 100_000;

/// The longest label.
pub const MAX_LABEL_BYTES: usize = 128;

/// All records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Records {
    /// Identifies this set: one that was begun anew has another one. Its store sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<CredentialId>,
    /// Users.
    pub users: Vec<UserRecord>,
    /// Credentials of clients.
    pub credentials: Vec<CredentialRecord>,
    /// Keys that enrol clients.
    pub enrolments: Vec<EnrolmentRecord>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRecord {
    /// The name.
    pub name: UserName,
    /// When the user was added.
    pub created_at: u64,
    /// When the user was removed, with all of its credentials and with its tokens of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// What all credentials of the user may use at most.
    #[serde(default, skip_serializing_if = "Scopes::is_unrestricted")]
    pub scopes: Scopes,
}

/// How a client proves that it has a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Proof {
    /// By a text that the administrator chose, or that was generated.
    Token(SecretHash),
    /// By an [`AccessKey`] with the id of the credential.
    Key(SecretHash),
    /// By a certificate of the server's own CA with the id of the credential.
    Certificate,
}

impl Proof {
    /// The word of lists.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Key(_) => "key",
            Self::Certificate => "certificate",
        }
    }
}

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialRecord {
    /// Identifies the credential in commands and logs.
    pub id: CredentialId,
    /// The user.
    pub user: UserName,
    /// How the credential is proved.
    pub proof: Proof,
    /// A text for lists: for an enrolled client its client id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// When the credential was made.
    pub created_at: u64,
    /// When it becomes invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// It is not accepted before an administrator has approved it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_approval: bool,
    /// The enrolment that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<CredentialId>,
    /// What the credential may use at most, besides the scopes of its user.
    #[serde(default, skip_serializing_if = "Scopes::is_unrestricted")]
    pub scopes: Scopes,
}

/// A key that makes credentials for clients, and authenticates none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRecord {
    /// The id of the key.
    pub id: CredentialId,
    /// The user of the credentials.
    pub user: UserName,
    /// The hash of the key.
    pub hash: SecretHash,
    /// Clients that may still enrol.
    pub uses_left: u32,
    /// When the key was made.
    pub created_at: u64,
    /// When it becomes invalid.
    pub expires_at: u64,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// The addresses from which clients may enrol; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// Its credentials await the approval of an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
    /// The scopes of its credentials.
    #[serde(default, skip_serializing_if = "Scopes::is_unrestricted")]
    pub scopes: Scopes,
}

/// A new credential, as an administrator or an enrolment makes it.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// The id, of random bytes.
    pub id: CredentialId,
    /// How it is proved.
    pub proof: Proof,
    /// The label.
    pub label: String,
    /// When it becomes invalid.
    pub expires_at: Option<u64>,
    /// Its scopes.
    pub scopes: Scopes,
}

/// Why a change of the records is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The user exists already.
    #[error("user {0} exists already")]
    UserExists(UserName),
    /// The user does not exist.
    #[error("unknown user {0}: `user list` shows all users, `user add {0}` adds this one")]
    UnknownUser(UserName),
    /// No credential or enrolment has this id.
    #[error("unknown id {0}: `key list` shows all of them")]
    UnknownId(CredentialId),
    /// The credential does not await approval.
    #[error("{0} does not await approval")]
    NotWaiting(CredentialId),
    /// Another credential has the same secret.
    #[error("this token is in use already: choose another, or let one be generated")]
    SameSecret,
    /// The label is too long, or contains a control character.
    #[error("the label is longer than {MAX_LABEL_BYTES} bytes or contains a control character")]
    Label,
    /// There are too many records.
    #[error("there are {MAX_RECORDS} records already: revoke those that are not needed")]
    Full,
}

impl Records {
    /// Adds a user, or a removed one again.
    ///
    /// # Errors
    /// [`RecordError::UserExists`] and [`RecordError::Full`].
    pub fn add_user(
        &mut self,
        name: UserName,
        scopes: Scopes,
        now: u64,
    ) -> Result<(), RecordError> {
        if self.user(&name).is_some() {
            return Err(RecordError::UserExists(name));
        }
        has_room(self.users.len())?;
        self.users.retain(|user| user.name != name);
        self.users.push(UserRecord {
            name,
            created_at: now,
            revoked_at: None,
            scopes,
        });
        Ok(())
    }

    /// Replaces the scopes of a user.
    ///
    /// # Errors
    /// [`RecordError::UnknownUser`].
    pub fn set_user(&mut self, name: &UserName, scopes: Scopes) -> Result<(), RecordError> {
        let mut valid = self
            .users
            .iter_mut()
            .filter(|user| user.revoked_at.is_none());
        let found = valid.find(|user| user.name == *name);
        found
            .ok_or_else(|| RecordError::UnknownUser(name.clone()))?
            .scopes = scopes;
        Ok(())
    }

    /// Replaces the scopes of a credential.
    ///
    /// # Errors
    /// [`RecordError::UnknownId`].
    pub fn set_credential(&mut self, id: CredentialId, scopes: Scopes) -> Result<(), RecordError> {
        let found = self.credentials.iter_mut().find(|one| one.id == id);
        found.ok_or(RecordError::UnknownId(id))?.scopes = scopes;
        Ok(())
    }

    /// Removes a user and revokes its credentials and enrolments, and its tokens of the configuration. Returns how many
    /// credentials and enrolments were revoked.
    ///
    /// # Errors
    /// [`RecordError::UnknownUser`].
    pub fn revoke_user(&mut self, name: &UserName, now: u64) -> Result<usize, RecordError> {
        let mut valid = self
            .users
            .iter_mut()
            .filter(|user| user.revoked_at.is_none());
        let Some(user) = valid.find(|user| user.name == *name) else {
            return Err(RecordError::UnknownUser(name.clone()));
        };
        user.revoked_at = Some(now);
        let credentials = { self.credentials.iter_mut() }
            .filter(|one| one.user == *name)
            .map(|one| &mut one.revoked_at);
        let enrolments = { self.enrolments.iter_mut() }
            .filter(|one| one.user == *name)
            .map(|one| &mut one.revoked_at);
        let mut revoked = 0;
        for at in credentials.chain(enrolments).filter(|at| at.is_none()) {
            *at = Some(now);
            revoked += 1;
        }
        Ok(revoked)
    }

    /// The user with this name, unless it was removed.
    #[must_use]
    pub fn user(&self, name: &UserName) -> Option<&UserRecord> {
        let mut valid = self.users.iter().filter(|user| user.revoked_at.is_none());
        valid.find(|user| user.name == *name)
    }

    /// Adds a credential of a user.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn add_credential(
        &mut self,
        user: UserName,
        new: NewCredential,
        now: u64,
    ) -> Result<(), RecordError> {
        if self.user(&user).is_none() {
            return Err(RecordError::UnknownUser(user));
        }
        self.push(user, new, None, false, now)
    }

    fn push(
        &mut self,
        user: UserName,
        new: NewCredential,
        enrolment: Option<CredentialId>,
        awaits_approval: bool,
        now: u64,
    ) -> Result<(), RecordError> {
        self.forget(now);
        has_room(self.credentials.len())?;
        let is_label = new.label.len() <= MAX_LABEL_BYTES && !new.label.contains(char::is_control);
        if !is_label {
            return Err(RecordError::Label);
        }
        let has_token = |hash: SecretHash| {
            let mut all = self.credentials.iter();
            all.any(|one| matches!(one.proof, Proof::Token(other) if other == hash))
        };
        if matches!(new.proof, Proof::Token(hash) if has_token(hash)) {
            return Err(RecordError::SameSecret);
        }
        self.credentials.push(CredentialRecord {
            id: new.id,
            user,
            proof: new.proof,
            label: new.label,
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
            awaits_approval,
            enrolment,
            scopes: new.scopes,
        });
        Ok(())
    }

    /// Adds an enrolment.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn add_enrolment(&mut self, enrolment: EnrolmentRecord) -> Result<(), RecordError> {
        if self.user(&enrolment.user).is_none() {
            return Err(RecordError::UnknownUser(enrolment.user));
        }
        self.forget(enrolment.created_at);
        has_room(self.enrolments.len())?;
        self.enrolments.push(enrolment);
        Ok(())
    }

    /// Revokes a credential or an enrolment. Returns false if it was revoked before.
    ///
    /// # Errors
    /// [`RecordError::UnknownId`].
    pub fn revoke(&mut self, id: CredentialId, now: u64) -> Result<bool, RecordError> {
        let credential = { self.credentials.iter_mut() }
            .find(|one| one.id == id)
            .map(|one| &mut one.revoked_at);
        let enrolment = { self.enrolments.iter_mut() }
            .find(|one| one.id == id)
            .map(|one| &mut one.revoked_at);
        let at = credential.or(enrolment).ok_or(RecordError::UnknownId(id))?;
        let first = at.is_none();
        at.get_or_insert(now);
        Ok(first)
    }

    /// Approves a credential.
    ///
    /// # Errors
    /// [`RecordError::UnknownId`] and [`RecordError::NotWaiting`].
    pub fn approve(&mut self, id: CredentialId) -> Result<(), RecordError> {
        let found = self.credentials.iter_mut().find(|one| one.id == id);
        let found = found.ok_or(RecordError::UnknownId(id))?;
        if !std::mem::take(&mut found.awaits_approval) {
            return Err(RecordError::NotWaiting(id));
        }
        Ok(())
    }

    /// Checks an enrolment key without using it.
    ///
    /// # Errors
    /// [`Denied`], the same for every cause.
    pub fn check_enrolment(
        &self,
        key: &AccessKey,
        from: IpAddr,
        now: u64,
    ) -> Result<&EnrolmentRecord, Denied> {
        let denied = |reason| Err(Denied::new(reason));
        let hash = key.hash();
        let Some(found) = self.enrolments.iter().find(|one| one.id == key.id()) else {
            return denied(DenialReason::UnknownKey);
        };
        let from = from.to_canonical();
        if found.hash != hash || key.kind() != KeyKind::Enrolment {
            denied(DenialReason::WrongSecret)
        } else if found.revoked_at.is_some() {
            denied(DenialReason::Revoked)
        } else if found.expires_at <= now {
            denied(DenialReason::Expired)
        } else if found.uses_left == 0 {
            denied(DenialReason::UsedUp)
        } else if !found.addresses.is_empty()
            && !found.addresses.iter().any(|net| net.contains(&from))
        {
            denied(DenialReason::Address)
        } else {
            Ok(found)
        }
    }

    /// Uses an enrolment key once: adds a credential of its user. Returns the user, and whether the credential awaits
    /// approval.
    ///
    /// # Errors
    /// [`EnrolError`]. Nothing has changed then.
    pub fn enrol(
        &mut self,
        key: &AccessKey,
        from: IpAddr,
        mut new: NewCredential,
        now: u64,
    ) -> Result<(UserName, bool), EnrolError> {
        let enrolment = self.check_enrolment(key, from, now)?.clone();
        new.scopes = enrolment.scopes;
        self.push(
            enrolment.user.clone(),
            new,
            Some(enrolment.id),
            enrolment.approval,
            now,
        )?;
        let mut all = self.enrolments.iter_mut();
        if let Some(used) = all.find(|one| one.id == enrolment.id) {
            used.uses_left = used.uses_left.saturating_sub(1);
        }
        Ok((enrolment.user, enrolment.approval))
    }

    /// Drops credentials and enrolments that ended long ago.
    fn forget(&mut self, now: u64) {
        let is_recent = |ends: [Option<u64>; 2]| {
            let end = ends.into_iter().flatten().min();
            end.is_none_or(|end| end.saturating_add(KEPT_AFTER_END) > now)
        };
        self.credentials
            .retain(|one| is_recent([one.revoked_at, one.expires_at]));
        self.enrolments
            .retain(|one| is_recent([one.revoked_at, Some(one.expires_at)]));
    }
}

/// Why a client was not enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnrolError {
    /// The key was not accepted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The credential cannot be added.
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn has_room(count: usize) -> Result<(), RecordError> {
    if count >= MAX_RECORDS {
        return Err(RecordError::Full);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn id(byte: u8) -> CredentialId {
        CredentialId::from_random([byte; 6])
    }

    fn new(byte: u8) -> NewCredential {
        NewCredential {
            id: id(byte),
            proof: Proof::Certificate,
            label: "office-1".to_owned(),
            expires_at: None,
            scopes: Scopes::default(),
        }
    }

    fn key() -> AccessKey {
        AccessKey::from_random(KeyKind::Enrolment, [7; crate::ACCESS_KEY_RANDOM_BYTES])
    }

    fn records(change: impl FnOnce(&mut EnrolmentRecord)) -> Records {
        let mut records = Records::default();
        records
            .add_user(user("ann"), Scopes::default(), NOW)
            .unwrap();
        let mut enrolment = EnrolmentRecord {
            id: key().id(),
            user: user("ann"),
            hash: key().hash(),
            uses_left: 1,
            created_at: NOW,
            expires_at: NOW + 900,
            revoked_at: None,
            addresses: Vec::new(),
            approval: false,
            scopes: Scopes::default(),
        };
        change(&mut enrolment);
        records.add_enrolment(enrolment).unwrap();
        records
    }

    fn from() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    fn enrol(records: &mut Records, now: u64) -> Result<(UserName, bool), EnrolError> {
        records.enrol(&key(), from(), new(1), now)
    }

    fn denied(reason: DenialReason) -> EnrolError {
        Denied::new(reason).into()
    }

    #[test]
    fn an_enrolment_key_is_used_up() {
        let mut records = records(|_| {});
        assert_eq!(enrol(&mut records, NOW), Ok((user("ann"), false)));
        assert_eq!(records.credentials.len(), 1);
        assert_eq!(enrol(&mut records, NOW), Err(denied(DenialReason::UsedUp)));
        assert_eq!(records.credentials.len(), 1);
    }

    #[test]
    fn an_enrolment_key_ends_by_time_revocation_and_address() {
        let mut of_time = records(|_| {});
        assert_eq!(
            enrol(&mut of_time, NOW + 900),
            Err(denied(DenialReason::Expired))
        );
        let mut revoked = records(|_| {});
        assert_eq!(revoked.revoke(key().id(), NOW), Ok(true));
        assert_eq!(revoked.revoke(key().id(), NOW), Ok(false));
        assert_eq!(enrol(&mut revoked, NOW), Err(denied(DenialReason::Revoked)));
        let mut elsewhere = records(|one| one.addresses = vec!["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(
            enrol(&mut elsewhere, NOW),
            Err(denied(DenialReason::Address))
        );
        let mut here = records(|one| one.addresses = vec!["192.0.2.0/24".parse().unwrap()]);
        assert!(enrol(&mut here, NOW).is_ok());
        let mut other = records(|one| one.hash = SecretHash::new([0; 32]));
        assert_eq!(
            enrol(&mut other, NOW),
            Err(denied(DenialReason::WrongSecret))
        );
    }

    #[test]
    fn an_enrolled_client_may_await_approval() {
        let mut records = records(|one| one.approval = true);
        assert_eq!(enrol(&mut records, NOW), Ok((user("ann"), true)));
        assert_eq!(records.approve(id(1)), Ok(()));
        assert_eq!(records.approve(id(1)), Err(RecordError::NotWaiting(id(1))));
        assert_eq!(records.approve(id(2)), Err(RecordError::UnknownId(id(2))));
    }

    #[test]
    fn a_removed_user_loses_its_credentials_and_keys() {
        let mut records = records(|one| one.uses_left = 2);
        enrol(&mut records, NOW).unwrap();
        assert_eq!(records.revoke_user(&user("ann"), NOW), Ok(2));
        assert_eq!(enrol(&mut records, NOW), Err(denied(DenialReason::Revoked)));
        assert!(records.user(&user("ann")).is_none());
        let unknown = RecordError::UnknownUser(user("ann"));
        assert_eq!(records.revoke_user(&user("ann"), NOW), Err(unknown.clone()));
        assert_eq!(
            records.add_credential(user("ann"), new(2), NOW),
            Err(unknown)
        );
    }

    #[test]
    fn ended_credentials_are_dropped_after_a_while() {
        let mut records = records(|_| {});
        records.add_credential(user("ann"), new(1), NOW).unwrap();
        records.revoke(id(1), NOW).unwrap();
        records
            .add_credential(user("ann"), new(2), NOW + 900)
            .unwrap();
        assert_eq!(
            (records.credentials.len(), records.enrolments.len()),
            (2, 1)
        );
        let later = NOW + 900 + KEPT_AFTER_END;
        records.add_credential(user("ann"), new(3), later).unwrap();
        let ids: Vec<_> = records.credentials.iter().map(|one| one.id).collect();
        assert_eq!(ids, [id(2), id(3)]);
        assert!(records.enrolments.is_empty());
    }

    #[test]
    fn two_credentials_have_two_tokens() {
        let mut records = records(|_| {});
        let token = |byte| NewCredential {
            proof: Proof::Token(SecretHash::new([1; 32])),
            ..new(byte)
        };
        records.add_credential(user("ann"), token(1), NOW).unwrap();
        assert_eq!(
            records.add_credential(user("ann"), token(2), NOW),
            Err(RecordError::SameSecret)
        );
        let long = NewCredential {
            label: "x".repeat(MAX_LABEL_BYTES + 1),
            ..new(3)
        };
        assert_eq!(
            records.add_credential(user("ann"), long, NOW),
            Err(RecordError::Label)
        );
    }

    #[test]
    fn the_stored_form_is_read_as_written() {
        let mut records = records(|one| one.approval = true);
        enrol(&mut records, NOW).unwrap();
        let text = serde_json::to_string(&records).unwrap();
        assert_eq!(serde_json::from_str::<Records>(&text).unwrap(), records);
        let unknown = text.replacen("\"users\"", "\"people\"", 1);
        assert!(serde_json::from_str::<Records>(&unknown).is_err());
    }
}
