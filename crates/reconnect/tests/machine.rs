//! Every state with every event, derived from the code; and each decision of the machine.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use adit_reconnect::{
    Action, Config, Event, Failure, InvalidTransition, Reconnect, State, Stats, Status, StopReason,
};

const MS: Duration = Duration::from_millis(1);
const FAILED: Event = Event::DialFailed(Failure::Transient);
const UP: Event = Event::Established { epoch: 7 };
const EVENTS: [Event; 9] = [
    Event::Start,
    UP,
    FAILED,
    Event::DialFailed(Failure::Refused { fatal: false }),
    Event::DialFailed(Failure::Refused { fatal: true }),
    Event::DialFailed(Failure::Unauthenticated),
    Event::Lost,
    Event::TimerDue,
    Event::Stop,
];

fn steady() -> Config {
    Config::try_new(0, 100 * MS, 30_000 * MS, 2.0, false).unwrap()
}

fn after(config: Config, now: Instant, events: &[Event]) -> Reconnect {
    let mut machine = Reconnect::new(config);
    for event in events {
        machine.on_event(*event, now, 0).unwrap();
    }
    machine
}

fn describe(outcome: Result<Action, InvalidTransition>, now: Instant) -> String {
    match outcome {
        Ok(Action::Wait { until }) => format!("Wait {:?}", until - now),
        Ok(action) => format!("{action:?}"),
        Err(_) => "wrong move".to_owned(),
    }
}

#[test]
fn every_state_with_every_event() {
    let now = Instant::now();
    let mut drawn = String::new();
    let paths: [&[Event]; 5] = [
        &[],
        &[Event::Start],
        &[Event::Start, UP],
        &[Event::Start, FAILED],
        &[Event::Start, Event::Stop],
    ];
    for path in paths {
        for event in EVENTS {
            let mut machine = after(steady(), now, path);
            let before = machine.state();
            // 100 ms later a wait has just ended, and a link is not stable yet.
            let now = now + 100 * MS;
            let outcome = machine.on_event(event, now, 0);
            let response = describe(outcome, now);
            let line = format!("{before} + {event:?} -> {response}, {}", machine.state());
            writeln!(drawn, "{line}").unwrap();
        }
    }
    insta::assert_snapshot!(drawn, @r"
    idle + Start -> Dial, dialling
    idle + Established { epoch: 7 } -> wrong move, idle
    idle + DialFailed(Transient) -> wrong move, idle
    idle + DialFailed(Refused { fatal: false }) -> wrong move, idle
    idle + DialFailed(Refused { fatal: true }) -> wrong move, idle
    idle + DialFailed(Unauthenticated) -> wrong move, idle
    idle + Lost -> wrong move, idle
    idle + TimerDue -> wrong move, idle
    idle + Stop -> Stop(Requested), stopped
    dialling + Start -> wrong move, dialling
    dialling + Established { epoch: 7 } -> Serve, established
    dialling + DialFailed(Transient) -> Wait 100ms, waiting
    dialling + DialFailed(Refused { fatal: false }) -> Wait 100ms, waiting
    dialling + DialFailed(Refused { fatal: true }) -> Stop(Refused), stopped
    dialling + DialFailed(Unauthenticated) -> Wait 30s, waiting
    dialling + Lost -> wrong move, dialling
    dialling + TimerDue -> wrong move, dialling
    dialling + Stop -> Stop(Requested), stopped
    established + Start -> wrong move, established
    established + Established { epoch: 7 } -> wrong move, established
    established + DialFailed(Transient) -> wrong move, established
    established + DialFailed(Refused { fatal: false }) -> wrong move, established
    established + DialFailed(Refused { fatal: true }) -> wrong move, established
    established + DialFailed(Unauthenticated) -> wrong move, established
    established + Lost -> Wait 100ms, waiting
    established + TimerDue -> wrong move, established
    established + Stop -> Stop(Requested), stopped
    waiting + Start -> wrong move, waiting
    waiting + Established { epoch: 7 } -> wrong move, waiting
    waiting + DialFailed(Transient) -> wrong move, waiting
    waiting + DialFailed(Refused { fatal: false }) -> wrong move, waiting
    waiting + DialFailed(Refused { fatal: true }) -> wrong move, waiting
    waiting + DialFailed(Unauthenticated) -> wrong move, waiting
    waiting + Lost -> wrong move, waiting
    waiting + TimerDue -> Dial, dialling
    waiting + Stop -> Stop(Requested), stopped
    stopped + Start -> wrong move, stopped
    stopped + Established { epoch: 7 } -> wrong move, stopped
    stopped + DialFailed(Transient) -> wrong move, stopped
    stopped + DialFailed(Refused { fatal: false }) -> wrong move, stopped
    stopped + DialFailed(Refused { fatal: true }) -> wrong move, stopped
    stopped + DialFailed(Unauthenticated) -> wrong move, stopped
    stopped + Lost -> wrong move, stopped
    stopped + TimerDue -> wrong move, stopped
    stopped + Stop -> Stop(Requested), stopped
    ");
}

#[test]
fn an_invalid_transition_changes_nothing() {
    let now = Instant::now();
    let mut machine = after(steady(), now, &[Event::Start]);
    let (state, stats) = (machine.state(), machine.stats());
    let refused = machine.on_event(Event::Lost, now, 0).unwrap_err();
    assert_eq!(refused.state, State::Dialling);
    assert_eq!(refused.event, Event::Lost);
    assert_eq!((machine.state(), machine.stats()), (state, stats));
}

#[test]
fn an_early_timer_repeats_the_wait() {
    let now = Instant::now();
    let mut machine = after(steady(), now, &[Event::Start, FAILED]);
    let (until, before) = (now + 100 * MS, machine.stats());
    let early = machine.on_event(Event::TimerDue, until - Duration::from_nanos(1), 0);
    assert_eq!(early, Ok(Action::Wait { until }));
    assert_eq!(machine.stats(), before);
    assert_eq!(
        machine.on_event(Event::TimerDue, until, 0),
        Ok(Action::Dial)
    );
}

/// Fails three dials, then holds a link for `life`; returns how long the next dial waits (or nothing) and the machine.
fn loss_after(life: Duration, config: Config) -> (Option<Duration>, Reconnect) {
    let mut now = Instant::now();
    let mut machine = after(config, now, &[Event::Start]);
    for _ in 0..3 {
        let Action::Wait { until } = machine.on_event(FAILED, now, 0).unwrap() else {
            panic!("a failed dial leads to a wait");
        };
        now = until;
        machine.on_event(Event::TimerDue, now, 0).unwrap();
    }
    machine.on_event(UP, now, 0).unwrap();
    now += life;
    match machine.on_event(Event::Lost, now, 0).unwrap() {
        Action::Wait { until } => (Some(until - now), machine),
        _ => (None, machine),
    }
}

#[test]
fn only_a_link_that_lived_a_while_resets_the_backoff() {
    let stable = Duration::from_secs(5);
    let (wait, machine) = loss_after(stable, steady());
    assert_eq!((wait, machine.attempt()), (Some(100 * MS), 1));
    let (wait, machine) = loss_after(stable - Duration::from_nanos(1), steady());
    assert_eq!((wait, machine.attempt()), (Some(800 * MS), 4));
    let every_link_counts = steady().with_stable_after(Duration::ZERO);
    let (wait, machine) = loss_after(Duration::ZERO, every_link_counts);
    assert_eq!((wait, machine.attempt()), (Some(100 * MS), 1));
}

#[test]
fn the_delay_grows_when_links_are_dropped() {
    let mut now = Instant::now();
    let mut machine = after(steady(), now, &[Event::Start]);
    let mut waits = Vec::new();
    for _ in 0..5 {
        machine.on_event(UP, now, 0).unwrap();
        let Action::Wait { until } = machine.on_event(Event::Lost, now + MS, 0).unwrap() else {
            panic!("a lost link leads to a wait");
        };
        waits.push((until - now - MS).as_millis());
        now = until;
        machine.on_event(Event::TimerDue, now, 0).unwrap();
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600]);
    assert_eq!(
        machine.stats(),
        Stats {
            dials: 6,
            losses: 5,
            transitions: 16
        }
    );
}

#[test]
fn a_short_link_does_not_lengthen_the_delay() {
    let mut now = Instant::now();
    let mut machine = after(steady(), now, &[Event::Start, UP]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        // The links live almost long enough to be stable.
        now += Duration::from_millis(4_900);
        let Action::Wait { until } = machine.on_event(Event::Lost, now, 0).unwrap() else {
            panic!("a lost link leads to a wait");
        };
        waits.push((until - now).as_millis());
        now = until;
        machine.on_event(Event::TimerDue, now, 0).unwrap();
        machine.on_event(UP, now, 0).unwrap();
    }
    assert_eq!(waits, [100, 200, 400, 800]);
}

#[test]
fn the_time_of_a_dial_does_not_lengthen_the_delay() {
    let mut now = Instant::now();
    let mut machine = after(steady(), now, &[Event::Start]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        // The server does not respond.
        now += Duration::from_secs(10);
        let Action::Wait { until } = machine.on_event(FAILED, now, 0).unwrap() else {
            panic!("a failed dial leads to a wait");
        };
        waits.push((until - now).as_millis());
        now = until;
        machine.on_event(Event::TimerDue, now, 0).unwrap();
    }
    assert_eq!(waits, [100, 200, 400, 800]);
}

#[test]
fn a_stable_link_resets_the_retries() {
    let config = Config::try_new(3, 100 * MS, 30_000 * MS, 2.0, false).unwrap();
    let (wait, machine) = loss_after(Duration::from_secs(5), config.clone());
    assert_eq!((wait, machine.attempt()), (Some(100 * MS), 1));
    let (wait, machine) = loss_after(MS, config);
    let reason = StopReason::RetriesExhausted { retries: 3 };
    assert_eq!(wait, None);
    assert_eq!(machine.state(), State::Stopped(reason));
    assert_eq!(machine.stats().losses, 1);
}

#[test]
fn refused_credentials_wait_the_longest_delay() {
    let now = Instant::now();
    let denied = Event::DialFailed(Failure::Unauthenticated);
    let wait = |config: Config, random| {
        let mut machine = after(config, now, &[Event::Start]);
        let action = machine.on_event(denied, now, random).unwrap();
        assert_eq!(machine.attempt(), 1);
        action
    };
    let after_secs = |secs| Action::Wait {
        until: now + Duration::from_secs(secs),
    };
    assert_eq!(wait(steady(), u64::MAX), after_secs(30));
    assert_eq!(wait(Config::default(), 0), after_secs(30));
    assert_eq!(wait(Config::default(), u64::MAX), after_secs(45));
    let stopping = Config::default().with_stop_when_unauthenticated(true);
    let mut machine = after(stopping, now, &[Event::Start]);
    assert_eq!(
        machine.on_event(denied, now, 0),
        Ok(Action::Stop(StopReason::Unauthenticated))
    );
}

#[test]
fn refused_credentials_use_up_retries() {
    let now = Instant::now();
    let config = Config::try_new(1, MS, MS, 1.0, false).unwrap();
    let denied = Event::DialFailed(Failure::Unauthenticated);
    let mut machine = after(config, now, &[Event::Start, denied]);
    machine.on_event(Event::TimerDue, now + MS, 0).unwrap();
    assert_eq!(
        machine.on_event(denied, now + MS, 0),
        Ok(Action::Stop(StopReason::RetriesExhausted { retries: 1 }))
    );
}

#[test]
fn a_stopped_machine_keeps_its_first_reason() {
    let now = Instant::now();
    let fatal = Event::DialFailed(Failure::Refused { fatal: true });
    let mut machine = after(steady(), now, &[Event::Start, fatal]);
    let stats = machine.stats();
    assert_eq!(
        machine.on_event(Event::Stop, now, 0),
        Ok(Action::Stop(StopReason::Refused))
    );
    assert_eq!(machine.state(), State::Stopped(StopReason::Refused));
    assert_eq!(machine.stats(), stats);
}

#[test]
fn the_status_follows_the_state() {
    let now = Instant::now();
    let until = now + 100 * MS;
    let status = |path: &[Event]| after(steady(), now, path).status();
    assert_eq!(status(&[]), Status::Idle);
    assert_eq!(status(&[Event::Start]), Status::Connecting { attempt: 0 });
    assert_eq!(
        status(&[Event::Start, FAILED]),
        Status::Waiting { attempt: 1, until }
    );
    assert_eq!(status(&[Event::Start, UP]), Status::Connected { epoch: 7 });
    assert_eq!(
        status(&[Event::Stop]),
        Status::Stopped {
            reason: StopReason::Requested
        }
    );
    let mut machine = after(steady(), now, &[Event::Start, FAILED]);
    machine.on_event(Event::TimerDue, until, 0).unwrap();
    assert_eq!(machine.status(), Status::Connecting { attempt: 1 });
    assert_eq!(machine.config(), &steady());
}

#[test]
fn each_reason_to_stop_has_its_text() {
    let reasons = [
        StopReason::Requested,
        StopReason::RetriesExhausted { retries: 3 },
        StopReason::Refused,
        StopReason::Unauthenticated,
    ];
    let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    stopped on request
    gave up after 3 retries (reconnect.max_retries)
    the server refused this client and does not accept a retry
    the server did not accept the credentials: check the token
    ");
}
