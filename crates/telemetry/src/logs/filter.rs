//! The filter of the log: `info`, or `info,adit_link=debug`.
//!
//! A list of directives, separated by commas: a level for all targets, `target=level` for targets that begin with this
//! text, or a target alone for all its levels. The longest target that matches decides. The directives of `EnvFilter` for
//! spans and fields are errors: they need the regex crates, which every first build would compile.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Libraries whose targets have a level of their own, unless the filter names them.
const LIBRARIES: [(&str, LevelFilter); 7] = [
    // The library that watches files logs each change in the directory of the configuration at `trace`: if the log is a file
    // in that directory, each line causes the next one.
    ("notify", LevelFilter::WARN),
    // Its errors are those of connections, which are logged with what to change.
    ("rustls_platform_verifier", LevelFilter::OFF),
    // Their warnings are about what a peer has sent: a stranger could fill the disk with them, as no bound on lines of one
    // peer applies.
    ("h2", LevelFilter::ERROR),
    ("hyper", LevelFilter::ERROR),
    ("hyper_util", LevelFilter::ERROR),
    ("rustls", LevelFilter::ERROR),
    ("tonic", LevelFilter::ERROR),
];

/// A directive of the filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseFilterError {
    /// The text after a target is not a level.
    #[error("{0:?} is not a level: error, warn, info, debug, trace or off")]
    Level(String),
    /// The text before a level is not a target.
    #[error("{0:?} is not a level or a target: a target is a path such as adit_link::lane")]
    Target(String),
}

/// Parses a filter. A filter without directives lets errors pass, as with `EnvFilter`.
pub(super) fn parse(text: &str) -> Result<Targets, ParseFilterError> {
    let directives = text.split(',').map(str::trim);
    let mut directives = directives.filter(|text| !text.is_empty()).peekable();
    let mut targets = Targets::new();
    if directives.peek().is_none() {
        targets = targets.with_default(LevelFilter::ERROR);
    }
    for directive in directives {
        targets = match (directive.split_once('='), parse_level(directive)) {
            (None, Ok(level)) => targets.with_default(level),
            (None, Err(_)) => targets.with_target(parse_target(directive)?, LevelFilter::TRACE),
            (Some((target, level)), _) => {
                targets.with_target(parse_target(target.trim())?, parse_level(level.trim())?)
            }
        };
    }
    let default = targets.default_level().unwrap_or(LevelFilter::OFF);
    for (library, level) in LIBRARIES {
        let is_named = |target: &str| target.split("::").next() == Some(library);
        if !targets.iter().any(|(target, _)| is_named(target)) {
            targets = targets.with_target(library, default.min(level));
        }
    }
    Ok(targets)
}

/// Parses a level. An empty text is an error here, while `LevelFilter` accepts it.
fn parse_level(text: &str) -> Result<LevelFilter, ParseFilterError> {
    let level = (!text.is_empty()).then(|| text.parse().ok()).flatten();
    level.ok_or_else(|| ParseFilterError::Level(text.to_owned()))
}

/// Parses a target. Most targets are paths of modules, but a crate may choose another name, such as that of a domain or
/// a package.
fn parse_target(text: &str) -> Result<&str, ParseFilterError> {
    let is_part = |c: char| c.is_alphanumeric() || "_:-./".contains(c);
    if text.is_empty() || !text.chars().all(is_part) {
        return Err(ParseFilterError::Target(text.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn passes(filter: &str, target: &str, level: Level) -> bool {
        parse(filter).unwrap().would_enable(target, &level)
    }

    #[test]
    fn a_level_holds_for_all_targets() {
        for (filter, most) in [
            ("info", Level::INFO),
            ("INFO", Level::INFO),
            ("3", Level::INFO),
            (" warn , ", Level::WARN),
            ("", Level::ERROR),
            (",", Level::ERROR),
        ] {
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
                assert_eq!(passes(filter, "any", level), level <= most, "{filter:?}");
            }
        }
        assert!(!passes("off", "any", Level::ERROR));
    }

    #[test]
    fn the_longest_target_decides() {
        let filter = "info, adit_link=debug,adit_link::lane = off";
        assert!(passes(filter, "adit_link", Level::DEBUG));
        assert!(passes(filter, "adit_link::drive", Level::DEBUG));
        assert!(!passes(filter, "adit_link::lane", Level::ERROR));
        assert!(passes(filter, "adit_mux", Level::INFO));
        assert!(!passes(filter, "adit_mux", Level::DEBUG));
    }

    #[test]
    fn a_target_alone_passes_all_its_levels_and_nothing_else() {
        assert!(passes("adit_link", "adit_link::lane", Level::TRACE));
        assert!(!passes("adit_link", "adit_mux", Level::ERROR));
    }

    #[test]
    fn a_log_beside_the_configuration_does_not_cause_its_own_lines() {
        assert!(!passes("trace", "notify::inotify", Level::TRACE));
        assert!(passes("trace", "notify::inotify", Level::WARN));
        assert!(!passes("off", "notify::inotify", Level::ERROR));
        assert!(!passes("adit_link", "notify", Level::ERROR));
        assert!(passes("info,notify=trace", "notify::inotify", Level::TRACE));
        assert!(!passes(
            "trace,notify_rust=info",
            "notify::inotify",
            Level::TRACE
        ));
    }

    #[test]
    fn peers_cannot_fill_the_log_through_libraries() {
        for target in [
            "h2::proto::streams::recv",
            "rustls::common_state",
            "hyper::proto",
        ] {
            assert!(!passes("info", target, Level::WARN), "{target}");
            assert!(!passes("trace", target, Level::WARN), "{target}");
            assert!(passes("info", target, Level::ERROR), "{target}");
        }
        assert!(passes("info,h2=debug", "h2::proto", Level::DEBUG));
        assert!(passes("info,h2::proto=debug", "h2::proto", Level::DEBUG));
        assert!(passes("h2", "h2::proto", Level::TRACE));
    }

    #[test]
    fn a_failed_verification_is_logged_once() {
        let target = "rustls_platform_verifier::verification::others";
        assert!(!passes("trace", target, Level::ERROR));
        let named = "info,rustls_platform_verifier=debug";
        assert!(passes(named, target, Level::DEBUG));
    }

    #[test]
    fn invalid_directives_are_named() {
        use ParseFilterError::{Level, Target};
        for (filter, error) in [
            ("info,adit=loud", Level("loud".into())),
            ("adit=", Level(String::new())),
            ("a=b=c", Level("b=c".into())),
            ("=info", Target(String::new())),
            ("adit[span]=info", Target("adit[span]".into())),
            ("[{field=1}]", Target("[{field".into())),
            ("info warn", Target("info warn".into())),
        ] {
            assert_eq!(parse(filter), Err(error), "{filter}");
        }
    }
}
