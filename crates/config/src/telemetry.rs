//! `telemetry` of either side: what is told of requests, and to whom.

use std::{fmt::Display, ops::RangeInclusive, path::Path, time::Duration};

use adit_telemetry::{
    AccessLogSettings, DEFAULT_KEEP, DEFAULT_KEEP_IDLE, DEFAULT_MAX_LABEL_SETS, LogFileSettings,
    MetricsSettings, Rotate, TracesSettings,
};

use crate::{
    error::ConfigError,
    fields::path,
    key_names::{self, NO_OTHER_KEYS},
    ranges::SHORTEST,
    read::{Item, Section},
};

/// Bounds of what is counted in thousands; the crate that uses a number has the last word.
const COUNT: RangeInclusive<u64> = 1..=10_000_000;

/// What is told of requests, and to whom. Checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Counted, and shown at `/metrics` of the admin port.
    pub metrics: Option<MetricsSettings>,
    /// One line for each request.
    pub access_log: Option<AccessLogSettings>,
    /// Warnings and errors, beside the log.
    pub error_log: Option<LogFileSettings>,
    /// Spans to a collector.
    pub tracing: Option<TracesSettings>,
}

impl Default for Telemetry {
    /// Metrics and nothing else: they cost next to nothing, and leave the process only when they are asked for.
    fn default() -> Self {
        Self {
            metrics: Some(MetricsSettings::default()),
            access_log: None,
            error_log: None,
            tracing: None,
        }
    }
}

/// Reads `telemetry` of a side. `service_name` is what the side is called in traces, if nobody says otherwise.
pub(crate) fn read(
    side: &mut Section<'_>,
    file: Option<&Path>,
    service_name: &str,
) -> Result<Telemetry, ConfigError> {
    let mut section = side.section("telemetry")?;
    let mut telemetry = Telemetry::default();
    if let Some(item) = section.item("metrics") {
        telemetry.metrics = metrics(&item)?;
    }
    if let Some(item) = section.item("access_log").filter(|item| !item.is_off()) {
        telemetry.access_log = Some(access_log(&item, file)?);
    }
    if let Some(item) = section.item("error_log").filter(|item| !item.is_off()) {
        telemetry.error_log = Some(error_log(&item, file)?);
    }
    if let Some(item) = section.item("tracing").filter(|item| !item.is_off()) {
        telemetry.tracing = Some(tracing(&item, service_name)?);
    }
    section.finish(&key_names::TELEMETRY)?;
    Ok(telemetry)
}

/// `true`, `false`, or how much.
fn metrics(item: &Item<'_>) -> Result<Option<MetricsSettings>, ConfigError> {
    if let Ok(is_on) = item.boolean() {
        return Ok(is_on.then(MetricsSettings::default));
    }
    let mut section = item.section()?;
    let (mut max_label_sets, mut keep_idle) = (DEFAULT_MAX_LABEL_SETS, DEFAULT_KEEP_IDLE);
    section.set_number("max_label_sets", COUNT, &mut max_label_sets)?;
    section.set_wait("keep_idle", SHORTEST, &mut keep_idle)?;
    section.finish(&NO_OTHER_KEYS)?;
    checked(item, MetricsSettings::try_new(max_label_sets, keep_idle)).map(Some)
}

/// A path, or a section with one.
struct LogFile<'n> {
    path: Item<'n>,
    rotate: Rotate,
    keep: usize,
}

fn log_file<'n>(item: &Item<'n>) -> Result<LogFile<'n>, ConfigError> {
    let (mut rotate, mut keep) = (Rotate::default(), DEFAULT_KEEP);
    if item.is_text() {
        let path = item.clone();
        return Ok(LogFile { path, rotate, keep });
    }
    let mut section = item.section()?;
    let Some(path) = section.item("path") else {
        return Err(section.missing("path", "the path of a file"));
    };
    if let Some(item) = section.item("rotate") {
        rotate = item.parse("daily, hourly or never")?;
    }
    section.set_number("keep", COUNT, &mut keep)?;
    section.finish(&NO_OTHER_KEYS)?;
    Ok(LogFile { path, rotate, keep })
}

fn access_log(item: &Item<'_>, file: Option<&Path>) -> Result<AccessLogSettings, ConfigError> {
    let log = log_file(item)?;
    let written = log.path.text("a path, or stdout or stderr")?;
    let target = match written {
        "stdout" | "stderr" => written.to_owned(),
        _ => text_of(&log.path, file)?,
    };
    checked(
        item,
        AccessLogSettings::try_new(&target, log.rotate, log.keep),
    )
}

fn error_log(item: &Item<'_>, file: Option<&Path>) -> Result<LogFileSettings, ConfigError> {
    let log = log_file(item)?;
    let target = text_of(&log.path, file)?;
    checked(item, LogFileSettings::try_new(target, log.rotate, log.keep))
}

/// The path as text, with the slash at its end by which a directory is known.
fn text_of(item: &Item<'_>, file: Option<&Path>) -> Result<String, ConfigError> {
    let path = path(item, file)?;
    match path.into_os_string().into_string() {
        Ok(text) => Ok(text),
        Err(_) => {
            Err(item.error("this path is not UTF-8, and neither would the names of older files be"))
        }
    }
}

/// The address of a collector, or a section with one.
fn tracing(item: &Item<'_>, service_name: &str) -> Result<TracesSettings, ConfigError> {
    const ENDPOINT: &str = "the address of a collector such as http://127.0.0.1:4317";
    if item.is_text() {
        let settings = TracesSettings::new(item.text(ENDPOINT)?, service_name);
        return checked(item, settings.check()).map(|()| settings);
    }
    let mut section = item.section()?;
    let Some(endpoint) = section.item("endpoint") else {
        return Err(section.missing("endpoint", ENDPOINT));
    };
    let mut settings = TracesSettings::new(endpoint.text(ENDPOINT)?, service_name);
    if let Some(item) = section.item("sample_ratio") {
        settings.sample_ratio = item.fraction()?;
    }
    if let Some(item) = section.item("service_name") {
        item.text("a name")?.clone_into(&mut settings.service_name);
    }
    section.set_wait("timeout", SHORTEST, &mut settings.timeout)?;
    section.set_wait("interval", Duration::ZERO, &mut settings.interval)?;
    section.set_number("max_queue", COUNT, &mut settings.max_queue)?;
    settings.max_batch = settings.max_batch.min(settings.max_queue);
    section.set_number("max_batch", COUNT, &mut settings.max_batch)?;
    section.finish(&NO_OTHER_KEYS)?;
    checked(item, settings.check()).map(|()| settings)
}

/// What the crate that uses it says of it, where it was written.
fn checked<T, E: Display>(item: &Item<'_>, result: Result<T, E>) -> Result<T, ConfigError> {
    result.map_err(|error| item.error(error.to_string()))
}
