//! Why a batch was not accepted, and whether it is worth another try.

use opentelemetry_sdk::error::OTelSdkError;

/// The part of a reason that is logged, in characters.
const MAX_REASON_CHARS: usize = 200;

/// The collector did not accept a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Another try may succeed.
    pub(super) is_retryable: bool,
    pub(super) reason: String,
}

impl Refusal {
    /// No response within the timeout.
    pub(super) fn timed_out() -> Self {
        Self {
            is_retryable: true,
            reason: "no response of the collector within the timeout".to_owned(),
        }
    }

    /// A problem that another try cannot solve.
    pub(super) fn permanent(problem: String) -> Self {
        Self {
            is_retryable: false,
            reason: problem,
        }
    }

    /// The refusal in an error of the exporter, which is only a text: a code of gRPC or HTTP, and the cause of errors
    /// of the connection to the collector. `network` is the last error of the HTTP client, which the exporter leaves
    /// out.
    pub(super) fn new(error: &OTelSdkError, network: Option<String>) -> Self {
        let text = match error {
            OTelSdkError::InternalFailure(text) => text.clone(),
            other => other.to_string(),
        };
        let is_retryable = if let Some((_, code)) = text.split_once(GRPC) {
            // The causes follow the code: the error is from this process, not from the collector.
            match code.split_once(": ") {
                Some(_) => true,
                None => RETRYABLE_GRPC.contains(&code),
            }
        } else if let Some((_, status)) = text.split_once(HTTP) {
            RETRYABLE_HTTP.contains(&status)
        } else {
            text.contains(NETWORK)
        };
        let reason = match (text.contains(NETWORK), network) {
            (true, Some(cause)) => cut(&format!("{text}: {cause}")),
            _ => cut(&text),
        };
        Self {
            is_retryable,
            reason,
        }
    }
}

/// The text before the code in errors of the exporter over gRPC.
const GRPC: &str = "export failed with gRPC code: ";

/// The text before the status in errors of the exporter over HTTP.
const HTTP: &str = "HTTP export failed with status code: ";

/// The text in errors of the exporter over HTTP without a response.
const NETWORK: &str = "HTTP export failed: network error";

/// Codes of gRPC that OTLP allows to retry.
const RETRYABLE_GRPC: [&str; 6] = [
    "Cancelled",
    "DeadlineExceeded",
    "Aborted",
    "OutOfRange",
    "Unavailable",
    "DataLoss",
];

/// Statuses of HTTP that OTLP allows to retry.
const RETRYABLE_HTTP: [&str; 4] = ["429", "502", "503", "504"];

/// The text as one line of bounded length.
pub(super) fn cut(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_about_another_try() {
        for (text, is_retryable) in [
            ("X export failed with gRPC code: Unavailable", true),
            ("X export failed with gRPC code: InvalidArgument", false),
            ("X export failed with gRPC code: Unknown", false),
            ("X export failed with gRPC code: Unknown: broken pipe", true),
            ("HTTP export failed with status code: 503", true),
            ("HTTP export failed with status code: 400", false),
            ("HTTP export failed: network error", true),
            ("the request body is too large", false),
        ] {
            let error = OTelSdkError::InternalFailure(text.to_owned());
            let refusal = Refusal::new(&error, Some("refused".to_owned()));
            assert_eq!(refusal.is_retryable, is_retryable, "{text}");
            assert!(refusal.reason.starts_with(text), "{refusal:?}");
            let has_cause = refusal.reason.ends_with("network error: refused");
            assert_eq!(has_cause, text.contains(NETWORK), "{refusal:?}");
        }
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let long = format!("a\nb{}", "é".repeat(500));
        let cut = cut(&long);
        assert!(cut.starts_with("a b"));
        assert_eq!(cut.chars().count(), MAX_REASON_CHARS);
    }
}
