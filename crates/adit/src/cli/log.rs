//! The flags for the log, which both programs have.

use adit_telemetry::Format;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// The filter that `-v` asks for: ours in detail first, then everybody's. Without it the environment decides.
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
