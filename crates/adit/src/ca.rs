//! `adit-server ca`: certificates of clients by the server's own CA.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_auth::{CredentialId, NewCredential, Proof};
use adit_client::{Joined, JoinedCertificate, JoinedCredential, JoinedTrust};
use adit_config::StateDir;
use adit_identity::RecordFile;
use adit_server::{OwnCaSettings, Settings, TunnelTls};
use adit_tls::{Authority, ClientKey};

use crate::{
    cli::{Ca, CaIssue},
    credentials::{change, list_certificates, now, revoke},
    invite::{public_addr, running},
    outln, output,
    report::Failed,
};

/// Runs one of the commands.
///
/// # Errors
/// The server has no CA of its own, or a file cannot be read or written.
pub fn run(settings: &Settings, state: &StateDir, command: &Ca, json: bool) -> Result<(), Failed> {
    let file = RecordFile::in_dir(state.path());
    match command {
        Ca::Issue(issue) => run_issue(settings, state, issue)?,
        Ca::List => list_certificates(&file, json)?,
        Ca::Revoke { id } => revoke(state, *id)?,
    }
    output::check_written()
}

fn run_issue(settings: &Settings, state: &StateDir, issue: &CaIssue) -> Result<(), Failed> {
    let lifetime = match &settings.tls {
        TunnelTls::OwnCa(own) => own.certificate_lifetime,
        TunnelTls::Auto => OwnCaSettings::default().certificate_lifetime,
        TunnelTls::Off => {
            return Err(Failed::config(
                "the server has no CA of its own: `server.tls` is off",
            ));
        }
        TunnelTls::Certificate(_) => {
            return Err(Failed::config(
                "the server has no CA of its own: `server.tls` has a certificate file",
            ));
        }
    };
    // A file that is there may be the only copy of a key whose certificate is valid.
    if fs::symlink_metadata(&issue.out).is_ok() {
        return Err(Failed::config(format!(
            "{} exists already: remove it, or give another file with --out",
            issue.out.display()
        )));
    }
    let running = running(state);
    let tunnel = running.map_or(settings.tunnel_addr, |one| one.tunnel_addr);
    let server = public_addr(&issue.public_addr, tunnel)?;
    let ca = state.path().join("tls/ca.json");
    let failed = |problem: String| Failed::other(format!("{}: {problem}", ca.display()));
    let text = fs::read(&ca);
    let text = text.map_err(|error| {
        failed(format!(
            "{error}; start the server first, which makes its CA"
        ))
    })?;
    let authority = Authority::from_json(&text).map_err(|error| failed(error.to_string()))?;
    let key = ClientKey::generate().map_err(Failed::other)?;
    let id = CredentialId::from_random(rand::random());
    let time = SystemTime::now();
    let issued = authority.issue_client(&id.to_string(), key.public(), lifetime, time);
    let (certificate, expires) = issued.map_err(Failed::other)?;
    let now = now();
    let joined = Joined {
        server: server.to_string(),
        user: issue.user.to_string(),
        client_id: Some(issue.client_id.clone()),
        trust: JoinedTrust::OwnCa(authority.roots_pem(time)),
        credential: JoinedCredential::Certificate(JoinedCertificate {
            certificate,
            private_key: key.to_pem(),
            issued_at: now,
            expires_at: seconds(expires),
        }),
    };
    let credential = NewCredential {
        id,
        proof: Proof::Certificate,
        label: issue.client_id.clone(),
        expires_at: None,
        scopes: issue.scopes.scopes(),
    };
    change(state, |records| {
        records.add_credential(issue.user.clone(), credential, now)
    })?;
    joined
        .write(&issue.out)
        .map_err(|error| Failed::other(format!("cannot write {}: {error}", issue.out.display())))?;
    outln!(
        "issued {id}; move {} to joined.json in the state directory of the client, which renews the certificate by itself",
        issue.out.display()
    );
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
