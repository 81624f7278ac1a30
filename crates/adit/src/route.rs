//! `adit route test`: the rule that a URL matches, and why the others do not match.

use adit_config::{StateDir, environment};
use serde_json::Value;

use crate::{cli, outln, output, report::Failed, runtime::background, status::query};

/// Queries the routing of a server.
///
/// # Errors
/// No server responds, or no rule matches the URL.
pub fn run(command: &cli::Adit, test: &cli::RouteTest) -> Result<(), Failed> {
    let admin = match test.admin {
        Some(admin) => admin,
        None => {
            let state = StateDir::find(command.state_dir.as_deref(), environment());
            let server = state.running_server().map_err(Failed::config)?;
            server.and_then(|server| server.admin_addr).ok_or_else(|| {
                Failed::other(
                    "no adit-server with an admin port runs on this machine; name one with --admin",
                )
            })?
        }
    };
    let response = background()?.block_on(query(
        admin,
        &format!("/api/route?url={}", escape(&test.url)),
    ))?;
    if command.json {
        outln!("{response}");
    } else if let Some(error) = response["error"].as_str() {
        return Err(Failed::other(error));
    } else {
        outln!(
            "{}",
            response["explanation"]
                .as_str()
                .unwrap_or_default()
                .trim_end()
        );
    }
    output::check_written()?;
    match (&response["tunnel"], &response["upstream"]) {
        (Value::String(_), _) | (_, Value::String(_)) => Ok(()),
        _ => Err(Failed::other(format!("no tunnel serves {}", test.url))),
    }
}

/// Percent-encodes everything that could end or split a query value.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_survives_its_way_through_a_query() {
        assert_eq!(
            escape("http://a.b/c?d=e&f g"),
            "http://a.b/c%3Fd%3De%26f%20g"
        );
    }
}
