//! Settings from the standard variables of OpenTelemetry, `OTEL_*`.
//!
//! `opentelemetry-otlp` reads two more by itself: `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_EXPORTER_OTLP_COMPRESSION`, each
//! also in its form for traces; and the resource reads `OTEL_RESOURCE_ATTRIBUTES`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::settings::{TracesProtocol, TracesSettings};

/// The values that the variables of OpenTelemetry set.
///
/// A variable with an invalid value is ignored with a warning, as OpenTelemetry's specification requires: such variables
/// are often set for all programs of a machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OtelEnvironment {
    is_disabled: bool,
    endpoint: Option<String>,
    protocol: Option<TracesProtocol>,
    ca_file: Option<PathBuf>,
    client_identity: Option<(PathBuf, PathBuf)>,
    service_name: Option<String>,
    timeout: Option<Duration>,
    sampler: Option<Sampling>,
    interval: Option<Duration>,
    max_queue: Option<usize>,
    max_batch: Option<usize>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sampling {
    ratio: f64,
    follow_parent: bool,
}

impl OtelEnvironment {
    /// Reads the variables; an empty one counts as absent.
    pub fn read<'v>(variable: impl Fn(&str) -> Option<&'v str>) -> Self {
        let mut reader = Reader {
            variable,
            warnings: Vec::new(),
        };
        let protocol = reader.of_traces("PROTOCOL", TracesProtocol::from_str);
        let millis = |text: &str| text.parse().map(Duration::from_millis);
        let timeout = reader
            .of_traces("TIMEOUT", millis)
            .or_else(|| reader.parse("OTEL_BSP_EXPORT_TIMEOUT", millis));
        let certificate = reader.text_of_traces("CLIENT_CERTIFICATE");
        let key = reader.text_of_traces("CLIENT_KEY");
        Self {
            is_disabled: reader
                .text("OTEL_SDK_DISABLED")
                .is_some_and(|text| text.eq_ignore_ascii_case("true"))
                || reader.text("OTEL_TRACES_EXPORTER") == Some("none"),
            endpoint: reader.endpoint(protocol.unwrap_or_default()),
            protocol,
            ca_file: reader.text_of_traces("CERTIFICATE").map(Into::into),
            client_identity: certificate.map(Into::into).zip(key.map(Into::into)),
            service_name: reader.service_name(),
            timeout,
            sampler: reader.sampler(),
            interval: reader.parse("OTEL_BSP_SCHEDULE_DELAY", millis),
            max_queue: reader.parse("OTEL_BSP_MAX_QUEUE_SIZE", usize::from_str),
            max_batch: reader.parse("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usize::from_str),
            warnings: reader.warnings,
        }
    }

    /// The variables that were ignored, each with the reason.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The settings if the variables alone turn tracing on, which an endpoint does unless `OTEL_SDK_DISABLED` is `true`
    /// or `OTEL_TRACES_EXPORTER` is `none`. `service_name` is used where no variable has a name.
    pub fn settings(&self, service_name: &str) -> Option<TracesSettings> {
        let endpoint = self.endpoint.as_ref().filter(|_| !self.is_disabled)?;
        let mut settings = self.defaults(service_name);
        endpoint.clone_into(&mut settings.endpoint);
        Some(settings)
    }

    /// The endpoint of the variables.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The values of the variables, and the defaults for the rest, without an endpoint.
    pub fn defaults(&self, service_name: &str) -> TracesSettings {
        let name = self.service_name.as_deref().unwrap_or(service_name);
        let mut settings = TracesSettings::new("", name);
        set(&mut settings.protocol, self.protocol);
        settings.tls.ca_file.clone_from(&self.ca_file);
        settings
            .tls
            .client_identity
            .clone_from(&self.client_identity);
        set(&mut settings.timeout, self.timeout);
        set(&mut settings.interval, self.interval);
        set(&mut settings.max_queue, self.max_queue);
        set(&mut settings.max_batch, self.max_batch);
        settings.max_batch = settings.max_batch.min(settings.max_queue);
        if let Some(sampler) = self.sampler {
            settings.sample_ratio = sampler.ratio;
            settings.follow_parent = sampler.follow_parent;
        }
        settings
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

struct Reader<V> {
    variable: V,
    warnings: Vec<String>,
}

impl<'v, V: Fn(&str) -> Option<&'v str>> Reader<V> {
    fn text(&self, name: &str) -> Option<&'v str> {
        (self.variable)(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    /// The variable for traces, or else the one for all signals.
    fn text_of_traces(&self, name: &str) -> Option<&'v str> {
        self.text(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| self.text(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    fn parse<T, E>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(name)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(_) => {
                self.ignore(name, text);
                None
            }
        }
    }

    fn of_traces<T, E>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E> + Copy,
    ) -> Option<T> {
        self.parse(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), parse)
            .or_else(|| self.parse(&format!("OTEL_EXPORTER_OTLP_{name}"), parse))
    }

    fn ignore(&mut self, name: &str, text: &str) {
        let warning = format!("the variable {name} is ignored: invalid value {text:?}");
        self.warnings.push(warning);
    }

    /// The endpoint for traces as it is written; over HTTP, the endpoint for all signals is its base. Over gRPC an
    /// endpoint without a scheme is `https`, unless the variable `INSECURE` is `true`.
    fn endpoint(&self, protocol: TracesProtocol) -> Option<String> {
        let for_traces = self.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let for_all = self.text("OTEL_EXPORTER_OTLP_ENDPOINT");
        match (for_traces, for_all, protocol) {
            (None, Some(base), TracesProtocol::HttpProtobuf) => {
                Some(format!("{}/v1/traces", base.trim_end_matches('/')))
            }
            (None, None, _) => None,
            (Some(endpoint), _, TracesProtocol::HttpProtobuf) => Some(endpoint.to_owned()),
            (Some(endpoint), _, TracesProtocol::Grpc)
            | (None, Some(endpoint), TracesProtocol::Grpc) => {
                if endpoint.contains("://") {
                    return Some(endpoint.to_owned());
                }
                let is_insecure = self
                    .text_of_traces("INSECURE")
                    .is_some_and(|text| text.eq_ignore_ascii_case("true"));
                let scheme = if is_insecure { "http" } else { "https" };
                Some(format!("{scheme}://{endpoint}"))
            }
        }
    }

    fn service_name(&self) -> Option<String> {
        let of_resource = || {
            let attributes = self.text("OTEL_RESOURCE_ATTRIBUTES")?.split(',');
            attributes
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| key.trim() == "service.name")
                .map(|(_, name)| name.trim())
        };
        let name = self.text("OTEL_SERVICE_NAME").or_else(of_resource)?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn sampler(&mut self) -> Option<Sampling> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let text = self.text(NAME)?;
        let (kind, follow_parent) = match text.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (text, false),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                let ratio = |text: &str| {
                    let ratio = text.parse().map_err(drop)?;
                    (0.0..=1.0).contains(&ratio).then_some(ratio).ok_or(())
                };
                self.parse(ARGUMENT, ratio).unwrap_or(1.0)
            }
            _ => {
                self.ignore(NAME, text);
                return None;
            }
        };
        Some(Sampling {
            ratio,
            follow_parent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &'static str)]) -> OtelEnvironment {
        OtelEnvironment::read(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name)?;
            Some(found.1)
        })
    }

    const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");

    #[test]
    fn without_variables_tracing_is_off() {
        let environment = read(&[]);
        assert_eq!(environment.settings("adit"), None);
        let defaults = environment.defaults("adit");
        assert_eq!(defaults, TracesSettings::new("", "adit"));
    }

    #[test]
    fn an_endpoint_turns_tracing_on() {
        let settings = read(&[COLLECTOR]).settings("adit").unwrap();
        assert_eq!(settings, TracesSettings::new("http://c:4317", "adit"));
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(read(&[COLLECTOR, off]).settings("adit"), None, "{off:?}");
        }
        assert_eq!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).settings("adit"),
            None
        );
    }

    #[test]
    fn endpoints_depend_on_the_protocol() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        for (variables, endpoint) in [
            (
                vec![(all, "http://c:4318"), http],
                "http://c:4318/v1/traces",
            ),
            (
                vec![(all, "http://c:4318/x/"), http],
                "http://c:4318/x/v1/traces",
            ),
            (vec![(traces, "http://c:4318/x"), http], "http://c:4318/x"),
            (
                vec![(traces, "http://t:1"), (all, "http://c:1")],
                "http://t:1",
            ),
            (vec![(all, "c:4317")], "https://c:4317"),
            (vec![(all, "c:4317"), insecure], "http://c:4317"),
        ] {
            assert_eq!(read(&variables).endpoint(), Some(endpoint), "{variables:?}");
        }
    }

    #[test]
    fn every_variable_sets_its_setting() {
        let settings = read(&[
            COLLECTOR,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/etc/c.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/k.pem"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name = shop"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ])
        .settings("adit")
        .unwrap();
        assert_eq!(settings.timeout, Duration::from_millis(2_500));
        assert_eq!(settings.tls.ca_file, Some("/etc/ca.pem".into()));
        let identity = ("/etc/c.pem".into(), "/etc/k.pem".into());
        assert_eq!(settings.tls.client_identity, Some(identity));
        assert_eq!(settings.service_name, "shop");
        assert_eq!(settings.interval, Duration::from_millis(200));
        assert_eq!((settings.max_queue, settings.max_batch), (100, 10));
        let named = read(&[
            ("OTEL_SERVICE_NAME", "edge"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop"),
        ]);
        assert_eq!(named.defaults("adit").service_name, "edge");
        let small = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]).defaults("adit");
        assert_eq!((small.max_queue, small.max_batch), (100, 100));
    }

    #[test]
    fn samplers_are_a_ratio_with_or_without_the_parent() {
        for (sampler, argument, ratio, follow_parent) in [
            ("always_on", "", 1.0, false),
            ("parentbased_always_off", "", 0.0, true),
            ("traceidratio", "0.25", 0.25, false),
            ("parentbased_traceidratio", "0.5", 0.5, true),
            ("parentbased_traceidratio", "", 1.0, true),
        ] {
            let variables = [
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ];
            let settings = read(&variables).defaults("adit");
            assert!((settings.sample_ratio - ratio).abs() < 1e-9, "{sampler}");
            assert_eq!(settings.follow_parent, follow_parent, "{sampler}");
        }
    }

    #[test]
    fn invalid_values_are_ignored_with_a_warning() {
        let environment = read(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_TRACES_SAMPLER", "xray"),
        ]);
        assert_eq!(
            environment.defaults("adit"),
            TracesSettings::new("", "adit")
        );
        let warnings = environment.warnings().join("\n");
        for part in ["PROTOCOL", "http/json", "QUEUE_SIZE", "many", "xray"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert_eq!(environment.warnings().len(), 3);
    }
}
