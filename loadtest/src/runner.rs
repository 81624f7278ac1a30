//! Runs a scenario against a target: all loads over one window, and the events of the target in that window.

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
use crate::tally::{Begin, Recovery, Tally, Window};
use crate::targets::Target;

/// The grace of loads that count missing responses themselves.
const COUNTING: Duration = Duration::from_secs(1);

/// The measurements of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) loads: Vec<LoadOutcome>,
    pub(crate) events: Vec<EventOutcome>,
    /// The actual length of the window.
    pub(crate) elapsed: Duration,
    /// Problems of the target itself.
    pub(crate) problems: Vec<String>,
}

/// The measurements of one load.
#[derive(Debug)]
pub(crate) struct LoadOutcome {
    pub(crate) load: Load,
    pub(crate) window: Window,
    /// Latencies, in microseconds, of the exchanges that were due in the window.
    pub(crate) histogram: Histogram<u64>,
    /// Failures of the whole run, with warm-up and grace.
    pub(crate) failures: Failures,
    pub(crate) details: BTreeMap<String, u64>,
    /// Failures since the beginning of the window.
    pub(crate) failed: u64,
    /// Exchanges that were completed in the whole run.
    pub(crate) completed: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) seconds: Vec<Second>,
    /// Exchanges per second that were due in each second.
    pub(crate) offered: Vec<f64>,
}

/// The outcome of one event.
#[derive(Debug)]
pub(crate) struct EventOutcome {
    pub(crate) event: Event,
    /// The time from the beginning of the window to the event.
    pub(crate) began: Duration,
    /// The time until the side ran again, including the time that it was stopped; `None` if it did not return.
    pub(crate) took: Option<Duration>,
    /// The recovery of each load from the event.
    pub(crate) recovered: Vec<Recovery>,
}

/// The counts of one load in the last second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick<'a> {
    pub(crate) load: &'a Load,
    pub(crate) second: Second,
    /// Failures since the start.
    pub(crate) failed: u64,
    pub(crate) lost: u64,
}

/// A run could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The histograms could not be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

struct Crew<'a> {
    load: &'a Load,
    tally: Arc<Tally>,
    running: Running,
}

/// Runs the scenario; `on_tick` is called once a second with the counts of each load.
///
/// # Errors
/// Returns a [`RunError`]; failed exchanges, and a target that does not return, are part of the outcome instead.
///
/// # Cancel safety
/// Dropping the future ends all visitors.
pub(crate) async fn run(
    scenario: &Scenario,
    target: &mut Target,
    mut on_tick: impl FnMut(u64, &[Tick<'_>]),
) -> Result<Outcome, RunError> {
    let begin = Instant::now();
    let window_begin = begin + scenario.warm_up;
    let ground = Ground {
        entries: target.entries().clone(),
        begin,
        end: window_begin + scenario.duration(),
        timeout: scenario.timeout,
        grace: scenario.grace,
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
    // Without a warm-up, no visitor may start before the window, so there must be no await here.
    if !scenario.warm_up.is_zero() {
        sleep_until(window_begin).await;
    }
    let begins: Vec<Begin> = crews
        .iter()
        .map(|crew| crew.tally.mark_begin_at(window_begin))
        .collect();
    let tallies: Vec<Arc<Tally>> = crews.iter().map(|crew| crew.tally.clone()).collect();
    let mut problems = Vec::new();
    let played = play(
        &scenario.events,
        window_begin,
        async |event| target.restart(event).await,
        &tallies,
        &mut problems,
    );
    // An event that takes longer than the window delays neither the end of the window nor the end of the grace.
    let measured = async {
        watch(&crews, window_begin, ground.end, &mut on_tick).await;
        let windows: Vec<Window> = crews
            .iter()
            .zip(&begins)
            .map(|(crew, begin)| crew.tally.mark_end(*begin))
            .collect();
        finish(&mut crews, ground.end + scenario.grace).await;
        windows
    };
    let (windows, mut events) = tokio::join!(measured, played);
    let elapsed = windows.first().map_or(Duration::ZERO, |it| it.elapsed);
    if let Err(error) = target.check_running() {
        problems.push(error.to_string());
    }

    for crew in &crews {
        let recoveries = crew.tally.recoveries(crew.running.last_due);
        for (event, recovery) in events.iter_mut().zip(recoveries) {
            event.recovered.push(recovery);
        }
    }
    let crews = crews.into_iter().zip(begins).zip(windows);
    let loads = crews.map(|((crew, begin), window)| {
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
            failed: crew.tally.failures.total() - begin.failures,
            completed: crew.tally.requests.load(Relaxed),
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
        problems,
    })
}

/// Calls `on_tick` once a second, until the window is over.
async fn watch(
    crews: &[Crew<'_>],
    begin: Instant,
    end: Instant,
    on_tick: &mut impl FnMut(u64, &[Tick<'_>]),
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
        on_tick(second.into(), &ticks);
    }
    sleep_until(end).await;
}

/// Applies the scenario's events to the target, one after the other; a failed event is the last one.
async fn play<E: std::fmt::Display>(
    events: &[Event],
    begin: Instant,
    mut restart: impl AsyncFnMut(&Event) -> Result<(), E>,
    tallies: &[Arc<Tally>],
    problems: &mut Vec<String>,
) -> Vec<EventOutcome> {
    let mut played = Vec::new();
    for event in events {
        sleep_until(begin + event.at).await;
        let began = Instant::now();
        for tally in tallies {
            tally.disturb();
        }
        let restarted = restart(event).await;
        played.push(EventOutcome {
            event: *event,
            began: began - begin,
            took: restarted.is_ok().then(|| began.elapsed()),
            recovered: Vec::new(),
        });
        if let Err(error) = restarted {
            problems.push(format!("{event}: did not return: {error}"));
            break;
        }
    }
    played
}

/// Waits for running exchanges, and counts those that do not end.
async fn finish(crews: &mut [Crew<'_>], until: Instant) {
    for crew in crews {
        // Loads without a schedule count missing responses at the end of the grace.
        let until = match crew.running.schedule {
            Some(_) => until,
            None => until + COUNTING,
        };
        let tasks = &mut crew.running.tasks;
        let drained = timeout_at(until, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            // A visitor that is still running has an exchange without a response.
            let left = tasks.len() as u64;
            crew.tally.failed_many(Failure::Unfinished, left);
            tasks.shutdown().await;
        }
        if let Some(schedule) = &crew.running.schedule {
            crew.tally.failed_many(Failure::Unsent, schedule.unsent());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{How, Side};

    #[tokio::test(start_paused = true)]
    async fn a_failed_event_is_the_last_problem() {
        let event = |at_s| Event {
            at: Duration::from_secs(at_s),
            side: Side::Server,
            how: How::Kill,
            down: Duration::ZERO,
        };
        let tally = Arc::new(Tally::new().unwrap());
        let mut problems = Vec::new();
        let restart = async |event: &Event| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if event.at.as_secs() == 2 {
                return Err("port taken");
            }
            Ok(())
        };
        let played = play(
            &[event(0), event(2), event(4)],
            Instant::now(),
            restart,
            std::slice::from_ref(&tally),
            &mut problems,
        )
        .await;
        let took: Vec<_> = played.iter().map(|event| event.took).collect();
        assert_eq!(took, [Some(Duration::from_secs(1)), None]);
        assert_eq!(tally.recoveries(None).len(), 2);
        assert_eq!(
            problems,
            ["server killed, started again 0 s later: did not return: port taken"]
        );
    }
}
