//! Scenarios are data: a file defines what a comparison sends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A file of scenarios.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScenarioFile {
    /// The name of the set.
    pub(crate) name: String,
    /// One sentence on the purpose of the set.
    pub(crate) about: String,
    /// The scenarios in the order in which they are run.
    pub(crate) scenarios: Vec<Scenario>,
}

/// One way of loading a target.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The name of the row in the tables.
    pub(crate) name: String,
    /// A path of the service whose response is the pattern.
    pub(crate) path: String,
    /// Connections at once.
    pub(crate) connections: usize,
    /// A new connection for each request.
    #[serde(default)]
    pub(crate) new_connection: bool,
    /// Requests per second of an open loop; without it, the loop is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// The unit in which the run is compared.
    #[serde(default)]
    pub(crate) judge: Judge,
    /// Seconds of the measured window, if the scenario has its own duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration_s: Option<f64>,
}

/// The unit of a scenario's rate and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Judge {
    /// Requests per second, and CPU microseconds per request.
    #[default]
    Requests,
    /// Gbit per second, and CPU milliseconds per GiB.
    Bytes,
}

/// The scenario file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; run from the root of the repository, or give the path of a file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The file's content is invalid.
    #[error("{path}: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The position and the cause of the error.
        source: serde_json::Error,
    },
    /// The file contains no scenario, or a scenario that cannot be run.
    #[error("{path}: {problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
}

impl ScenarioFile {
    /// Reads a file: a path that ends in `.json`, or the name of a file in `loadtest/comparisons`.
    ///
    /// # Errors
    /// Returns a [`ScenarioError`] when the file cannot be used.
    pub(crate) fn read(name: &str) -> Result<Self, ScenarioError> {
        let path = if name.ends_with(".json") {
            PathBuf::from(name)
        } else {
            Path::new("loadtest/comparisons")
                .join(name)
                .with_extension("json")
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ScenarioError::Read { path, source }),
        };
        let file: Self = match serde_json::from_str(&text) {
            Ok(file) => file,
            Err(source) => return Err(ScenarioError::Parse { path, source }),
        };
        match file.problem() {
            None => Ok(file),
            Some(problem) => Err(ScenarioError::Invalid { path, problem }),
        }
    }

    fn problem(&self) -> Option<String> {
        if self.scenarios.is_empty() {
            return Some("no scenarios".to_owned());
        }
        self.scenarios.iter().find_map(|scenario| {
            let positive = |number: Option<f64>| number.is_none_or(|it| it.is_finite() && it > 0.0);
            let problem = if scenario.connections == 0 {
                "connections must be at least 1"
            } else if !scenario.path.starts_with('/') {
                "path must begin with /"
            } else if !positive(scenario.rate) {
                "rate must be above zero"
            } else if !positive(scenario.duration_s) {
                "duration_s must be above zero"
            } else {
                return None;
            };
            Some(format!("scenario \"{}\": {problem}", scenario.name))
        })
    }
}

impl Scenario {
    /// How long to measure the scenario, where `usual` is the caller's duration.
    pub(crate) fn duration(&self, usual: Duration) -> Duration {
        self.duration_s.map_or(usual, Duration::from_secs_f64)
    }

    /// How much to read at once: for large bodies, the bench measures the tunnel's work, not the visitor's reads.
    pub(crate) fn read_bytes(&self) -> usize {
        match self.judge {
            Judge::Requests => 16 * 1024,
            Judge::Bytes => 256 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<String>, serde_json::Error> {
        serde_json::from_str::<ScenarioFile>(text).map(|file| file.problem())
    }

    #[test]
    fn the_files_that_ship_can_be_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("comparisons");
        let mut read = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = ScenarioFile::read(path.to_str().unwrap()).unwrap();
            assert_eq!(
                Some(file.name.as_str()),
                path.file_stem().and_then(|stem| stem.to_str())
            );
            read += 1;
        }
        assert!(read >= 1);
    }

    #[test]
    fn an_unknown_key_or_an_empty_set_is_refused() {
        let wrong = r#"{"name":"x","about":"","scenarios":[{"name":"a","path":"/","connections":1,"conections":2}]}"#;
        assert!(parse(wrong).unwrap_err().to_string().contains("conections"));
        assert_eq!(
            parse(r#"{"name":"x","about":"","scenarios":[]}"#)
                .unwrap()
                .as_deref(),
            Some("no scenarios")
        );
    }

    #[test]
    fn numbers_that_cannot_be_run_are_named() {
        let with = |fields: &str| {
            parse(&format!(
                r#"{{"name":"x","about":"","scenarios":[{{"name":"a",{fields}}}]}}"#
            ))
            .unwrap()
        };
        assert_eq!(with(r#""path":"/small","connections":1"#), None);
        assert!(
            with(r#""path":"/small","connections":0"#)
                .unwrap()
                .contains("connections")
        );
        assert!(
            with(r#""path":"small","connections":1"#)
                .unwrap()
                .contains("path")
        );
        assert!(
            with(r#""path":"/small","connections":1,"rate":0"#)
                .unwrap()
                .contains("rate")
        );
        assert!(
            with(r#""path":"/small","connections":1,"duration_s":-1"#)
                .unwrap()
                .contains("duration_s")
        );
    }
}
