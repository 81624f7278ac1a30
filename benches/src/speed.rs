//! The cases under criterion.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};

use crate::case::{Suite, Worker};

/// Short enough for all groups together to end within minutes, and overridden by criterion's own flags. Fewer resamples
/// than usual, so that the analysis takes no longer than the measurement.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .nresamples(2_000)
        .without_plots()
        .configure_from_args()
}

/// The `main` of a suite's bench: quality on standard error, then the time of each case at one thread and at two.
pub fn bench(suite: &Suite) {
    let mut criterion = criterion();
    for figure in (suite.quality)() {
        eprintln!(
            "{}/{}/{}/{}: {} {:.3}",
            suite.name, figure.operation, figure.contender, figure.size, figure.what, figure.value
        );
    }
    for case in (suite.cases)() {
        let mut group = criterion.benchmark_group(format!("{}/{}", suite.name, case.operation));
        let id = BenchmarkId::new(case.contender, case.size);
        let mut workers = None;
        group.bench_function(id, |b| {
            let worker = &mut workers.get_or_insert_with(|| (case.workers)(1))[0];
            b.iter_custom(|times| {
                let start = Instant::now();
                worker(times);
                start.elapsed()
            });
        });
        if case.max_threads > 1 {
            let id = BenchmarkId::new(case.contender, format!("{}/2threads", case.size));
            let mut workers = None;
            group.bench_function(id, |b| {
                let workers = workers.get_or_insert_with(|| (case.workers)(2));
                b.iter_custom(|times| together(workers, |worker| timed(worker, times)).1);
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn timed(worker: &mut Worker, times: u64) -> Duration {
    let start = Instant::now();
    worker(times);
    start.elapsed()
}

/// Runs all workers at once; gives the sum of what `run` gives, and the longest.
pub fn together(
    workers: &mut [Worker],
    run: impl Fn(&mut Worker) -> Duration + Sync,
) -> (Duration, Duration) {
    let barrier = Barrier::new(workers.len());
    let took: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                scope.spawn(|| {
                    barrier.wait();
                    run(worker)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let longest = took.iter().copied().max().unwrap_or_default();
    (took.iter().sum(), longest)
}
