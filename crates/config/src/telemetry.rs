//! The section `telemetry` of either side: metrics, logs and traces.

use std::{fmt::Display, ops::RangeInclusive, path::Path, time::Duration};

use adit_otlp::{OtelEnvironment, TracesSettings};
use adit_telemetry::{
    AccessLogSettings, DEFAULT_KEEP, DEFAULT_KEEP_IDLE, DEFAULT_MAX_LABEL_SETS, LogFileSettings,
    MetricsSettings, Rotate,
};

use crate::{
    environment::Variables,
    error::ConfigError,
    fields::path,
    key_names::{self, NO_OTHER_KEYS},
    ranges::SHORTEST,
    read::{Item, Section},
};

/// Bounds of counts; the crate that uses a number checks it again.
const COUNT: RangeInclusive<u64> = 1..=10_000_000;

/// Validated settings of metrics, logs and traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Metrics at `/metrics` of the admin port.
    pub metrics: Option<MetricsSettings>,
    /// The access log: one line for each request.
    pub access_log: Option<AccessLogSettings>,
    /// The error log: warnings and errors, besides the log.
    pub error_log: Option<LogFileSettings>,
    /// Traces: spans to a collector.
    pub tracing: Option<TracesSettings>,
}

impl Default for Telemetry {
    /// The default has only metrics: they cost little, and leave the process only on request.
    fn default() -> Self {
        Self {
            metrics: Some(MetricsSettings::default()),
            access_log: None,
            error_log: None,
            tracing: None,
        }
    }
}

/// Reads `telemetry` of a side. `service_name` is the default name of the side in traces.
///
/// The standard variables of OpenTelemetry are defaults of `tracing`: a key of the side takes precedence. Without the
/// key, a variable with an endpoint turns tracing on. A variable that is ignored is a warning.
pub(crate) fn read(
    side: &mut Section<'_>,
    file: Option<&Path>,
    variables: &Variables,
    service_name: &str,
    warnings: &mut Vec<String>,
) -> Result<Telemetry, ConfigError> {
    let otel = OtelEnvironment::read(|name| variables.value(name));
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
    telemetry.tracing = match section.item("tracing") {
        Some(item) if item.is_off() => None,
        Some(item) => Some(tracing(&item, file, &otel, service_name)?),
        None => of_environment(&otel, service_name, warnings),
    };
    if telemetry.tracing.is_some() {
        warnings.extend_from_slice(otel.warnings());
    }
    section.finish(&key_names::TELEMETRY)?;
    Ok(telemetry)
}

/// Reads `true`, `false`, or a section.
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

/// A path, or a section that contains one.
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

/// The path as text. A slash at its end is kept, because it marks a directory.
fn text_of(item: &Item<'_>, file: Option<&Path>) -> Result<String, ConfigError> {
    let path = path(item, file)?;
    match path.into_os_string().into_string() {
        Ok(text) => Ok(text),
        Err(_) => Err(item.error("this path is not UTF-8, which the names of older files need")),
    }
}

/// Reads the address of a collector, or a section that contains one.
fn tracing(
    item: &Item<'_>,
    file: Option<&Path>,
    otel: &OtelEnvironment,
    service_name: &str,
) -> Result<TracesSettings, ConfigError> {
    const ENDPOINT: &str = "the address of a collector such as http://127.0.0.1:4317";
    let mut settings = otel.defaults(service_name);
    if item.is_text() {
        item.text(ENDPOINT)?.clone_into(&mut settings.endpoint);
        return checked(item, settings.check()).map(|()| settings);
    }
    let mut section = item.section()?;
    match (section.item("endpoint"), otel.endpoint()) {
        (Some(item), _) => item.text(ENDPOINT)?.clone_into(&mut settings.endpoint),
        (None, Some(endpoint)) => endpoint.clone_into(&mut settings.endpoint),
        (None, None) => return Err(section.missing("endpoint", ENDPOINT)),
    }
    if let Some(item) = section.item("protocol") {
        settings.protocol = item.parse("grpc or http/protobuf")?;
    }
    if let Some(item) = section.item("headers") {
        for (name, item) in item.section()?.pairs() {
            let value = item.secret("the value of a header")?;
            checked(&item, settings.headers.add(name, value))?;
        }
    }
    if let Some(item) = section.item("ca_file") {
        settings.tls.ca_file = Some(path(&item, file)?);
    }
    match (section.item("cert_file"), section.item("key_file")) {
        (Some(certificate), Some(key)) => {
            let identity = (path(&certificate, file)?, path(&key, file)?);
            settings.tls.client_identity = Some(identity);
        }
        (None, None) => {}
        (Some(_), None) => return Err(section.missing("key_file", "the key of `cert_file`")),
        (None, Some(_)) => {
            return Err(section.missing("cert_file", "the certificate of `key_file`"));
        }
    }
    if let Some(item) = section.item("sample_ratio") {
        settings.sample_ratio = item.fraction()?;
        settings.follow_parent = true;
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

/// Reads the settings from the variables alone. Invalid ones are ignored, since they may be intended for other
/// programs.
fn of_environment(
    otel: &OtelEnvironment,
    service_name: &str,
    warnings: &mut Vec<String>,
) -> Option<TracesSettings> {
    let settings = otel.settings(service_name)?;
    match settings.check() {
        Ok(()) => Some(settings),
        Err(error) => {
            warnings.push(format!("the variables OTEL_* are ignored: {error}"));
            None
        }
    }
}

/// The error of the crate that uses the value, with the place of the value.
fn checked<T, E: Display>(item: &Item<'_>, result: Result<T, E>) -> Result<T, ConfigError> {
    result.map_err(|error| item.error(error.to_string()))
}
