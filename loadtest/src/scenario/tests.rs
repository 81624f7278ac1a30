use std::path::Path;

use super::file::parse;
use super::*;

const GOOD: &str = "
name: x
about: A test.
duration_s: 4
clients: 2
loads:
  - kind: http
    rate: 100
    connections: 8
    sizes: [{ bytes: 1024, weight: 3 }, { bytes: 65536 }]
    limits: { p99_ms: 250 }
  - name: echo
    kind: websocket
    rate: 50
    sizes: [{ bytes: 128 }]
events:
  - { at_s: 2, restart: client, client: 1, how: drain, down_s: 0.5 }
allowed: { percent: 1, kinds: [cut], loss_percent: 2 }
";

fn yaml(text: &str) -> Result<Scenario, String> {
    parse(Path::new("x.yaml"), text).map_err(|error| error.to_string())
}

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    yaml(&GOOD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn what_was_written_is_what_is_run() {
    let scenario = yaml(GOOD).unwrap();
    let [http, echo] = &scenario.loads[..] else {
        panic!("two loads");
    };
    assert_eq!((http.name.as_str(), http.kind), ("http", Kind::Http));
    assert_eq!((http.rate, http.connections), (100.0, 8));
    assert_eq!(http.limits.p99, Some(Duration::from_millis(250)));
    assert_eq!((echo.name.as_str(), echo.kind), ("echo", Kind::WebSocket));
    assert_eq!(scenario.duration(), Duration::from_secs(4));
    assert_eq!(scenario.events.len(), 1);
    assert_eq!(scenario.allowed.kinds, [Failure::Cut]);
    // The warm-up takes a second at the same rate.
    assert_eq!(scenario.arrivals(http).count(), 500);
}

#[test]
fn json_is_read_too() {
    let text = r#"{"name":"x","about":"","steps":[{"for_s":2,"rate_x":0.5},{"for_s":2,"rate_x":0,"to_x":2}],"warm_up_s":0,
        "loads":[{"kind":"udp","rate":10,"sizes":[{"bytes":64}]}]}"#;
    let scenario = parse(Path::new("x.json"), text).unwrap();
    assert_eq!(scenario.arrivals(&scenario.loads[0]).count(), 30);
    let error = parse(Path::new("x.json"), "{\n  \"name\": 3\n}").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn every_shipped_scenario_is_valid_and_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = read(path.to_str().unwrap()).unwrap();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        assert_eq!(Some(scenario.name.as_str()), stem);
        names.push(scenario.name);
    }
    let mut listed: Vec<_> = list().unwrap().into_iter().map(|it| it.name).collect();
    names.sort();
    listed.sort();
    assert_eq!(names, listed);
    for name in &names {
        assert_eq!(&read(name).unwrap().name, name);
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    let error = with("connections: 8", "conections: 8");
    assert!(error.starts_with("x.yaml: "), "{error}");
    assert!(
        error.contains("conections") && error.contains("line 9"),
        "{error}"
    );
    let error = with("kind: websocket", "kind: webscoket");
    assert!(
        error.contains("webscoket") && error.contains("line 13"),
        "{error}"
    );
    let error = with("duration_s: 4", "duration_s: soon");
    assert!(error.contains("line 4"), "{error}");
}

#[test]
fn what_cannot_be_run_is_refused_with_its_place() {
    let cases = [
        ("duration_s: 4", "", "x.yaml: duration_s: is missing"),
        (
            "duration_s: 4",
            "duration_s: 4\nsteps: [{ for_s: 1 }]",
            "duration_s: must be left out",
        ),
        (
            "duration_s: 4",
            "duration_s: -1",
            "duration_s: must be from 0.001",
        ),
        ("duration_s: 4", "steps: []", "steps: must hold"),
        (
            "duration_s: 4",
            "steps: [{ for_s: 9, to_x: -1 }]",
            "steps[0].to_x: must be a number",
        ),
        ("clients: 2", "clients: 0", "clients: must be from 1"),
        ("rate: 100", "rate: 0", "loads[0].rate: must be above 0"),
        ("rate: 100", "", "loads[0].rate: is missing"),
        ("rate: 100", "rate: .nan", "loads[0].rate: must be above 0"),
        (
            "connections: 8",
            "connections: 0",
            "loads[0].connections: must be from 1",
        ),
        (
            "connections: 8",
            "requests_per_connection: 0",
            "loads[0].requests_per_connection: must",
        ),
        (
            "connections: 8",
            "streams_per_connection: 2",
            "loads[0].streams_per_connection: is for grpc",
        ),
        (
            "connections: 8",
            "bytes_per_s: 2",
            "loads[0].bytes_per_s: is for slow_readers",
        ),
        (
            "connections: 8",
            "response_within_ms: 2",
            "loads[0].response_within_ms: is for udp",
        ),
        ("weight: 3", "weight: 0", "loads[0].sizes[0].weight: must"),
        ("[{ bytes: 128 }]", "[]", "loads[1].sizes: must hold"),
        (
            "bytes: 128",
            "bytes: 999999",
            "loads[1].sizes[0].bytes: must be from 1 to 262144",
        ),
        (
            "kind: websocket",
            "kind: slow_readers",
            "loads[1].bytes_per_s: is needed",
        ),
        (
            "kind: websocket",
            "kind: udp\n    response_within_ms: 0",
            "loads[1].response_within_ms: must",
        ),
        (
            "name: echo",
            "name: http",
            "loads[1].name: \"http\" is the name of another load",
        ),
        (
            "at_s: 2",
            "at_s: 4",
            "events[0].at_s: must be before the end",
        ),
        (
            "client: 1",
            "client: 2",
            "events[0].client: there are 2 clients",
        ),
        (
            "restart: client",
            "restart: server",
            "events[0].client: is not for",
        ),
        (
            "percent: 1",
            "percent: 101",
            "allowed.percent: must be from 0 to 100",
        ),
        (
            "[cut]",
            "[cute]",
            "allowed.kinds[0]: unknown \"cute\", expected one of",
        ),
        (
            "[cut]",
            "[wrong_bytes]",
            "allowed.kinds[0]: wrong_bytes is never allowed",
        ),
    ];
    for (from, to, wanted) in cases {
        let error = with(from, to);
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn an_unknown_name_is_rejected_with_the_known_ones() {
    let error = read("smal-http").unwrap_err().to_string();
    assert!(
        error.contains("smal-http") && error.contains("rolling-restart"),
        "{error}"
    );
    let error = read("/no/such/file.yaml").unwrap_err().to_string();
    assert!(error.contains("/no/such/file.yaml"), "{error}");
}

#[test]
fn the_command_line_changes_rate_length_and_size() {
    let scenario = yaml(GOOD).unwrap();
    let changed = scenario.changed(Change {
        rate: Some(300.0),
        duration: Some(Duration::from_secs(1)),
        scale: Some(0.1),
    });
    let rates: Vec<_> = changed.loads.iter().map(|load| load.rate).collect();
    assert!(
        (rates[0] - 200.0).abs() < 1e-9 && (rates[1] - 100.0).abs() < 1e-9,
        "{rates:?}"
    );
    assert_eq!(changed.loads[0].connections, 1);
    assert_eq!(changed.duration(), Duration::from_secs(1));
    assert_eq!(changed.events[0].at, Duration::from_millis(500));
    assert_eq!(changed.events[0].down, Duration::from_millis(125));
}

#[test]
fn sizes_are_taken_by_weight_and_alike_in_every_run() {
    let mix = Mix::new([(1, 9), (1_000, 1)]);
    let taken: Vec<u64> = (0..10_000).map(|number| mix.pick(number)).collect();
    let large = taken.iter().filter(|bytes| **bytes == 1_000).count();
    assert!((800..1_200).contains(&large), "{large}");
    assert_eq!(
        taken[..50],
        (0..50).map(|number| mix.pick(number)).collect::<Vec<_>>()
    );
    assert_eq!(mix.largest(), 1_000);
}
