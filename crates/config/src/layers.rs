//! What the two sides do alike: the layers, the state directory, the threads.

use std::{
    path::{Path, PathBuf},
    thread,
};

use crate::{
    document::{self, Node},
    environment::Variables,
    error::{ConfigError, Origin},
    read::{Item, Section},
    telemetry::Telemetry,
    vocabulary,
};

/// The file and what lies over it from the environment, and the variables that cannot lie there.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn gather(
    file: Option<&Path>,
    variables: &Variables,
    side: &str,
) -> Result<(Node, Vec<ConfigError>), ConfigError> {
    let mut root = match file {
        Some(path) => document::load(path)?,
        None => Node::empty(),
    };
    let refused = variables.lay_over(&mut root, side);
    let refused = refused.into_iter().map(|error| within(error, file));
    Ok((root, refused.collect()))
}

/// The error with the file that it is about, if it is about one.
pub(crate) fn within(error: ConfigError, file: Option<&Path>) -> ConfigError {
    match file {
        // A file that was read on the way, such as a token's, is named already.
        Some(file) if !matches!(error.origin(), Origin::File { path, .. } if !path.as_os_str().is_empty()) => {
            error.in_file(file)
        }
        _ => error,
    }
}

/// The section of one side. A file may hold both, but one that holds only the other's was given by mistake.
pub(crate) fn side<'n>(
    root: &'n Node,
    side: &'static str,
    other: &'static str,
) -> Result<Section<'n>, ConfigError> {
    let mut root = Section::root(root)?;
    let section = root.section(side)?;
    let others = root.section(other)?;
    root.finish(&vocabulary::ROOT)?;
    if !section.is_written() && others.is_written() {
        return Err(root
            .conflict(
                &[other],
                format!("this file has a section `{other}` and none `{side}`"),
            )
            .with_help(format!(
                "it is meant for the {other}; give the file of the {side}"
            )));
    }
    Ok(section)
}

/// What was read, and checked.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// Of the side itself.
    pub settings: S,
    /// Of what is told of it.
    pub telemetry: Telemetry,
    /// Host names under which the admin port answers, beside its address and `localhost`.
    pub admin_hosts: Vec<String>,
    /// What works and is probably not meant so. To be logged.
    pub warnings: Vec<String>,
}

/// A path in a file is meant from where the file is, as its writer sees it.
pub(crate) fn path(item: &Item<'_>, file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let text = item.text("a path")?;
    if text.is_empty() {
        return Err(item.error("expected a path, found nothing"));
    }
    let base = match (item.origin(), file) {
        (Origin::File { .. }, Some(file)) => file.parent(),
        _ => None,
    };
    Ok(base.map_or_else(|| PathBuf::from(text), |base| base.join(text)))
}

/// Data threads on this machine.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| threads_on(cores.get()))
}

/// One on up to two cores, else one core is left for the rest.
fn threads_on(cores: usize) -> usize {
    if cores > 2 { cores - 1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_where_there_are_more_than_two() {
        assert_eq!([1, 2, 3, 4, 64].map(threads_on), [1, 1, 2, 3, 63]);
    }
}
