//! Clients with JWTs of another system: accepted, expired, renewed, refused, and signed by rotated keys: F33.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_e2e::{Client, ClientOptions, HOST, Raw, Server, Service, eventually, get, stays, within};
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SOON: Duration = Duration::from_secs(30);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A key of the issuer.
struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { id, pair }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "iss": "https://issuer.example", "aud": ["other", "adit"], "sub": "alice",
            "iat": now().as_secs(), "exp": now().as_secs() + 600,
        });
        change(&mut claims);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.to_owned());
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn token_for(&self, lifetime: Duration) -> String {
        let end = now() + lifetime;
        self.token(|claims| claims["exp"] = json!(end.as_secs_f64()))
    }

    fn jwk(&self) -> Value {
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.id);
        jwk
    }
}

fn jwks(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A server that accepts the tokens of an issuer with these keys.
async fn server(keys: &str) -> Server {
    let config = format!(
        "server:\n  auth: {{ method: jwt, {keys}, issuer: 'https://issuer.example', audience: adit, leeway: 0s }}\n  limits: {{ max_denials_per_minute: 1000 }}\n"
    );
    Server::with(&config).await
}

async fn server_of_file(dir: &Path, keys: &[&Key]) -> (Server, PathBuf) {
    let file = dir.join("keys.json");
    fs::write(&file, jwks(keys)).unwrap();
    (
        server(&format!("jwks_file: {}", file.display())).await,
        file,
    )
}

/// A client with the token in a file.
fn client(server: &Server, id: &str, token: &str, service: &Service) -> (ClientOptions, PathBuf) {
    let file = server.state().join(format!("{id}.jwt"));
    fs::write(&file, token).unwrap();
    let config = format!(
        "client:\n  client_id: {id}\n  group_id: office\n  auth_token_file: {}\n  server_addr: {}\n  server_port: {}\n  \
         reconnect: {{ initial_delay: 50ms, max_delay: 200ms }}\n  tunnels: [{{ name: web, local_port: {} }}]\n",
        file.display(),
        server.tunnel.ip(),
        server.tunnel.port(),
        service.addr.port(),
    );
    let mut options = ClientOptions::file(server, id, &config);
    options.state = server.state().join(format!("of-{id}"));
    fs::create_dir(&options.state).unwrap();
    (options, file)
}

async fn responds(http: SocketAddr) {
    eventually("a response", SOON, async || {
        let response = get(http, HOST, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
}

async fn logs(client: &mut Client, text: &str) {
    eventually(text, SOON, async || {
        client.process().stderr().contains(text).then_some(())
    })
    .await;
}

/// A request that the service holds until it is released. POST is not repeated when its link is lost.
async fn held(server: &Server, service: &Service) -> Raw {
    let begun = service.stats.begun();
    let mut running = Raw::connect(server.http).await;
    running
        .send(format!(
            "POST /held HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
        .await;
    eventually("a running request", SOON, async || {
        (service.stats.begun() > begun).then_some(())
    })
    .await;
    running
}

#[tokio::test]
async fn p_1_21_an_expired_token_ends_its_link_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k1");
    let (server, _) = server_of_file(dir.path(), &[&key]).await;
    let service = Service::site("site").await;
    let end = now() + Duration::from_secs(12);
    let token = key.token(|claims| claims["exp"] = json!(end.as_secs()));
    let (options, _) = client(&server, "laptop", &token, &service);
    let mut client = Client::start(options).await;
    responds(server.http).await;
    let status = server.status().await;
    assert_eq!(status["clients"][0]["user"], "alice", "{status}");
    let mut running = held(&server, &service).await;
    running.read_to_end().await;
    let late = now().as_secs_f64() - end.as_secs() as f64;
    assert!((0.0..1.0).contains(&late), "{late}");
    logs(&mut client, "did not accept these credentials").await;
    // Neither the log nor the status shows the token.
    let signature = token.rsplit('.').next().unwrap();
    let shown = client.process().stderr() + &server.status().await.to_string();
    assert!(!shown.contains(signature));
}

#[tokio::test]
async fn p_1_22_a_renewed_token_keeps_its_link_and_its_requests() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k1");
    let (server, _) = server_of_file(dir.path(), &[&key]).await;
    let service = Service::site("site").await;
    let lifetime = Duration::from_secs(15);
    let ends = Instant::now() + lifetime;
    let (options, file) = client(&server, "laptop", &key.token_for(lifetime), &service);
    let mut client = Client::start(options).await;
    responds(server.http).await;
    let epoch = server.status().await["clients"][0]["epoch"].clone();
    let mut running = held(&server, &service).await;
    replace(&file, &key.token(|_| {}));
    logs(&mut client, "the server accepted the changed credential").await;
    let past = ends.saturating_duration_since(Instant::now()) + Duration::from_secs(2);
    stays("the link", past, async || {
        let status = server.status().await;
        status["clients"][0]["epoch"] == epoch
    })
    .await;
    service.release.send_replace(true);
    let response = running.read_to_end().await;
    assert_eq!(response.status(), 200, "{}", response.text());
}

#[tokio::test]
async fn p_1_22_a_token_of_another_user_does_not_renew_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k1");
    let (server, _) = server_of_file(dir.path(), &[&key]).await;
    let service = Service::site("site").await;
    let (options, file) = client(&server, "laptop", &key.token(|_| {}), &service);
    let mut client = Client::start(options).await;
    responds(server.http).await;
    let epoch = server.status().await["clients"][0]["epoch"].clone();
    replace(&file, &key.token(|claims| claims["sub"] = json!("bob")));
    logs(&mut client, "of another user").await;
    let scoped = key.token(|claims| claims["adit"] = json!({ "groups": ["office"] }));
    replace(&file, &scoped);
    logs(&mut client, "has other scopes").await;
    replace(&file, &key.token(|claims| claims["aud"] = json!("other")));
    logs(&mut client, "did not accept these credentials").await;
    // The link has its first credential.
    let status = server.status().await;
    assert_eq!(status["clients"][0]["epoch"], epoch);
    assert_eq!(status["clients"][0]["user"], "alice");
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused_as_every_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("k1");
    let (mut server, _) = server_of_file(dir.path(), &[&key]).await;
    let service = Service::site("site").await;
    let wrong = [
        (
            "audience",
            key.token(|claims| claims["aud"] = json!("other")),
            "wrong audience of a JWT",
        ),
        (
            "issuer",
            key.token(|claims| claims["iss"] = json!("other")),
            "unknown issuer of a JWT",
        ),
        (
            "key",
            Key::new("k2").token(|_| {}),
            "unknown signing key of a JWT",
        ),
        (
            "signature",
            Key::new("k1").token(|_| {}),
            "wrong signature of a JWT",
        ),
        (
            "expired",
            key.token(|claims| claims["exp"] = json!(1)),
            "reason=expired",
        ),
    ];
    let mut texts = Vec::new();
    for (id, token, cause) in wrong {
        let (options, _) = client(&server, id, &token, &service);
        let mut client = Client::spawn(options);
        logs(&mut client, "did not accept these credentials").await;
        let log = client.process().stderr();
        let line = log
            .lines()
            .find(|line| line.contains("did not accept these credentials"));
        let text = line
            .unwrap()
            .split_once("the server did not accept")
            .unwrap()
            .1;
        texts.push(text.to_owned());
        assert!(!log.contains(cause), "{log}");
        eventually(cause, SOON, async || {
            server.process().stderr().contains(cause).then_some(())
        })
        .await;
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test]
async fn keys_of_a_file_rotate_with_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Key::new("old"), Key::new("new"));
    let (server, file) = server_of_file(dir.path(), &[&old]).await;
    let service = Service::site("site").await;
    let (options, token_file) = client(&server, "laptop", &old.token(|_| {}), &service);
    let mut client = Client::start(options).await;
    responds(server.http).await;
    let epoch = server.status().await["clients"][0]["epoch"].clone();
    let mut running = held(&server, &service).await;
    // Both keys are valid, the client presents a token of the new one, and then the old one leaves.
    replace(&file, &jwks(&[&old, &new]));
    let accepted = "the server accepted the changed credential";
    eventually("a renewal by the new key", SOON, async || {
        // The server looks a few times a second: a token that comes sooner is refused.
        replace(
            &token_file,
            &new.token(|claims| claims["jti"] = json!(now().as_nanos().to_string())),
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.process().stderr().contains(accepted).then_some(())
    })
    .await;
    replace(&file, &jwks(&[&new]));
    stays("the link", Duration::from_secs(2), async || {
        server.status().await["clients"][0]["epoch"] == epoch
    })
    .await;
    service.release.send_replace(true);
    assert_eq!(running.read_to_end().await.status(), 200);
    // Without a renewal, the link of a key that leaves ends.
    replace(&file, &jwks(&[&old]));
    eventually("the end of the link", SOON, async || {
        let status = server.status().await;
        status["clients"].as_array()?.is_empty().then_some(())
    })
    .await;
}

/// Serves a set of keys over HTTP. Returns its URL.
async fn issuer(keys: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let body = keys.lock().unwrap().clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let length = body.len();
                let response = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(response.as_bytes()).await.unwrap();
            });
        }
    });
    url
}

#[tokio::test]
async fn keys_of_a_url_rotate_when_a_token_names_a_new_one() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let keys = Arc::new(Mutex::new(jwks(&[&old])));
    let url = issuer(keys.clone()).await;
    let server = server(&format!("jwks_url: '{url}'")).await;
    let service = Service::site("site").await;
    let (options, _) = client(&server, "first", &old.token(|_| {}), &service);
    let _first = Client::start(options).await;
    responds(server.http).await;
    let epoch = server.status().await["clients"][0]["epoch"].clone();
    *keys.lock().unwrap() = jwks(&[&old, &new]);
    // The regular refresh is minutes away.
    let (options, _) = client(&server, "second", &new.token(|_| {}), &service);
    let second = Client::start(options);
    let _second = within("a client with the new key", SOON, second).await;
    let status = server.status().await;
    let clients = status["clients"].as_array().unwrap();
    let first = clients.iter().find(|client| client["client_id"] == "first");
    assert_eq!(first.unwrap()["epoch"], epoch, "{status}");
}
