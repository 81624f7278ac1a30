//! The resource that all spans of this process belong to.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};
use uuid::Uuid;

use super::attributes::Attributes;

/// The attributes of this process by the semantic conventions. `OTEL_RESOURCE_ATTRIBUTES` adds attributes and replaces
/// all but the name of the service, which is from the settings.
pub(super) fn resource(service_name: &str) -> Resource {
    Resource::builder_empty()
        .with_attributes(process())
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_service_name(service_name.to_owned())
        .build()
}

fn process() -> Vec<KeyValue> {
    let mut attributes = Attributes::with_capacity(8);
    attributes.constant("service.version", env!("CARGO_PKG_VERSION"));
    attributes.text("service.instance.id", &Uuid::new_v4().to_string());
    let system = rustix::system::uname();
    attributes.text("host.name", &system.nodename().to_string_lossy());
    attributes.constant("host.arch", arch(std::env::consts::ARCH));
    attributes.constant("os.type", os(std::env::consts::OS));
    attributes.number("process.pid", std::process::id().into());
    let executable = std::env::current_exe().unwrap_or_default();
    let name = executable.file_name().unwrap_or_default();
    attributes.text("process.executable.name", &name.to_string_lossy());
    attributes.into_inner()
}

/// The conventions' name of an architecture.
fn arch(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// The conventions' name of a system.
fn os(rust: &'static str) -> &'static str {
    match rust {
        "macos" => "darwin",
        other => other,
    }
}
