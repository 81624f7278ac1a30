//! Runs the cases under criterion. Each bench includes this module, so that only benches need criterion: the package's
//! own dependencies are built together with the programs, because features are selected for all default members
//! together.
#![allow(dead_code)] // `bench` is unused in a bench that has its own `main`
#![allow(clippy::print_stderr)]

use std::time::{Duration, Instant};

use adit_benches::{
    case::{Suite, Worker},
    measure::together,
};
use criterion::{BenchmarkId, Criterion};

/// Times short enough that all groups end within minutes; criterion's own flags override them. There are fewer
/// resamples than usual, so that the analysis takes no longer than the measurement.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .nresamples(2_000)
        .without_plots()
        .configure_from_args()
}

/// The `main` of a suite's bench: it prints the quality to standard error, then the time of each case on one thread and
/// on two.
pub(crate) fn bench(suite: &Suite) {
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
