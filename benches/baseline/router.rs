//! Finding a rule in the naive design: a list, sorted once, scanned for each request.

/// A host, optionally with `*.` in front, and a path prefix.
#[derive(Debug)]
pub struct Line {
    /// The host as in the settings.
    pub host: String,
    /// The path prefix as in the settings.
    pub path: String,
    /// The selected target.
    pub target: usize,
}

/// Rules in order of precedence.
#[derive(Debug)]
pub struct Scan {
    lines: Vec<Line>,
}

impl Scan {
    /// Sorts the rules: exact hosts first, then by length of host and path.
    #[must_use]
    pub fn new(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| {
            let wildcard = line.host.starts_with('*');
            (
                wildcard,
                usize::MAX - line.host.len(),
                usize::MAX - line.path.len(),
            )
        });
        Self { lines }
    }

    /// Returns the target of the first rule that matches.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<usize> {
        let host = host.split(':').next().unwrap_or(host).to_lowercase();
        let path = path.split('?').next().unwrap_or(path);
        self.lines
            .iter()
            .find(|line| {
                let host_matches = match line.host.strip_prefix('*') {
                    Some(suffix) => host.ends_with(suffix),
                    None => host == line.host,
                };
                host_matches
                    && path
                        .strip_prefix(line.path.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .map(|line| line.target)
    }
}
