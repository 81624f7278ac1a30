//! The complete comparison: every case with every kind of measurement, and the verdicts.

use std::{collections::HashSet, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    case::{BYTES_PER_ENTRY, Case, Figure, Role, Suite, Worker},
    measure,
    verdict::{Spread, Verdict, by_amounts, by_ratios},
};

/// All measurements, with the environment that is needed to interpret them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Processor, cores, kernel, load before the run.
    pub machine: String,
    /// The commit, and whether there were local changes.
    pub commit: String,
    /// Day and time.
    pub date: String,
    /// Rounds of processor time.
    pub rounds: usize,
    /// The results, one for each core.
    #[serde(alias = "rooms")]
    pub suites: Vec<Compared>,
}

/// The result of a suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// The name of the core.
    #[serde(alias = "room")]
    pub suite: String,
    /// The measurements, one group for each operation and size.
    pub groups: Vec<Group>,
    /// Quality, and memory that is not for each entry.
    pub figures: Vec<Figure>,
}

/// The measurements of one operation at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// The operation.
    pub operation: String,
    /// The size.
    pub size: usize,
    /// The contenders.
    pub rows: Vec<Row>,
    /// The verdict by instructions, on one thread.
    pub one_thread: Verdict,
    /// The verdict by processor time, on two threads; `None` where the operation has only one thread.
    pub two_threads: Option<Verdict>,
}

impl Group {
    /// The ratio of a contender to the design of this project: of instructions on one thread, of processor time on two
    /// threads.
    pub(crate) fn ratio(&self, contender: &str, panel: usize) -> Option<f64> {
        let row = { self.rows.iter() }.find(|row| row.contender == contender)?;
        if panel == 0 {
            let ours = { self.rows.iter() }.find(|row| row.role == Role::Ours)?;
            return Some(row.instructions / ours.instructions);
        }
        let ratios = row.ratios.get(panel)?;
        (!ratios.is_empty()).then(|| Spread::of(ratios).median)
    }
}

impl Row {
    /// The ratio of the largest to the smallest measurement, for the kind of measurement whose rounds differ most.
    pub(crate) fn spread(&self) -> f64 {
        let ratios = self.ratios.iter().map(|ratios| Spread::of(ratios));
        let all = self.nanos.iter().flatten().copied().chain(ratios);
        all.filter(|spread| spread.min > 0.0)
            .map(|spread| spread.max / spread.min)
            .fold(1.0, f64::max)
    }
}

/// The measurements of one contender.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The name of the contender.
    pub contender: String,
    /// The role of the contender in the comparison.
    pub role: Role,
    /// Instructions for each operation, on one thread.
    pub instructions: f64,
    /// Nanoseconds of processor time for each operation, on one thread and on two.
    pub nanos: [Option<Spread>; 2],
    /// The same times, divided by the time of the design of this project in the same round.
    pub ratios: [Vec<f64>; 2],
    /// Memory for each entry, if the operation has entries.
    pub bytes_per_entry: Option<f64>,
}

/// Measures a suite. `program` is the path of this program, for callgrind; `counting` is the path of the program that
/// counts memory.
///
/// # Errors
/// Returns the errors of the programs that measure.
pub fn suite(
    suite: &Suite,
    program: &Path,
    counting: &Path,
    rounds: usize,
) -> io::Result<Compared> {
    let memory = measure::memory(counting, suite.name)?;
    let (entries, mut figures): (Vec<_>, Vec<_>) =
        { memory.into_iter() }.partition(|figure| figure.what == BYTES_PER_ENTRY);
    figures.extend((suite.quality)());
    let cases = (suite.cases)();
    let mut seen = HashSet::new();
    let mut groups = Vec::new();
    for first in &cases {
        if !seen.insert((first.operation, first.size)) {
            continue;
        }
        let of_group = |case: &&Case| (case.operation, case.size) == (first.operation, first.size);
        let group: Vec<&Case> = cases.iter().filter(of_group).collect();
        eprintln!("{}/{}/{}", suite.name, first.operation, first.size);
        groups.push(compare(suite, &group, &entries, program, rounds)?);
    }
    Ok(Compared {
        suite: suite.name.to_owned(),
        groups,
        figures,
    })
}

fn compare(
    suite: &Suite,
    cases: &[&Case],
    entries: &[Figure],
    program: &Path,
    rounds: usize,
) -> io::Result<Group> {
    let mut rows = Vec::new();
    let mut times = Vec::new();
    for case in cases {
        let calibrated = measure::calibrate(&mut (case.workers)(1)[0]);
        times.push(calibrated);
        let entry = entries.iter().find(|figure| {
            (
                figure.operation.as_str(),
                figure.size,
                figure.contender.as_str(),
            ) == (case.operation, case.size, case.contender)
        });
        rows.push(Row {
            contender: case.contender.to_owned(),
            role: case.role,
            instructions: measure::instructions(program, &suite.id(case), calibrated)?,
            nanos: [None, None],
            ratios: [Vec::new(), Vec::new()],
            bytes_per_entry: entry.map(|figure| figure.value),
        });
    }
    for threads in [1, 2] {
        if cases.iter().all(|case| case.max_threads >= threads) {
            alternate(cases, &times, threads, rounds, &mut rows);
        }
    }
    let ours = { rows.iter() }
        .position(|row| row.role == Role::Ours)
        .expect("one of ours");
    let others = || {
        rows.iter()
            .filter(|row| !matches!(row.role, Role::Ours | Role::Limit))
    };
    let counted: Vec<_> = others()
        .map(|row| (row.contender.as_str(), row.instructions))
        .collect();
    let timed: Vec<_> = others()
        .map(|row| (row.contender.as_str(), row.ratios[1].as_slice()))
        .collect();
    let at_two = cases.iter().all(|case| case.max_threads >= 2);
    Ok(Group {
        operation: cases[0].operation.to_owned(),
        size: cases[0].size,
        one_thread: by_amounts(rows[ours].instructions, &counted),
        two_threads: at_two.then(|| by_ratios(&timed)),
        rows,
    })
}

/// Runs the contenders in turns, round by round. Each round begins with another contender, so that a machine that is
/// slow for a while slows all contenders.
fn alternate(cases: &[&Case], times: &[u64], threads: usize, rounds: usize, rows: &mut [Row]) {
    /// Processor time is measured over this many times the operations of the callgrind run.
    const LONGER: u64 = 6;
    let mut workers: Vec<Vec<Worker>> = cases.iter().map(|case| (case.workers)(threads)).collect();
    let mut nanos = vec![Vec::new(); cases.len()];
    for (workers, times) in workers.iter_mut().zip(times) {
        measure::cpu_nanos(workers, *times);
    }
    for round in 0..rounds {
        for turn in 0..cases.len() {
            let place = (round + turn) % cases.len();
            let took = measure::cpu_nanos(&mut workers[place], times[place] * LONGER);
            nanos[place].push(took);
        }
    }
    let ours = cases
        .iter()
        .position(|case| case.role == Role::Ours)
        .expect("one of ours");
    for place in 0..cases.len() {
        let ratios = nanos[place].iter().zip(&nanos[ours]);
        rows[place].ratios[threads - 1] = ratios.map(|(theirs, ours)| theirs / ours).collect();
        rows[place].nanos[threads - 1] = Some(Spread::of(&nanos[place]));
    }
}
