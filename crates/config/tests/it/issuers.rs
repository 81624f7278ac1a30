//! Issuers of JWTs in `server.auth`, and clients that present their tokens. F33.

use std::{fs, time::Duration};

use adit_auth::{JwtAlgorithm, JwtUser, UserName};
use adit_config::{ClientOverrides, ServerOverrides, load_client, load_server};
use adit_server::{IssuerSettings, KeySource, Settings};
use adit_tls::Trust;
use secrecy::ExposeSecret;

fn pairs() -> std::iter::Empty<(String, String)> {
    std::iter::empty()
}

/// The settings of a server with this entry, or the error; beside files with keys.
fn load(entry: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put(
        "es.pem",
        &rcgen::KeyPair::generate().unwrap().public_key_pem(),
    );
    put("secret", &"s".repeat(32));
    let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    put("ca.crt", &certificate.cert.pem());
    put(
        "keys.json",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    put(
        "server.yaml",
        &format!("server:\n  auth:\n    - {{ method: jwt, {entry} }}\n"),
    );
    let file = dir.path().join("server.yaml");
    let loaded = load_server(Some(&file), pairs(), &ServerOverrides::default());
    let loaded = loaded.map_err(|error| error.to_string())?;
    Ok(loaded.settings)
}

fn issuer(entry: &str) -> IssuerSettings {
    let settings = load(entry).unwrap();
    assert!(settings.tokens.is_empty());
    assert!(!settings.makes_token, "no token is generated beside it");
    let [issuer] = &settings.issuers[..] else {
        panic!("{:?}", settings.issuers)
    };
    issuer.clone()
}

#[test]
fn an_issuer_has_sane_defaults() {
    let IssuerSettings { rules, keys } =
        issuer("audience: adit, jwks_url: 'https://a.example/keys'");
    assert_eq!(
        (rules.issuer, rules.audience),
        (None, vec!["adit".to_owned()])
    );
    assert_eq!(rules.leeway, Duration::from_secs(60));
    let sub = JwtUser::Claim {
        name: "sub".to_owned(),
        prefix: String::new(),
    };
    assert_eq!(rules.user, sub);
    assert!(rules.scopes.is_unrestricted() && rules.required.is_empty());
    assert_eq!(rules.scopes_claim, "adit");
    let KeySource::JwksUrl(url) = keys else {
        panic!("{keys:?}")
    };
    assert_eq!(url.url.to_string(), "https://a.example/keys");
    assert_eq!((url.algorithm, url.trust), (None, Trust::System));
    assert_eq!((url.refresh.as_secs(), url.timeout.as_secs()), (600, 5));
}

#[test]
fn every_value_of_an_issuer_can_be_set() {
    let IssuerSettings { rules, keys } = issuer(
        "issuer: 'https://a.example', audience: [adit, other], leeway: 5s, user_claim: name, user_prefix: a-, \
         claims: { org: [one, two], env: prod }, scopes_claim: rights, scopes: { groups: [office] }, \
         jwks_url: 'https://a.example/keys', algorithm: RS256, ca_file: ca.crt, refresh: 1m, fetch_timeout: 2s",
    );
    assert_eq!(rules.issuer.as_deref(), Some("https://a.example"));
    assert_eq!(rules.audience, ["adit", "other"]);
    assert_eq!(rules.leeway, Duration::from_secs(5));
    let named = JwtUser::Claim {
        name: "name".to_owned(),
        prefix: "a-".to_owned(),
    };
    assert_eq!(rules.user, named);
    assert_eq!(rules.required["org"], ["one", "two"]);
    assert_eq!(rules.required["env"], ["prod"]);
    assert_eq!(rules.scopes_claim, "rights");
    assert!(rules.scopes.groups.is_some());
    let KeySource::JwksUrl(url) = keys else {
        panic!("{keys:?}")
    };
    assert_eq!(url.algorithm, Some(JwtAlgorithm::Rs256));
    assert!(matches!(url.trust, Trust::Roots(_)));
    assert_eq!((url.refresh.as_secs(), url.timeout.as_secs()), (60, 2));
}

#[test]
fn keys_come_from_one_of_four_places() {
    let source = |keys: &str| issuer(&format!("audience: adit, {keys}")).keys;
    assert!(matches!(
        source("key_file: es.pem, algorithm: ES256"),
        KeySource::PemFile { path, algorithm: JwtAlgorithm::Es256 } if path.is_absolute()
    ));
    assert!(matches!(
        source("secret_file: secret, algorithm: HS256"),
        KeySource::SecretFile { .. }
    ));
    assert!(matches!(
        source("jwks_file: keys.json"),
        KeySource::JwksFile {
            algorithm: None,
            ..
        }
    ));
    assert!(matches!(
        source("jwks_url: 'http://127.0.0.1:9000/keys'"),
        KeySource::JwksUrl(_)
    ));
}

#[test]
fn a_fixed_user_takes_the_place_of_a_claim() {
    let keys = "audience: adit, jwks_file: keys.json";
    let fixed = issuer(&format!("{keys}, user: ci")).rules.user;
    assert_eq!(fixed, JwtUser::Fixed(UserName::parse("ci").unwrap()));
}

#[test]
fn an_error_names_what_would_be_right() {
    let keys = "audience: adit, jwks_file: keys.json";
    for (entry, parts) in [
        (
            "jwks_file: keys.json".to_owned(),
            &["`audience` is missing", "other systems"][..],
        ),
        (
            "audience: [], jwks_file: keys.json".to_owned(),
            &["the list is empty"],
        ),
        (
            "audience: adit".to_owned(),
            &["`key_file` is missing", "jwks_url"],
        ),
        (
            format!("{keys}, key_file: es.pem"),
            &["expected one of key_file, secret_file, jwks_file, jwks_url"],
        ),
        (
            "audience: adit, key_file: es.pem".to_owned(),
            &["`algorithm` is missing", "`key_file`"],
        ),
        (
            "audience: adit, key_file: es.pem, algorithm: RS256".to_owned(),
            &["es.pem", "RS256"],
        ),
        (
            "audience: adit, key_file: secret, algorithm: HS256".to_owned(),
            &["HS256"],
        ),
        (
            "audience: adit, key_file: nowhere.pem, algorithm: ES256".to_owned(),
            &["nowhere.pem"],
        ),
        (
            "audience: adit, secret_file: es.pem, algorithm: HS256".to_owned(),
            &["key in PEM", "`key_file`"],
        ),
        (
            "audience: adit, secret_file: secret, algorithm: HS512".to_owned(),
            &["32 bytes", "64"],
        ),
        (
            format!("{keys}, algorithm: none"),
            &["unknown algorithm", "EdDSA"],
        ),
        (
            format!("{keys}, algorithm: RS256"),
            &["keys.json", "no key that can be used"],
        ),
        (
            "audience: adit, jwks_url: 'http://a.example/keys'".to_owned(),
            &["https only"],
        ),
        (
            "audience: adit, jwks_url: keys".to_owned(),
            &["invalid URL"],
        ),
        (format!("{keys}, leeway: 11m"), &["at most 600s"]),
        (
            format!("{keys}, user: ci, user_claim: sub"),
            &["expected either `user`"],
        ),
        (
            format!("{keys}, user_prefix: '-'"),
            &["user name \"-\" begins with '-'"],
        ),
        (format!("{keys}, claims: {{ org: 7 }}"), &["claims.org"]),
        (format!("{keys}, refresh: 1m"), &["unknown key `refresh`"]),
        (format!("{keys}, token: abcdef"), &["unknown key `token`"]),
        (format!("{keys}, alg: RS256"), &["`algorithm`"]),
    ] {
        let error = load(&entry).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{entry}: {error}");
        }
    }
}

#[test]
fn a_shared_group_may_have_users_of_an_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.yaml");
    let users = |users: &str| {
        let text = format!(
            "server:\n  auth: {{ method: jwt, audience: adit, jwks_url: 'https://a.example/', user_prefix: a- }}\n  \
             shared_groups: [{{ group: office, users: [{users}] }}]\n"
        );
        fs::write(&file, text).unwrap();
        let loaded = load_server(Some(&file), pairs(), &ServerOverrides::default());
        loaded.unwrap().warnings
    };
    assert_eq!(users("a-ann, a-bob"), [""; 0]);
    let [warning] = &users("a-ann, bob")[..] else {
        panic!("one warning is expected");
    };
    assert!(warning.contains("the user bob"), "{warning}");
}

#[test]
fn a_client_presents_a_long_jwt() {
    let dir = tempfile::tempdir().unwrap();
    let jwt = format!("eyJhbGciOiJFUzI1NiJ9.{}.c2ln", "e".repeat(2_900));
    let load = |token: &str| {
        fs::write(dir.path().join("token"), format!("{token}\n")).unwrap();
        let file = dir.path().join("client.yaml");
        let text = "client: { server_addr: a.example, auth_token_file: token, tunnels: [{ name: web, local_port: 80 }] }";
        fs::write(&file, text).unwrap();
        let overrides = ClientOverrides {
            state_dir: Some(dir.path().to_owned()),
            ..ClientOverrides::default()
        };
        load_client(Some(&file), pairs(), &overrides)
    };
    let loaded = load(&jwt).unwrap();
    let token = loaded.settings.token.unwrap();
    assert_eq!(token.expose_secret(), jwt);
    let watched = loaded.files.iter();
    assert!(
        watched.clone().any(|file| file.ends_with("token")),
        "{watched:?}"
    );
    let longer = load(&(jwt + &"e".repeat(200))).unwrap_err().to_string();
    assert!(
        longer.contains("is a JWT of more than 3072 bytes"),
        "{longer}"
    );
    let text = load(&"x".repeat(257)).unwrap_err().to_string();
    assert!(text.contains("at most 256 bytes"), "{text}");
}
