//! `user`, `token` and `key`: change the credentials in the state directory of a server on this machine.

mod list;

use std::{
    io::{self, Read},
    time::{SystemTime, UNIX_EPOCH},
};

use adit_auth::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, CredentialId, KeyKind, MAX_TOKEN_BYTES, MIN_TOKEN_BYTES,
    NewCredential, Proof, RecordError, Records, check_token, generate_token, hash_token,
};
use adit_config::StateDir;
use adit_identity::{ChangeError, RecordFile};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use self::list::{list_credentials, list_users};
use crate::{
    cli::{Credentials, Key, NewFlags, Token, User},
    outln, output,
    report::Failed,
};

/// Runs one of the commands.
///
/// # Errors
/// The change is rejected, or the file cannot be read or written.
pub fn run(state: &StateDir, command: &Credentials, json: bool) -> Result<(), Failed> {
    let file = RecordFile::in_dir(state.path());
    match command {
        Credentials::User(user) => run_user(&file, user, json)?,
        Credentials::Token(token) => run_token(&file, token, json)?,
        Credentials::Key(key) => run_key(&file, key, json)?,
    }
    output::check_written()
}

fn run_user(file: &RecordFile, user: &User, json: bool) -> Result<(), Failed> {
    match user {
        User::Add { name, scopes } => {
            change(file, |records| {
                records.add_user(name.clone(), scopes.scopes(), now())
            })?;
            outln!("added user {name}");
        }
        User::List => list_users(&read(file)?, json),
        User::Revoke { name } => {
            let revoked = change(file, |records| records.revoke_user(name, now()))?;
            outln!("removed user {name}, revoked {revoked} credentials");
        }
    }
    Ok(())
}

fn run_token(file: &RecordFile, token: &Token, json: bool) -> Result<(), Failed> {
    match token {
        Token::Add { new, from_stdin } => {
            let id = CredentialId::from_random(rand::random());
            let text = match from_stdin {
                true => token_of_stdin()?,
                false => generate_token(rand::random()),
            };
            let proof = Proof::Token(hash_token(text.expose_secret()));
            add(file, new, id, proof)?;
            if *from_stdin {
                outln!("added token {id}");
            } else {
                outln!("{}", text.expose_secret());
            }
        }
        Token::List => list_credentials(file, &read(file)?, json, |proof| {
            matches!(proof, Some(Proof::Token(_)))
        }),
        Token::Revoke { id } => revoke(file, *id)?,
    }
    Ok(())
}

fn run_key(file: &RecordFile, key: &Key, json: bool) -> Result<(), Failed> {
    match key {
        Key::Add { new } => {
            let key = AccessKey::from_random(KeyKind::Api, random());
            add(file, new, key.id(), Proof::Key(key.hash()))?;
            outln!("{}", key.to_text().expose_secret());
        }
        Key::List => list_credentials(file, &read(file)?, json, |proof| {
            !matches!(proof, Some(Proof::Token(_)))
        }),
        Key::Approve { id } => {
            change(file, |records| records.approve(*id))?;
            outln!("approved {id}");
        }
        Key::Revoke { id } => revoke(file, *id)?,
    }
    Ok(())
}

fn add(file: &RecordFile, new: &NewFlags, id: CredentialId, proof: Proof) -> Result<(), Failed> {
    let now = now();
    let credential = NewCredential {
        id,
        proof,
        label: new.label.clone(),
        expires_at: new.expires.map(|time| now.saturating_add(time.as_secs())),
        scopes: new.scopes.scopes(),
    };
    change(file, |records| {
        records.add_credential(new.user.clone(), credential, now)
    })
}

/// Revokes a credential or an enrolment.
pub fn revoke(file: &RecordFile, id: CredentialId) -> Result<(), Failed> {
    match change(file, |records| records.revoke(id, now()))? {
        true => outln!("revoked {id}"),
        false => outln!("{id} was revoked before"),
    }
    Ok(())
}

/// The token of standard input, without its end of line.
fn token_of_stdin() -> Result<SecretString, Failed> {
    let mut text = Zeroizing::new(String::new());
    let most = u64::try_from(MAX_TOKEN_BYTES + 3).unwrap_or(u64::MAX);
    { io::stdin().lock().take(most) }
        .read_to_string(&mut text)
        .map_err(|error| Failed::other(format!("cannot read standard input: {error}")))?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    check_token(token).map_err(|problem| Failed::config(format!("the token {problem}")))?;
    if token.len() < MIN_TOKEN_BYTES {
        return Err(Failed::config(format!(
            "the token is shorter than {MIN_TOKEN_BYTES} characters and can be guessed, expected a long random one"
        )));
    }
    Ok(token.to_owned().into())
}

/// Lists the certificates of clients.
pub(crate) fn list_certificates(file: &RecordFile, json: bool) -> Result<(), Failed> {
    list_credentials(file, &read(file)?, json, |proof| {
        matches!(proof, Some(Proof::Certificate))
    });
    Ok(())
}

fn read(file: &RecordFile) -> Result<Records, Failed> {
    file.read().map_err(Failed::other)
}

/// Changes the records.
pub(crate) fn change<T>(
    file: &RecordFile,
    change: impl FnOnce(&mut Records) -> Result<T, RecordError>,
) -> Result<T, Failed> {
    file.change(change).map_err(|error| match error {
        ChangeError::Rejected(error) => Failed::config(error),
        ChangeError::Store(error) => Failed::other(error),
    })
}

/// Random bytes of a key.
pub(crate) fn random() -> [u8; ACCESS_KEY_RANDOM_BYTES] {
    rand::random()
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
