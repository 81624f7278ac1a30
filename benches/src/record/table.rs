//! Writes the tables.

use std::fmt::Write as _;

use crate::{
    case::{Figure, Role},
    compare::{Compared, Group, Report},
    record::sentences::Sentences,
    verdict::{MARGIN, Spread, Verdict, by_amounts},
};

/// The complete page. `name` is the base name of its plots.
#[must_use]
pub fn markdown(report: &Report, sentences: &Sentences, name: &str) -> String {
    let mut page = format!(
        "# Designs compared\n\n\
         - machine: {}\n- commit: {}\n- date: {}\n\n\
         Instructions are those of one operation on one thread, counted by callgrind; they decide there, when they differ by \
         more than {:.0} %. Processor time is read from the clock of each thread, in {} rounds in which the contenders take \
         turns; on two threads its ratio to ours within a round decides, when the middle half of the rounds lies on one \
         side of 1. × is the figure of a contender divided by that of ours: above 1, ours needs less. Where nothing \
         separates ours from the next best, the verdict is *undecided*. A *limit* does less than the task, and takes no part; others may have a lower quality.\n",
        report.machine,
        report.commit,
        report.date,
        MARGIN * 100.0,
        report.rounds
    );
    for suite in &report.suites {
        let _ = write!(page, "\n## {}\n\n{}\n", suite.suite, sentences.speed(suite));
        let _ = write!(page, "\n![{0}]({name}-{0}.svg)\n", suite.suite);
        speed(&mut page, suite);
        if !suite.figures.is_empty() {
            let sentence = sentences.quality(suite);
            let _ = write!(page, "\n### {}: quality\n\n{sentence}\n", suite.suite);
            quality(&mut page, suite);
        }
    }
    page
}

fn speed(page: &mut String, suite: &Compared) {
    page.push_str(
        "\n| operation/size | contender | instructions | × ours | CPU ns, 1 thread | CPU ns, 2 threads | \
         × ours, 2 threads (least – most) | bytes per entry | verdict, 1 thread | 2 threads |\n\
         | --- | --- | --: | --: | --: | --: | --: | --: | --- | --- |\n",
    );
    for group in &suite.groups {
        rows(page, group);
    }
    let wide = { suite.groups.iter() }.flat_map(|group| {
        let wide = { group.rows.iter() }.filter(|row| row.spread() >= WIDE);
        wide.map(move |row| {
            let (operation, size, spread) = (&group.operation, group.size, row.spread());
            format!("{operation}/{size} {} {} ×", row.contender, figure(spread))
        })
    });
    let wide: Vec<_> = wide.collect();
    if !wide.is_empty() {
        let _ = write!(
            page,
            "\n**Rounds lie far apart, most to least: {}.** Their times decide little; a quiet machine would tell more.\n",
            wide.join(", ")
        );
    }
}

/// The ratio of the largest to the smallest round from which the page shows a warning.
const WIDE: f64 = 10.0;

fn rows(page: &mut String, group: &Group) {
    let ours = { group.rows.iter() }.find(|row| row.role == Role::Ours);
    let Some(ours) = ours else { return };
    for row in &group.rows {
        let is_ours = row.role == Role::Ours;
        let name = match row.role {
            Role::Ours => format!("**{}**", row.contender),
            Role::Limit => format!("{} (limit)", row.contender),
            Role::Naive => format!("{} (naive)", row.contender),
            Role::Rival => row.contender.clone(),
        };
        let nanos = |threads: usize| row.nanos[threads - 1].map_or(dash(), |s| figure(s.median));
        let ratio = match (is_ours, row.ratios[1].as_slice()) {
            (true, _) | (_, []) => dash(),
            (false, ratios) => {
                let spread = Spread::of(ratios);
                let [median, min, max] = [spread.median, spread.min, spread.max].map(times);
                format!("{median} ({min} – {max})")
            }
        };
        let factor = if is_ours {
            dash()
        } else {
            times(row.instructions / ours.instructions)
        };
        let two = group
            .two_threads
            .as_ref()
            .map_or(dash(), ToString::to_string);
        let (one, two) = if is_ours {
            (group.one_thread.to_string(), two)
        } else {
            (String::new(), String::new())
        };
        let _ = writeln!(
            page,
            "| {}/{} | {name} | {} | {factor} | {} | {} | {ratio} | {} | {one} | {two} |",
            group.operation,
            group.size,
            figure(row.instructions),
            nanos(1),
            nanos(2),
            row.bytes_per_entry.map_or(dash(), figure),
        );
    }
}

fn quality(page: &mut String, suite: &Compared) {
    page.push_str(
        "\n| operation/size | what | best | contenders | verdict |\n| --- | --- | --: | --- | --- |\n",
    );
    let mut seen = Vec::new();
    for first in &suite.figures {
        let key = (&first.operation, first.size, &first.what);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let all = { suite.figures.iter() }
            .filter(|other| (&other.operation, other.size, &other.what) == key);
        let all: Vec<_> = all.collect();
        let figures = { all.iter() }.map(|one| format!("{} {}", one.contender, figure(one.value)));
        let figures: Vec<_> = figures.collect();
        let (operation, size, what) = key;
        let best = if first.best == 0.0 {
            "less".to_owned()
        } else {
            figure(first.best)
        };
        let _ = writeln!(
            page,
            "| {operation}/{size} | {what} | {best} | {} | {} |",
            figures.join(", "),
            by_figures(suite, &all)
        );
    }
}

/// The contender whose figures are nearest to the best.
fn by_figures(suite: &Compared, all: &[&Figure]) -> Verdict {
    let is_ours = |figure: &&&Figure| {
        let of_operation = suite
            .groups
            .iter()
            .filter(|group| group.operation == figure.operation);
        let mut rows = of_operation.flat_map(|group| &group.rows);
        rows.any(|row| row.role == Role::Ours && row.contender == figure.contender)
    };
    let Some(ours) = all.iter().find(is_ours) else {
        return Verdict::Undecided;
    };
    let others = all.iter().filter(|other| other.contender != ours.contender);
    let others: Vec<_> = others
        .map(|other| (other.contender.as_str(), other.distance()))
        .collect();
    by_amounts(ours.distance(), &others)
}

fn dash() -> String {
    "–".to_owned()
}

/// Three digits, or all digits before the decimal point.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn times(ratio: f64) -> String {
    if ratio >= 100.0 {
        format!("{ratio:.0}")
    } else {
        format!("{ratio:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::report;

    #[test]
    fn a_page_has_its_machine_its_rows_and_its_verdicts() {
        let toml = "[table]\nspeed = \"Spoken.\"\nquality = \"Of quality.\"";
        let page = markdown(&report(), &Sentences::parse(toml).unwrap(), "day");
        for line in [
            "- machine: a processor",
            "- commit: abc1234",
            "- date: 2026-01-02 03:04 UTC",
            "## table",
            "Spoken.",
            "![table](day-table.svg)",
            "| trip/64 | map (naive) | 250 | 2.50 | 50.0 | 100 | 2.50 (2.25 – 2.75) | – |  |  |",
            "| trip/64 | memcpy (limit) | 10.0 | 0.10 | 2.00 | 4.00 | 0.10 (0.09 – 0.11) | – |  |  |",
            "| trip/64 | **ours** | 100 | – | 20.0 | 40.0 | – | 48.0 | ours | undecided |",
            "Of quality.",
            "| trip/64 | wake-ups | 1.00 | map 12.0, ours 1.00 | ours |",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }

    #[test]
    fn rounds_that_lie_ten_times_apart_are_warned_of() {
        let mut report = report();
        let sentences = Sentences::default();
        let page = markdown(&report, &sentences, "day");
        assert!(!page.contains("far apart"), "{page}");
        report.suites[0].groups[0].rows[0].ratios[1] = vec![0.2, 1.0, 2.0];
        let page = markdown(&report, &sentences, "day");
        let warning = "**Rounds lie far apart, most to least: trip/64 map 10.0 ×.**";
        assert!(page.contains(warning), "{page}");
    }
}
