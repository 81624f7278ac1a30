use adit_router::HostPattern;
use proptest::prelude::*;

use super::*;

const RETENTION: Duration = Duration::from_secs(600);

fn claimant(user: &str, group: &str) -> Claimant {
    Claimant {
        user: UserName::parse(user).unwrap(),
        group: GroupId::parse(group).unwrap(),
    }
}

fn host(text: &str) -> Name {
    Name::Host(text.parse().unwrap())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ledger() -> Ledger {
    let shared = SharedGroup {
        group: GroupId::parse("both").unwrap(),
        users: ["alice", "bob"]
            .map(|user| UserName::parse(user).unwrap())
            .into(),
    };
    Ledger::new(RETENTION, 3, &[shared])
}

#[test]
fn a_name_belongs_to_its_first_user_for_the_retention() {
    let mut ledger = ledger();
    let (alice, bob) = (claimant("alice", "a"), claimant("bob", "b"));
    let shop = host("shop.test");
    ledger.hold(&shop, &alice, None);
    assert!(ledger.is_foreign(&shop, &bob));
    assert!(!ledger.is_foreign(&shop, &claimant("alice", "other")));
    ledger.end_use(&shop, at(100));
    assert_eq!(ledger.expire(at(699)), 0);
    let entry = ledger.conflict(&shop, &bob).unwrap();
    assert_eq!(ledger.kept_for(entry, at(699)), Some(at(1)));
    assert_eq!(ledger.expire(at(700)), 1);
    assert!(!ledger.is_foreign(&shop, &bob));
}

#[test]
fn a_shared_group_owns_what_its_users_register() {
    let mut ledger = ledger();
    let (alice, bob) = (claimant("alice", "both"), claimant("bob", "both"));
    let shop = host("shop.test");
    ledger.hold(&shop, &alice, None);
    assert!(!ledger.is_foreign(&shop, &bob));
    assert!(ledger.is_foreign(&shop, &claimant("alice", "a")));
    assert!(ledger.is_foreign(&shop, &claimant("eve", "both")));
    assert!(ledger.is_shared_without(&claimant("eve", "both")));
    assert!(!ledger.is_shared_without(&bob) && !ledger.is_shared_without(&claimant("eve", "e")));
}

#[test]
fn a_wildcard_and_the_hosts_below_it_have_one_owner() {
    let mut ledger = ledger();
    let (alice, bob) = (claimant("alice", "a"), claimant("bob", "b"));
    let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
    let of_other =
        |ledger: &Ledger, text: &str| ledger.host_conflict(&pattern(text), &bob).is_some();
    ledger.hold(&host("web.test"), &alice, None);
    assert!(
        of_other(&ledger, "*.web.test"),
        "below a host of another user"
    );
    assert!(!of_other(&ledger, "x.web.test"));
    ledger.hold(&host("*.app.test"), &alice, None);
    for text in ["x.app.test", "*.x.app.test", "*.app.test"] {
        assert!(of_other(&ledger, text), "{text}");
    }
    assert!(!of_other(&ledger, "app.test") && !of_other(&ledger, "xapp.test"));
    for text in ["a.shop.test", "*.b.dev.test"] {
        ledger.hold(&host(text), &alice, None);
    }
    for text in ["*.shop.test", "*.dev.test", "*.test"] {
        assert!(
            of_other(&ledger, text),
            "a host of another user below {text}"
        );
    }
    assert!(!of_other(&ledger, "*.xshop.test") && !of_other(&ledger, "shop.test"));
    ledger.end_use(&host("a.shop.test"), at(1));
    assert!(of_other(&ledger, "*.shop.test"), "for the retention");
    assert_eq!(ledger.release(&host("a.shop.test")), Released::Free);
    assert!(!of_other(&ledger, "*.shop.test"));
}

#[test]
fn unused_names_are_bounded_per_user() {
    let mut ledger = ledger();
    let (alice, bob) = (claimant("alice", "a"), claimant("bob", "b"));
    ledger.hold(&host("shop.test"), &alice, None);
    ledger.end_use(&host("shop.test"), at(0));
    for number in 0..10 {
        let name = host(&format!("h{number}.test"));
        ledger.hold(&name, &bob, None);
        ledger.end_use(&name, at(number));
    }
    assert_eq!(ledger.entries().len(), 4);
    assert!(ledger.is_foreign(&host("shop.test"), &bob));
    assert!(ledger.is_foreign(&host("h9.test"), &alice));
    assert!(!ledger.is_foreign(&host("h6.test"), &alice));
}

#[test]
fn a_release_takes_what_nothing_uses() {
    let mut ledger = ledger();
    let alice = claimant("alice", "a");
    let shop = host("shop.test");
    assert_eq!(ledger.release(&shop), Released::Unknown);
    ledger.hold(&shop, &alice, None);
    assert_eq!(ledger.release(&shop), Released::InUse);
    ledger.end_use(&shop, at(1));
    assert_eq!(
        ledger.idle_names_of(&alice.group),
        std::slice::from_ref(&shop)
    );
    assert_eq!(ledger.release(&shop), Released::Free);
    assert_eq!((ledger.expire(at(10_000)), ledger.entries().len()), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Hold(usize, usize),
    LetGo(usize),
    Release(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize, 0..3_usize).prop_map(|(name, user)| Step::Hold(name, user)),
        3 => (0..4_usize).prop_map(Step::LetGo),
        1 => (0..4_usize).prop_map(Step::Release),
        2 => (0..400_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The results are those of a list that is searched from its start.
    #[test]
    fn a_name_changes_hands_only_when_it_is_free(steps in prop::collection::vec(steps(), 1..80)) {
        let users = ["alice", "bob", "eve"].map(|user| claimant(user, user));
        let names: Vec<_> = (0..4).map(|number| host(&format!("h{number}.test"))).collect();
        let mut ledger = Ledger::new(RETENTION, 100, &[]);
        // For each name: its owner, its uses, and since when it is unused.
        let mut model: Vec<Option<(usize, usize, u64)>> = vec![None; names.len()];
        let mut now = 0;
        for step in steps {
            match step {
                Step::Hold(name, user) => {
                    let foreign = model[name].is_some_and(|(owner, ..)| owner != user);
                    prop_assert_eq!(ledger.is_foreign(&names[name], &users[user]), foreign);
                    if !foreign {
                        ledger.hold(&names[name], &users[user], None);
                        let uses = model[name].map_or(0, |(_, uses, _)| uses);
                        model[name] = Some((user, uses + 1, 0));
                    }
                }
                Step::LetGo(name) => {
                    ledger.end_use(&names[name], at(now));
                    if let Some((_, uses, since)) = &mut model[name] && *uses > 0 {
                        *uses -= 1;
                        *since = now;
                    }
                }
                Step::Release(name) => {
                    let expected = match model[name] {
                        None => Released::Unknown,
                        Some((_, 0, _)) => Released::Free,
                        Some(_) => Released::InUse,
                    };
                    prop_assert_eq!(ledger.release(&names[name]), expected.clone());
                    if expected == Released::Free {
                        model[name] = None;
                    }
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    ledger.expire(at(now));
                    for entry in &mut model {
                        if matches!(entry, Some((_, 0, since)) if *since + 600 <= now) {
                            *entry = None;
                        }
                    }
                }
            }
            prop_assert_eq!(ledger.entries().len(), model.iter().flatten().count());
            let idle = model.iter().flatten().filter(|(_, uses, _)| *uses == 0).count();
            prop_assert_eq!(ledger.idle.values().map(BTreeSet::len).sum::<usize>(), idle);
        }
    }
}
