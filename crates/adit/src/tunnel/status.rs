//! The admin port of a client.

use std::sync::Arc;

use adit_admin::{MetricsPage, StatusSource};
use adit_client::{ClientHandle, Status};
use adit_telemetry::Telemetry;
use serde_json::{Value, json};

use crate::{reload::ReloadFailures, telemetry};

/// Reads the state of a client for its admin port.
pub(super) struct StatusReader {
    pub(super) client: ClientHandle,
    pub(super) failures: ReloadFailures,
    pub(super) telemetry: Arc<Telemetry>,
}

impl StatusReader {
    fn read(&self) -> Status {
        let mut status = self.client.status();
        status.config.rejected = self.failures.count();
        status.config.last_error = self.failures.last();
        status
    }
}

impl StatusSource for StatusReader {
    fn ready(&self) -> Result<Value, String> {
        let status = self.client.status();
        if status.connection != "connected" {
            return Err(format!("the link is {}", status.connection));
        }
        if status.lanes == 0 {
            return Err("no data stream is open; it is being opened again".to_owned());
        }
        let accepted = status.tunnels.iter();
        let accepted = accepted
            .filter(|tunnel| tunnel.outcome.error.is_none())
            .count();
        if let (0, Some(first)) = (accepted, status.tunnels.first()) {
            let error = first.outcome.error.as_deref().unwrap_or_default();
            return Err(format!("the server has refused every tunnel: {error}"));
        }
        Ok(json!({ "ready": true, "epoch": status.epoch, "tunnels_accepted": accepted }))
    }

    fn status(&self) -> Value {
        let mut status = serde_json::to_value(self.read()).unwrap_or_default();
        status["telemetry"] = telemetry::status(&self.telemetry);
        status
    }

    fn phase(&self) -> &'static str {
        self.client.status().connection
    }

    fn metrics(&self) -> Option<MetricsPage> {
        let samples = adit_client::metrics::samples(&self.read());
        telemetry::metrics_page(&self.telemetry, &samples)
    }

    fn route(&self, _: &str) -> Option<Value> {
        None
    }
}
