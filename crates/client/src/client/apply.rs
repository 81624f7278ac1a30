//! Changes of the settings while the client runs.

use std::sync::PoisonError;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Client,
    services::{warn_of_clear_text, warn_of_insecure},
};
use crate::{
    entries::EntryError,
    settings::{ClientTls, EntrySettings, Settings, TunnelSettings},
};

/// The effect of [`Client::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changed tunnels. The server's response to each change follows in [`Client::registrations`].
    pub tunnels: Changes,
    /// Changed entries.
    pub entries: Changes,
    /// Whether TLS has changed, which the next connection to the server uses. The current one continues.
    pub tls: bool,
    /// Whether the token has changed. It is presented on the running link, and used by the next connection.
    pub token: bool,
    /// Keys whose new value needs a restart; the client continues with the old value.
    pub needs_restart: Vec<&'static str>,
}

/// The names of items that differ from the previous settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New items.
    pub added: Vec<String>,
    /// Items with other settings.
    pub changed: Vec<String>,
    /// Removed items.
    pub removed: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn between<T: PartialEq>(before: &[T], next: &[T], name: impl Fn(&T) -> &str) -> Self {
        let find = |all: &[T], wanted: &T| all.iter().position(|one| name(one) == name(wanted));
        let mut changes = Self::default();
        for one in next {
            match find(before, one).and_then(|index| before.get(index)) {
                Some(known) if known == one => {}
                Some(_) => changes.changed.push(name(one).to_owned()),
                None => changes.added.push(name(one).to_owned()),
            }
        }
        let removed = before.iter().filter(|one| find(next, one).is_none());
        changes.removed = removed.map(|one| name(one).to_owned()).collect();
        changes
    }
}

impl Client {
    /// Applies changed settings: tunnels and entries are added, changed and removed on the current link, without an
    /// effect on the others. Running requests of a changed or removed tunnel or entry finish. Changed TLS applies to the
    /// next connection to the server, a changed token to the current link as well. Other settings need a restart and are listed in [`Applied::needs_restart`].
    ///
    /// Does not wait for the server: the tunnels are announced as soon as the link is up.
    ///
    /// # Errors
    /// [`EntryError`] of the first entry that cannot be opened; nothing has changed then.
    pub fn apply(&self, settings: Settings) -> Result<Applied, EntryError> {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &self.state;
        let before = state.settings();
        let tls = tls_of(&before, &settings);
        let token = token_of(&before, &settings);
        let applied = Applied {
            tunnels: Changes::between(&before.tunnels, &settings.tunnels, tunnel_name),
            entries: Changes::between(&before.entries, &settings.entries, entry_name),
            tls: before.tls != tls,
            token: secret(&before.token) != secret(&token),
            needs_restart: needs_restart(&before, &settings),
        };
        let has_other_services = !applied.tunnels.is_empty() || !applied.entries.is_empty();
        let is_changed = has_other_services || applied.tls || applied.token;
        let next = Settings {
            tunnels: settings.tunnels,
            entries: settings.entries,
            tls,
            token,
            ..Settings::clone(&before)
        };
        if has_other_services {
            state.entries.apply(&next, &self.runtime)?;
        }
        if applied.tls {
            self.tls.replace(next.tls.clone());
            warn_of_clear_text(&next);
        }
        let is_connected = {
            let mut live = state.lock();
            live.needs_restart.clone_from(&applied.needs_restart);
            if !is_changed {
                return Ok(applied);
            }
            live.applied += 1;
            live.is_settled &= !has_other_services;
            live.control.is_some()
        };
        if !applied.tunnels.is_empty() {
            warn_of_insecure(&next);
        }
        state.replace_settings(next);
        if !is_connected {
            // Without a connection, no server sends requests for the removed tunnels.
            state.retire_services();
        }
        Ok(applied)
    }
}

/// TLS of the next connection. It belongs to the server that it was configured with, and another server needs a restart:
/// that of a server on loopback would be clear text.
fn tls_of(before: &Settings, next: &Settings) -> Option<ClientTls> {
    let is_same_server = before.server_addr() == next.server_addr();
    let settings = if is_same_server { next } else { before };
    settings.tls.clone()
}

/// The token of the current link and of the next one. It belongs to the server that it was configured with, as TLS does. A
/// client with a certificate instead needs a restart.
fn token_of(before: &Settings, next: &Settings) -> Option<SecretString> {
    let is_same_server = before.server_addr() == next.server_addr();
    let settings = if is_same_server && before.token.is_some() && next.token.is_some() {
        next
    } else {
        before
    };
    settings.token.clone()
}

fn tunnel_name(tunnel: &TunnelSettings) -> &str {
    &tunnel.name
}

fn entry_name(entry: &EntrySettings) -> &str {
    &entry.name
}

/// The keys that differ, other than those of tunnels and entries.
fn needs_restart(before: &Settings, next: &Settings) -> Vec<&'static str> {
    // Only a chosen name is compared: the next free one may be in use instead of a default name.
    let same_id = !next.client_id_chosen || before.client_id == next.client_id;
    let own_group = |settings: &Settings| settings.group_id == settings.client_id;
    let same_group = before.group_id == next.group_id || (own_group(before) && own_group(next));
    let differs = [
        ("client.client_id", !same_id),
        ("client.group_id", !same_group),
        ("client.server_addr", before.server_host != next.server_host),
        ("client.server_port", before.server_port != next.server_port),
        ("client.proxy", before.proxy != next.proxy),
        (
            "client.auth_token",
            before.token.is_some() != next.token.is_some(),
        ),
        ("client.reconnect", before.reconnect != next.reconnect),
        ("client.lanes", before.lanes != next.lanes),
        ("client.state_dir", before.state_dir != next.state_dir),
        ("client.admin", before.admin_addr != next.admin_addr),
        ("client.limits", before.limits != next.limits),
        ("client.timeouts", before.timeouts != next.timeouts),
    ];
    let differs = differs.into_iter().filter(|(_, differs)| *differs);
    differs.map(|(key, _)| key).collect()
}

fn secret(token: &Option<SecretString>) -> Option<&str> {
    token.as_ref().map(ExposeSecret::expose_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Trust, TunnelKind};

    fn tunnel(name: &str, port: u16) -> TunnelSettings {
        TunnelSettings::new(name, TunnelKind::Http, "127.0.0.1", port)
    }

    #[test]
    fn changes_are_found_by_name() {
        let before = [tunnel("a", 1), tunnel("b", 2), tunnel("c", 3)];
        let next = [tunnel("d", 4), tunnel("c", 3), tunnel("a", 5)];
        let changes = Changes::between(&before, &next, tunnel_name);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = Changes {
            added: names(&["d"]),
            changed: names(&["a"]),
            removed: names(&["b"]),
        };
        assert_eq!(changes, expected);
        let same = Changes::between(&next, &next, tunnel_name);
        assert!(same.is_empty(), "the order alone changes nothing");
    }

    #[test]
    fn keys_of_the_link_need_a_restart() {
        let before = Settings::example();
        assert_eq!(needs_restart(&before, &before), <[&str; 0]>::default());
        let mut next = before.clone();
        next.server_host = "other.example".into();
        next.token = Some("another-token".into());
        next.group_id = "other".into();
        next.lanes = 3;
        next.tunnels.clear();
        let expected = ["client.group_id", "client.server_addr", "client.lanes"];
        assert_eq!(needs_restart(&before, &next), expected);
    }

    #[test]
    fn tls_of_another_server_needs_a_restart() {
        let by_system = ClientTls::new(Trust::System, None, None).unwrap();
        let mut before = Settings::example();
        before.tls = Some(by_system.clone());
        let mut next = before.clone();
        next.tls = None;
        assert_eq!(tls_of(&before, &next), None);
        next.server_host = "127.0.0.1".into();
        assert_eq!(tls_of(&before, &next), Some(by_system));
    }

    #[test]
    fn a_default_client_id_may_differ_by_its_suffix() {
        let mut before = Settings::example();
        before.client_id = "office-2".into();
        before.group_id = "office-2".into();
        let mut next = Settings::example();
        next.client_id = "office".into();
        next.group_id = "office".into();
        next.client_id_chosen = false;
        assert_eq!(needs_restart(&before, &next), <[&str; 0]>::default());
        next.client_id_chosen = true;
        assert_eq!(needs_restart(&before, &next), ["client.client_id"]);
    }
}
