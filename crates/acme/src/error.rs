//! Why an order failed, in plain words.

use std::time::SystemTime;

use instant_acme::{Error as AcmeError, Problem};

use crate::{
    http::HttpError,
    problem::TYPE,
    schedule::{Cause, Failure},
    settings::Validation,
};

/// Of a text from a CA, so many characters are kept.
const LONGEST_DETAIL: usize = 400;

/// A failed order: what the schedule needs, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderError {
    pub(crate) failure: Failure,
    pub(crate) text: String,
}

impl OrderError {
    pub(crate) fn new(cause: Cause, text: String) -> Self {
        let failure = Failure {
            cause,
            may_have_issued: false,
        };
        Self { failure, text }
    }

    pub(crate) fn local(text: impl Into<String>) -> Self {
        Self::new(Cause::Local, text.into())
    }

    /// Whether the CA did not respond, or not as usual, so that the same question may succeed later.
    pub(crate) fn is_of_ca(&self) -> bool {
        matches!(
            self.failure.cause,
            Cause::Unreachable | Cause::RateLimited { .. }
        )
    }

    /// The CA may have issued a certificate before this happened.
    pub(crate) fn after_finalizing(mut self) -> Self {
        self.failure.may_have_issued = true;
        self
    }
}

/// What the texts name.
pub(crate) struct Context<'a> {
    /// The host name or wildcard base.
    pub(crate) host: &'a str,
    /// The host of the CA's directory.
    pub(crate) ca: &'a str,
    pub(crate) validation: &'a Validation,
    /// The last `Retry-After` of an error.
    pub(crate) retry_after: Option<SystemTime>,
}

impl Context<'_> {
    /// The failure that an error of the library is. `step` names what was being done.
    pub(crate) fn error(&self, step: &str, error: AcmeError) -> OrderError {
        let ca = self.ca;
        match error {
            AcmeError::Api(problem) => self.problem(&problem),
            AcmeError::Other(error) => match error.downcast_ref::<HttpError>() {
                Some(HttpError::Problem(problem)) => self.problem(problem),
                Some(HttpError::Internal(status, problem)) => {
                    let kind = problem.r#type.as_deref().unwrap_or_default();
                    let kind = printable(kind.strip_prefix(TYPE).unwrap_or(kind));
                    let detail = printable(problem.detail.as_deref().unwrap_or("no details"));
                    let text = format!(
                        "the CA {ca} has an internal error: it responded with the status {status} to {step} (the CA's problem `{kind}`: {detail})"
                    );
                    OrderError::new(self.unreachable(), text)
                }
                Some(error @ HttpError::Status(status)) if status.as_u16() == 429 => {
                    let cause = Cause::RateLimited {
                        until: self.retry_after,
                    };
                    OrderError::new(
                        cause,
                        format!("the CA {ca} limits the rate of requests: {error}"),
                    )
                }
                Some(error @ HttpError::Status(status)) if status.is_client_error() => {
                    let text = format!(
                        "the CA {ca} cannot be used to {step}: {error}; is the directory's URL right?"
                    );
                    OrderError::new(Cause::Unreachable, text)
                }
                Some(error) => {
                    let text = format!("the CA {ca} cannot be reached to {step}: {error}");
                    OrderError::new(self.unreachable(), text)
                }
                None => OrderError::new(
                    Cause::Unreachable,
                    format!(
                        "to {step} with the CA {ca} failed: {}",
                        printable(&error.to_string())
                    ),
                ),
            },
            AcmeError::Timeout(_) => OrderError::new(
                Cause::Unreachable,
                format!("the CA {ca} did not finish in time to {step}"),
            ),
            error => OrderError::new(
                Cause::Unreachable,
                format!(
                    "to {step} with the CA {ca} failed: {}",
                    printable(&error.to_string())
                ),
            ),
        }
    }

    /// An error of the CA's own that names a time to retry after is kept to.
    fn unreachable(&self) -> Cause {
        match self.retry_after {
            Some(until) => Cause::RateLimited { until: Some(until) },
            None => Cause::Unreachable,
        }
    }

    /// The failure that a problem document is.
    pub(crate) fn problem(&self, problem: &Problem) -> OrderError {
        let (host, ca) = (self.host, self.ca);
        // A problem with parts: the first one is the cause.
        let part = problem.subproblems.first();
        let full = part
            .and_then(|part| part.r#type.as_deref())
            .or(problem.r#type.as_deref());
        let kind = full.and_then(|full| full.strip_prefix(TYPE)).unwrap_or("");
        let detail = part
            .and_then(|part| part.detail.as_deref())
            .or(problem.detail.as_deref());
        let detail = detail.map_or_else(|| "no details".to_owned(), printable);
        let (cause, meaning) = match kind {
            "rateLimited" => (
                Cause::RateLimited {
                    until: self.retry_after,
                },
                format!("the CA {ca} limits the rate of orders"),
            ),
            "serverInternal" => (
                self.unreachable(),
                format!("the CA {ca} has an internal error"),
            ),
            "badNonce" => (
                Cause::Unreachable,
                format!("the CA {ca} rejected the nonce several times"),
            ),
            "connection" => (Cause::Validation, self.unreachable_host()),
            "dns" => (
                Cause::Validation,
                match self.validation {
                    Validation::Dns01(_) => format!(
                        "the CA did not find the record _acme-challenge.{host}: is the DNS provider right, and does it serve the zone?"
                    ),
                    _ => format!(
                        "the CA found no address of {host}: create an A or AAAA record that leads to this server"
                    ),
                },
            ),
            "unauthorized" | "incorrectResponse" => (Cause::Validation, self.other_answer()),
            "tls" => (
                Cause::Validation,
                format!(
                    "the TLS handshake of the CA with {host} failed: does port 443 lead to this server, without another TLS end before it?"
                ),
            ),
            "caa" => (
                Cause::Validation,
                format!(
                    "the CAA records of {host} or its parents do not allow this CA: add a CAA record for it"
                ),
            ),
            "rejectedIdentifier" => (
                Cause::Refused,
                format!("the CA issues no certificate for {host}: is it a public name?"),
            ),
            "unsupportedIdentifier" => (
                Cause::Refused,
                format!("the CA issues no certificates for names such as {host}"),
            ),
            "externalAccountRequired" => (
                Cause::Refused,
                format!("the CA {ca} requires an external account: set its key id and key"),
            ),
            "userActionRequired" => (
                Cause::Refused,
                format!(
                    "the CA {ca} requires an action of the account's owner, such as to accept new terms"
                ),
            ),
            "invalidContact" | "unsupportedContact" => (
                Cause::Refused,
                format!("the CA {ca} does not accept the e-mail address"),
            ),
            "accountDoesNotExist" => (
                Cause::Refused,
                format!("the CA {ca} does not know the account any more"),
            ),
            "badSignatureAlgorithm" | "badPublicKey" => (
                Cause::Refused,
                format!("the CA {ca} does not accept the key"),
            ),
            _ => (
                Cause::Refused,
                format!("the CA {ca} refused the order for {host}"),
            ),
        };
        let kind = if kind.is_empty() {
            full.map_or_else(|| "unknown".to_owned(), printable)
        } else {
            kind.to_owned()
        };
        OrderError::new(
            cause,
            format!("{meaning} (the CA's problem `{kind}`: {detail})"),
        )
    }

    fn unreachable_host(&self) -> String {
        let host = self.host;
        match self.validation {
            Validation::Http01 => format!(
                "the CA cannot connect to {host} on port 80: open port 80 to the internet, and check that the A and AAAA records of {host} lead to this server"
            ),
            Validation::TlsAlpn01 => format!(
                "the CA cannot connect to {host} on port 443: open port 443 to the internet, and check that the A and AAAA records of {host} lead to this server"
            ),
            Validation::Dns01(_) => format!("the CA cannot reach the name servers of {host}"),
        }
    }

    fn other_answer(&self) -> String {
        let host = self.host;
        match self.validation {
            Validation::Http01 => format!(
                "something else than this server responded at http://{host}/.well-known/acme-challenge/: check the A and AAAA records of {host}, and proxies before this server"
            ),
            Validation::TlsAlpn01 => format!(
                "something else than this server responded at {host}:443: check the A and AAAA records of {host}, and proxies that end TLS before this server"
            ),
            Validation::Dns01(_) => format!(
                "the CA found another value of _acme-challenge.{host}: remove old records, and check that all name servers of the zone have the new one"
            ),
        }
    }
}

/// A text of another program, on one line and of bounded length.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars().take(LONGEST_DETAIL) {
        if c.is_control() {
            printable.push(' ');
        } else {
            printable.push(c);
        }
    }
    if text.chars().nth(LONGEST_DETAIL).is_some() {
        printable.push('…');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(validation: &Validation, kind: &str, detail: &str) -> OrderError {
        let json = serde_json::json!({"type": format!("{TYPE}{kind}"), "detail": detail});
        let context = Context {
            host: "app.example.com",
            ca: "ca.example",
            validation,
            retry_after: None,
        };
        context.error(
            "order",
            AcmeError::Api(serde_json::from_value(json).unwrap()),
        )
    }

    #[test]
    fn a_problem_says_what_to_change() {
        for (validation, kind, cause, advice) in [
            (
                Validation::Http01,
                "connection",
                Cause::Validation,
                "open port 80",
            ),
            (
                Validation::TlsAlpn01,
                "connection",
                Cause::Validation,
                "open port 443",
            ),
            (
                Validation::Http01,
                "dns",
                Cause::Validation,
                "A or AAAA record",
            ),
            (
                Validation::Http01,
                "unauthorized",
                Cause::Validation,
                "something else",
            ),
            (Validation::TlsAlpn01, "tls", Cause::Validation, "port 443"),
            (Validation::Http01, "caa", Cause::Validation, "CAA record"),
            (
                Validation::Http01,
                "rejectedIdentifier",
                Cause::Refused,
                "public name",
            ),
            (
                Validation::Http01,
                "externalAccountRequired",
                Cause::Refused,
                "key id",
            ),
            (
                Validation::Http01,
                "serverInternal",
                Cause::Unreachable,
                "internal error",
            ),
            (
                Validation::Http01,
                "newlyInvented",
                Cause::Refused,
                "`newlyInvented`",
            ),
        ] {
            let found = error(&validation, kind, "the detail");
            assert_eq!(found.failure.cause, cause, "{kind}");
            assert!(found.text.contains(advice), "{kind}: {}", found.text);
            assert!(found.text.contains("the detail"), "{}", found.text);
        }
    }

    #[test]
    fn a_detail_is_bounded_and_printable() {
        let text = error(&Validation::Http01, "dns", &"a\u{1b}[31m\n".repeat(1000)).text;
        assert!(text.len() < 1000 && !text.contains('\u{1b}') && !text.contains('\n'));
    }

    #[test]
    fn a_problem_of_a_part_is_the_cause() {
        let json = serde_json::json!({"type": format!("{TYPE}malformed"), "subproblems": [
            {"type": format!("{TYPE}caa"), "detail": "CAA forbids"}]});
        let context = Context {
            host: "app.example.com",
            ca: "ca.example",
            validation: &Validation::Http01,
            retry_after: None,
        };
        let found = context.problem(&serde_json::from_value(json).unwrap());
        assert!(found.text.contains("CAA forbids"), "{}", found.text);
    }
}
