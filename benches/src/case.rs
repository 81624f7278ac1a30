//! The structure of a measurement: suites of cases, figures of quality, and the meter of memory.

use serde::{Deserialize, Serialize};

/// Does the given number of operations. Its data were prepared before and are not part of the measurement.
pub type Worker = Box<dyn FnMut(u64) + Send>;

/// The role of a contender in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The design of this project.
    Ours,
    /// The design that one writes first.
    Naive,
    /// A design that others use, or would use.
    Rival,
    /// The least that any design of its kind costs: it does less than the task, and the verdict ignores it.
    Limit,
}

/// A contender that does one operation at one size.
pub struct Case {
    /// The operation, unique in its suite.
    pub operation: &'static str,
    /// The contender.
    pub contender: &'static str,
    /// The role of the contender in the comparison.
    pub role: Role,
    /// The size; the operation defines its unit.
    pub size: usize,
    /// How many threads may do the operation at a time: one or two.
    pub max_threads: usize,
    /// Makes one worker for each of the given number of threads; the workers share what the design shares.
    pub workers: Box<dyn Fn(usize) -> Vec<Worker>>,
}

impl Case {
    /// Creates a case for one and two threads.
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

    /// Creates a case whose threads share nothing: `worker` makes the worker of each thread.
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

    /// Limits the case to one thread.
    #[must_use]
    pub const fn single(mut self) -> Self {
        self.max_threads = 1;
        self
    }
}

/// A measurement other than speed: a quality, or memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// The operation that the figure belongs to.
    pub operation: String,
    /// The size of that operation.
    pub size: usize,
    /// The contender.
    pub contender: String,
    /// The measured property with its unit.
    pub what: String,
    /// The best possible value.
    pub best: f64,
    /// The measured value.
    pub value: f64,
}

impl Figure {
    /// Creates a figure of which less is better.
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

    /// Sets the best value to something other than zero.
    #[must_use]
    pub const fn near(mut self, best: f64) -> Self {
        self.best = best;
        self
    }

    /// The distance of the value from the best one.
    #[must_use]
    pub const fn distance(&self) -> f64 {
        (self.value - self.best).abs()
    }
}

/// The figure that has its own column beside the speed.
pub const BYTES_PER_ENTRY: &str = "bytes per entry";

/// Reads the counting allocator.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Bytes allocated now.
    pub current: fn() -> usize,
    /// The highest number of bytes since [`Meter::reset_peak`].
    pub peak: fn() -> usize,
    /// Resets the peak to the current bytes.
    pub reset_peak: fn(),
}

impl Meter {
    /// Bytes that the value made by `make` uses, for each of `entries` entries.
    pub fn per_entry<T>(&self, entries: usize, make: impl FnOnce() -> T) -> f64 {
        let before = (self.current)();
        let made = make();
        let after = (self.current)();
        drop(made);
        (after as f64 - before as f64) / entries as f64
    }

    /// The highest number of bytes that `run` uses at a time.
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
    /// The first part of the ids.
    pub name: &'static str,
    /// All contenders, operations and sizes.
    pub cases: fn() -> Vec<Case>,
    /// Figures of the quality of their results.
    pub quality: fn() -> Vec<Figure>,
    /// Figures of the memory that they use.
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
