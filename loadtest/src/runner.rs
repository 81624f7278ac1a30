//! Runs a scenario against a target: all loads over one window, and what happens to the target meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::drivers::{self, Ground, Running};
use crate::events::Event;
use crate::failure::{Failure, Failures};
use crate::scenario::{Load, Scenario};
use crate::series::Second;
use crate::tally::{Begin, Tally, Window};
use crate::targets::{Target, TargetError};

/// What a run measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) loads: Vec<LoadOutcome>,
    pub(crate) events: Vec<EventOutcome>,
    /// How long the window really was.
    pub(crate) elapsed: Duration,
}

/// What one load measured.
#[derive(Debug)]
pub(crate) struct LoadOutcome {
    pub(crate) load: Load,
    pub(crate) window: Window,
    /// Microseconds of what was due in the window.
    pub(crate) histogram: Histogram<u64>,
    /// The whole run, warm-up and grace included.
    pub(crate) failures: Failures,
    pub(crate) details: BTreeMap<String, u64>,
    /// Exchanges that went well in the whole run.
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) seconds: Vec<Second>,
    /// Exchanges per second that were due in each of them.
    pub(crate) offered: Vec<f64>,
}

/// One event as it went.
#[derive(Debug)]
pub(crate) struct EventOutcome {
    pub(crate) event: Event,
    /// When it began, from the beginning of the window.
    pub(crate) began: Duration,
    /// Until the side was there again, the time that it was away included.
    pub(crate) took: Duration,
    /// From its beginning to the first good answer to a request due after it, by load.
    pub(crate) recovered: Vec<Option<Duration>>,
}

/// What one load did in the last second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick<'a> {
    pub(crate) load: &'a Load,
    pub(crate) second: Second,
    /// Since the start.
    pub(crate) failed: u64,
    pub(crate) lost: u64,
}

/// A run could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The histograms could not be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The target ended, or did not come back.
    #[error(transparent)]
    Target(#[from] TargetError),
}

struct Crew<'a> {
    load: &'a Load,
    tally: Arc<Tally>,
    running: Running,
}

/// Runs the scenario; `told` is called once a second with what each load did in it.
///
/// # Errors
/// [`RunError`]; exchanges that fail are part of the outcome instead.
///
/// # Cancel safety
/// Dropping the future ends all visitors.
pub(crate) async fn run(
    scenario: &Scenario,
    target: &mut Target,
    mut told: impl FnMut(u64, &[Tick<'_>]),
) -> Result<Outcome, RunError> {
    let begin = Instant::now();
    let window_begin = begin + scenario.warm_up;
    let ground = Ground {
        entries: target.entries().clone(),
        begin,
        end: window_begin + scenario.duration(),
        timeout: scenario.timeout,
    };
    let mut crews = Vec::new();
    for load in &scenario.loads {
        let tally = Arc::new(Tally::with_series()?);
        let running = drivers::start(load, scenario.arrivals(load), &ground, &tally);
        crews.push(Crew {
            load,
            tally,
            running,
        });
    }
    // Without a warm-up nobody may start before the window: no await here.
    if !scenario.warm_up.is_zero() {
        sleep_until(window_begin).await;
    }
    let begins: Vec<Begin> = crews
        .iter()
        .map(|crew| crew.tally.mark_begin_at(window_begin))
        .collect();
    let tallies: Vec<Arc<Tally>> = crews.iter().map(|crew| crew.tally.clone()).collect();
    let played = play(&scenario.events, window_begin, target, &tallies);
    let ((), mut events) = {
        let (watched, played) =
            tokio::join!(watch(&crews, window_begin, ground.end, &mut told), played);
        (watched, played?)
    };
    let windows: Vec<Window> = crews
        .iter()
        .zip(begins)
        .map(|(crew, begin)| crew.tally.mark_end(begin))
        .collect();
    let elapsed = windows.first().map_or(Duration::ZERO, |it| it.elapsed);
    finish(&mut crews, Instant::now() + scenario.grace).await;
    target.check_running()?;

    for (place, event) in events.iter_mut().enumerate() {
        let recovered = crews.iter().map(|crew| {
            let recoveries = crew.tally.recoveries();
            recoveries.get(place).copied().flatten()
        });
        event.recovered = recovered.collect();
    }
    let loads = crews.into_iter().zip(windows).map(|(crew, window)| {
        let arrivals = scenario.arrivals(crew.load);
        let warm_up = scenario.warm_up.as_secs_f64();
        let seconds = crew.tally.series();
        let per_visitor = crew.load.offered() / crew.load.rate.max(f64::MIN_POSITIVE);
        let offered = (0..seconds.len())
            .map(|at| arrivals.rate_at(warm_up + at as f64 + 0.5) * per_visitor)
            .collect();
        LoadOutcome {
            load: crew.load.clone(),
            window,
            histogram: crew.tally.histogram(),
            failures: crew.tally.failures.clone(),
            details: crew.tally.details(),
            answered: crew.tally.requests.load(Relaxed),
            lost: crew.tally.lost.load(Relaxed),
            doubled: crew.tally.doubled.load(Relaxed),
            seconds,
            offered,
        }
    });
    Ok(Outcome {
        loads: loads.collect(),
        events,
        elapsed,
    })
}

/// Tells what happens, once a second, until the window is over.
async fn watch(
    crews: &[Crew<'_>],
    begin: Instant,
    end: Instant,
    told: &mut impl FnMut(u64, &[Tick<'_>]),
) {
    for second in 1_u32.. {
        let next = begin + Duration::from_secs(1) * second;
        if next > end {
            break;
        }
        sleep_until(next).await;
        let ticks: Vec<Tick<'_>> = crews
            .iter()
            .filter_map(|crew| {
                Some(Tick {
                    load: crew.load,
                    second: crew.tally.last_second()?,
                    failed: crew.tally.failures.total(),
                    lost: crew.tally.lost.load(Relaxed),
                })
            })
            .collect();
        told(second.into(), &ticks);
    }
    sleep_until(end).await;
}

/// Does to the target what the scenario says, one event after the other.
async fn play(
    events: &[Event],
    begin: Instant,
    target: &mut Target,
    tallies: &[Arc<Tally>],
) -> Result<Vec<EventOutcome>, TargetError> {
    let mut played = Vec::new();
    for event in events {
        sleep_until(begin + event.at).await;
        let began = Instant::now();
        for tally in tallies {
            tally.disturb();
        }
        target.restart(event).await?;
        played.push(EventOutcome {
            event: *event,
            began: began - begin,
            took: began.elapsed(),
            recovered: Vec::new(),
        });
    }
    Ok(played)
}

/// Waits for what is under way, and counts what does not end.
async fn finish(crews: &mut [Crew<'_>], until: Instant) {
    for crew in crews {
        let tasks = &mut crew.running.tasks;
        let drained = timeout_at(until, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            // Whoever still runs has an exchange that was not answered.
            let left = tasks.len() as u64;
            crew.tally.failed_many(Failure::Unfinished, left);
            tasks.shutdown().await;
        }
        if let Some(schedule) = &crew.running.schedule {
            crew.tally.failed_many(Failure::Unsent, schedule.unsent());
        }
    }
}
