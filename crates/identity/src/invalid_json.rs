//! The errors of files and responses with secrets.

/// What is wrong with a text of JSON, by its place. The texts of the library quote the content, which may be a key that was put
/// into the wrong file.
pub(crate) fn invalid_json(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_data() {
        format!("a wrong or unknown field at line {line}, column {column}")
    } else {
        format!("invalid JSON at line {line}, column {column}")
    }
}
