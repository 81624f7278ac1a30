//! `adit-server join`: prints the line with which a client elsewhere joins this server.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read},
    net::SocketAddr,
};

use adit_auth::{AccessKey, EnrolmentRecord, KeyKind, RecordError, Scopes};
use adit_client::{HostPort, JoinLine, JoinTrust};
use adit_config::StateDir;
use adit_identity::RecordFile;
use adit_server::{Settings, TunnelTls};
use adit_tls::{Fingerprint, Roots};
use secrecy::ExposeSecret;

use crate::{
    cli,
    credentials::{change, now, random},
    errln, outln,
    report::Failed,
};

/// The user of clients that join without another one: that of the generated token, so that all of them share its names.
const DEFAULT_USER: &str = "default";

/// Prints the line.
///
/// # Errors
/// There is no address, the server has never made its CA, or the key cannot be stored.
pub fn run(settings: &Settings, state: &StateDir, invite: &cli::Invite) -> Result<(), Failed> {
    let server = match &invite.public_addr {
        Some(addr) => public_addr(addr, settings.tunnel_addr)?,
        None => asked(settings.tunnel_addr)?,
    };
    let trust = trust(settings, state)?;
    let key = AccessKey::from_random(KeyKind::Enrolment, random());
    let created_at = now();
    let enrolment = EnrolmentRecord {
        id: key.id(),
        user: invite.user.clone(),
        hash: key.hash(),
        uses_left: invite.uses,
        created_at,
        expires_at: created_at.saturating_add(invite.expires.as_secs()),
        revoked_at: None,
        addresses: invite.from.clone(),
        approval: invite.approve,
        scopes: invite.scopes.scopes(),
    };
    change(&RecordFile::in_dir(state.path()), |records| {
        if invite.user.as_str() == DEFAULT_USER {
            match records.add_user(invite.user.clone(), Scopes::default(), created_at) {
                Ok(()) | Err(RecordError::UserExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        records.add_enrolment(enrolment)
    })?;
    let line = JoinLine { server, key, trust };
    if line.trust == JoinTrust::Clear {
        errln!("warning: the connections of clients are not encrypted: remove `tls: off`");
    }
    outln!("{}", line.to_text().expose_secret());
    errln!(
        "on the client's machine: run `adit join` and paste this line, within {:?}",
        invite.expires
    );
    Ok(())
}

/// How clients trust the server.
pub(crate) fn trust(settings: &Settings, state: &StateDir) -> Result<JoinTrust, Failed> {
    match &settings.tls {
        TunnelTls::Certificate(_) => Ok(JoinTrust::Public),
        tls if tls.is_off(settings.tunnel_addr) => Ok(JoinTrust::Clear),
        _ => own_ca(state).map(JoinTrust::OwnCa),
    }
}

/// The fingerprint of the newest certificate of the server's own CA.
fn own_ca(state: &StateDir) -> Result<Fingerprint, Failed> {
    let file = state.ca_file();
    let pem = match fs::read(&file) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failed::other(format!(
                "there is no {}: start the server once, which makes its CA; it uses the same --config and --state-dir",
                file.display()
            )));
        }
        Err(error) => return Err(Failed::other(format!("{}: {error}", file.display()))),
    };
    let roots = Roots::from_pem(&pem);
    let roots = roots.map_err(|error| Failed::other(format!("{}: {error}", file.display())))?;
    let newest = roots.fingerprints().next();
    newest.ok_or_else(|| Failed::other(format!("{}: no certificate", file.display())))
}

/// An address of a person, with the port of the server if it has none.
pub(crate) fn public_addr(text: &str, tunnel: SocketAddr) -> Result<HostPort, Failed> {
    let invalid = |problem: String| {
        Failed::config(format!(
            "invalid address {text:?}: {problem}; expected HOST or HOST:PORT, as clients reach this server"
        ))
    };
    let (host, port) = HostPort::split(text).map_err(|error| invalid(error.to_string()))?;
    match (port, tunnel.port()) {
        (Some(port), _) => Ok(HostPort::new(host, port)),
        (None, 0) => Err(invalid("the port is missing".to_owned())),
        (None, port) => Ok(HostPort::new(host, port)),
    }
}

/// The address that the person at the terminal gives.
fn asked(tunnel: SocketAddr) -> Result<HostPort, Failed> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failed::config(
            "missing address: name this server as clients reach it, with --public-addr HOST",
        ));
    }
    errln!("Name or address of this server, as clients reach it:");
    let mut text = String::new();
    let read = stdin.lock().take(1024).read_line(&mut text);
    read.map_err(|error| Failed::other(format!("cannot read the address: {error}")))?;
    public_addr(text.trim(), tunnel)
}
