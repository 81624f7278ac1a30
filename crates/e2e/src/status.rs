//! The status of a process, from its admin port.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::{get, within};

const RESPONSE_WITHIN: Duration = Duration::from_secs(20);

/// Requests JSON from an admin port.
///
/// # Panics
/// Panics when the port does not respond, or when the response is not valid JSON.
pub async fn query(admin: SocketAddr, path: &str) -> Value {
    let response = within("a response of the admin port", RESPONSE_WITHIN, async {
        get(admin, &admin.to_string(), path).await
    })
    .await;
    serde_json::from_slice(&response.body).expect("JSON of the admin port")
}

/// The number at a JSON pointer such as `/process/tasks`.
///
/// # Panics
/// Panics when the number is missing.
#[must_use]
pub fn count(status: &Value, pointer: &str) -> u64 {
    status
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no number at {pointer} of {status}"))
}
