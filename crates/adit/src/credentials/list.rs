//! Lists of users and credentials, as tables or as JSON.

use adit_auth::{CredentialRecord, EnrolmentRecord, Proof, Records, Scopes};
use adit_identity::RecordFile;
use comfy_table::{Table, presets::NOTHING};
use serde_json::{Value, json};

use super::now;
use crate::outln;

pub(super) fn list_users(records: &Records, json: bool) {
    if json {
        return outln!("{}", json!(records.users));
    }
    let mut table = table(["user", "state", "added", "credentials", "may use"]);
    for user in &records.users {
        let count = { records.credentials.iter() }
            .filter(|one| one.user == user.name && one.revoked_at.is_none())
            .count();
        table.add_row([
            user.name.to_string(),
            if user.revoked_at.is_some() {
                "removed"
            } else {
                "valid"
            }
            .to_owned(),
            time(user.created_at),
            count.to_string(),
            scopes(&user.scopes),
        ]);
    }
    outln!("{table}");
}

/// Lists the credentials, and the enrolments, of which `is_listed` has the proof or `None`.
pub(super) fn list_credentials(
    file: &RecordFile,
    records: &Records,
    json: bool,
    is_listed: impl Fn(Option<&Proof>) -> bool,
) {
    let uses = file.last_uses();
    let credentials = { records.credentials.iter() }.filter(|one| is_listed(Some(&one.proof)));
    let enrolments = { records.enrolments.iter() }.filter(|_| is_listed(None));
    if json {
        let credentials = credentials.map(|one| {
            json!({
                "id": one.id,
                "kind": one.proof.kind(),
                "user": one.user,
                "label": one.label,
                "state": state(one),
                "created_at": one.created_at,
                "expires_at": one.expires_at,
                "last_used_at": uses.get(&one.id),
                "scopes": one.scopes,
            })
        });
        let enrolments = enrolments.map(|one| {
            json!({
                "id": one.id,
                "kind": "join",
                "user": one.user,
                "state": state_of_enrolment(one),
                "uses_left": one.uses_left,
                "created_at": one.created_at,
                "expires_at": one.expires_at,
                "scopes": one.scopes,
            })
        });
        let all: Vec<Value> = credentials.chain(enrolments).collect();
        return outln!("{}", Value::Array(all));
    }
    let mut table = table([
        "id",
        "kind",
        "user",
        "label",
        "state",
        "created",
        "expires",
        "last used",
        "may use",
    ]);
    for one in credentials {
        table.add_row([
            one.id.to_string(),
            one.proof.kind().to_owned(),
            one.user.to_string(),
            one.label.clone(),
            state(one).to_owned(),
            time(one.created_at),
            match (one.expires_at, &one.proof) {
                (Some(at), _) => time(at),
                // A certificate is short-lived, and its client renews it.
                (None, Proof::Certificate) => "renewed".to_owned(),
                (None, _) => "never".to_owned(),
            },
            uses.get(&one.id)
                .map_or_else(|| "never".to_owned(), |at| time(*at)),
            scopes(&one.scopes),
        ]);
    }
    for one in enrolments {
        table.add_row([
            one.id.to_string(),
            "join".to_owned(),
            one.user.to_string(),
            format!("{} uses left", one.uses_left),
            state_of_enrolment(one).to_owned(),
            time(one.created_at),
            time(one.expires_at),
            String::new(),
            scopes(&one.scopes),
        ]);
    }
    outln!("{table}");
}

fn state(one: &CredentialRecord) -> &'static str {
    if one.revoked_at.is_some() {
        "revoked"
    } else if one.expires_at.is_some_and(|at| at <= now()) {
        "expired"
    } else if one.awaits_approval {
        "awaits approval"
    } else {
        "valid"
    }
}

fn state_of_enrolment(one: &EnrolmentRecord) -> &'static str {
    if one.revoked_at.is_some() {
        "revoked"
    } else if one.uses_left == 0 {
        "used up"
    } else if one.expires_at <= now() {
        "expired"
    } else {
        "valid"
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header);
    table
}

/// The scopes as they are stored; empty: everything.
fn scopes(scopes: &Scopes) -> String {
    if scopes.is_unrestricted() {
        return "everything".to_owned();
    }
    let Ok(Value::Object(lists)) = serde_json::to_value(scopes) else {
        return String::new();
    };
    let texts = lists.iter().map(|(key, value)| match value {
        Value::Array(items) => {
            let items = items.iter().map(|item| item.as_str().unwrap_or_default());
            format!("{key}: {}", items.collect::<Vec<_>>().join(", "))
        }
        value => format!("{key}: {value}"),
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// A time in UTC, to the minute.
fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%MZ").to_string(),
        Err(_) => "never".to_owned(),
    }
}
