use super::*;
use crate::compare::tables;
use crate::failure::Failure;

fn scenario(judge: Judge) -> Scenario {
    let text = r#"{"name":"s","path":"/small","connections":1}"#;
    Scenario {
        judge,
        ..serde_json::from_str(text).unwrap()
    }
}

fn run(target: Target, round: usize, requests: u64, tunnel_s: f64) -> Run {
    Run {
        round,
        scenario: "s".to_owned(),
        target,
        elapsed_s: 2.0,
        requests,
        body_bytes: requests << 20,
        failures: Failures::default(),
        latency: Latency {
            p50_us: 100,
            p90_us: 200,
            p99_us: 400,
            p99_9_us: 500,
            max_us: 900,
        },
        cost: Cost {
            tunnel_s: vec![
                ("server".to_owned(), tunnel_s / 4.0),
                ("client".to_owned(), tunnel_s * 0.75),
            ],
            service_s: 0.5,
            generator_s: 0.5,
        },
        idle_kib: 1_000,
        peak_kib: 4_000,
    }
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9 * right.abs().max(1.0)
}

#[test]
fn the_median_skips_invalid_numbers() {
    assert!(close(median(&[3.0, 1.0, 2.0]), 2.0));
    assert!(close(median(&[4.0, 1.0, f64::NAN, 2.0, 3.0]), 2.5));
    assert!(median(&[f64::INFINITY]).is_nan());
}

#[test]
fn figures_are_per_request_or_per_gib() {
    let run = run(Target::Rathole, 0, 1_000, 0.02);
    let small = Figures::of(&run, Judge::Requests);
    assert!(
        close(small.rate, 500.0) && close(small.tunnel_cpu, 20.0) && close(small.all_cpu, 1_020.0)
    );
    let bulk = Figures::of(&run, Judge::Bytes);
    let gib = 1_000.0 / 1_024.0;
    assert!(
        close(bulk.rate, gib * 1_073_741_824.0 * 8.0 / 1e9 / 2.0),
        "{bulk:?}"
    );
    assert!(close(bulk.tunnel_cpu, 20.0 / gib) && close(bulk.all_cpu, 1_020.0 / gib));
}

#[test]
fn a_ratio_is_taken_within_its_round() {
    // Both rathole and adit run at half speed in the last two rounds: the ratio of medians would be 1.0 or 4.0 by
    // chance, but the median ratio is 2.
    let runs = vec![
        run(Target::Rathole, 0, 1_000, 0.04),
        run(Target::Adit, 0, 2_000, 0.04),
        run(Target::Adit, 1, 1_000, 0.04),
        run(Target::Rathole, 1, 500, 0.04),
        run(Target::Rathole, 2, 500, 0.04),
        run(Target::Adit, 2, 1_000, 0.04),
    ];
    let rows = rows(&scenario(Judge::Requests), Target::Rathole, &runs, &[]);
    assert_eq!(
        rows.iter().map(|row| row.target).collect::<Vec<_>>(),
        [Target::Rathole, Target::Adit]
    );
    assert!(rows[0].ratio.is_none());
    let ratio = rows[1].ratio.unwrap();
    assert!(
        close(ratio.rate, 2.0) && close(ratio.tunnel_cpu, 0.5) && close(ratio.p99_us, 1.0),
        "{ratio:?}"
    );
    assert!(close(rows[1].median.rate, 500.0) && close(rows[1].median.tunnel_cpu, 40.0));
    let by_process = &rows[1].tunnel_cpu_by_process;
    assert!(
        by_process[0].0 == "server" && close(by_process[0].1, 10.0),
        "{by_process:?}"
    );
    assert!(
        by_process[1].0 == "client" && close(by_process[1].1, 30.0),
        "{by_process:?}"
    );
}

#[test]
fn without_the_reference_there_are_no_ratios() {
    let runs = vec![run(Target::Adit, 0, 2_000, 0.04)];
    assert!(
        rows(&scenario(Judge::Requests), Target::Rathole, &runs, &[])[0]
            .ratio
            .is_none()
    );
}

#[test]
fn calls_and_failures_find_their_row() {
    let runs = vec![
        run(Target::Rathole, 0, 10, 0.1),
        run(Target::Rathole, 1, 10, 0.1),
    ];
    runs[0].failures.add(Failure::Cut, 2);
    runs[1].failures.add(Failure::Status, 1);
    let calls = |scenario: &str, target, count| Calls {
        scenario: scenario.to_owned(),
        target,
        per_request: vec![("server".to_owned(), count)],
    };
    let counted = [
        calls("other", Target::Rathole, 1.0),
        calls("s", Target::Adit, 2.0),
        calls("s", Target::Rathole, 3.0),
    ];
    let rows = rows(&scenario(Judge::Requests), Target::Rathole, &runs, &counted);
    assert_eq!(rows[0].failures, 3);
    assert_eq!(rows[0].calls, Some(vec![("server".to_owned(), 3.0)]));
}

#[test]
fn direct_has_no_tunnel_to_be_measured() {
    let mut run = run(Target::Direct, 0, 1_000, 0.0);
    run.cost.tunnel_s.clear();
    let figures = Figures::of(&run, Judge::Requests);
    assert!(figures.tunnel_cpu.is_nan() && figures.peak_kib.is_nan());
    assert!(close(figures.all_cpu, 1_000.0), "{figures:?}");
    assert!(
        serde_json::to_string(&figures)
            .unwrap()
            .contains("\"tunnel_cpu\":null")
    );
}

#[test]
fn comparison_reports_what_the_kernel_did_and_warns() {
    let setup = Setup {
        date: "today".to_owned(),
        commit: "abc".to_owned(),
        machine: Machine::here(),
        scenarios: "first".to_owned(),
        about: "about".to_owned(),
        rounds: 1,
        warm_up_s: 0.0,
        duration_s: 2.0,
        reference: Target::Rathole,
    };
    let kernel = Kernel {
        tcp_retransmits: Some(40),
        tcp_retransmits_percent: Some(0.5),
        memory_pressure_percent: Some(0.0),
        steal_percent: None,
    };
    let runs = vec![run(Target::Rathole, 0, 10, 0.1)];
    let report = Report::new(setup, &[scenario(Judge::Requests)], runs, &[], kernel);
    for text in [tables::terminal(&report), tables::markdown(&report)] {
        let line = "- kernel: TCP retransmits 40 (0.50 %), memory pressure 0.00 %, steal unknown\n";
        assert!(text.contains(line), "{text}");
        let warning = "- WARNING: 0.50 % of all TCP segments were sent again: packets were lost\n";
        assert!(text.contains(warning), "{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["kernel"]["tcp_retransmits"], 40);
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
}
