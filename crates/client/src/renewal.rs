//! Presents a changed credential on the control stream of a session, so that the link outlives the old one (P-1.22).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_auth::jwt_expiry;
use adit_link::control::ControlMessage;
use adit_proto::{
    Credential, CredentialRenewal, CredentialRenewalResult, control::Kind, credential,
};
use adit_trace::Printable;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::settings::Settings;

/// A message without a response is repeated after this time: control messages may be lost with their stream.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// Bounds of the time until a credential is presented again that was refused for a reason that may pass. An attempt counts
/// as a guess of its address at the server.
const RETRY_LEAST: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Results that wait to be read. Only the one of the last message counts.
const RESULTS: usize = 4;

/// Presents the credentials of the settings, each once the server has responded to the one before. One that is refused for a
/// reason that may pass, such as a key that the server does not know yet, is presented again until it expires.
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
        let mut retry: Option<Retry> = None;
        loop {
            let token = self.settings.borrow_and_update().token.clone();
            let is_new =
                |token: &SecretString| token.expose_secret() != self.presented.expose_secret();
            match token.filter(is_new) {
                Some(token) => {
                    self.presented = token;
                    retry = None;
                }
                None => {
                    let due = async {
                        match &retry {
                            Some(retry) => sleep_until(retry.at).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        changed = self.settings.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return,
                        },
                        () = due => {}
                    }
                    if has_expired(&self.presented) {
                        tracing::warn!(
                            "the changed credential has expired before the server accepted it"
                        );
                        retry = None;
                        continue;
                    }
                }
            }
            sequence += 1;
            let token = self.presented.clone();
            let result = self.present(sequence, &token).await;
            retry = report(&result, retry.is_some()).then(|| Retry::after(retry));
        }
    }

    /// Sends the credential until there is a result.
    async fn present(&mut self, sequence: u64, token: &SecretString) -> CredentialRenewalResult {
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
                        Some(result) if result.sequence == sequence => return result,
                        Some(_) => {}
                        None => return std::future::pending().await,
                    },
                    () = &mut repeat => break,
                }
            }
        }
    }
}

/// When a credential is presented again.
struct Retry {
    at: Instant,
    delay: Duration,
}

impl Retry {
    fn after(last: Option<Self>) -> Self {
        let delay = last.map_or(RETRY_LEAST, |last| (last.delay * 2).min(RETRY_MOST));
        Self {
            at: Instant::now() + delay,
            delay,
        }
    }
}

fn has_expired(token: &SecretString) -> bool {
    jwt_expiry(token.expose_secret()).is_some_and(|at| at <= SystemTime::now())
}

/// Logs a result; repeated ones only in detail. Returns whether the credential may be accepted later. The server does not say why
/// it is invalid: it may look for the key of an issuer at this moment.
fn report(result: &CredentialRenewalResult, is_repeated: bool) -> bool {
    let Some(error) = &result.error else {
        tracing::info!("the server accepted the changed credential for the running link");
        return false;
    };
    let (code, message) = (Printable(&error.code), Printable(&error.message));
    let may_pass = !matches!(&*error.code, "forbidden" | "bad_request");
    if !may_pass {
        tracing::warn!(
            %code,
            "the changed credential does not renew the running link, and is used by the next one: {message}"
        );
    } else if is_repeated {
        tracing::debug!(%code, "the changed credential is refused again: {message}");
    } else {
        tracing::warn!(
            %code,
            "the changed credential is refused, and presented again until it is accepted or expires: {message}"
        );
    }
    may_pass
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

    fn refused(code: &str) -> Error {
        Error {
            code: code.to_owned(),
            ..Error::default()
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
        session.result(2, Some(refused("forbidden")));
        sleep(RETRY_MOST * 3).await;
        assert!(session.sent.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_22_a_credential_that_is_refused_for_now_is_presented_again() {
        let mut session = session();
        session.set("second-token");
        let mut delays = Vec::new();
        for (sequence, code) in [
            (1, "unauthenticated"),
            (2, "limit"),
            (3, "internal"),
            (4, "unauthenticated"),
            (5, "unauthenticated"),
            (6, "unauthenticated"),
        ] {
            let began = Instant::now();
            assert_eq!(session.sent().await, (sequence, "second-token".to_owned()));
            delays.push(began.elapsed().as_secs());
            session.result(sequence, Some(refused(code)));
        }
        assert_eq!(delays, [0, 5, 10, 20, 40, 60]);
        // A newer one does not wait, and begins anew.
        session.set("third-token");
        let began = Instant::now();
        assert_eq!(session.sent().await, (7, "third-token".to_owned()));
        assert_eq!(began.elapsed(), Duration::ZERO);
        session.result(7, Some(refused("unauthenticated")));
        assert_eq!(session.sent().await, (8, "third-token".to_owned()));
        assert_eq!(began.elapsed(), RETRY_LEAST);
        session.result(8, None);
        sleep(RETRY_MOST * 3).await;
        assert!(session.sent.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_22_an_expired_credential_is_not_presented_again() {
        let mut session = session();
        // `{"alg":"ES256"}`, `{"exp":1}`.
        let expired = "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjF9.c2ln";
        session.set(expired);
        assert_eq!(session.sent().await, (1, expired.to_owned()));
        session.result(1, Some(refused("unauthenticated")));
        sleep(RETRY_MOST * 3).await;
        assert!(session.sent.try_recv().is_err());
        session.set("third-token");
        assert_eq!(session.sent().await, (2, "third-token".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_22_a_renewal_without_a_response_is_repeated() {
        let mut session = session();
        session.set("second-token");
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(session.sent().await, (1, "second-token".to_owned()));
        }
        assert_eq!(began.elapsed(), RESPONSE_WITHIN * 2);
    }
}
