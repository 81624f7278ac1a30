//! The log flags of both programs.

use adit_telemetry::Format;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// The filter of `-v`: once, more of adit's own lines; twice, more of every library's. Without `-v` the environment
/// decides.
pub(super) fn filter(verbose: u8) -> Option<&'static str> {
    match verbose {
        0 => None,
        1 => Some("info,adit=debug"),
        _ => Some("debug,adit=trace"),
    }
}

pub(super) fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).try_map(|text| text.parse::<Format>())
}
