//! The only test of its process, because a process has one subscriber.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_telemetry::{Format, InitError, ParseFilterError, init};

#[test]
fn a_process_is_set_up_once() {
    assert!(matches!(
        init(Format::Text, Some("a=b=c")),
        Err(InitError::Filter { filter, error: ParseFilterError::Level(level) })
            if filter == "a=b=c" && level == "b=c"
    ));
    assert!(!tracing::enabled!(tracing::Level::ERROR));
    init(Format::Json, Some("warn")).unwrap();
    assert!(tracing::enabled!(tracing::Level::WARN));
    assert!(!tracing::enabled!(tracing::Level::INFO));
    assert!(matches!(
        init(Format::Text, None),
        Err(InitError::Installed)
    ));
}
