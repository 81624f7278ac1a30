//! Requests to a CA: bounded in time and length, over verified TLS.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_tls::{SetupError, Trust, client_config};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient, Problem};
use parking_lot::Mutex;
use rustls::version::{TLS12, TLS13};
use thiserror::Error;
use tokio::time::timeout;

use crate::{problem::has_type, settings::Ca};

/// The bound of a response: far more than a chain of certificates has.
const LONGEST_RESPONSE: usize = 1 << 20;

/// After so many seconds a CA that does not name a time is asked again for a renewal window (RFC 9773, 4.3.2).
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("21600");

/// The most seconds of a `Retry-After` that are passed on: a year, far more than any wait here. The library adds the number to
/// the time without a check, and panics on one that is too large.
const MOST_RETRY_AFTER: u64 = 365 * 24 * 60 * 60;

/// A response that is not one of ACME, or none at all.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    /// The CA cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The CA did not respond in time.
    #[error("it did not respond within {0:?}")]
    Timeout(Duration),
    /// The response has this status and no problem document.
    #[error("it responded with the status {0}")]
    Status(StatusCode),
    /// The CA has an error of its own, with a problem document. Nothing follows from it about the order.
    #[error("it responded with the status {0} ({1})")]
    Internal(StatusCode, Problem),
    /// The CA refused a request that is not signed.
    #[error("{0}")]
    Problem(Problem),
}

/// The connections to one CA. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CaHttp {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    timeout: Duration,
}

impl CaHttp {
    pub(crate) fn new(ca: &Ca, timeout: Duration) -> Result<Self, SetupError> {
        let trust = ca.roots().cloned().map_or(Trust::System, Trust::Roots);
        let mut config = client_config(&trust, None, &[&TLS13, &TLS12])?;
        // The connector sets its own.
        config.alpn_protocols.clear();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config);
        let connector = connector.https_only().enable_http1().enable_http2().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout,
        })
    }

    /// A client for one order, which keeps the last `Retry-After` of an error there.
    pub(crate) fn exchange(&self, retry_after: &RetryAfter) -> Box<dyn HttpClient> {
        Box::new(Exchange {
            http: self.clone(),
            retry_after: retry_after.clone(),
        })
    }
}

/// The time of the last `Retry-After` in an error response. The library keeps it of successful ones only.
#[derive(Clone, Default)]
pub(crate) struct RetryAfter(Arc<Mutex<Option<SystemTime>>>);

impl RetryAfter {
    pub(crate) fn last(&self) -> Option<SystemTime> {
        *self.0.lock()
    }
}

struct Exchange {
    http: CaHttp,
    retry_after: RetryAfter,
}

impl HttpClient for Exchange {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let (http, retry_after) = (self.http.clone(), self.retry_after.clone());
        Box::pin(async move {
            let signed = request.method() == Method::POST;
            let received = timeout(http.timeout, http.send(request)).await;
            let received = received.unwrap_or(Err(HttpError::Timeout(http.timeout)));
            let checked = received.and_then(|response| check(response, signed, &retry_after));
            let response = checked.map_err(|error| AcmeError::Other(Box::new(error)))?;
            Ok(BytesResponse::from(response.map(Full::new)))
        })
    }
}

impl CaHttp {
    async fn send(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Bytes>, HttpError> {
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| HttpError::Unreachable(chain(&error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_RESPONSE).collect().await;
        let body = body.map_err(|error| HttpError::Unreachable(chain(&*error)))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Passes a response on that the library can read. It reads every other as invalid JSON, and loses the status.
fn check(
    mut response: Response<Bytes>,
    signed: bool,
    retry_after: &RetryAfter,
) -> Result<Response<Bytes>, HttpError> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        let headers = response.headers_mut();
        if headers
            .get(RETRY_AFTER)
            .is_some_and(|value| !is_bounded(value))
        {
            headers.insert(RETRY_AFTER, HeaderValue::from(MOST_RETRY_AFTER));
        }
        if !signed && !headers.contains_key(RETRY_AFTER) {
            headers.insert(RETRY_AFTER, ASK_AGAIN);
        }
        return Ok(response);
    }
    let time = response.headers().get(RETRY_AFTER).and_then(parse_time);
    *retry_after.0.lock() = time;
    match serde_json::from_slice::<Problem>(response.body()) {
        Ok(problem) if problem.r#type.is_some() => {
            // A limit may come with a status of the 5xx as well, and says whose it is.
            if status.is_server_error() && !has_type(&problem, "rateLimited") {
                return Err(HttpError::Internal(status, problem));
            }
            if signed {
                return Ok(response);
            }
            Err(HttpError::Problem(problem))
        }
        _ => Err(HttpError::Status(status)),
    }
}

/// Whether the library can read the value: a date, or a number of seconds that can be added to the time.
fn is_bounded(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default().trim();
    !text.bytes().all(|byte| byte.is_ascii_digit())
        || text.is_empty()
        || text
            .parse::<u64>()
            .is_ok_and(|seconds| seconds <= MOST_RETRY_AFTER)
}

/// A time of `Retry-After`: seconds from now, or a date (RFC 9110, 10.2.3).
fn parse_time(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    match text.parse::<u32>() {
        Ok(seconds) => Some(SystemTime::now() + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

/// The text of an error with its causes.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    #[test]
    fn an_error_without_a_problem_document_keeps_its_status() {
        let seen = RetryAfter::default();
        let html = response(503, &[("retry-after", "120")], "<html>");
        let error = check(html, true, &seen).unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        let wait = seen
            .last()
            .unwrap()
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(wait <= Duration::from_secs(120) && wait > Duration::from_secs(100));
        check(response(500, &[], ""), false, &seen).unwrap_err();
        assert_eq!(seen.last(), None);
    }

    #[test]
    fn a_date_is_a_time_to_retry_after() {
        let date = HeaderValue::from_static("Fri, 31 Dec 1999 23:59:59 GMT");
        let time = parse_time(&date).unwrap();
        assert_eq!(
            httpdate::fmt_http_date(time),
            "Fri, 31 Dec 1999 23:59:59 GMT"
        );
        for text in ["", "-1", "soon", "99999999999999999999"] {
            assert_eq!(parse_time(&HeaderValue::from_static(text)), None, "{text}");
        }
    }

    #[test]
    fn a_renewal_window_without_a_time_is_asked_for_again_in_six_hours() {
        let seen = RetryAfter::default();
        let checked = check(response(200, &[], "{}"), false, &seen).unwrap();
        assert_eq!(checked.headers()[RETRY_AFTER], ASK_AGAIN);
        let own = response(200, &[("retry-after", "7")], "{}");
        let checked = check(own, false, &seen).unwrap();
        assert_eq!(checked.headers()[RETRY_AFTER], "7");
        let signed = check(response(201, &[], "{}"), true, &seen).unwrap();
        assert!(!signed.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_huge_time_to_retry_after_is_bounded_before_the_library_reads_it() {
        let seen = RetryAfter::default();
        for (value, expected) in [
            ("18446744073709551615", "31536000"),
            ("99999999999999999999999", "31536000"),
            ("31536000", "31536000"),
            (" 7 ", " 7 "),
            ("soon", "soon"),
        ] {
            for signed in [false, true] {
                let own = response(200, &[("retry-after", value)], "{}");
                let checked = check(own, signed, &seen).unwrap();
                let found = checked.headers()[RETRY_AFTER].to_str().unwrap();
                assert_eq!(found.trim(), expected.trim());
            }
        }
    }

    #[test]
    fn an_error_of_the_ca_is_not_a_refusal_whatever_its_problem_is() {
        let seen = RetryAfter::default();
        let body = r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "d"}"#;
        let error = check(response(500, &[], body), true, &seen).unwrap_err();
        assert!(matches!(error, HttpError::Internal(..)), "{error}");
        check(response(400, &[], body), true, &seen).unwrap();
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited"}"#;
        check(response(503, &[], limited), true, &seen).unwrap();
    }
}
