//! A CA for what Debian's Pebble lacks: renewal windows, `replaces`, limits, and certificates of any lifetime.
//!
//! Two CAs share a listener, production and staging. Signatures of requests are not verified: Pebble does that.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_acme::{Ca, Settings, Validation};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SerialNumber,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{ca::ListenerCa, support::quick};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// How the double behaves, and what it has seen, for one of its two CAs.
#[derive(Default)]
pub(crate) struct State {
    /// The lifetime of certificates; 90 days if not set.
    pub(crate) lifetime: Option<Duration>,
    /// The renewal window of a certificate with this number, counted from 1, from now on.
    pub(crate) window: Option<fn(usize) -> (SystemTime, SystemTime)>,
    /// Every certificate is taken for one that was replaced already.
    pub(crate) all_replaced: bool,
    /// New orders are refused with this status, type and `Retry-After`.
    pub(crate) refuse: Option<(u16, &'static str, Option<u64>)>,
    /// Every request is answered with this status and a page of HTML.
    pub(crate) broken: Option<u16>,
    /// Validations fail.
    pub(crate) invalid: bool,
    /// The next requests to finalize an order are answered with an error of the CA; each with whether it issues nevertheless.
    pub(crate) broken_finalize: Vec<bool>,
    /// The `Retry-After` of every successful answer.
    pub(crate) retry_after: Option<&'static str>,
    /// So many accounts, the first ones, are unknown now.
    pub(crate) lost_accounts: usize,
    /// Orders never end after they are finalized.
    pub(crate) stuck: bool,
    /// The names of each accepted order.
    pub(crate) orders: Vec<Vec<String>>,
    /// When each accepted or refused order came.
    pub(crate) times: Vec<SystemTime>,
    /// What each order replaced.
    pub(crate) replaces: Vec<Option<String>>,
    pub(crate) accounts: usize,
    /// Changed contacts.
    pub(crate) contacts: Vec<Value>,
    pub(crate) questions: usize,
    replaced: HashSet<String>,
    certificates: Vec<String>,
    finalized: BTreeMap<usize, usize>,
    failed: HashSet<usize>,
}

#[derive(Clone)]
pub(crate) struct Double {
    listener: Arc<ListenerCa>,
    base: Arc<str>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    pub(crate) production: Arc<Mutex<State>>,
    pub(crate) staging: Arc<Mutex<State>>,
}

impl Double {
    pub(crate) async fn new() -> Self {
        let listener = Arc::new(ListenerCa::new());
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("https://{}", socket.local_addr().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let double = Self {
            listener: listener.clone(),
            base: base.into(),
            issuer: Arc::new(Issuer::new(params, KeyPair::generate().unwrap())),
            production: Arc::default(),
            staging: Arc::default(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let chain =
            vec![CertificateDer::from_pem_slice(listener.certificate_pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(listener.key_pem.as_bytes()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
        let own = double.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, own) = (acceptor.clone(), own.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let own = own.clone();
                        async move { Ok::<_, std::convert::Infallible>(own.respond(request).await) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        double
    }

    pub(crate) fn ca(&self, at: &str) -> Ca {
        let ca = Ca::new(&format!("{}/{at}/directory", self.base)).unwrap();
        ca.with_roots(self.listener.roots())
    }

    /// Settings with quick retries, and without staging.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            policy: quick(),
            ..Settings::new(self.ca("production"), Validation::Http01)
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let at_staging = request.uri().path().starts_with("/staging/");
        let mut response = self.answer(request).await;
        let state = if at_staging {
            &self.staging
        } else {
            &self.production
        };
        if let Some(time) = state.lock().retry_after
            && response.status().is_success()
        {
            response
                .headers_mut()
                .insert("retry-after", time.parse().unwrap());
        }
        response
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes());
        let body = body.unwrap_or_default();
        let payload = part(&body, "payload").unwrap_or(Value::Null);
        let account = part(&body, "protected").and_then(|head| account(&head));
        let mut parts = path.trim_start_matches('/').split('/');
        let at = parts.next().unwrap_or_default();
        let state = if at == "staging" {
            &self.staging
        } else {
            &self.production
        };
        let mut state = state.lock();
        let base = format!("{}/{at}", self.base);
        if let Some(status) = state.broken {
            let response = Response::builder().status(status);
            return response.body("<html>sorry</html>".into()).unwrap();
        }
        let number = |parts: &mut dyn Iterator<Item = &str>| {
            parts.next().and_then(|text| text.parse::<usize>().ok())
        };
        match (parts.next(), number(&mut parts)) {
            (Some("directory"), _) => {
                let mut directory = json!({"newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
                    "newOrder": format!("{base}/order"), "revokeCert": base, "keyChange": base});
                if state.window.is_some() {
                    directory["renewalInfo"] = format!("{base}/renewal").into();
                }
                answer(200, None, &directory)
            }
            (Some("nonce"), _) => answer(200, None, &Value::Null),
            (Some("account"), None) => {
                state.accounts += 1;
                let account = state.accounts;
                answer(
                    201,
                    Some(format!("{base}/account/{account}")),
                    &json!({"status": "valid"}),
                )
            }
            (Some("account"), Some(_)) => {
                state.contacts.push(payload);
                answer(200, None, &json!({"status": "valid"}))
            }
            (Some("order"), None) if account.is_some_and(|own| own <= state.lost_accounts) => {
                problem(400, "accountDoesNotExist", None)
            }
            (Some("order"), None) => state.new_order(&base, &payload),
            (Some("order"), Some(order)) => answer(200, None, &state.order(&base, order)),
            (Some("authorization"), Some(order)) => {
                answer(200, None, &state.authorization(&base, order))
            }
            (Some("challenge"), Some(order)) => {
                state.failed.insert(order);
                answer(
                    200,
                    None,
                    &json!({"type": "http-01", "url": format!("{base}/challenge/{order}"), "token": "t", "status": "processing"}),
                )
            }
            (Some("finalize"), Some(_)) if state.broken_finalize.first() == Some(&false) => {
                state.broken_finalize.remove(0);
                problem(500, "serverInternal", None)
            }
            (Some("finalize"), Some(order)) => {
                let request = BASE64_URL_SAFE_NO_PAD
                    .decode(payload["csr"].as_str().unwrap())
                    .unwrap();
                let certificate = self.issue(&state, request);
                state.certificates.push(certificate);
                let number = state.certificates.len();
                state.finalized.insert(order, number);
                if !state.broken_finalize.is_empty() {
                    state.broken_finalize.remove(0);
                    return problem(500, "serverInternal", None);
                }
                answer(200, None, &state.order(&base, order))
            }
            (Some("certificate"), Some(number)) => {
                let pem = state.certificates[number - 1].clone();
                let response = Response::builder().header("replay-nonce", "n");
                response.body(pem.into()).unwrap()
            }
            (Some("renewal"), _) => {
                state.questions += 1;
                // The serial number is the number of the certificate.
                let id = path.rsplit('.').next().unwrap();
                let serial = BASE64_URL_SAFE_NO_PAD.decode(id).unwrap();
                let number = serial
                    .iter()
                    .fold(0, |number, byte| number << 8 | usize::from(*byte));
                let (start, end) = (state.window.unwrap())(number);
                let time = |time: SystemTime| {
                    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    let time = x509_parser::time::ASN1Time::from_timestamp(
                        i64::try_from(since.as_secs()).unwrap(),
                    )
                    .unwrap();
                    let time = time.to_datetime();
                    format!(
                        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                        time.year(),
                        u8::from(time.month()),
                        time.day(),
                        time.hour(),
                        time.minute(),
                        time.second()
                    )
                };
                answer(
                    200,
                    None,
                    &json!({"suggestedWindow": {"start": time(start), "end": time(end)}}),
                )
            }
            _ => problem(404, "malformed", None),
        }
    }

    fn issue(&self, state: &State, request: Vec<u8>) -> String {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request).unwrap();
        let now = SystemTime::now();
        let number = u64::try_from(state.certificates.len() + 1).unwrap();
        request.params.serial_number = Some(SerialNumber::from(number));
        request.params.use_authority_key_identifier_extension = true;
        request.params.not_before = { now - Duration::from_secs(1) }.into();
        request.params.not_after = { now + state.lifetime.unwrap_or(90 * DAY) }.into();
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

impl State {
    fn new_order(&mut self, base: &str, payload: &Value) -> Response<Full<Bytes>> {
        self.times.push(SystemTime::now());
        if let Some((status, kind, retry_after)) = self.refuse {
            return problem(status, kind, retry_after);
        }
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        if let Some(id) = &replaces
            && (self.all_replaced || self.replaced.contains(id))
        {
            return problem(409, "alreadyReplaced", None);
        }
        self.replaced.extend(replaces.clone());
        self.replaces.push(replaces);
        let identifiers = payload["identifiers"].as_array().unwrap().iter();
        let names = identifiers.map(|identifier| identifier["value"].as_str().unwrap().to_owned());
        self.orders.push(names.collect());
        let order = self.orders.len();
        answer(
            201,
            Some(format!("{base}/order/{order}")),
            &self.order(base, order),
        )
    }

    fn order(&self, base: &str, order: usize) -> Value {
        let certificate = self.finalized.get(&order);
        let status = match certificate {
            Some(_) if self.stuck => "processing",
            Some(_) => "valid",
            None if self.failed.contains(&order) => "invalid",
            None if self.invalid => "pending",
            None => "ready",
        };
        let mut value = json!({"status": status, "authorizations": [format!("{base}/authorization/{order}")],
            "finalize": format!("{base}/finalize/{order}")});
        if let Some(certificate) = certificate {
            value["certificate"] = format!("{base}/certificate/{certificate}").into();
        }
        if let Some(Some(replaces)) = self.replaces.get(order - 1) {
            value["replaces"] = replaces.as_str().into();
        }
        value
    }

    fn authorization(&self, base: &str, order: usize) -> Value {
        let failed = self.failed.contains(&order);
        let status = if failed {
            "invalid"
        } else if self.invalid {
            "pending"
        } else {
            "valid"
        };
        let mut challenge = json!({"type": "http-01", "url": format!("{base}/challenge/{order}"), "token": "t", "status": status});
        if failed {
            challenge["error"] =
                json!({"type": "urn:ietf:params:acme:error:connection", "detail": "refused"});
        }
        json!({"status": status, "identifier": {"type": "dns", "value": self.orders[order - 1][0]}, "challenges": [challenge]})
    }
}

/// A part of a signed request.
fn part(body: &[u8], name: &str) -> Option<Value> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let part = BASE64_URL_SAFE_NO_PAD
        .decode(request[name].as_str()?)
        .ok()?;
    serde_json::from_slice(&part).ok()
}

/// The number of the account that has signed.
fn account(head: &Value) -> Option<usize> {
    head["kid"].as_str()?.rsplit('/').next()?.parse().ok()
}

fn answer(status: u16, location: Option<String>, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(status)
        .header("replay-nonce", "n");
    if let Some(location) = location {
        response = response.header("location", location);
    }
    response.body(body.to_string().into()).unwrap()
}

fn problem(status: u16, kind: &str, retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "the double refuses it"});
    let mut response = answer(status, None, &body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}
