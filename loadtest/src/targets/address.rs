//! A target at given addresses. Its owner must supply the commands that restart a side.

use std::process::Stdio;

use tokio::process::Command;

use super::{Entries, TargetError};
use crate::events::{Event, Side};

/// Shell commands that restart a side of a target that this program did not start.
///
/// They receive the event in `ADIT_EVENT_HOW` (`kill` or `drain`), `ADIT_EVENT_DOWN_S`, and `ADIT_EVENT_CLIENT` (the
/// number of the client, from 0), and are expected to end when the side is back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands {
    pub(crate) client: Option<String>,
    pub(crate) server: Option<String>,
}

impl Commands {
    fn of(&self, side: Side) -> Result<&str, TargetError> {
        let (command, side, flag) = match side {
            Side::Client(_) => (&self.client, "client", "--restart-client"),
            Side::Server => (&self.server, "server", "--restart-server"),
        };
        command
            .as_deref()
            .ok_or(TargetError::NoCommand { side, flag })
    }

    /// # Errors
    ///
    /// Returns an error when an event has no command.
    pub(super) fn cover(&self, events: &[Event]) -> Result<(), TargetError> {
        events
            .iter()
            .try_for_each(|event| self.of(event.side).map(drop))
    }
}

/// A target at given addresses, see the module.
pub(crate) struct Address {
    entries: Entries,
    commands: Commands,
}

impl Address {
    pub(super) fn new(entries: Entries, commands: Commands) -> Self {
        Self { entries, commands }
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    pub(super) async fn restart(&mut self, event: &Event) -> Result<(), TargetError> {
        let command = self.commands.of(event.side)?;
        let client = match event.side {
            Side::Client(number) => number.to_string(),
            Side::Server => String::new(),
        };
        let failed = |problem: String| TargetError::Command {
            command: command.to_owned(),
            problem,
        };
        let output = Command::new("sh")
            .args(["-c", command])
            .env("ADIT_EVENT_HOW", event.how.name())
            .env("ADIT_EVENT_DOWN_S", event.down.as_secs_f64().to_string())
            .env("ADIT_EVENT_CLIENT", client)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{}; {}", output.status, stderr.trim())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::How;

    fn event(side: Side) -> Event {
        Event {
            at: Duration::ZERO,
            side,
            how: How::Drain,
            down: Duration::from_millis(250),
        }
    }

    #[tokio::test]
    async fn a_command_receives_the_event_and_reports_failure() {
        let commands = Commands {
            client: Some(
                r#"test "$ADIT_EVENT_HOW $ADIT_EVENT_DOWN_S $ADIT_EVENT_CLIENT" = "drain 0.25 1""#
                    .into(),
            ),
            server: Some("echo no such stack >&2; exit 3".into()),
        };
        let mut address = Address::new(Entries::default(), commands);
        address.restart(&event(Side::Client(1))).await.unwrap();
        let error = address.restart(&event(Side::Server)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no such stack") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn an_event_without_a_command_is_refused_before_the_run() {
        let commands = Commands {
            client: Some("true".into()),
            server: None,
        };
        assert!(commands.cover(&[event(Side::Client(0))]).is_ok());
        let error = commands.cover(&[event(Side::Server)]).unwrap_err();
        assert!(error.to_string().contains("--restart-server"), "{error}");
    }
}
