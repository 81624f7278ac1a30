//! Keys follow their files and URLs, and stay in force when those cannot be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_auth::{JwtAlgorithm, JwtKey};
use adit_identity::{KeySource, KeySourceError, MAX_KEY_BYTES, SigningKeys, UrlSource};
use adit_tls::{Roots, Trust};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, runtime::Handle, time::Instant};

fn open(source: KeySource) -> Result<Arc<SigningKeys>, KeySourceError> {
    SigningKeys::open(source, Handle::current())
}

/// A set with a key of each id.
fn jwks(ids: &[&str]) -> String {
    let key = |id: &&str| {
        let mut x = [7; 32];
        x[..id.len()].copy_from_slice(id.as_bytes());
        let x = URL_SAFE_NO_PAD.encode(x);
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}"#)
    };
    let keys: Vec<_> = ids.iter().map(key).collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn ids(keys: &[JwtKey]) -> Vec<String> {
    let id = |key: &JwtKey| key.id().unwrap_or_default().to_owned();
    keys.iter().map(id).collect()
}

fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let source = KeySource::JwksFile {
        path: path.clone(),
        algorithm: None,
    };
    let missing = open(source.clone()).unwrap_err().to_string();
    assert!(missing.contains("keys.json"), "{missing}");
    fs::write(&path, jwks(&["old"])).unwrap();
    let keys = open(source).unwrap();
    assert_eq!(ids(&keys.keys()), ["old"]);
    assert_eq!(keys.refresh(Instant::now()), None);
    replace(&path, &jwks(&["old", "new"]));
    let changed = keys.refresh(Instant::now()).unwrap();
    assert_eq!(ids(&changed), ["old", "new"]);
    assert_eq!(keys.refresh(Instant::now()), None);
    // A damaged file, an empty set and a lost file change nothing.
    for damaged in ["{", r#"{"keys":[]}"#] {
        replace(&path, damaged);
        assert_eq!(keys.refresh(Instant::now()), None);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(keys.refresh(Instant::now()), None);
    assert_eq!(ids(&keys.keys()), ["old", "new"]);
    fs::write(&path, jwks(&["new"])).unwrap();
    assert_eq!(ids(&keys.refresh(Instant::now()).unwrap()), ["new"]);
    let address = IpAddr::from([192, 0, 2, 1]);
    assert!(!keys.unknown_key("other", address, Duration::MAX).await);
    assert!(keys.unknown_key("new", address, Duration::MAX).await);
}

#[tokio::test]
async fn files_of_pem_and_secrets_have_one_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let pem = |algorithm| {
        let path = path.clone();
        open(KeySource::PemFile { path, algorithm })
    };
    let both: Vec<String> = (0..2)
        .map(|_| KeyPair::generate().unwrap().public_key_pem())
        .collect();
    fs::write(&path, format!("# current\n{}# next\n{}", both[0], both[1])).unwrap();
    assert_eq!(pem(JwtAlgorithm::Es256).unwrap().keys().len(), 2);
    let wrong = pem(JwtAlgorithm::Rs256).unwrap_err().to_string();
    assert!(wrong.contains("RS256") && wrong.contains("key"), "{wrong}");
    fs::write(&path, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let wrong = pem(JwtAlgorithm::Es256).unwrap_err().to_string();
    assert!(wrong.contains("private key"), "{wrong}");

    let secret = || {
        open(KeySource::SecretFile {
            path: path.clone(),
            algorithm: JwtAlgorithm::Hs256,
        })
    };
    let wrong = secret().unwrap_err().to_string();
    assert!(wrong.contains("key_file"), "{wrong}");
    fs::write(&path, "0123456789012345678901234567890\n").unwrap();
    let wrong = secret().unwrap_err().to_string();
    assert!(wrong.contains("31 bytes"), "{wrong}");
    fs::write(&path, "01234567890123456789012345678901\n").unwrap();
    let expected =
        JwtKey::from_secret(JwtAlgorithm::Hs256, b"01234567890123456789012345678901").unwrap();
    assert_eq!(secret().unwrap().keys()[..], [expected]);
    fs::write(&path, "x".repeat(MAX_KEY_BYTES + 1)).unwrap();
    let wrong = secret().unwrap_err().to_string();
    assert!(wrong.contains("larger"), "{wrong}");
}

type Answer = Box<dyn Fn() -> Response<Full<Bytes>> + Send + Sync>;

/// A server of keys whose response can be changed.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<Arc<Answer>>>,
    requests: Arc<AtomicUsize>,
}

fn ok(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(body.into()))
}

impl Issuer {
    async fn start(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let first: Answer = Box::new(|| ok(jwks(&["old"])));
        let answer = Arc::new(Mutex::new(Arc::new(first)));
        let requests = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (answer.clone(), requests.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, count, tls) = (shared.clone(), count.clone(), tls.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    assert_eq!(request.uri(), "/keys?a=b");
                    assert_eq!(request.headers()[header::HOST], address.to_string());
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = shared.lock().clone();
                    async move { Ok::<_, Infallible>(answer()) }
                });
                tokio::spawn(async move {
                    let http = http1::Builder::new();
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let io = TokioIo::new(stream);
                                let _ = http.serve_connection(io, service).await;
                            }
                        }
                        None => {
                            let io = TokioIo::new(stream);
                            let _ = http.serve_connection(io, service).await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            answer,
            requests,
        }
    }

    fn answer(&self, answer: impl Fn() -> Response<Full<Bytes>> + Send + Sync + 'static) {
        let answer: Answer = Box::new(answer);
        *self.answer.lock() = Arc::new(answer);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn source(&self, scheme: &str) -> UrlSource {
        let url = format!("{scheme}://{}/keys?a=b", self.address);
        UrlSource {
            timeout: Duration::from_secs(20),
            ..UrlSource::new(url.parse().unwrap())
        }
    }
}

/// Looks as a server does, until the condition holds.
async fn look_until(keys: &Arc<SigningKeys>, condition: impl Fn(&[JwtKey]) -> bool) {
    let within = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition(&keys.keys()) {
            keys.refresh(Instant::now());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    within.await.expect("the keys do not change as expected");
}

fn from(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

#[tokio::test]
async fn a_url_is_requested_at_the_start() {
    let issuer = Issuer::start(None).await;
    let keys = open(KeySource::JwksUrl(issuer.source("http"))).unwrap();
    assert!(keys.keys().is_empty());
    look_until(&keys, |keys| ids(keys) == ["old"]).await;
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn an_unknown_key_is_requested_for_a_client_that_waits() {
    let issuer = Issuer::start(None).await;
    let keys = open(KeySource::JwksUrl(issuer.source("http"))).unwrap();
    // The first client does not wait for the first look.
    let within = Duration::from_secs(20);
    assert!(keys.unknown_key("old", from(1), within).await);
    assert_eq!(ids(&keys.refresh(Instant::now()).unwrap()), ["old"]);
    assert_eq!(issuer.requests(), 1);
    // Within the cooldown no other request begins.
    issuer.answer(|| ok(jwks(&["old", "new"])));
    assert!(
        !keys
            .unknown_key("new", from(1), Duration::from_millis(50))
            .await
    );
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_token_without_a_key_id_waits_for_other_keys() {
    let issuer = Issuer::start(None).await;
    let keys = open(KeySource::JwksUrl(issuer.source("http"))).unwrap();
    let within = Duration::from_secs(20);
    assert!(keys.other_keys(&[], from(1), within).await);
    let known = keys.keys();
    assert_eq!(ids(&known), ["old"]);
    // The cooldown of requests holds for such tokens too.
    issuer.answer(|| ok(jwks(&["new"])));
    let soon = Duration::from_millis(50);
    assert!(!keys.other_keys(&known, from(1), soon).await);
    assert_eq!(issuer.requests(), 1);
    assert!(keys.other_keys(&[], from(1), soon).await);
}

#[tokio::test]
async fn keys_of_a_url_stay_when_it_is_requested_in_another_way() {
    let issuer = Issuer::start(None).await;
    let source = issuer.source("http");
    let keys = open(KeySource::JwksUrl(source.clone())).unwrap();
    look_until(&keys, |keys| ids(keys) == ["old"]).await;
    issuer.answer(|| ok("away"));
    let changed = UrlSource {
        refresh: Duration::from_secs(7),
        timeout: Duration::from_secs(7),
        ..source.clone()
    };
    let next = keys.reopen(KeySource::JwksUrl(changed.clone())).unwrap();
    assert_eq!(ids(&next.keys()), ["old"]);
    assert_eq!(*next.source(), KeySource::JwksUrl(changed.clone()));
    // The new way is tried at the next look.
    issuer.answer(|| ok(jwks(&["new"])));
    look_until(&next, |keys| ids(keys) == ["new"]).await;
    // Only keys of the algorithm, and none of another URL.
    let algorithm = Some(JwtAlgorithm::Rs256);
    let other = UrlSource {
        algorithm,
        ..changed.clone()
    };
    assert!(
        next.reopen(KeySource::JwksUrl(other))
            .unwrap()
            .keys()
            .is_empty()
    );
    let url = format!("http://{}/others", issuer.address).parse().unwrap();
    let other = UrlSource { url, ..changed };
    assert!(
        next.reopen(KeySource::JwksUrl(other))
            .unwrap()
            .keys()
            .is_empty()
    );
}

#[tokio::test]
async fn a_file_is_read_again_whose_time_and_length_are_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    fs::write(&path, jwks(&["one"])).unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let source = KeySource::JwksFile {
        path: path.clone(),
        algorithm: None,
    };
    let keys = open(source).unwrap();
    let before = fs::metadata(&path).unwrap();
    let changed = |file: &fs::Metadata| (file.ctime(), file.ctime_nsec());
    // The time of an inode has the resolution of the kernel's ticks.
    loop {
        fs::write(&path, jwks(&["two"])).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(time))
            .unwrap();
        if changed(&fs::metadata(&path).unwrap()) != changed(&before) {
            break;
        }
    }
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.modified().unwrap(), time);
    assert_eq!((after.len(), after.ino()), (before.len(), before.ino()));
    assert_eq!(ids(&keys.refresh(Instant::now()).unwrap()), ["two"]);
}

#[tokio::test]
async fn a_bad_response_changes_nothing() {
    let issuer = Issuer::start(None).await;
    let source = UrlSource {
        refresh: Duration::from_millis(1),
        ..issuer.source("http")
    };
    let keys = open(KeySource::JwksUrl(source)).unwrap();
    look_until(&keys, |keys| ids(keys) == ["old"]).await;
    let answers: [(&str, Answer); 5] = [
        ("html", Box::new(|| ok("<html>"))),
        ("no keys", Box::new(|| ok(r#"{"keys":[]}"#))),
        (
            "an error",
            Box::new(|| {
                let mut response = ok(jwks(&["error"]));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }),
        ),
        (
            "a redirect",
            Box::new(|| {
                let mut response = ok(jwks(&["redirect"]));
                *response.status_mut() = StatusCode::FOUND;
                let location = "http://127.0.0.1:1/".parse().unwrap();
                response.headers_mut().insert(header::LOCATION, location);
                response
            }),
        ),
        (
            "too large",
            Box::new(|| ok(jwks(&["large"]) + &" ".repeat(MAX_KEY_BYTES))),
        ),
    ];
    for (name, answer) in answers {
        let before = issuer.requests();
        issuer.answer(answer);
        let within = tokio::time::timeout(Duration::from_secs(20), async {
            // The response to the second request from here on is this one, and has been read when the third one begins.
            while issuer.requests() < before + 3 {
                keys.refresh(Instant::now());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        within.await.expect(name);
        assert_eq!(ids(&keys.keys()), ["old"], "{name}");
    }
    issuer.answer(|| ok(jwks(&["new"])));
    look_until(&keys, |keys| ids(keys) == ["new"]).await;
}

#[tokio::test]
async fn a_url_that_does_not_respond_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let source = UrlSource {
        timeout: Duration::from_millis(20),
        ..UrlSource::new(url.parse().unwrap())
    };
    let keys = open(KeySource::JwksUrl(source)).unwrap();
    let began = Instant::now();
    assert!(
        !keys
            .unknown_key("a", from(1), Duration::from_millis(200))
            .await
    );
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(keys.keys().is_empty());
}

#[tokio::test]
async fn a_url_over_tls_is_verified() {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.pem().as_bytes()).unwrap()];
    let key = certificate.signing_key.serialize_pem();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let issuer = Issuer::start(Some(Arc::new(config).into())).await;

    let roots = Roots::from_pem(certificate.cert.pem().as_bytes()).unwrap();
    let trusted = UrlSource {
        trust: Trust::Roots(roots),
        ..issuer.source("https")
    };
    let keys = open(KeySource::JwksUrl(trusted)).unwrap();
    look_until(&keys, |keys| ids(keys) == ["old"]).await;

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = UrlSource {
        trust: Trust::Roots(Roots::from_pem(other.cert.pem().as_bytes()).unwrap()),
        ..issuer.source("https")
    };
    let keys = open(KeySource::JwksUrl(other)).unwrap();
    assert!(
        !keys
            .unknown_key("old", from(1), Duration::from_millis(500))
            .await
    );
    assert_eq!(issuer.requests(), 1);
}
