//! Who sends the spans.

use uuid::Uuid;

use super::{
    attributes::Attributes,
    wire::{Wire, field_bytes},
};

/// Fields of OTLP's `ExportTraceServiceRequest`, `ResourceSpans`, `Resource`, `ScopeSpans` and `InstrumentationScope`.
const RESOURCE_SPANS: u8 = 1;
const RESOURCE: u8 = 1;
const ATTRIBUTES: u8 = 1;
const SCOPE_SPANS: u8 = 2;
const SCOPE: u8 = 1;
const SCOPE_NAME: u8 = 1;
const SCOPE_VERSION: u8 = 2;

/// What stands before the spans in each export: who sends them, and what made them.
pub(super) struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(service_name: &str) -> Self {
        let mut of_resource = Wire::default();
        of_resource.message(RESOURCE, 1_024, |message| {
            resource(&mut Attributes::new(message, ATTRIBUTES), service_name);
        });
        let mut of_scope = Wire::default();
        of_scope.message(SCOPE, 16, |scope| {
            scope.text(SCOPE_NAME, "adit");
            scope.text(SCOPE_VERSION, env!("CARGO_PKG_VERSION"));
        });
        Self {
            resource: of_resource.into_inner(),
            scope: of_scope.into_inner(),
        }
    }

    /// A whole `ExportTraceServiceRequest` of these spans, which are fields of a `ScopeSpans`.
    pub(super) fn around(&self, spans: &[u8]) -> Vec<u8> {
        let scope_spans = self.scope.len() + spans.len();
        let resource_spans = self.resource.len() + field_bytes(scope_spans);
        let mut message = Wire::with_capacity(field_bytes(resource_spans));
        message.begin(RESOURCE_SPANS, resource_spans);
        message.fields(&self.resource);
        message.begin(SCOPE_SPANS, scope_spans);
        message.fields(&self.scope);
        message.fields(spans);
        message.into_inner()
    }
}

/// This process, as the semantic conventions describe one.
fn resource(attributes: &mut Attributes<'_>, service_name: &str) {
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
