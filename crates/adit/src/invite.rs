//! `adit-server join`: prints the line with which a client elsewhere joins this server.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read},
    net::SocketAddr,
    time::Duration,
};

use adit_auth::{AccessKey, EnrolmentRecord, KeyKind, RecordError, Scopes};
use adit_client::{HostPort, JoinLine, JoinTrust};
use adit_config::{RunningServer, StateDir};
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
    let running = running(state);
    let tunnel = running
        .as_ref()
        .map_or(settings.tunnel_addr, |one| one.tunnel_addr);
    let server = match &invite.public_addr {
        Some(addr) => public_addr(addr, tunnel)?,
        None => asked(tunnel)?,
    };
    let trust = trust(settings, running.as_ref(), state, &server)?;
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
    change(state, |records| {
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
        "on the client's machine: run `adit join` and paste this line, within {}",
        span(invite.expires)
    );
    Ok(())
}

/// The time in the largest unit that gives a whole number.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (count, name) = unit.map_or((seconds, "second"), |(unit, name)| (seconds / unit, name));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {name}{plural}")
}

/// The server that runs on this state directory: its flags may differ from those of this command.
pub(crate) fn running(state: &StateDir) -> Option<RunningServer> {
    if state.is_held() {
        state.running_server().ok().flatten()
    } else {
        None
    }
}

/// How clients trust the server. Clear text is only for loopback, or for a server with `tls: off`.
fn trust(
    settings: &Settings,
    running: Option<&RunningServer>,
    state: &StateDir,
    server: &HostPort,
) -> Result<JoinTrust, Failed> {
    match (&settings.tls, running) {
        (TunnelTls::Certificate(tls), _) if tls.requires_client_certificates() => {
            Err(Failed::config(
                "every client needs a certificate of `server.tls.client_ca_file`, which a join cannot give: make a key with \
                 `adit-server key add`, and set it as auth_token beside the certificate",
            ))
        }
        (TunnelTls::Certificate(_), _) => Ok(JoinTrust::Public),
        (_, Some(running)) if running.own_ca => own_ca(state).map(JoinTrust::OwnCa),
        (TunnelTls::Off, _) => Ok(JoinTrust::Clear),
        (_, Some(running)) if server.is_loopback() && running.tunnel_addr.ip().is_loopback() => {
            Ok(JoinTrust::Clear)
        }
        (_, Some(running)) if running.tunnel_addr.ip().is_loopback() => {
            Err(Failed::config(format!(
                "the running server accepts clients of this machine only, on {}: start it with --bind-addr 0.0.0.0",
                running.tunnel_addr
            )))
        }
        (_, None) if server.is_loopback() && settings.tls.is_off(settings.tunnel_addr) => {
            Ok(JoinTrust::Clear)
        }
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
                "there is no {}: start the server first, which makes its CA, with the same --config and --state-dir",
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
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(invalid(format!("give it without `{scheme}://`: {rest:?}")));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_its_largest_unit() {
        for (seconds, text) in [
            (900, "15 minutes"),
            (60, "1 minute"),
            (90, "90 seconds"),
            (7_200, "2 hours"),
            (604_800, "7 days"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn an_address_is_given_without_a_scheme() {
        let tunnel = ([0, 0, 0, 0], 7000).into();
        let error = public_addr("https://tunnel.example.com/", tunnel).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("without `https://`: \"tunnel.example.com\""),
            "{error}"
        );
        let addr = public_addr("tunnel.example.com", tunnel).unwrap();
        assert_eq!(addr.to_string(), "tunnel.example.com:7000");
    }
}
