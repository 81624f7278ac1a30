//! What a process says about itself on its admin port.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::{get, within};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Asks an admin port for JSON.
///
/// # Panics
/// When it does not answer, or with something else.
pub async fn ask(admin: SocketAddr, path: &str) -> Value {
    let answer = within("an answer of the admin port", ANSWER_WITHIN, async {
        get(admin, &admin.to_string(), path).await
    })
    .await;
    serde_json::from_slice(&answer.body).expect("JSON of the admin port")
}

/// The number at a JSON pointer such as `/process/tasks`.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn count(status: &Value, pointer: &str) -> u64 {
    status
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no number at {pointer} of {status}"))
}
