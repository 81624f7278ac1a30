//! Compares designs and writes the results.
//!
//! ```text
//! adit-bench list                             the ids of all cases
//! adit-bench run <id> <times>                 runs one case <times> times, for callgrind and other tools
//! adit-bench compare [--rounds <n>] [--out <directory>] [<suite> …]
//! adit-bench write <report.json>              writes a report's tables and plots again, with the current sentences
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use adit_benches::{
    case::Suite,
    compare::{self, Report},
    record::{self, sentences::Sentences},
    suites,
};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["list"] => list(),
        ["run", id, times] => run(id, times),
        ["compare", rest @ ..] => compare(rest),
        ["write", report] => write(Path::new(report)),
        _ => Err("usage: adit-bench list | run <id> <times> | compare [--rounds <n>] [--out <directory>] [<suite> …] | write <report.json>".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Outcome {
    for suite in suites::ALL {
        for case in (suite.cases)() {
            println!("{}", suite.id(&case));
        }
    }
    Ok(())
}

fn run(id: &str, times: &str) -> Outcome {
    let times = times.parse()?;
    let of_id = |suite: &Suite| {
        let mut cases = (suite.cases)().into_iter();
        cases.find(|case| suite.id(case) == id)
    };
    let case = suites::ALL.iter().find_map(of_id);
    let case = case.ok_or("no such case: see `adit-bench list`")?;
    (case.workers)(1)[0](times);
    Ok(())
}

fn compare(arguments: &[&str]) -> Outcome {
    let (mut rounds, mut out, mut names) = (11, PathBuf::from("docs/bench"), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--out" => out = arguments.next().ok_or("--out needs a directory")?.into(),
            name => names.push(name),
        }
    }
    if rounds < 9 {
        return Err("fewer than nine rounds decide nothing".into());
    }
    let known = |name: &&str| suites::ALL.iter().any(|suite| suite.name == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(format!("no suite is called `{unknown}`").into());
    }
    let program = env::current_exe()?;
    let counting = program.with_file_name("adit-bench-memory");
    // This is read before the run: afterwards the load includes this program's own, and the commit may have changed.
    let (machine, commit, date) = (
        machine(),
        commit(),
        jiff::Timestamp::now().strftime("%F %R UTC").to_string(),
    );
    let chosen =
        { suites::ALL.iter() }.filter(|suite| names.is_empty() || names.contains(&suite.name));
    let compared: Result<Vec<_>, _> = { chosen }
        .map(|suite| compare::suite(suite, &program, &counting, rounds))
        .collect();
    let report = Report {
        machine,
        commit,
        date,
        rounds,
        suites: compared?,
    };
    let day = report.date.split(' ').next().unwrap_or_default();
    let commit = report.commit.split(' ').next().unwrap_or_default();
    let name = format!("{day}-{commit}-designs");
    record::write(&report, &sentences()?, &out, &name)?;
    let page = out.join(format!("{name}.md"));
    print!("{}", fs::read_to_string(&page)?);
    eprintln!("written: {}", page.display());
    Ok(())
}

fn write(path: &Path) -> Outcome {
    let report: Report = serde_json::from_slice(&fs::read(path)?)?;
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .ok_or("no name of a report")?;
    let into = path.parent().unwrap_or(Path::new("."));
    Ok(record::write(&report, &sentences()?, into, name)?)
}

fn sentences() -> Result<Sentences, Box<dyn Error>> {
    let path = "benches/record/sentences.toml";
    let toml = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(Sentences::parse(&toml)?)
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = { info.lines() }
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = first_line("/proc/sys/kernel/osrelease");
    let load = first_line("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    format!("{model}, {cores} cores, Linux {kernel}, load before the run {load}")
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with local changes"),
    }
}
