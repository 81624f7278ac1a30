//! Applies a changed configuration to a running client.

use adit_client::{Applied, Changes, Client, Settings};
use adit_config::{NO_WORK, Telemetry};

use super::{has_no_work, urls::Urls};
use crate::reload::Reloader;

/// Settings of the process, not of the client, that need a restart.
pub(super) struct Fixed {
    pub(super) telemetry: Telemetry,
    pub(super) admin_hosts: Vec<String>,
}

/// Loads the configuration, applies it and logs the effect.
pub(super) fn reload(
    client: &Client,
    reloader: &mut Reloader<Settings>,
    urls: &mut Urls,
    fixed: &Fixed,
) {
    let Some(loaded) = reloader.load() else {
        return;
    };
    let settings = loaded.settings;
    if has_no_work(&settings) {
        return reloader.reject(&NO_WORK);
    }
    let tunnels = settings.tunnels.clone();
    match client.apply(settings) {
        Ok(mut applied) => {
            urls.follow(&tunnels);
            let others = [
                ("client.telemetry", loaded.telemetry != fixed.telemetry),
                (
                    "client.admin.hosts",
                    loaded.admin_hosts != fixed.admin_hosts,
                ),
            ];
            let others = others.into_iter().filter(|(_, differs)| *differs);
            applied.needs_restart.extend(others.map(|(key, _)| key));
            log(&applied);
        }
        Err(error) => reloader.reject(&error),
    }
}

fn log(applied: &Applied) {
    let Applied {
        tunnels,
        entries,
        tls,
        token,
        needs_restart,
    } = applied;
    if *tls {
        tracing::info!("the next connection to the server uses the changed `client.tls`");
    }
    if *token {
        tracing::info!(
            "the token has changed: it is presented on the running link if the server supports it, and used by the next one"
        );
    }
    if tunnels.is_empty() && entries.is_empty() {
        tracing::info!("no tunnel or entry has changed");
    } else {
        let (tunnels, entries) = (text(tunnels), text(entries));
        tracing::info!(tunnels, entries, "the changes are applied");
    }
    if !needs_restart.is_empty() {
        let keys = needs_restart.join(", ");
        tracing::warn!(keys, "changed settings take effect at the next start");
    }
}

/// The changes as text: `added web, api; removed old`
fn text(changes: &Changes) -> String {
    let kinds = [
        ("added", &changes.added),
        ("changed", &changes.changed),
        ("removed", &changes.removed),
    ];
    let kinds = kinds.iter().filter(|(_, names)| !names.is_empty());
    let kinds: Vec<_> = kinds
        .map(|(kind, names)| format!("{kind} {}", names.join(", ")))
        .collect();
    match kinds.as_slice() {
        [] => "unchanged".to_owned(),
        kinds => kinds.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_listed_by_kind() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let changes = Changes {
            added: names(&["web", "api"]),
            changed: Vec::new(),
            removed: names(&["old"]),
        };
        assert_eq!(text(&changes), "added web, api; removed old");
        assert_eq!(text(&Changes::default()), "unchanged");
    }
}
