//! What runs beside the manager's loop: an order, or a question about a renewal window.

use std::{sync::Arc, time::Duration};

use instant_acme::{CertificateIdentifier, Error as AcmeError};

use super::context::Context;
use crate::{
    error::OrderError,
    name::CertName,
    order::{Ended, Job, Seen},
    schedule::{Environment, Window},
    store::{StoreError, StoredRecord},
};

/// What has ended, of one name.
pub(super) enum Done {
    Order {
        ended: Ended,
        environment: Environment,
        seen: Seen,
        /// The certificate was obtained and could not be stored.
        unstored: Option<StoreError>,
    },
    Window {
        window: Option<Window>,
        ask_after: Option<Duration>,
    },
}

/// Runs an order. Its record is stored before, its certificate after.
pub(super) async fn order(
    context: Arc<Context>,
    name: CertName,
    environment: Environment,
    record: StoredRecord,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Done {
    let mut seen = Seen::default();
    let done = |ended, seen, unstored| Done::Order {
        ended,
        environment,
        seen,
        unstored,
    };
    if let Err(error) = context.store_record(&name, record).await {
        let text = format!(
            "nothing is ordered for {name} until the store can be written, because a certificate would be lost at a restart: {error}"
        );
        return done(Ended::Failed(OrderError::local(text)), seen, None);
    }
    let job = Job {
        ca: context.ca(environment),
        name: &name,
        validation: &context.settings.validation,
        answers: &context.answers,
        timeouts: context.settings.timeouts,
        replaces,
        stop: &context.stop,
    };
    let ended = job.run(&mut seen).await;
    let mut unstored = None;
    if let (Ended::Issued(certificate), Environment::Production) = (&ended, environment) {
        let stored = context.store_certificate(&name, certificate.pem().clone());
        unstored = stored.await.err();
    }
    done(ended, seen, unstored)
}

/// Asks the CA for the renewal window of a certificate (RFC 9773, 4).
pub(super) async fn window(
    context: Arc<Context>,
    name: CertName,
    id: CertificateIdentifier<'static>,
) -> Done {
    let nothing = Done::Window {
        window: None,
        ask_after: None,
    };
    let ca = context.ca(Environment::Production);
    let asked = async {
        let session = ca.session(name.base(), &context.settings.validation).await;
        let session = session
            .map_err(|error| tracing::debug!(%name, error = error.text, "no renewal window"))
            .ok()?;
        match session.account.renewal_info(&id).await {
            Ok((info, ask_after)) => Some((info, ask_after)),
            // The CA has no renewal windows.
            Err(AcmeError::Unsupported(_)) => None,
            Err(error) => {
                let context = ca.context(
                    name.base(),
                    &context.settings.validation,
                    &session.retry_after,
                );
                let error = context.error("read the renewal window", error);
                tracing::debug!(%name, error = error.text, "no renewal window");
                None
            }
        }
    };
    let asked = tokio::select! {
        asked = asked => asked,
        () = context.stop.cancelled() => return nothing,
    };
    let Some((info, ask_after)) = asked else {
        return nothing;
    };
    let window = Window {
        start: info.suggested_window.start.into(),
        end: info.suggested_window.end.into(),
    };
    if let Some(url) = info.explanation_url {
        tracing::info!(%name, url = crate::error::printable(&url), "the CA explains the renewal window");
    }
    Done::Window {
        window: Some(window),
        ask_after: Some(ask_after),
    }
}
