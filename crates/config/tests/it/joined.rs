//! A server that the client has joined: when it is used, and what takes precedence over it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use adit_client::{Joined, JoinedCertificate, JoinedCredential, JoinedTrust, Settings};
use adit_config::{ClientOverrides, ConfigError, Loaded, RunningServer, StateDir, load_client};
use secrecy::ExposeSecret;

const TUNNEL: &str = "tunnels: [{ name: web, local_port: 80 }]";

fn join(dir: &Path) -> StateDir {
    let state = StateDir::new(dir);
    let joined = Joined {
        server: "tunnel.example.com:7443".to_owned(),
        user: "ann".to_owned(),
        client_id: Some("office-1".to_owned()),
        trust: JoinedTrust::Public,
        credential: JoinedCredential::Key("adit_key_of_the_join".into()),
    };
    joined.write(&state.joined_file()).unwrap();
    state
}

fn load(dir: &Path, keys: &str) -> Result<Loaded<Settings>, ConfigError> {
    let file = dir.join("client.yaml");
    fs::write(&file, format!("client: {{ {keys} {TUNNEL} }}")).unwrap();
    let overrides = ClientOverrides {
        state_dir: Some(dir.to_owned()),
        ..ClientOverrides::default()
    };
    load_client(Some(&file), std::iter::empty(), &overrides)
}

fn token(settings: &Settings) -> Option<&str> {
    settings.token.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn a_joined_server_that_others_can_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = join(dir.path()).joined_file();
    assert_eq!(load(dir.path(), "").unwrap().warnings, [""; 0]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = load(dir.path(), "").unwrap().warnings;
    assert!(
        warnings[0].contains("joined.json") && warnings[0].contains("chmod 600"),
        "{warnings:?}"
    );
}

#[test]
fn a_token_in_a_file_that_others_can_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.yaml");
    let keys = "server_addr: a.test, auth_token: a-token-of-the-test,";
    let has_warning = |mode: u32| {
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = load(dir.path(), keys).unwrap().warnings;
        warnings
            .iter()
            .any(|text| text.contains("client.yaml") && text.contains("chmod 600"))
    };
    assert!(has_warning(0o644));
    assert!(!has_warning(0o600));
}

#[test]
fn a_joined_client_keeps_its_client_id_unless_another_is_set() {
    let dir = tempfile::tempdir().unwrap();
    join(dir.path());
    let ids = |keys: &str| {
        let settings = load(dir.path(), keys).unwrap().settings;
        (settings.client_id, settings.group_id)
    };
    let both = |id: &str| (id.to_owned(), id.to_owned());
    assert_eq!(ids(""), both("office-1"));
    assert_eq!(ids("client_id: other,"), both("other"));
    assert_ne!(
        ids("server_addr: a.test, auth_token: a-token-of-the-other,").0,
        "office-1"
    );
}

#[test]
fn tls_settings_beside_a_joined_certificate_need_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let state = join(dir.path());
    let mut joined = Joined::read(&state.joined_file()).unwrap().unwrap();
    joined.credential = JoinedCredential::Certificate(JoinedCertificate {
        certificate: String::new(),
        private_key: "".into(),
        issued_at: 1,
        expires_at: 2,
    });
    joined.write(&state.joined_file()).unwrap();
    let error = load(dir.path(), "tls: true,").unwrap_err();
    assert!(!error.waits_for_server());
    assert!(error.to_string().contains("remove `client.tls`"), "{error}");
}

#[test]
fn a_joined_server_needs_no_setting_and_precedes_a_local_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = join(dir.path());
    let addr = ([127, 0, 0, 1], 7000).into();
    let local = RunningServer {
        pid: 1,
        tunnel_addr: addr,
        http_addr: addr,
        https_addr: None,
        admin_addr: None,
        own_ca: false,
    };
    fs::write(state.server_file(), serde_json::to_vec(&local).unwrap()).unwrap();
    fs::write(state.token_file(), "a-token-of-this-machine").unwrap();
    let loaded = load(dir.path(), "").unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.server_addr(), "tunnel.example.com:7443");
    assert_eq!(token(settings), Some("adit_key_of_the_join"));
    assert!(settings.tls.is_some());
    assert_eq!(settings.joined.as_deref(), Some(&*state.joined_file()));
    assert!(loaded.files.contains(&state.joined_file()));
}

#[test]
fn another_server_has_nothing_of_the_joined_one() {
    let dir = tempfile::tempdir().unwrap();
    join(dir.path());
    let named = "server_addr: other.example.com, auth_token: another-token-of-length,";
    let settings = load(dir.path(), named).unwrap().settings;
    assert_eq!(settings.server_addr(), "other.example.com:7000");
    assert_eq!(token(&settings), Some("another-token-of-length"));
    assert_eq!(settings.joined, None);
    // The same server by its name is the joined one.
    let same = "server_addr: tunnel.example.com, server_port: 7443,";
    let settings = load(dir.path(), same).unwrap().settings;
    assert_eq!(token(&settings), Some("adit_key_of_the_join"));
}

#[test]
fn other_tls_is_not_trusted_to_change_the_file() {
    let dir = tempfile::tempdir().unwrap();
    join(dir.path());
    let settings = load(dir.path(), "tls: off,").unwrap().settings;
    assert_eq!(settings.tls, None);
    assert_eq!(settings.joined, None);
}

#[test]
fn a_damaged_file_matters_only_where_it_would_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let state = join(dir.path());
    fs::write(state.joined_file(), "{").unwrap();
    let error = load(dir.path(), "").err().unwrap().to_string();
    assert!(
        error.contains("joined.json") && error.contains("adit join"),
        "{error}"
    );
    let named = "server_addr: other.example.com, auth_token: another-token-of-length,";
    let loaded = load(dir.path(), named).unwrap();
    assert!(
        { loaded.warnings.iter() }.any(|text| text.contains("joined.json")),
        "{:?}",
        loaded.warnings
    );
}
