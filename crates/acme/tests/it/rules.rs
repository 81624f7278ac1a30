//! The rules at a CA with renewal windows and limits: one test for each, named after what went wrong elsewhere.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_acme::{
    CertName, Challenges, FileStore, Settings, State, Store, StoreError, StoredCertificate,
    StoredRecord, Timeouts, Validation,
    schedule::{AskAfter, Environment, Policy, Reason},
};
use secrecy::SecretString;

use crate::{
    double::{DAY, Double},
    support::{Run, quick},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn start(double: &Double, settings: Settings) -> (Run, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(settings, dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    drop(double.clone());
    (run, dir)
}

/// A policy under which a renewal window may replace a certificate at once, and the CA is asked again soon.
fn eager() -> Policy {
    Policy {
        youngest: Duration::ZERO,
        ask_after: AskAfter {
            default: SECOND / 5,
            shortest: SECOND / 5,
            longest: SECOND / 5,
        },
        ..quick()
    }
}

fn eager_settings(double: &Double) -> Settings {
    Settings {
        policy: eager(),
        ..double.settings()
    }
}

/// The first certificate is to be replaced now, later ones in a month.
fn first_now(number: usize) -> (SystemTime, SystemTime) {
    let now = SystemTime::now();
    if number == 1 {
        (now - HOUR, now + SECOND)
    } else {
        (now + 30 * DAY, now + 31 * DAY)
    }
}

/// Every certificate is to be replaced now.
fn always_now(_: usize) -> (SystemTime, SystemTime) {
    let now = SystemTime::now();
    (now - HOUR, now + SECOND)
}

/// acme.sh#6965: the CA asked for a replacement, and the client skipped it.
#[tokio::test]
async fn a_renewal_that_the_window_demands_happens_and_replaces() {
    let double = Double::new().await;
    double.production.lock().window = Some(first_now);
    let (run, _dir) = start(&double, eager_settings(&double));
    run.until("renewed", |run| run.stats().issued == 2).await;
    let questions = double.production.lock().questions;
    run.until("asked again", |_| {
        double.production.lock().questions > questions + 3
    })
    .await;
    assert_eq!(run.stats().orders, 2, "the second certificate stays");
    assert_eq!(run.stats().renewals_by_window, 1);
    let replaces = double.production.lock().replaces.clone();
    assert!(replaces[0].is_none());
    assert!(
        replaces[1].as_ref().is_some_and(|id| id.contains('.')),
        "{replaces:?}"
    );
    assert_eq!(run.times_published("a.example.com"), 2);
}

/// certmagic#361, lego#2475: the CA answered 409, and the certificate expired.
#[tokio::test]
async fn already_replaced_is_tried_at_once_without_replaces() {
    let double = Double::new().await;
    {
        let mut state = double.production.lock();
        state.window = Some(first_now);
        state.all_replaced = true;
    }
    let (run, _dir) = start(&double, eager_settings(&double));
    run.until("renewed", |run| run.stats().issued == 2).await;
    let stats = run.stats();
    assert_eq!((stats.orders, stats.replaces_refused), (2, 1));
    assert_eq!(stats.failed_refused, 0, "it is not a failure");
    assert_eq!(double.production.lock().replaces, [None, None]);
}

/// cert-manager#8993: five certificates in ten seconds and a lockout of a week.
#[tokio::test]
async fn a_window_that_never_moves_stops_at_three_orders_and_says_so() {
    let double = Double::new().await;
    double.production.lock().window = Some(always_now);
    let (run, dir) = start(&double, eager_settings(&double));
    let held = |run: &Run| {
        run.status("a.example.com")
            .is_some_and(|status| status.reason == Some(Reason::Orders))
    };
    run.until("held", held).await;
    let status = run.status("a.example.com").unwrap();
    let error = status.last_error.unwrap();
    assert!(
        error.contains("3 certificates") && error.contains("waits"),
        "{error}"
    );
    let wait = status
        .next_attempt
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(wait > 6 * DAY, "{wait:?}");
    assert_eq!(run.state("a.example.com"), Some(State::Valid));
    let questions = double.production.lock().questions;
    run.until("asked again", |_| {
        double.production.lock().questions > questions + 3
    })
    .await;
    assert_eq!(double.production.lock().orders.len(), 3);
    run.shutdown().await;

    // A restart forgets nothing.
    let run = Run::start(eager_settings(&double), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
    run.until("held", held).await;
    assert_eq!(double.production.lock().orders.len(), 3);
}

/// traefik#7952, #905: the stored certificates were lost at restarts.
#[tokio::test]
async fn lost_certificates_are_ordered_again_at_most_three_times() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    for lost in 0..4 {
        let run = Run::start(double.settings(), dir.path(), &Challenges::new());
        run.want(&["a.example.com"]);
        if lost < 3 {
            run.certificate("a.example.com").await;
        } else {
            run.error("a.example.com", "keep the state directory").await;
        }
        run.shutdown().await;
        for ca in fs::read_dir(dir.path()).unwrap() {
            let _ = fs::remove_file(ca.unwrap().path().join("a.example.com.pem"));
        }
    }
    assert_eq!(double.production.lock().orders.len(), 3);
}

/// traefik#3653: adding eight names rewrote one certificate, and every site was down for a week.
#[tokio::test]
async fn adding_names_never_changes_the_certificate_of_another() {
    let double = Double::new().await;
    let (run, _dir) = start(&double, double.settings());
    let first = run.certificate("a.example.com").await;
    let names: Vec<_> = ('a'..='i')
        .map(|letter| format!("{letter}.example.com"))
        .collect();
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    run.want(&names);
    for name in &names {
        run.certificate(name).await;
    }
    let orders = double.production.lock().orders.clone();
    assert_eq!(orders.len(), 9);
    assert!(orders.iter().all(|names| names.len() == 1), "{orders:?}");
    assert_eq!(
        run.served("a.example.com").unwrap().lifetime(),
        first.lifetime()
    );
    assert_eq!(run.times_published("a.example.com"), 1);
    assert_eq!(double.production.lock().accounts, 1);
}

#[tokio::test]
async fn a_rate_limit_waits_for_retry_after() {
    let double = Double::new().await;
    double.production.lock().refuse = Some((429, "rateLimited", Some(3)));
    let (run, _dir) = start(&double, double.settings());
    let error = run.error("a.example.com", "limits the rate").await;
    assert!(error.contains("the double refuses it"), "{error}");
    double.production.lock().refuse = None;
    run.certificate("a.example.com").await;
    let times = double.production.lock().times.clone();
    assert_eq!(times.len(), 2);
    let apart = times[1].duration_since(times[0]).unwrap();
    assert!(apart >= 2 * SECOND, "{apart:?}");
    assert_eq!(run.stats().failed_rate_limited, 1);
}

/// A limit of the account is one for all names: others do not try it one after the other.
#[tokio::test]
async fn a_rate_limit_pauses_all_names() {
    let double = Double::new().await;
    double.production.lock().refuse = Some((429, "rateLimited", Some(3600)));
    let settings = Settings {
        max_orders: 1,
        ..double.settings()
    };
    let (run, _dir) = start(&double, settings);
    run.error("a.example.com", "limits the rate").await;
    double.production.lock().refuse = None;
    run.want(&["a.example.com", "b.example.com"]);
    run.until("wanted", |run| run.status("b.example.com").is_some())
        .await;
    tokio::time::sleep(SECOND).await;
    assert!(run.served("b.example.com").is_none());
    assert_eq!(double.production.lock().times.len(), 1);
}

#[tokio::test]
async fn staging_is_tried_after_a_failure_then_production_once() {
    let double = Double::new().await;
    double.production.lock().invalid = true;
    double.staging.lock().invalid = true;
    let settings = Settings {
        staging: Some(double.ca("staging")),
        ..double.settings()
    };
    let (run, dir) = start(&double, settings);
    run.until("tried at staging", |_| {
        double.staging.lock().orders.len() >= 2
    })
    .await;
    assert_eq!(double.production.lock().orders.len(), 1);
    let error = run.error("a.example.com", "port 80").await;
    assert!(error.contains("cannot connect"), "{error}");
    let status = run.status("a.example.com").unwrap();
    assert_eq!(status.environment, Environment::Staging);

    double.production.lock().invalid = false;
    double.staging.lock().invalid = false;
    run.certificate("a.example.com").await;
    let stats = run.stats();
    assert_eq!((stats.staging_passed, stats.issued), (1, 1));
    assert_eq!(double.production.lock().orders.len(), 2);
    assert_eq!(
        run.times_published("a.example.com"),
        1,
        "a certificate of staging is never served"
    );
    run.shutdown().await;
    let cas = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(cas, 2, "the accounts are apart");
    assert_eq!(
        (
            double.production.lock().accounts,
            double.staging.lock().accounts
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn the_old_certificate_is_served_past_its_end_rather_than_none() {
    let double = Double::new().await;
    double.production.lock().lifetime = Some(4 * SECOND);
    let (run, _dir) = start(&double, double.settings());
    let first = run.certificate("a.example.com").await;
    double.production.lock().broken = Some(503);
    run.until("expired", |run| {
        run.state("a.example.com") == Some(State::Expired)
    })
    .await;
    let error = run.error("a.example.com", "503").await;
    assert!(error.contains("cannot be reached"), "{error}");
    assert_eq!(
        run.served("a.example.com").unwrap().lifetime(),
        first.lifetime()
    );
    {
        let mut state = double.production.lock();
        state.broken = None;
        state.lifetime = None;
    }
    run.until("renewed", |run| {
        run.state("a.example.com") == Some(State::Valid)
    })
    .await;
    let issued = usize::try_from(run.stats().issued).unwrap();
    assert_eq!(run.times_published("a.example.com"), issued);
}

#[tokio::test]
async fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
    let double = Double::new().await;
    double.production.lock().lifetime = Some(9 * SECOND);
    let (run, _dir) = start(&double, double.settings());
    run.until("renewed", |run| run.stats().issued == 2).await;
    let times = double.production.lock().times.clone();
    let apart = times[1].duration_since(times[0]).unwrap();
    assert!(apart >= 4 * SECOND && apart < 9 * SECOND, "{apart:?}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_stops_no_other_name() {
    let double = Double::new().await;
    let (run, dir) = start(&double, double.settings());
    run.want(&["a.example.com", "b.example.com"]);
    run.certificate("a.example.com").await;
    run.certificate("b.example.com").await;
    run.shutdown().await;
    let ca = fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::write(
        ca.join("a.example.com.pem"),
        "-----BEGIN CERTIFICATE-----\nnothing",
    )
    .unwrap();
    fs::write(ca.join("account.json"), "{").unwrap();

    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com", "b.example.com"]);
    run.certificate("b.example.com").await;
    run.certificate("a.example.com").await;
    let stats = run.stats();
    assert_eq!((stats.store_errors, stats.orders), (1, 1));
    assert_eq!(double.production.lock().accounts, 2);
}

/// A store whose disk is full or not writable.
struct Unwritable(FileStore);

impl Store for Unwritable {
    fn account(&self, ca: &str) -> Result<Option<SecretString>, StoreError> {
        self.0.account(ca)
    }
    fn store_account(&self, ca: &str, account: &SecretString) -> Result<(), StoreError> {
        self.0.store_account(ca, account)
    }
    fn certificate(
        &self,
        ca: &str,
        name: &CertName,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        self.0.certificate(ca, name)
    }
    fn store_certificate(
        &self,
        ca: &str,
        name: &CertName,
        pem: &StoredCertificate,
    ) -> Result<(), StoreError> {
        self.0.store_certificate(ca, name, pem)
    }
    fn record(&self, ca: &str, name: &CertName) -> Result<Option<StoredRecord>, StoreError> {
        self.0.record(ca, name)
    }
    fn names(&self, ca: &str, most: usize) -> Result<Vec<CertName>, StoreError> {
        self.0.names(ca, most)
    }
    fn remove(&self, ca: &str, name: &CertName) -> Result<(), StoreError> {
        self.0.remove(ca, name)
    }
    fn store_record(&self, _: &str, _: &CertName, _: &StoredRecord) -> Result<(), StoreError> {
        Err(StoreError {
            place: "the disk".to_owned(),
            problem: "no space left".to_owned(),
        })
    }
}

#[tokio::test]
async fn nothing_is_ordered_while_the_store_cannot_be_written() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Unwritable(FileStore::open(dir.path()).unwrap()));
    let run = Run::with_store(double.settings(), store, &Challenges::new());
    run.want(&["a.example.com"]);
    run.error("a.example.com", "no space left").await;
    run.until("tried again", |run| run.stats().failed_local >= 2)
        .await;
    assert_eq!(double.production.lock().times.len(), 0);
}

#[tokio::test]
async fn a_wildcard_name_without_dns_01_is_never_ordered() {
    let double = Double::new().await;
    let (run, _dir) = start(&double, double.settings());
    run.want(&["*.example.com", "a.example.com"]);
    run.error("*.example.com", "dns-01").await;
    run.certificate("a.example.com").await;
    assert_eq!(run.state("*.example.com"), Some(State::Unsupported));
    assert_eq!(double.production.lock().orders.len(), 1);
}

#[tokio::test]
async fn an_order_in_its_last_step_counts_when_a_shutdown_ends_it() {
    let double = Double::new().await;
    double.production.lock().stuck = true;
    let settings = Settings {
        timeouts: Timeouts {
            shutdown: SECOND / 2,
            ..Timeouts::default()
        },
        ..double.settings()
    };
    let (run, dir) = start(&double, settings);
    run.until("finalized", |_| double.production.lock().times.len() == 1)
        .await;
    tokio::time::sleep(SECOND).await;
    let began = std::time::Instant::now();
    run.shutdown().await;
    assert!(began.elapsed() < 30 * SECOND);
    let store = FileStore::open(dir.path()).unwrap();
    let ca = double.ca("production");
    let record = store.record(ca.directory(), &CertName::parse("a.example.com").unwrap());
    assert_eq!(record.unwrap().unwrap().record.orders.len(), 1);
}

#[tokio::test]
async fn a_certificate_that_comes_at_the_shutdown_is_stored() {
    let double = Double::new().await;
    double.production.lock().stuck = true;
    let (run, dir) = start(&double, double.settings());
    run.until("ordered", |_| double.production.lock().times.len() == 1)
        .await;
    tokio::time::sleep(SECOND).await;
    let stuck = double.production.clone();
    let release = tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        stuck.lock().stuck = false;
    });
    run.shutdown().await;
    release.await.unwrap();
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
    assert_eq!(run.stats().orders, 0);
}

#[tokio::test]
async fn a_new_contact_is_sent_to_the_ca_once() {
    let double = Double::new().await;
    let (run, dir) = start(&double, double.settings());
    run.certificate("a.example.com").await;
    run.shutdown().await;
    let settings = || Settings {
        production: double
            .ca("production")
            .with_email("new@example.com")
            .unwrap(),
        ..double.settings()
    };
    for name in ["b.example.com", "c.example.com"] {
        let run = Run::start(settings(), dir.path(), &Challenges::new());
        run.want(&[name]);
        run.certificate(name).await;
        run.shutdown().await;
    }
    let state = double.production.lock();
    assert_eq!(state.accounts, 1);
    assert_eq!(state.contacts.len(), 1, "{:?}", state.contacts);
    assert_eq!(state.contacts[0]["contact"][0], "mailto:new@example.com");
}

#[tokio::test]
async fn names_beyond_the_bound_are_left_out_and_counted() {
    let double = Double::new().await;
    let settings = Settings {
        max_names: 2,
        ..double.settings()
    };
    let (run, _dir) = start(&double, settings);
    run.certificate("a.example.com").await;
    run.want(&["0.example.com", "1.example.com", "a.example.com"]);
    run.certificate("0.example.com").await;
    assert!(
        run.served("a.example.com").is_some(),
        "the known name has precedence"
    );
    assert_eq!(run.stats().names_ignored, 1);
    assert!(run.status("1.example.com").is_none());
}

#[tokio::test]
async fn a_method_that_the_ca_does_not_offer_is_named() {
    let double = Double::new().await;
    double.production.lock().invalid = true;
    let settings = Settings {
        validation: Validation::TlsAlpn01,
        ..double.settings()
    };
    let (run, _dir) = start(&double, settings);
    let error = run.error("a.example.com", "tls-alpn-01").await;
    assert!(error.contains("it offers http-01"), "{error}");
}

#[tokio::test]
async fn a_wrong_directory_is_named() {
    let double = Double::new().await;
    let settings = Settings {
        production: double.ca("production"),
        ..double.settings()
    };
    double.production.lock().broken = Some(404);
    let (run, _dir) = start(&double, settings);
    run.error("a.example.com", "URL right").await;
}

/// A CA that fails for a moment after the order is finalized: the certificate counts there, and must not be lost.
#[tokio::test]
async fn a_certificate_is_not_lost_when_the_ca_fails_for_a_moment() {
    let double = Double::new().await;
    double.production.lock().stuck = true;
    let (run, _dir) = start(&double, double.settings());
    run.until("ordered", |_| double.production.lock().times.len() == 1)
        .await;
    tokio::time::sleep(SECOND).await;
    double.production.lock().broken = Some(502);
    tokio::time::sleep(2 * SECOND).await;
    {
        let mut state = double.production.lock();
        state.stuck = false;
        state.broken = None;
    }
    run.certificate("a.example.com").await;
    assert_eq!(double.production.lock().times.len(), 1);
    assert_eq!(run.stats().orders, 1);
}

/// The CA has an error while it issues, or instead: the order is looked at, and no certificate is ordered twice.
#[tokio::test]
async fn an_error_of_the_ca_at_the_last_step_is_not_a_refusal() {
    for broken in [vec![true], vec![false], vec![false, false, true]] {
        let double = Double::new().await;
        double.production.lock().broken_finalize = broken;
        let (run, _dir) = start(&double, double.settings());
        run.certificate("a.example.com").await;
        let state = double.production.lock();
        assert_eq!((state.orders.len(), run.stats().orders), (1, 1));
        assert!(state.broken_finalize.is_empty());
    }
}

#[tokio::test]
async fn an_order_that_the_ca_could_not_finalize_does_not_count() {
    let double = Double::new().await;
    double.production.lock().broken_finalize = vec![false; 1000];
    let settings = Settings {
        timeouts: Timeouts {
            issuance: SECOND,
            ..Timeouts::default()
        },
        ..double.settings()
    };
    let (run, _dir) = start(&double, settings);
    run.until("tried more often than certificates are ordered", |run| {
        run.stats().failed_unreachable > 4
    })
    .await;
    double.production.lock().broken_finalize.clear();
    run.certificate("a.example.com").await;
}

#[tokio::test]
async fn a_huge_retry_after_in_a_successful_answer_harms_nothing() {
    let double = Double::new().await;
    {
        let mut state = double.production.lock();
        state.window = Some(first_now);
        state.retry_after = Some("18446744073709551615");
    }
    let (run, _dir) = start(&double, eager_settings(&double));
    run.until("renewed", |run| run.stats().issued == 2).await;
    let questions = double.production.lock().questions;
    run.until("asked again", |_| {
        double.production.lock().questions > questions + 1
    })
    .await;
    assert_eq!(run.stats().failed_local, 0);
}

#[tokio::test]
async fn a_busy_staging_ca_does_not_stop_production() {
    for refusal in [
        (429, "rateLimited", Some(3600)),
        (503, "serverInternal", Some(3600)),
    ] {
        let double = Double::new().await;
        double.production.lock().invalid = true;
        double.staging.lock().refuse = Some(refusal);
        let settings = Settings {
            staging: Some(double.ca("staging")),
            ..double.settings()
        };
        let (run, _dir) = start(&double, settings);
        run.want(&["a.example.com", "b.example.com"]);
        run.until("tried at staging", |_| {
            !double.staging.lock().times.is_empty()
        })
        .await;
        double.production.lock().invalid = false;
        run.certificate("a.example.com").await;
        run.certificate("b.example.com").await;
    }
}

#[tokio::test]
async fn parallel_orders_make_one_account_when_the_ca_has_lost_theirs() {
    let double = Double::new().await;
    let (run, _dir) = start(&double, double.settings());
    run.certificate("a.example.com").await;
    double.production.lock().lost_accounts = 1;
    let names = ["b", "c", "d", "e"].map(|label| format!("{label}.example.com"));
    let mut names: Vec<_> = names.iter().map(|name| &**name).collect();
    names.push("a.example.com");
    run.want(&names);
    for name in &names {
        run.certificate(name).await;
    }
    assert_eq!(double.production.lock().accounts, 2);
    assert_eq!(run.stats().orders, 5);
}

#[tokio::test]
async fn a_name_with_an_obstacle_is_not_ordered_until_it_is_gone() {
    let double = Double::new().await;
    let (run, _dir) = start(&double, double.settings());
    run.certificate("a.example.com").await;
    run.want_in_vain("b.example.com", "its TLS is passed through");
    run.error("b.example.com", "passed through").await;
    assert_eq!(run.state("b.example.com"), Some(State::Unsupported));
    assert_eq!(double.production.lock().orders.len(), 1);
    run.want(&["b.example.com"]);
    run.certificate("b.example.com").await;
    assert_eq!(run.status("b.example.com").unwrap().last_error, None);
}
