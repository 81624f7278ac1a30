//! Promises of the schedule, for any sequence of outcomes, renewal windows and waits:
//! - no order begins before the wait after a failure, a `Retry-After` or a quota ends;
//! - at most as many orders that may have led to a certificate begin in seven days as the policy allows;
//! - at most four validations fail in an hour at production;
//! - without failures and windows a certificate is renewed before two thirds of its lifetime;
//! - after production has refused an order, orders go to staging until one passes, then one goes to production at once;
//! - a record that is stored and read again gives the same next order.
//!
//! And one test for each bug of another program that the rules exist for.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_acme::schedule::{
    Cause, Environment, Failure, Lifetime, Outcome, Pace, Policy, Quota, Reason, Record, Retries,
    RetriesError, Schedule, Window,
};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn start() -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY
}

fn staging() -> Policy {
    Policy {
        staging: true,
        ..Policy::default()
    }
}

fn schedule(policy: Policy) -> Schedule {
    Schedule::new(Arc::new(policy), Record::default())
}

/// A certificate for so long, which a CA issues now with an hour before it, as Let's Encrypt does.
fn lifetime(now: SystemTime, days: f64) -> Lifetime {
    let begins = now - HOUR;
    Lifetime {
        begins,
        expires: begins + DAY.mul_f64(days),
        obtained: now,
    }
}

fn failed(cause: Cause) -> Outcome {
    Outcome::Failed(Failure {
        cause,
        may_have_issued: false,
    })
}

/// Runs the next order, at the time at which it is due.
fn run(schedule: &mut Schedule, now: &mut SystemTime, outcome: Outcome) -> Environment {
    let next = schedule.next_order(*now).unwrap();
    *now = next.at.max(*now);
    let environment = schedule.on_started(*now);
    assert_eq!(environment, next.environment);
    schedule.on_outcome(outcome, *now, 0);
    environment
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Order(Outcome),
    Window { from_minutes: i64, minutes: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let cause = prop_oneof![
        Just(Cause::Unreachable),
        Just(Cause::Refused),
        Just(Cause::Validation),
        Just(Cause::Local),
        Just(Cause::RateLimited { until: None }),
        (0..20_000_u64).prop_map(|minutes| {
            let until = start() + u32::try_from(minutes).unwrap() * MINUTE;
            Cause::RateLimited { until: Some(until) }
        }),
    ];
    prop_oneof![
        3 => (0..5_000_u64).prop_map(Step::Wait),
        4 => prop_oneof![Just(6.7), Just(90.0), Just(45.0)]
            .prop_map(|days| Step::Order(Outcome::Issued(lifetime(start(), days)))),
        6 => (cause, any::<bool>()).prop_map(|(cause, may_have_issued)| {
            Step::Order(Outcome::Failed(Failure { cause, may_have_issued }))
        }),
        1 => any::<bool>().prop_map(|may_have_issued| Step::Order(Outcome::Abandoned { may_have_issued })),
        4 => (-20_000..20_000_i64, 0..10_000_u64)
            .prop_map(|(from_minutes, minutes)| Step::Window { from_minutes, minutes }),
        1 => Just(Step::Restart),
    ]
}

fn shift(time: SystemTime, minutes: i64) -> SystemTime {
    let by = Duration::from_secs(minutes.unsigned_abs() * 60);
    if minutes < 0 { time - by } else { time + by }
}

fn at_most(times: &[SystemTime], quota: Quota) -> bool {
    times.iter().all(|end| {
        let within = { times.iter() }.filter(|at| **at <= *end && **at + quota.period > *end);
        within.count() <= quota.most
    })
}

proptest! {
    #[test]
    fn every_sequence_keeps_the_promises(
        with_staging in any::<bool>(),
        steps in prop::collection::vec((steps(), any::<u64>()), 1..200),
    ) {
        let policy = Policy { staging: with_staging, ..Policy::default() };
        let shared = Arc::new(policy.clone());
        let mut schedule = Schedule::new(shared.clone(), Record::default());
        let mut now = start();
        let (mut issued, mut invalid) = (Vec::new(), Vec::new());
        let (mut not_before, mut staged) = (now, false);
        for (step, random) in steps {
            match step {
                Step::Wait(minutes) => now = shift(now, i64::try_from(minutes).unwrap()),
                Step::Order(outcome) => {
                    let next = schedule.next_order(now).unwrap();
                    // Whatever is reported: it is due at its time, and not earlier.
                    now = next.at.max(now);
                    prop_assert!(now >= not_before, "{next:?} before {not_before:?}");
                    let environment = schedule.on_started(now);
                    prop_assert!(schedule.next_order(now).is_none());
                    prop_assert_eq!(environment == Environment::Staging, staged);
                    let production = environment == Environment::Production;
                    let outcome = match outcome {
                        Outcome::Issued(Lifetime { begins, expires, .. }) => {
                            let days = expires.duration_since(begins).unwrap().as_secs_f64() / DAY.as_secs_f64();
                            Outcome::Issued(lifetime(now, days))
                        }
                        other => other,
                    };
                    schedule.on_outcome(outcome, now, random);
                    match outcome {
                        Outcome::Issued(own) if production => {
                            issued.push(now);
                            let at = schedule.renew_at().unwrap();
                            let left = own.expires.duration_since(now).unwrap();
                            prop_assert!(at <= now + left * 2 / 3);
                            prop_assert!(at >= now + left / 2);
                            prop_assert_eq!(schedule.record().failures, 0);
                            not_before = now;
                        }
                        Outcome::Issued(_) => {
                            staged = false;
                            not_before = now;
                        }
                        Outcome::Failed(Failure { cause, may_have_issued }) => {
                            if production && may_have_issued {
                                issued.push(now);
                            }
                            if production && cause == Cause::Validation {
                                invalid.push(now);
                            }
                            staged = match cause {
                                Cause::Refused | Cause::Validation => with_staging,
                                // A staging CA that is away or busy shows nothing.
                                Cause::Unreachable | Cause::RateLimited { .. } => false,
                                Cause::Local => staged,
                            };
                            not_before = now + MINUTE;
                            if let Cause::RateLimited { until: Some(until) } = cause && production {
                                not_before = not_before.max(until.min(now + 7 * DAY));
                            }
                        }
                        Outcome::Abandoned { may_have_issued } => {
                            if production && may_have_issued {
                                issued.push(now);
                            }
                        }
                    }
                }
                Step::Window { from_minutes, minutes } => {
                    let begin = shift(now, from_minutes);
                    let window = Window { start: begin, end: shift(begin, i64::try_from(minutes).unwrap()) };
                    schedule.on_window(Some(window), None, now, random);
                    if let (Some(at), Some(own)) = (schedule.renew_at(), schedule.lifetime()) {
                        let youngest = own.obtained + DAY.min(own.expires.duration_since(own.obtained).unwrap() / 24);
                        prop_assert!(at >= youngest.min(own.expires));
                        let ask = schedule.next_question(now);
                        prop_assert!(ask.is_none_or(|ask| ask > now && ask <= now + DAY));
                    }
                }
                Step::Restart => {
                    let json = serde_json::to_string(schedule.record()).unwrap();
                    let record: Record = serde_json::from_str(&json).unwrap();
                    let own = schedule.lifetime();
                    let mut read = Schedule::new(shared.clone(), record);
                    if let Some(own) = own {
                        read.on_certificate(own, random);
                    }
                    // Times are stored in milliseconds.
                    let (old, new) = (schedule.next_order(now).unwrap(), read.next_order(now).unwrap());
                    prop_assert_eq!(old.environment, new.environment);
                    if old.reason == new.reason && old.reason == Reason::Retry {
                        let apart = old.at.duration_since(new.at).unwrap_or_default();
                        prop_assert!(apart < Duration::from_millis(2));
                    }
                    not_before -= Duration::from_millis(2);
                    schedule = read;
                }
            }
        }
        prop_assert!(at_most(&issued, Quota { period: policy.orders.period - MINUTE, ..policy.orders }), "{issued:?}");
        let quota = policy.failed_validations;
        prop_assert!(at_most(&invalid, Quota { period: quota.period - MINUTE, ..quota }), "{invalid:?}");
    }

    #[test]
    fn a_renewal_window_is_drawn_from_as_a_whole(random in any::<u64>()) {
        let now = start();
        let mut schedule = schedule(Policy::default());
        schedule.on_certificate(lifetime(now, 90.0), 0);
        let window = Window { start: now + 20 * DAY, end: now + 30 * DAY };
        schedule.on_window(Some(window), None, now, random);
        let at = schedule.renew_at().unwrap();
        prop_assert!(at >= window.start && at <= window.end);
        // The same window again does not draw again: the time would move away with each question.
        schedule.on_window(Some(window), None, now, !random);
        prop_assert_eq!(schedule.renew_at().unwrap(), at);
    }
}

#[test]
fn a_name_without_a_certificate_is_ordered_at_once() {
    let next = schedule(staging()).next_order(start()).unwrap();
    assert_eq!(next.reason, Reason::Missing);
    assert_eq!(next.environment, Environment::Production);
    assert!(next.at <= start());
}

#[test]
fn retries_grow_from_a_minute_to_six_hours() {
    let mut schedule = schedule(Policy::default());
    let (mut now, mut waits) = (start(), Vec::new());
    for _ in 0..14 {
        let began = now;
        run(&mut schedule, &mut now, failed(Cause::Unreachable));
        waits.push(now.duration_since(began).unwrap().as_secs() / 60);
    }
    assert_eq!(
        waits,
        [0, 1, 2, 2, 5, 10, 20, 20, 30, 30, 60, 180, 360, 360]
    );
    let mut other = schedule.clone();
    let next = other.next_order(now).unwrap().at;
    now = next;
    other.on_started(now);
    other.on_outcome(failed(Cause::Unreachable), now, u64::MAX);
    let wait = other
        .next_order(now)
        .unwrap()
        .at
        .duration_since(now)
        .unwrap();
    assert!(
        wait > 7 * HOUR && wait <= 7 * HOUR + 30 * MINUTE,
        "{wait:?}"
    );
}

#[test]
fn retries_of_a_policy_are_checked() {
    assert_eq!(Retries::new(&[]), Err(RetriesError::Number(0)));
    assert_eq!(
        Retries::new(&[Duration::ZERO]),
        Err(RetriesError::Wait(Duration::ZERO))
    );
    assert_eq!(Retries::new(&[8 * DAY]), Err(RetriesError::Wait(8 * DAY)));
    assert_eq!(Retries::new(&[MINUTE]).unwrap().waits(), [MINUTE]);
}

/// acme.sh#6965: the window was in the past, and the client skipped the renewal.
#[test]
fn a_window_in_the_past_is_obeyed_at_once() {
    let mut now = start();
    let mut schedule = schedule(Policy::default());
    schedule.on_certificate(lifetime(now, 90.0), 0);
    now += 5 * DAY;
    let window = Window {
        start: now - 2 * HOUR,
        end: now - HOUR,
    };
    schedule.on_window(Some(window), None, now, u64::MAX / 2);
    let next = schedule.next_order(now).unwrap();
    assert!(next.at <= now, "{next:?}");
    assert_eq!(next.reason, Reason::Window);
}

/// cert-manager#8993: a window that did not move led to five certificates within ten seconds and a lockout of a week.
#[test]
fn a_stale_window_with_short_certificates_is_no_loop() {
    let mut now = start();
    let mut schedule = schedule(Policy::default());
    let stale = Window {
        start: now - DAY,
        end: now + DAY,
    };
    let mut orders = Vec::new();
    while now < start() + 14 * DAY {
        if schedule.next_order(now).unwrap().at <= now {
            schedule.on_started(now);
            schedule.on_outcome(Outcome::Issued(lifetime(now, 6.7)), now, 0);
            orders.push(now);
        }
        // The CA repeats the window of the first certificate, whatever certificate it is asked about.
        schedule.on_window(Some(stale), Some(MINUTE), now, 0);
        now += MINUTE;
    }
    let gaps: Vec<_> = { orders.windows(2) }
        .map(|pair| pair[1].duration_since(pair[0]).unwrap())
        .collect();
    assert!(gaps.iter().all(|gap| *gap >= 6 * HOUR), "{gaps:?}");
    let week = Quota {
        most: 3,
        period: 7 * DAY,
    };
    assert!(at_most(&orders, week), "{orders:?}");
}

#[test]
fn a_window_that_ended_before_the_certificate_began_is_ignored() {
    let now = start();
    let mut schedule = schedule(Policy::default());
    schedule.on_certificate(lifetime(now, 90.0), 0);
    let window = Window {
        start: now - 10 * DAY,
        end: now - 5 * DAY,
    };
    schedule.on_window(Some(window), None, now, 0);
    let next = schedule.next_order(now + 30 * DAY).unwrap();
    assert_eq!(next.reason, Reason::Lifetime);
}

#[test]
fn an_inverted_window_is_ignored() {
    let now = start();
    let mut schedule = schedule(Policy::default());
    schedule.on_certificate(lifetime(now, 90.0), 0);
    let window = Window {
        start: now + 10 * DAY,
        end: now + 5 * DAY,
    };
    schedule.on_window(Some(window), None, now, 0);
    assert_eq!(schedule.next_order(now).unwrap().reason, Reason::Lifetime);
}

/// traefik#7952, #905: certificates were lost at each restart, and ordered again until the CA refused.
#[test]
fn orders_stop_at_three_in_seven_days_and_say_so() {
    let mut now = start();
    let mut record = Record::default();
    for _ in 0..3 {
        // Each restart loses the certificate, and keeps the orders.
        let mut schedule = Schedule::new(Arc::new(Policy::default()), record);
        assert_eq!(schedule.next_order(now).unwrap().reason, Reason::Missing);
        schedule.on_started(now);
        schedule.on_outcome(Outcome::Issued(lifetime(now, 90.0)), now, 0);
        record = schedule.record().clone();
        now += MINUTE;
    }
    let schedule = Schedule::new(Arc::new(Policy::default()), record);
    let next = schedule.next_order(now).unwrap();
    assert_eq!((next.reason, next.at), (Reason::Orders, start() + 7 * DAY));
    assert_eq!(schedule.counted_orders(now), 3);
}

#[test]
fn an_order_that_a_crash_ends_counts() {
    let mut schedule = schedule(Policy::default());
    schedule.on_started(start());
    let record = schedule.record().clone();
    assert_eq!(record.orders, [start()]);
    let read = Schedule::new(Arc::new(Policy::default()), record);
    assert_eq!(read.counted_orders(start() + MINUTE), 1);
}

#[test]
fn an_order_without_a_certificate_does_not_count() {
    let mut schedule = schedule(staging());
    let mut now = start();
    for _ in 0..10 {
        run(&mut schedule, &mut now, failed(Cause::Unreachable));
    }
    assert_eq!(schedule.counted_orders(now), 0);
    let outcome = Outcome::Abandoned {
        may_have_issued: true,
    };
    run(&mut schedule, &mut now, outcome);
    assert_eq!(schedule.counted_orders(now), 1);
}

#[test]
fn certificates_of_a_day_may_be_renewed_each_day() {
    let mut schedule = schedule(Policy::default());
    let mut now = start();
    while now < start() + 14 * DAY {
        let next = schedule.next_order(now).unwrap();
        assert_ne!(next.reason, Reason::Orders);
        let issued = Outcome::Issued(lifetime(next.at.max(now), 1.0));
        run(&mut schedule, &mut now, issued);
    }
}

/// A loop of failures at production leads to a lockout; the staging CA has higher limits.
#[test]
fn staging_comes_after_a_failure_until_it_passes_then_production_once() {
    let mut schedule = schedule(staging());
    let mut now = start();
    let passes = Outcome::Issued(lifetime(now, 90.0));
    assert_eq!(
        run(&mut schedule, &mut now, failed(Cause::Validation)),
        Environment::Production
    );
    assert_eq!(
        run(&mut schedule, &mut now, failed(Cause::Validation)),
        Environment::Staging
    );
    assert_eq!(
        run(&mut schedule, &mut now, failed(Cause::Refused)),
        Environment::Staging
    );
    assert_eq!(run(&mut schedule, &mut now, passes), Environment::Staging);
    assert!(
        schedule.lifetime().is_none(),
        "a certificate of staging is not used"
    );
    let passed = now;
    assert_eq!(
        run(&mut schedule, &mut now, failed(Cause::Refused)),
        Environment::Production
    );
    assert_eq!(now, passed, "at once");
    assert_eq!(run(&mut schedule, &mut now, passes), Environment::Staging);
    // The waits went on growing: four failures came before.
    assert!(now >= passed + 5 * MINUTE);
    let issued = Outcome::Issued(lifetime(now, 90.0));
    assert_eq!(
        run(&mut schedule, &mut now, issued),
        Environment::Production
    );
    assert_eq!(schedule.record().failures, 0);
    assert_eq!(schedule.record().environment, Environment::Production);
}

#[test]
fn a_staging_ca_that_is_away_does_not_stop_production() {
    let mut schedule = schedule(staging());
    let mut now = start();
    run(&mut schedule, &mut now, failed(Cause::Validation));
    assert_eq!(
        run(&mut schedule, &mut now, failed(Cause::Unreachable)),
        Environment::Staging
    );
    assert_eq!(
        schedule.next_order(now).unwrap().environment,
        Environment::Production
    );
}

#[test]
fn a_production_ca_that_is_away_is_not_a_reason_for_staging() {
    let mut schedule = schedule(staging());
    let mut now = start();
    for cause in [
        Cause::Unreachable,
        Cause::Local,
        Cause::RateLimited { until: None },
    ] {
        assert_eq!(
            run(&mut schedule, &mut now, failed(cause)),
            Environment::Production
        );
    }
    assert_eq!(
        schedule.next_order(now).unwrap().environment,
        Environment::Production
    );
}

#[test]
fn four_failed_validations_in_an_hour_are_the_most() {
    let mut schedule = schedule(Policy {
        retries: Retries::new(&[MINUTE]).unwrap(),
        ..Policy::default()
    });
    let mut now = start();
    for _ in 0..4 {
        run(&mut schedule, &mut now, failed(Cause::Validation));
    }
    let next = schedule.next_order(now).unwrap();
    assert_eq!(next.reason, Reason::FailedValidations);
    assert!(next.at >= start() + HOUR);
}

/// certmagic#143: a caller that entered every five seconds was rate limited.
#[test]
fn restarts_do_not_shorten_the_wait_after_a_failure() {
    let mut now = start();
    let mut schedule = schedule(Policy::default());
    for _ in 0..5 {
        run(&mut schedule, &mut now, failed(Cause::Unreachable));
    }
    let wait = schedule.next_order(now).unwrap();
    assert_eq!(wait.reason, Reason::Retry);
    for _ in 0..100 {
        now += Duration::from_secs(5);
        let read = Schedule::new(Arc::new(Policy::default()), schedule.record().clone());
        assert_eq!(read.next_order(now).unwrap().at, wait.at);
        schedule = read;
    }
}

#[test]
fn a_retry_after_is_kept_and_bounded() {
    let mut schedule = schedule(Policy::default());
    let mut now = start();
    let until = now + 5 * HOUR;
    run(
        &mut schedule,
        &mut now,
        failed(Cause::RateLimited { until: Some(until) }),
    );
    assert_eq!(schedule.next_order(now).unwrap().at, until);
    let far = now + 1000 * DAY;
    now = until;
    run(
        &mut schedule,
        &mut now,
        failed(Cause::RateLimited { until: Some(far) }),
    );
    assert_eq!(schedule.next_order(now).unwrap().at, now + 7 * DAY);
}

#[test]
fn a_clock_that_was_wrong_does_not_stop_orders_for_ever() {
    let future = start() + 10_000 * DAY;
    let record = Record {
        orders: vec![future; 5],
        failed_validations: vec![future; 5],
        not_before: Some(future),
        ..Record::default()
    };
    let schedule = Schedule::new(Arc::new(Policy::default()), record);
    assert_eq!(
        schedule.next_order(start()).unwrap().reason,
        Reason::Missing
    );
}

#[test]
fn a_certificate_that_is_old_when_it_is_obtained_is_no_loop() {
    let now = start();
    let mut schedule = schedule(Policy::default());
    let old = Lifetime {
        begins: now - 89 * DAY,
        expires: now + DAY,
        obtained: now,
    };
    schedule.on_started(now);
    schedule.on_outcome(Outcome::Issued(old), now, u64::MAX);
    assert!(schedule.next_order(now).unwrap().at > now + 14 * HOUR);
}

#[test]
fn the_account_orders_at_most_so_often_for_all_names() {
    let quota = Quota {
        most: 250,
        period: 3 * HOUR,
    };
    let mut pace = Pace::new(quota);
    let now = start();
    for _ in 0..250 {
        assert_eq!(pace.ready_at(now, true), None);
        pace.on_started(now);
    }
    assert_eq!(pace.ready_at(now + MINUTE, true), Some(now + 3 * HOUR));
    assert_eq!(pace.ready_at(now + 3 * HOUR, true), None);
}

#[test]
fn a_refusal_for_the_rate_pauses_all_names_for_a_bounded_time() {
    let mut pace = Pace::new(Policy::default().account_orders);
    let now = start();
    pace.on_rate_limited(Some(now + 100 * DAY), now);
    assert_eq!(pace.ready_at(now, true), Some(now + MINUTE));
    let later = now + MINUTE;
    pace.on_rate_limited(None, later);
    assert_eq!(pace.ready_at(later, true), Some(later + 2 * MINUTE));
    for _ in 0..100 {
        pace.on_rate_limited(None, later);
    }
    assert_eq!(pace.ready_at(later, true), Some(later + HOUR));
    pace.on_accepted();
    assert_eq!(pace.ready_at(later, true), None);
}

/// New names, of which there may be any number, do not let certificates expire.
#[test]
fn a_fifth_of_the_orders_is_left_to_renewals() {
    let quota = Quota {
        most: 10,
        period: HOUR,
    };
    let mut pace = Pace::new(quota);
    let now = start();
    for _ in 0..8 {
        assert_eq!(pace.ready_at(now, false), None);
        pace.on_started(now);
    }
    assert_eq!(pace.ready_at(now, false), Some(now + HOUR));
    assert_eq!(pace.ready_at(now, true), None);
    pace.on_started(now + MINUTE);
    pace.on_started(now + MINUTE);
    assert_eq!(pace.ready_at(now + MINUTE, true), Some(now + HOUR));
    let later = now + HOUR;
    assert_eq!(pace.ready_at(later, false), None);
}
