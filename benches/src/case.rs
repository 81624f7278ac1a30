//! What is measured: suites of cases, figures of quality, and the meter of memory.

use serde::{Deserialize, Serialize};

/// Does so many operations. What it works on was made before, and is not measured.
pub type Worker = Box<dyn FnMut(u64) + Send>;

/// What a contender is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The design of this project.
    Ours,
    /// What one writes first.
    Naive,
    /// What others use, or would.
    Rival,
    /// The least that any design of its kind costs: it does less than the task, and takes no part in the verdict.
    Limit,
}

/// One contender doing one operation at one size.
pub struct Case {
    /// The operation, unique in its suite.
    pub operation: &'static str,
    /// The contender.
    pub contender: &'static str,
    /// What it is to the comparison.
    pub role: Role,
    /// How many or how long; what it counts is the operation's business.
    pub size: usize,
    /// How many threads may do it at a time: one or two.
    pub max_threads: usize,
    /// Makes a worker for each of so many threads; they share what the design shares.
    pub workers: Box<dyn Fn(usize) -> Vec<Worker>>,
}

impl Case {
    /// A case for one and two threads.
    pub fn new(
        operation: &'static str,
        (contender, role): (&'static str, Role),
        size: usize,
        workers: impl Fn(usize) -> Vec<Worker> + 'static,
    ) -> Self {
        Self {
            operation,
            contender,
            role,
            size,
            max_threads: 2,
            workers: Box::new(workers),
        }
    }

    /// A case whose threads share nothing: `worker` makes each one's.
    pub fn alone(
        operation: &'static str,
        contender: (&'static str, Role),
        size: usize,
        worker: impl Fn() -> Worker + 'static,
    ) -> Self {
        Self::new(operation, contender, size, move |threads| {
            (0..threads).map(|_| worker()).collect()
        })
    }

    /// For one thread only.
    #[must_use]
    pub const fn single(mut self) -> Self {
        self.max_threads = 1;
        self
    }
}

/// Something measured that is not speed: a quality, or memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// The operation that it belongs to.
    pub operation: String,
    /// The size of that operation.
    pub size: usize,
    /// The contender.
    pub contender: String,
    /// What it is, with its unit.
    pub what: String,
    /// The best that it can be.
    pub best: f64,
    /// How much it is.
    pub value: f64,
}

impl Figure {
    /// A figure of which less is better.
    #[must_use]
    pub fn new(operation: &str, contender: &str, size: usize, what: &str, value: f64) -> Self {
        Self {
            operation: operation.to_owned(),
            size,
            contender: contender.to_owned(),
            what: what.to_owned(),
            best: 0.0,
            value,
        }
    }

    /// The same, where another value than nothing is best.
    #[must_use]
    pub const fn near(mut self, best: f64) -> Self {
        self.best = best;
        self
    }

    /// How far it is from the best.
    #[must_use]
    pub const fn distance(&self) -> f64 {
        (self.value - self.best).abs()
    }
}

/// The figure that has a column beside the speed.
pub const BYTES_PER_ENTRY: &str = "bytes per entry";

/// Reads the counting allocator.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Bytes allocated now.
    pub current: fn() -> usize,
    /// The most since [`Meter::reset_peak`].
    pub peak: fn() -> usize,
    /// Starts looking for the most anew.
    pub reset_peak: fn(),
}

impl Meter {
    /// What `make` holds when it is done, for each of so many entries.
    pub fn per_entry<T>(&self, entries: usize, make: impl FnOnce() -> T) -> f64 {
        let before = (self.current)();
        let made = make();
        let after = (self.current)();
        drop(made);
        (after as f64 - before as f64) / entries as f64
    }

    /// The most that `run` holds at a time.
    pub fn peak_of(&self, run: impl FnOnce()) -> f64 {
        let before = (self.current)();
        (self.reset_peak)();
        run();
        (self.peak)() as f64 - before as f64
    }
}

/// The cases of one core.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// The first word of the ids.
    pub name: &'static str,
    /// All contenders, operations and sizes.
    pub cases: fn() -> Vec<Case>,
    /// What is good or bad about their results.
    pub quality: fn() -> Vec<Figure>,
    /// What they hold.
    pub memory: fn(&Meter) -> Vec<Figure>,
}

impl Suite {
    /// The id of a case on one thread: `suite/operation/contender/size`.
    #[must_use]
    pub fn id(&self, case: &Case) -> String {
        format!(
            "{}/{}/{}/{}",
            self.name, case.operation, case.contender, case.size
        )
    }
}
