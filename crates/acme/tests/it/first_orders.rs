//! Bounds of new names, and their order.

use std::time::Duration;

use adit_acme::{
    Challenges, Settings,
    schedule::{Policy, Quota, Reason},
};

use crate::{
    double::{DAY, Double},
    support::{Run, quick},
};

fn settings(double: &Double, of_owner: usize, of_domain: usize) -> Settings {
    let quota = |most| Quota {
        most,
        period: 7 * DAY,
    };
    Settings {
        policy: Policy {
            owner_names: quota(of_owner),
            domain_names: quota(of_domain),
            ..quick()
        },
        ..double.settings()
    }
}

fn reason(run: &Run, name: &str) -> Option<Reason> {
    run.status(name)?.reason
}

#[tokio::test]
async fn a_user_with_many_new_hosts_waits_and_others_do_not() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let names = [
        ("a.one.example", "ann"),
        ("a.two.example", "ann"),
        ("a.three.example", "ann"),
    ];
    let run = Run::start(settings(&double, 2, 9), dir.path(), &Challenges::new());
    run.want_of(&names);
    run.until("held", |run| {
        run.stats().issued == 2
            && names
                .iter()
                .any(|(name, _)| reason(run, name) == Some(Reason::OwnerNames))
    })
    .await;
    let is_held = |(name, _): &(&'static str, &str)| run.served(name).is_none().then_some(*name);
    let held = names.iter().find_map(is_held).unwrap();
    let error = run.error(held, "user `ann`").await;
    assert!(error.contains("max_new_names_per_user"), "{error}");
    let wait = run.status(held).unwrap().next_attempt.unwrap();
    assert!(wait > std::time::SystemTime::now() + 6 * DAY);

    let mut more = names.to_vec();
    more.push(("b.three.example", "bob"));
    more.push(("c.three.example", ""));
    run.want_of(&more);
    run.certificate("b.three.example").await;
    run.certificate("c.three.example").await;
    run.shutdown().await;

    // A restart forgets nothing.
    let run = Run::start(settings(&double, 2, 9), dir.path(), &Challenges::new());
    run.want_of(&more);
    run.until("held", |run| reason(run, held) == Some(Reason::OwnerNames))
        .await;
    assert_eq!(double.production.lock().orders.len(), 4);
}

#[tokio::test]
async fn a_registered_domain_has_so_many_new_certificates() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(settings(&double, 9, 2), dir.path(), &Challenges::new());
    run.want_of(&[("a.example.com", "ann"), ("b.example.com", "bob")]);
    run.certificate("a.example.com").await;
    run.certificate("b.example.com").await;
    let all = [
        ("a.example.com", "ann"),
        ("b.example.com", "bob"),
        ("c.example.com", "eve"),
        ("c.example.org", "eve"),
    ];
    run.want_of(&all);
    run.certificate("c.example.org").await;
    run.until("held", |run| {
        reason(run, "c.example.com") == Some(Reason::DomainNames)
    })
    .await;
    let error = run.error("c.example.com", "the domain example.com").await;
    assert!(error.contains("max_new_names_per_domain"), "{error}");
}

/// A name that fails has no certificate that a CA would count for its domain.
#[tokio::test]
async fn names_that_fail_do_not_use_up_their_domain() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    double.production.lock().invalid = true;
    let run = Run::start(settings(&double, 9, 1), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.error("a.example.com", "port 80").await;
    double.production.lock().invalid = false;
    run.want(&["b.example.com"]);
    run.certificate("b.example.com").await;
}

#[tokio::test]
async fn renewals_precede_new_names() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    double.production.lock().lifetime = Some(Duration::from_secs(2));
    let settings = Settings {
        max_orders: 1,
        ..double.settings()
    };
    let run = Run::start(settings.clone(), dir.path(), &Challenges::new());
    run.want(&["z.example.com"]);
    run.certificate("z.example.com").await;
    run.shutdown().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    double.production.lock().lifetime = None;
    let before = double.production.lock().orders.len();
    let run = Run::start(settings, dir.path(), &Challenges::new());
    let names = ["a.example.com", "b.example.com", "z.example.com"];
    run.want(&names);
    for name in names {
        run.certificate(name).await;
    }
    let orders = double.production.lock().orders.clone();
    assert_eq!(orders[before], ["z.example.com"]);
}

#[tokio::test]
async fn a_name_without_a_place_gets_one_when_an_order_ends() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    double.production.lock().stuck = true;
    let settings = Settings {
        max_names: 1,
        ..double.settings()
    };
    let run = Run::start(settings, dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.until("ordered", |_| double.production.lock().orders.len() == 1)
        .await;
    // The order of a name that is not wanted any more has the only place.
    run.want(&["b.example.com"]);
    run.until("left out", |run| run.stats().names_ignored == 1)
        .await;
    double.production.lock().stuck = false;
    run.certificate("b.example.com").await;
    assert_eq!(run.stats().names_ignored, 0);
}
