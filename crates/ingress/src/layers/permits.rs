//! A bound on the requests at a time (F12).

use std::{fmt, sync::Arc, time::Duration};

use adit_codec::ProtocolType;
use adit_flow::{Gate, GateError};
use adit_link::{Failure, Reason};

use crate::{
    layer::{Layer, Verdict},
    session::Session,
    visit::Visit,
};

/// A bound on the requests at a time. A request over it waits a bounded time, in the order of arrival, and then gets
/// the failure `limit`.
pub struct Permits {
    gate: Arc<Gate>,
    wait: Duration,
}

impl Permits {
    /// Permits of `gate`, each waited for at most `wait`.
    pub fn new(gate: Arc<Gate>, wait: Duration) -> Self {
        Self { gate, wait }
    }
}

impl Permits {
    fn take(&self) -> Verdict {
        if let Some(permit) = self.gate.try_acquire() {
            return Verdict::Hold(Box::new(permit));
        }
        if self.wait.is_zero() {
            return Verdict::Stop(full());
        }
        let (permit, wait) = (self.gate.acquire(), self.wait);
        Verdict::Wait(Box::pin(async move {
            match tokio::time::timeout(wait, permit).await {
                Ok(Ok(permit)) => Ok(Box::new(permit) as _),
                Ok(Err(GateError::Closed)) => {
                    Err(Failure::new(Reason::Limit, "the server is shutting down"))
                }
                Ok(Err(GateError::Full)) | Err(_) => Err(full()),
            }
        }))
    }
}

impl Layer for Permits {
    fn on_request(&self, _: &mut Visit) -> Verdict {
        self.take()
    }

    /// Flows of UDP have a bound of their own (P-11.2).
    fn on_session(&self, session: &Session) -> Verdict {
        match session.protocol {
            ProtocolType::Udp => Verdict::Continue,
            _ => self.take(),
        }
    }
}

fn full() -> Failure {
    Failure::new(Reason::Limit, "too many requests at this moment")
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("gate", &self.gate)
            .field("wait", &self.wait)
            .finish()
    }
}
