//! `adit join`: exchanges the line of `adit-server join` for a credential, and keeps it.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
    time::Duration,
};

use adit_client::{Join, JoinLine, JoinTrust};
use adit_config::{StateDir, environment, proxy_of_environment};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::{cli, errln, hidden_line, outln, report::Failed, runtime::background};

/// The variable with the line.
const VARIABLE: &str = "ADIT__JOIN";

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
    let proxy = match line.trust {
        // In clear text, a proxy could read the key.
        JoinTrust::Clear => None,
        JoinTrust::OwnCa(_) | JoinTrust::Public => {
            proxy_of_environment(&line.server, variables, &mut warnings)
        }
    };
    warnings.iter().for_each(|text| errln!("warning: {text}"));
    let server = line.server.clone();
    let joining = Join {
        line,
        client_id,
        proxy,
        within: WITHIN,
    };
    let outcome = background()?.block_on(joining.run());
    let outcome = outcome.map_err(Failed::other)?;
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
