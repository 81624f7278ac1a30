//! The format of scenario files: YAML or JSON.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Scenario;

/// A scenario file. Times are in seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) about: String,
    #[serde(default = "one")]
    pub(super) warm_up_s: f64,
    pub(super) duration_s: Option<f64>,
    pub(super) steps: Option<Vec<FileStep>>,
    #[serde(default = "ten")]
    pub(super) timeout_s: f64,
    #[serde(default = "ten")]
    pub(super) grace_s: f64,
    #[serde(default = "one_client")]
    pub(super) clients: usize,
    pub(super) loads: Vec<FileLoad>,
    #[serde(default)]
    pub(super) events: Vec<FileEvent>,
    #[serde(default)]
    pub(super) allowed: FileAllowed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileStep {
    pub(super) for_s: f64,
    /// The factor of the rates.
    #[serde(default = "one")]
    pub(super) rate_x: f64,
    /// The factor at the end of the step.
    pub(super) to_x: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLoad {
    pub(super) name: Option<String>,
    pub(super) kind: FileKind,
    pub(super) rate: Option<f64>,
    #[serde(default = "one_client")]
    pub(super) connections: usize,
    pub(super) requests_per_connection: Option<u64>,
    pub(super) streams_per_connection: Option<usize>,
    pub(super) sizes: Vec<FileSize>,
    pub(super) bytes_per_s: Option<u64>,
    pub(super) response_within_ms: Option<u64>,
    #[serde(default)]
    pub(super) limits: FileLimits,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileKind {
    Http,
    Upload,
    Websocket,
    GrpcUnary,
    GrpcStream,
    TcpEcho,
    TcpDownload,
    TcpUpload,
    Udp,
    Sse,
    SlowReaders,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSize {
    pub(super) bytes: u64,
    #[serde(default = "weight")]
    pub(super) weight: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLimits {
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p99_9_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEvent {
    pub(super) at_s: f64,
    pub(super) restart: FileSide,
    /// The number of the client, from 0.
    pub(super) client: Option<usize>,
    pub(super) how: FileHow,
    #[serde(default)]
    pub(super) down_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileSide {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileHow {
    Kill,
    Drain,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAllowed {
    #[serde(default)]
    pub(super) percent: f64,
    #[serde(default)]
    pub(super) kinds: Vec<String>,
    #[serde(default)]
    pub(super) loss_percent: f64,
}

fn one() -> f64 {
    1.0
}

fn ten() -> f64 {
    10.0
}

fn one_client() -> usize {
    1
}

fn weight() -> u32 {
    1
}

/// A scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    /// The name is unknown.
    #[error(
        "no scenario is called \"{name}\": there are {known}; a path ends in .yaml, .yml or .json"
    )]
    Unknown {
        /// The requested name or path.
        name: String,
        /// The known names.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The file cannot be parsed.
    #[error("{path}: {problem}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The place and the cause of the error.
        problem: String,
    },
    /// The content of the file cannot be run.
    #[error("{path}: {place}: {problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The place of the error, such as `loads[1].rate`.
        place: String,
        /// What is wrong at that place.
        problem: String,
    },
}

/// The shipped scenarios, by name and text. They are part of the program, so that it can be used without other files.
const SHIPPED: [(&str, &str); 13] = [
    (
        "small-http",
        include_str!("../../scenarios/small-http.yaml"),
    ),
    (
        "new-connections",
        include_str!("../../scenarios/new-connections.yaml"),
    ),
    (
        "mixed-sizes",
        include_str!("../../scenarios/mixed-sizes.yaml"),
    ),
    (
        "slow-readers",
        include_str!("../../scenarios/slow-readers.yaml"),
    ),
    (
        "sse-fan-out",
        include_str!("../../scenarios/sse-fan-out.yaml"),
    ),
    (
        "websocket-echo",
        include_str!("../../scenarios/websocket-echo.yaml"),
    ),
    (
        "grpc-unary",
        include_str!("../../scenarios/grpc-unary.yaml"),
    ),
    (
        "grpc-streams",
        include_str!("../../scenarios/grpc-streams.yaml"),
    ),
    ("tcp-bulk", include_str!("../../scenarios/tcp-bulk.yaml")),
    ("udp", include_str!("../../scenarios/udp.yaml")),
    (
        "reconnect-storm",
        include_str!("../../scenarios/reconnect-storm.yaml"),
    ),
    (
        "rolling-restart",
        include_str!("../../scenarios/rolling-restart.yaml"),
    ),
    ("soak", include_str!("../../scenarios/soak.yaml")),
];

/// Returns the shipped scenarios.
///
/// # Errors
/// Returns a [`ScenarioError`]; a test checks that there is none.
pub(crate) fn list() -> Result<Vec<Scenario>, ScenarioError> {
    let shipped = SHIPPED.iter();
    shipped
        .map(|(name, text)| parse(&PathBuf::from(format!("{name}.yaml")), text))
        .collect()
}

/// Returns a scenario by its name, or from a file whose path ends in `.yaml`, `.yml` or `.json`.
///
/// # Errors
/// Returns a [`ScenarioError`].
pub(crate) fn read(name: &str) -> Result<Scenario, ScenarioError> {
    let path = PathBuf::from(name);
    if !matches!(ending(&path), "yaml" | "yml" | "json") {
        let found = SHIPPED.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or_else(|| ScenarioError::Unknown {
            name: name.to_owned(),
            known: SHIPPED.map(|(known, _)| known).join(", "),
        })?;
        return parse(&PathBuf::from(format!("{name}.yaml")), text);
    }
    match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text),
        Err(source) => Err(ScenarioError::Read { path, source }),
    }
}

fn ending(path: &Path) -> &str {
    path.extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default()
}

/// Parses the text of a file; the file's extension determines the format.
///
/// # Errors
/// Returns a [`ScenarioError`].
pub(super) fn parse(path: &Path, text: &str) -> Result<Scenario, ScenarioError> {
    let parsed = if ending(path) == "json" {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str::<File>(text).map_err(|error| error.to_string())
    };
    let file: File = parsed.map_err(|problem| ScenarioError::Parse {
        path: path.to_owned(),
        problem,
    })?;
    file.check()
        .map_err(|(place, problem)| ScenarioError::Invalid {
            path: path.to_owned(),
            place,
            problem,
        })
}
