//! The interface to the limits of those to whom a request belongs (section 16 of the protocol).

use std::{sync::Arc, time::Duration};

use adit_codec::ProtocolType;
use adit_link::{Exchange, Failure, Pace};

use crate::forward::{denial::Denial, layer::Held};

/// The limits of a destination's client, tunnel and user. A destination without limits has none of these.
///
/// A request passes them once its visitor is admitted, and before its exchange is opened.
pub trait Limits: Send + Sync + 'static {
    /// Admits a request, a TCP connection or a UDP flow; the value is held until it ends. `is_retry`: it has been admitted on
    /// another client before.
    ///
    /// # Errors
    /// The limit that does not admit it.
    fn admit(&self, protocol: ProtocolType, is_retry: bool) -> Result<Held, Box<Denial>>;

    /// Limits of payload to the client.
    fn pace_to_client(&self) -> Option<Arc<dyn Pace>>;

    /// Limits of payload from the client.
    fn pace_from_client(&self) -> Option<Arc<dyn Pace>>;
}

/// Admits a session: a TCP connection or a UDP flow.
///
/// # Errors
/// The limit that does not admit it.
pub(crate) fn admit_session(
    limits: &dyn Limits,
    protocol: ProtocolType,
    is_retry: bool,
) -> Result<Held, Failure> {
    let held = limits.admit(protocol, is_retry);
    held.map_err(|denial| denial.into_failure())
}

/// Waits until `bytes` may be sent to the client with the head of a request.
///
/// # Cancel safety
/// The slot of the bytes is lost.
pub(crate) async fn wait_for_head(limits: &dyn Limits, bytes: usize) {
    let pace = limits.pace_to_client().filter(|_| bytes > 0);
    let wait = pace.map_or(Duration::ZERO, |pace| pace.reserve(bytes));
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Limits both directions of an exchange. `inlined`: bytes that were sent with its head.
pub fn limit_exchange(exchange: &mut Exchange, limits: &dyn Limits, inlined: usize) {
    if let Some(pace) = limits.pace_to_client() {
        if inlined > 0 {
            pace.on_moved(inlined);
        }
        exchange.send.set_pace(pace);
    }
    if let Some(pace) = limits.pace_from_client() {
        exchange.recv.set_pace(pace);
    }
}
