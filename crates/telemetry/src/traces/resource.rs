//! Who sends the spans.

use opentelemetry_proto::tonic::{common::v1::InstrumentationScope, resource::v1::Resource};
use uuid::Uuid;

use super::attributes::Attributes;

/// This process, as the semantic conventions describe one.
pub(super) fn resource(service_name: &str) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", service_name);
    attributes.text("service.version", env!("CARGO_PKG_VERSION"));
    attributes.text("service.instance.id", &Uuid::new_v4().to_string());
    let system = rustix::system::uname();
    attributes.text("host.name", &system.nodename().to_string_lossy());
    attributes.text("host.arch", arch(std::env::consts::ARCH));
    attributes.text("os.type", os(std::env::consts::OS));
    attributes.number("process.pid", std::process::id().into());
    let executable = std::env::current_exe().unwrap_or_default();
    let name = executable.file_name().unwrap_or_default();
    attributes.text("process.executable.name", &name.to_string_lossy());
    attributes.text("telemetry.sdk.name", "adit");
    attributes.text("telemetry.sdk.language", "rust");
    attributes.text("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    Resource {
        attributes: attributes.into_inner(),
        ..Resource::default()
    }
}

/// What makes the spans.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "adit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// The conventions' name of an architecture.
fn arch(rust: &str) -> &str {
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
fn os(rust: &str) -> &str {
    match rust {
        "macos" => "darwin",
        other => other,
    }
}
