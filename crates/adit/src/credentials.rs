//! `user`, `token` and `key`: change the credentials in the state directory of a server on this machine.

mod list;

use std::{
    io::{self, Read},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_auth::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, CredentialId, KeyKind, MAX_TOKEN_BYTES, MIN_TOKEN_BYTES,
    NewCredential, Proof, RecordError, Records, check_token, generate_token, hash_token,
};
use adit_config::StateDir;
use adit_identity::{ChangeError, RecordFile};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde_json::json;

use self::list::{list_credentials, list_users};
use crate::{
    cli::{Credentials, Key, NewFlags, Token, User},
    control_request, errln, outln, output,
    report::Failed,
};

/// Longest wait until a running server has read a change.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Runs one of the commands.
///
/// # Errors
/// The change is rejected, or the file cannot be read or written.
pub fn run(state: &StateDir, command: &Credentials, json: bool) -> Result<(), Failed> {
    match command {
        Credentials::User(user) => run_user(state, user, json)?,
        Credentials::Token(token) => run_token(state, token, json)?,
        Credentials::Key(key) => run_key(state, key, json)?,
    }
    output::check_written()
}

/// Checks that the state directory is that of a server: on the machine of a client, a change would be without effect.
///
/// # Errors
/// No server has used the directory.
pub fn check_used(state: &StateDir) -> Result<(), Failed> {
    if state.lock_file().exists() || file(state).path().exists() {
        return Ok(());
    }
    Err(Failed::config(format!(
        "no adit-server has used the state directory {}: run the command on the machine of the server, as its user, or name \
         the server's directory with --state-dir",
        state.path().display()
    )))
}

fn run_user(state: &StateDir, user: &User, json: bool) -> Result<(), Failed> {
    match user {
        User::Add { name, scopes } => {
            change(state, |records| {
                records.add_user(name.clone(), scopes.scopes(), now())
            })?;
            outln!("added user {name}");
        }
        User::Set { name, scopes } => {
            change(state, |records| records.set_user(name, scopes.scopes()))?;
            outln!("changed user {name}");
        }
        User::List => list_users(&read(&file(state))?, json),
        User::Revoke { name } => {
            let revoked = change(state, |records| records.revoke_user(name, now()))?;
            outln!("removed user {name}, revoked {revoked} credentials");
        }
    }
    Ok(())
}

fn run_token(state: &StateDir, token: &Token, json: bool) -> Result<(), Failed> {
    match token {
        Token::Add { new, from_stdin } => {
            let id = CredentialId::from_random(rand::random());
            let text = match from_stdin {
                true => token_of_stdin()?,
                false => generate_token(rand::random()),
            };
            let proof = Proof::Token(hash_token(text.expose_secret()));
            add(state, new, id, proof)?;
            if *from_stdin {
                outln!("added token {id}");
            } else {
                outln!("{}", text.expose_secret());
            }
        }
        Token::List => list_credentials(&file(state), &read(&file(state))?, json, |proof| {
            matches!(proof, Some(Proof::Token(_)))
        }),
        Token::Revoke { id } => revoke(state, *id)?,
    }
    Ok(())
}

fn run_key(state: &StateDir, key: &Key, json: bool) -> Result<(), Failed> {
    match key {
        Key::Add { new } => {
            let key = AccessKey::from_random(KeyKind::Api, random());
            add(state, new, key.id(), Proof::Key(key.hash()))?;
            outln!("{}", key.to_text().expose_secret());
        }
        Key::Set { id, scopes } => {
            change(state, |records| {
                records.set_credential(*id, scopes.scopes())
            })?;
            outln!("changed {id}");
        }
        Key::List => list_credentials(&file(state), &read(&file(state))?, json, |proof| {
            !matches!(proof, Some(Proof::Token(_)))
        }),
        Key::Approve { id } => {
            change(state, |records| records.approve(*id))?;
            outln!("approved {id}");
        }
        Key::Revoke { id } => revoke(state, *id)?,
    }
    Ok(())
}

fn add(state: &StateDir, new: &NewFlags, id: CredentialId, proof: Proof) -> Result<(), Failed> {
    let now = now();
    let credential = NewCredential {
        id,
        proof,
        label: new.label.clone(),
        expires_at: new.expires.map(|time| now.saturating_add(time.as_secs())),
        scopes: new.scopes.scopes(),
    };
    change(state, |records| {
        records.add_credential(new.user.clone(), credential, now)
    })
}

/// Revokes a credential or an enrolment.
pub fn revoke(state: &StateDir, id: CredentialId) -> Result<(), Failed> {
    match change(state, |records| records.revoke(id, now()))? {
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

/// Changes the records, and waits until a running server has read them: a client that presents a new credential at once
/// is accepted.
pub(crate) fn change<T>(
    state: &StateDir,
    change: impl FnOnce(&mut Records) -> Result<T, RecordError>,
) -> Result<T, Failed> {
    let changed = file(state).change(change).map_err(|error| match error {
        ChangeError::Rejected(error) => Failed::config(error),
        ChangeError::Store(error) => Failed::other(error),
    })?;
    // The change is stored: a server that cannot be reached reads it later.
    match control_request::send_within(state, "/api/identities/read", &json!({}), READ_WITHIN) {
        Ok(Some(_)) => {}
        Ok(None) if state.is_held() => errln!(
            "note: the running server has no control socket in {} and reads the change within some seconds",
            state.path().display()
        ),
        Ok(None) => errln!(
            "note: no server runs on {}: the change takes effect when one starts",
            state.path().display()
        ),
        Err(error) => errln!("warning: the change is stored, but {error}"),
    }
    Ok(changed)
}

/// The file of the records.
pub(crate) fn file(state: &StateDir) -> RecordFile {
    RecordFile::in_dir(state.path())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_client_is_not_one_of_a_server() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let error = check_used(&state).unwrap_err().to_string();
        assert!(error.contains("no adit-server has used"), "{error}");
        std::fs::write(state.lock_file(), "").unwrap();
        check_used(&state).unwrap();
    }
}
