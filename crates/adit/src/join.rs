//! `adit join`: exchanges the line of `adit-server join` for a credential, and keeps it.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
    time::Duration,
};

use adit_client::{Join, JoinLine, JoinTrust, Proxy};
use adit_config::{StateDir, environment, proxy_of_environment};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::{cli, errln, hidden_line, outln, report::Failed, runtime::background};

/// The variable with the line.
const VARIABLE: &str = "ADIT__JOIN";

/// The variable with the proxy, which is that of `client.proxy` for the other commands.
const PROXY_VARIABLE: &str = "ADIT__CLIENT__PROXY";

/// Bytes that are read of a line: some times the length of the longest one.
const LONGEST_LINE: u64 = 4096;

/// Longest time to join.
const WITHIN: Duration = Duration::from_secs(30);

/// Joins a server.
///
/// # Errors
/// There is no line or an invalid one, the server does not accept it, or the result cannot be stored.
pub fn run(state: &StateDir, join: &cli::Join) -> Result<(), Failed> {
    let text = line(join)?;
    let line: JoinLine = text.expose_secret().parse().map_err(Failed::config)?;
    let variables: Vec<_> = environment().collect();
    let client_id = match &join.client_id {
        Some(name) => name.clone(),
        None => adit_config::default_client_id(variables.iter().cloned()),
    };
    let mut warnings = Vec::new();
    let proxy = proxy(join, &line, variables, &mut warnings)?;
    warnings.iter().for_each(|text| errln!("warning: {text}"));
    let server = line.server.clone();
    let joining = Join {
        line,
        client_id,
        proxy,
        within: WITHIN,
    };
    let outcome = background()?.block_on(joining.run());
    let mut outcome = outcome.map_err(Failed::other)?;
    outcome.joined.client_id.clone_from(&join.client_id);
    let file = state.joined_file();
    outcome.joined.write(&file).map_err(|error| {
        Failed::other(format!(
            "joined, but the credential cannot be kept in {}: {error}; revoke {} on the server, and join again with a \
             --state-dir that can be written",
            file.display(),
            outcome.credential_id
        ))
    })?;
    outln!("joined {server} as user {}", outcome.joined.user);
    if outcome.awaits_approval {
        outln!(
            "the server accepts this client after `adit-server key approve {}`",
            outcome.credential_id
        );
    }
    Ok(())
}

/// The proxy: of the flag, of the variable of `client.proxy`, or of the environment of all programs.
fn proxy(
    join: &cli::Join,
    line: &JoinLine,
    variables: Vec<(String, String)>,
    warnings: &mut Vec<String>,
) -> Result<Option<Proxy>, Failed> {
    let of_variable = variables.iter().find(|(name, _)| name == PROXY_VARIABLE);
    let of_variable = of_variable.map(|(_, value)| value);
    if { join.proxy.as_ref() }.is_some_and(|url| url.contains('@')) {
        errln!(
            "warning: every user of this machine can read a command line: give a URL with a password in {PROXY_VARIABLE}"
        );
    }
    let given = join.proxy.as_ref().or(of_variable);
    match given.map(|text| text.trim()) {
        Some("off") => Ok(None),
        Some(url) if !url.is_empty() && url != "auto" => {
            let place = match join.proxy {
                Some(_) => "--proxy",
                None => PROXY_VARIABLE,
            };
            let proxy = url.parse::<Proxy>();
            proxy
                .map(Some)
                .map_err(|error| Failed::config(format!("{place}: {error}")))
        }
        _ => Ok(match line.trust {
            // In clear text, a proxy could read the key: only a person chooses it.
            JoinTrust::Clear => None,
            JoinTrust::OwnCa(_) | JoinTrust::Public => {
                proxy_of_environment(&line.server, variables, warnings)
            }
        }),
    }
}

/// The line: of the argument, the file, the variable, standard input or the terminal.
fn line(join: &cli::Join) -> Result<SecretString, Failed> {
    if let Some(line) = &join.line {
        errln!(
            "warning: every user of this machine can read a command line: give the line on standard input, with --file or in {VARIABLE}"
        );
        return Ok(line.clone().into());
    }
    if let Some(file) = &join.file {
        return of_file(file);
    }
    if let Ok(line) = std::env::var(VARIABLE)
        && !line.trim().is_empty()
    {
        return Ok(line.into());
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let prompt = "Paste the line of `adit-server join` (it is not shown):";
        let line = hidden_line::read(prompt, LONGEST_LINE)?;
        return given(&line);
    }
    let mut line = Zeroizing::new(String::new());
    { stdin.lock().take(LONGEST_LINE) }
        .read_to_string(&mut line)
        .map_err(|error| Failed::other(format!("cannot read standard input: {error}")))?;
    given(&line)
}

fn of_file(file: &Path) -> Result<SecretString, Failed> {
    let failed =
        |error: io::Error| Failed::config(format!("cannot read {}: {error}", file.display()));
    let mut line = Zeroizing::new(String::new());
    let opened = fs::File::open(file).map_err(failed)?;
    { opened.take(LONGEST_LINE) }
        .read_to_string(&mut line)
        .map_err(failed)?;
    given(&line)
}

fn given(line: &str) -> Result<SecretString, Failed> {
    let line = line.trim();
    if line.is_empty() {
        return Err(Failed::config(format!(
            "no line: run `adit-server join` on the server's machine, and give its line on standard input, with --file or \
             in {VARIABLE}"
        )));
    }
    Ok(line.to_owned().into())
}
