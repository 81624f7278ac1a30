//! The sources of a side's settings: its file and the environment.

use std::path::{Path, PathBuf};

use crate::{
    document::{self, Entry, Node, Value},
    environment::Variables,
    error::{ConfigError, Origin},
    key_names,
    read::Section,
};

/// The file with the values of the environment, and the variables that match no key.
///
/// # Errors
/// The file cannot be read.
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

/// Adds the file to an error, if the error is about it.
pub(crate) fn within(error: ConfigError, file: Option<&Path>) -> ConfigError {
    match file {
        // An error in another file, such as a token file, contains that file already.
        Some(file) if !matches!(error.origin(), Origin::File { path, .. } if !path.as_os_str().is_empty()) => {
            error.in_file(file)
        }
        _ => error,
    }
}

/// The section of one side. A file may have both sections, but a file that has only the other one was given by mistake.
pub(crate) fn side<'n>(
    root: &'n Node,
    side: &'static str,
    other: &'static str,
) -> Result<Section<'n>, ConfigError> {
    let mut root = Section::root(root)?;
    let section = root.section(side)?;
    let others = root.section(other)?;
    root.finish(&key_names::ROOT)?;
    if !section.is_written() && others.is_written() {
        return Err(root
            .conflict(
                &[other],
                format!("this file has a section `{other}` and no section `{side}`"),
            )
            .with_help(format!(
                "it is the file of the {other}; use the file of the {side}"
            )));
    }
    Ok(section)
}

/// The files that the settings of a side depend on: the configuration file, and each file that a key such as
/// `token_file` names.
pub(crate) fn files(root: &Node, file: Option<&Path>) -> Vec<PathBuf> {
    let mut files: Vec<_> = file.map(Path::to_path_buf).into_iter().collect();
    named_files(root, file.and_then(Path::parent), &mut files);
    files
}

fn named_files(node: &Node, base: Option<&Path>, files: &mut Vec<PathBuf>) {
    match &node.value {
        Value::Section(entries) => {
            for Entry { key, node, .. } in entries {
                match (&node.value, base) {
                    (Value::Text(path), Some(base)) if key.ends_with("_file") => {
                        files.push(base.join(path));
                    }
                    (Value::Text(path) | Value::Untyped(path), _) if key.ends_with("_file") => {
                        files.push(path.into());
                    }
                    _ => named_files(node, base, files),
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| named_files(item, base, files)),
        _ => {}
    }
}
