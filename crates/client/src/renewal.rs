//! Presents a changed credential on the control stream of a session, so that the link outlives the old one (P-1.22).

use std::{sync::Arc, time::Duration};

use adit_link::control::ControlMessage;
use adit_proto::{
    Credential, CredentialRenewal, CredentialRenewalResult, control::Kind, credential,
};
use adit_trace::Printable;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::settings::Settings;

/// A message without a response is repeated after this time: control messages may be lost with their stream.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// Results that wait to be read. Only the one of the last message counts.
const RESULTS: usize = 4;

/// Presents the credentials of the settings, each once the server has responded to the one before.
pub(crate) struct RenewalKeeper {
    presented: SecretString,
    settings: watch::Receiver<Arc<Settings>>,
    control: mpsc::Sender<ControlMessage>,
    results: mpsc::Receiver<CredentialRenewalResult>,
}

/// Receives the results of the server.
#[derive(Clone)]
pub(crate) struct RenewalResults(mpsc::Sender<CredentialRenewalResult>);

impl RenewalResults {
    /// Passes a result on. One that nothing waits for is dropped.
    pub(crate) fn on_result(&self, result: CredentialRenewalResult) {
        let _ = self.0.try_send(result);
    }
}

impl RenewalKeeper {
    /// For a session whose server has the capability, and which was authenticated with `presented`.
    pub(crate) fn new(
        presented: SecretString,
        settings: watch::Receiver<Arc<Settings>>,
        control: mpsc::Sender<ControlMessage>,
    ) -> (Self, RenewalResults) {
        let (sender, results) = mpsc::channel(RESULTS);
        let keeper = Self {
            presented,
            settings,
            control,
            results,
        };
        (keeper, RenewalResults(sender))
    }

    /// Runs until the session is over.
    ///
    /// # Cancel safety
    /// A message may have been sent.
    pub(crate) async fn run(mut self) {
        let mut sequence = 0;
        loop {
            let token = self.settings.borrow_and_update().token.clone();
            match token {
                Some(token) if token.expose_secret() != self.presented.expose_secret() => {
                    sequence += 1;
                    self.present(sequence, &token).await;
                    self.presented = token;
                }
                _ => {
                    if self.settings.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends the credential until there is a result.
    async fn present(&mut self, sequence: u64, token: &SecretString) {
        loop {
            let kind = credential::Kind::Token(token.expose_secret().to_owned());
            let renewal = Kind::CredentialRenewal(CredentialRenewal {
                sequence,
                credential: Some(Credential { kind: Some(kind) }),
            });
            if self
                .control
                .send(ControlMessage::new(0, renewal))
                .await
                .is_err()
            {
                // The session is over, and its task is about to end.
                return std::future::pending().await;
            }
            let repeat = sleep(RESPONSE_WITHIN);
            tokio::pin!(repeat);
            loop {
                tokio::select! {
                    result = self.results.recv() => match result {
                        Some(result) if result.sequence == sequence => return report(&result),
                        Some(_) => {}
                        None => return std::future::pending().await,
                    },
                    () = &mut repeat => break,
                }
            }
        }
    }
}

fn report(result: &CredentialRenewalResult) {
    match &result.error {
        None => tracing::info!("the server accepted the changed credential for the running link"),
        Some(error) => {
            let (code, message) = (Printable(&error.code), Printable(&error.message));
            tracing::warn!(
                %code,
                "the changed credential does not renew the running link, and is used by the next one: {message}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::Error;

    use super::*;

    struct Session {
        settings: watch::Sender<Arc<Settings>>,
        sent: mpsc::Receiver<ControlMessage>,
        results: RenewalResults,
    }

    fn session() -> Session {
        let settings = watch::Sender::new(Arc::new(Settings::example()));
        let (control, sent) = mpsc::channel(4);
        let (keeper, results) = RenewalKeeper::new("a-token".into(), settings.subscribe(), control);
        tokio::spawn(keeper.run());
        Session {
            settings,
            sent,
            results,
        }
    }

    impl Session {
        fn set(&self, token: &str) {
            let mut next = Settings::example();
            next.token = Some(token.into());
            self.settings.send_replace(Arc::new(next));
        }

        async fn sent(&mut self) -> (u64, String) {
            match self.sent.recv().await.unwrap().kind.unwrap() {
                Kind::CredentialRenewal(CredentialRenewal {
                    sequence,
                    credential:
                        Some(Credential {
                            kind: Some(credential::Kind::Token(token)),
                        }),
                }) => (sequence, token),
                other => panic!("{other:?}"),
            }
        }

        fn result(&self, sequence: u64, error: Option<Error>) {
            self.results
                .on_result(CredentialRenewalResult { sequence, error });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_22_a_changed_credential_is_presented_once() {
        let mut session = session();
        session.set("a-token");
        session.set("second-token");
        assert_eq!(session.sent().await, (1, "second-token".to_owned()));
        // The next one waits for the result.
        session.set("third-token");
        session.result(7, None);
        sleep(RESPONSE_WITHIN / 2).await;
        assert!(session.sent.try_recv().is_err());
        session.result(1, None);
        assert_eq!(session.sent().await, (2, "third-token".to_owned()));
        let refused = Error {
            code: "unauthenticated".to_owned(),
            ..Error::default()
        };
        session.result(2, Some(refused));
        sleep(RESPONSE_WITHIN * 3).await;
        assert!(session.sent.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_22_a_renewal_without_a_response_is_repeated() {
        let mut session = session();
        session.set("second-token");
        let began = tokio::time::Instant::now();
        for _ in 0..3 {
            assert_eq!(session.sent().await, (1, "second-token".to_owned()));
        }
        assert_eq!(began.elapsed(), RESPONSE_WITHIN * 2);
    }
}
