//! `adit hash-password`: the hash of a password for a layer `basic_auth`.

use std::io::{BufRead, IsTerminal, Read, stdin};

use adit_server::layers::PasswordHash;
use secrecy::zeroize::Zeroizing;

use crate::{hidden_line, outln, report::Failed};

/// The longest line that is read.
const LONGEST_LINE: u64 = 4 * 1024;

/// Reads a password from the first line of standard input, and prints its hash.
///
/// # Errors
/// Standard input cannot be read, or the password is too short or too long.
pub fn run() -> Result<(), Failed> {
    let input = stdin();
    let line = if input.is_terminal() {
        let prompt = "Type the password, and press Enter (it is not shown):";
        hidden_line::read(prompt, LONGEST_LINE)?
    } else {
        let mut line = Zeroizing::new(String::new());
        let read = input.lock().take(LONGEST_LINE).read_line(&mut line);
        read.map_err(|error| Failed::other(format!("cannot read the password: {error}")))?;
        line
    };
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let hash = PasswordHash::random(password).map_err(Failed::config)?;
    outln!("{hash}");
    Ok(())
}
