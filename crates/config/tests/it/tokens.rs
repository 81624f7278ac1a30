//! The sources of tokens, the characters that belong to a token, and the tokens that are refused. F01.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use adit_config::{
    ClientOverrides, ConfigError, Loaded, ServerOverrides, StateDir, load_client, load_server,
};
use secrecy::ExposeSecret;

type Pairs<'a> = &'a [(&'a str, &'a str)];

const TUNNEL: &str = "tunnels: [{ name: web, local_port: 80 }]";

/// A directory with files, which is the state directory as well.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn load_client(
        &self,
        text: &str,
        pairs: Pairs<'_>,
        overrides: ClientOverrides,
    ) -> Result<Loaded<adit_client::Settings>, ConfigError> {
        let file = self.put("client.yaml", text);
        let overrides = ClientOverrides {
            state_dir: Some(self.0.path().to_owned()),
            ..overrides
        };
        load_client(Some(&file), owned(pairs), &overrides)
    }

    fn client(&self, text: &str, pairs: Pairs<'_>) -> Result<String, ConfigError> {
        let loaded = self.load_client(text, pairs, ClientOverrides::default())?;
        Ok(loaded
            .settings
            .token
            .as_ref()
            .unwrap()
            .expose_secret()
            .to_owned())
    }

    fn load_server(
        &self,
        text: &str,
        pairs: Pairs<'_>,
    ) -> Result<Loaded<adit_server::Settings>, ConfigError> {
        let file = self.put("server.yaml", text);
        load_server(Some(&file), owned(pairs), &ServerOverrides::default())
    }

    fn server(&self, text: &str, pairs: Pairs<'_>) -> Result<Vec<(String, String)>, ConfigError> {
        let tokens = self.load_server(text, pairs)?.settings.tokens;
        let pair = |named: &adit_server::StaticToken| {
            (
                named.user.to_string(),
                named.token.expose_secret().to_owned(),
            )
        };
        Ok(tokens.iter().map(pair).collect())
    }
}

fn owned(pairs: Pairs<'_>) -> impl Iterator<Item = (String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect::<Vec<_>>().into_iter()
}

fn pair(user: &str, token: &str) -> (String, String) {
    (user.to_owned(), token.to_owned())
}

#[test]
fn the_clients_token_is_that_of_the_highest_layer() {
    let place = Place::new();
    let flag = place.put("flag", "of-flag\n");
    place.put("beside", " of-beside\n");
    place.put("token", "of-state\n");
    let both = "client: { auth_token: of-file, auth_token_file: beside }";
    let beside = "client: { auth_token_file: beside }";
    let env: Pairs<'_> = &[("ADIT__TOKEN", "of-env")];
    let key: Pairs<'_> = &[
        ("ADIT__TOKEN", "of-env"),
        ("ADIT__CLIENT__AUTH_TOKEN", "of-key"),
    ];
    let file: Pairs<'_> = &[
        ("ADIT__TOKEN", "of-env"),
        ("ADIT__CLIENT__AUTH_TOKEN_FILE", flag.to_str().unwrap()),
    ];
    for (text, pairs, token) in [
        (both, env, "of-env"),
        (both, key, "of-key"),
        (beside, file, "of-flag"),
        (beside, env, "of-env"),
        (both, &[][..], "of-file"),
        (beside, &[], "of-beside"),
        ("client: {}", env, "of-env"),
        ("client: {}", &[], "of-state"),
    ] {
        assert_eq!(
            place.client(text, pairs).unwrap(),
            token,
            "{text} {pairs:?}"
        );
    }
    let overrides = ClientOverrides {
        token_file: Some(flag),
        ..ClientOverrides::default()
    };
    let loaded = place.load_client(both, key, overrides).unwrap();
    assert_eq!(
        loaded.settings.token.as_ref().unwrap().expose_secret(),
        "of-flag"
    );
}

#[test]
fn server_tokens_come_from_lists_files_and_variables() {
    let place = Place::new();
    place.put("t", "third-token\n");
    let list = "server: { auth: [{ method: token, token: first-token, user: ann }, \
                { token: second-token, user: ann }, { token_file: t }] }";
    let ann = [pair("ann", "first-token"), pair("ann", "second-token")];
    let env: Pairs<'_> = &[("ADIT__TOKEN", "of-env\n")];
    let of_env = pair("default", "of-env");
    let in_file = place.server(list, &[]).unwrap();
    assert_eq!(
        in_file,
        [&ann[..], &[pair("default", "third-token")]].concat()
    );
    // The variable is the token of the default user only.
    assert_eq!(
        place.server(list, env).unwrap(),
        [&ann[..], std::slice::from_ref(&of_env)].concat()
    );
    let only_ann = "server: { auth: { token: first-token, user: ann } }";
    let loaded = place.load_server(only_ann, env).unwrap();
    assert_eq!(loaded.settings.tokens.len(), 1);
    assert!(
        loaded.warnings[0].contains("ADIT__TOKEN is ignored"),
        "{:?}",
        loaded.warnings
    );
    for text in ["server: { auth: { token: first-token } }", "server: {}"] {
        let expected = std::slice::from_ref(&of_env);
        assert_eq!(place.server(text, env).unwrap(), expected, "{text}");
    }
}

#[test]
fn the_variable_is_for_its_entry_beside_other_users() {
    let place = Place::new();
    let env: Pairs<'_> = &[("ADIT__TOKEN", "of-env")];
    let others = "{ user: bob, token: of-bob }";
    for entry in [
        "{ method: token }",
        "{ scopes: { groups: [office] } }",
        "{ user: default, scopes: { groups: [office] } }",
    ] {
        let text = format!("server: {{ auth: [{entry}, {others}] }}");
        let tokens = place.server(&text, env).unwrap();
        let expected = [pair("bob", "of-bob"), pair("default", "of-env")];
        assert_eq!(tokens, expected, "{entry}");
        let scopes = place.load_server(&text, env).unwrap().settings.tokens;
        let is_restricted = scopes[1].scopes.groups.is_some();
        assert_eq!(is_restricted, entry.contains("groups"), "{entry}");
    }
    let twice = "server: { auth: [{ scopes: { groups: [a] } }, { scopes: { groups: [b] } }] }";
    let error = place.server(twice, env).unwrap_err().to_string();
    assert!(error.contains("two entries"), "{error}");
}

#[test]
fn a_token_is_listed_once() {
    let place = Place::new();
    let text = "server: { auth: [{ user: a, token: not-shown, scopes: { groups: [b] } }, { user: a, token: not-shown }] }";
    let error = place.server(text, &[]).unwrap_err().to_string();
    assert!(error.contains("listed twice"), "{error}");
    assert!(!error.contains("not-shown"), "{error}");
}

#[test]
fn only_blanks_inside_a_token_belong_to_it() {
    let place = Place::new();
    let passphrase = "a long random text";
    place.put("t", &format!("\t{passphrase}\r\n\n"));
    let padded = format!(" {passphrase}\n");
    for (text, pairs) in [
        (
            "client: { auth_token: \"  a long random text\\n\" }",
            &[][..],
        ),
        ("client: { auth_token_file: t }", &[]),
        ("client: {}", &[("ADIT__TOKEN", &*padded)]),
        ("client: {}", &[("ADIT__CLIENT__AUTH_TOKEN", &*padded)]),
    ] {
        assert_eq!(place.client(text, pairs).unwrap(), passphrase, "{text}");
    }
    for (text, pairs) in [
        (
            "server: { auth: { token: \" a long random text\\n\" } }",
            &[][..],
        ),
        ("server: { auth: { token_file: t } }", &[]),
        ("server: {}", &[("ADIT__TOKEN", &*padded)]),
        ("server: {}", &[("ADIT__SERVER__AUTH__TOKEN", &*padded)]),
    ] {
        let expected = [pair("default", passphrase)];
        assert_eq!(place.server(text, pairs).unwrap(), expected, "{text}");
    }
}

#[test]
fn an_invalid_client_token_is_an_error_with_its_place() {
    let place = Place::new();
    let client = |token: &str| {
        format!("client:\n  server_addr: 192.0.2.1\n  auth_token: {token}\n  {TUNNEL}\n")
    };
    for (token, expected) in [
        ("\"a\\nb\"", "line break"),
        ("\"\"", "is empty"),
        ("\" \\n\"", "is empty"),
        ("1234567", "expected a token as text"),
        ("[a, b]", "expected a token as text"),
        ("", "expected a token as text"),
    ] {
        let error = place.client(&client(token), &[]).unwrap_err();
        assert!(!error.waits_for_server(), "{token}: {error}");
        assert_eq!(
            (error.line(), error.key()),
            (Some(3), "client.auth_token"),
            "{token}: {error}"
        );
        assert!(
            error.column().is_some() && error.message().contains(expected),
            "{token}: {error}"
        );
    }
    for name in ["ADIT__TOKEN", "ADIT__CLIENT__AUTH_TOKEN"] {
        let error = place.client(&format!("client: {{ {TUNNEL} }}"), &[(name, "a\nb")]);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: the token ")), "{error}");
    }
    place.put("t", "a\nb");
    let error = place.client(&format!("client: {{ auth_token_file: t, {TUNNEL} }}"), &[]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("client.yaml:1:") && error.contains("/t"),
        "{error}"
    );
    place.put("token", "\n");
    let error = place
        .client(&format!("client: {{ {TUNNEL} }}"), &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("/token: the token is empty"),
        "{error}"
    );
}

#[test]
fn only_a_client_that_names_neither_server_nor_token_waits() {
    let place = Place::new();
    let waits = |text: &str| place.client(text, &[]).unwrap_err();
    assert!(waits(&format!("client: {{ {TUNNEL} }}")).waits_for_server());
    for keys in ["server_addr: 192.0.2.1, ", "server_port: 7000, "] {
        let error = waits(&format!("client: {{ {keys}{TUNNEL} }}"));
        assert!(!error.waits_for_server(), "{error}");
        for way in [
            "ADIT__TOKEN",
            "--token-file",
            "client.auth_token ",
            "client.auth_token_file",
        ] {
            assert!(error.help().unwrap().contains(way), "{error}");
        }
    }
    // Without a tunnel the client does not wait for a server.
    let error = waits("client: {}");
    assert!(
        !error.waits_for_server() && error.message().contains("no tunnel"),
        "{error}"
    );
    // A client does not wait if the settings have a mistake either.
    assert!(!waits(&format!("client: {{ lanes: many, {TUNNEL} }}")).waits_for_server());
    // A server runs, and has stored no token.
    let state = StateDir::new(place.0.path());
    let lock = fs::File::create(state.lock_file()).unwrap();
    lock.lock().unwrap();
    place.put(
        "server.json",
        "{\"pid\":1,\"tunnel_addr\":\"127.0.0.1:1\",\"http_addr\":\"127.0.0.1:2\"}",
    );
    let error = waits(&format!("client: {{ {TUNNEL} }}"));
    assert!(
        !error.waits_for_server() && error.message().contains("its own file"),
        "{error}"
    );
}

#[test]
fn the_server_refuses_a_token_that_can_be_guessed() {
    let place = Place::new();
    place.put("t", "five5\n");
    for (text, pairs) in [
        ("server: { auth: { token: x } }", &[][..]),
        ("server: { auth: { token: five5 } }", &[]),
        ("server: { auth: { token_file: t } }", &[]),
        ("server: {}", &[("ADIT__TOKEN", "five5")]),
    ] {
        let error = place.server(text, pairs).unwrap_err().to_string();
        assert!(
            error.contains("shorter than 6 characters"),
            "{text}: {error}"
        );
        assert!(!error.contains("five5"), "{error}");
    }
    assert!(
        place
            .server("server: { auth: { token: sixsix } }", &[])
            .is_ok()
    );
}

fn with_mode(place: &Place, mode: u32) -> Result<Vec<String>, ConfigError> {
    let file = place.put("t", "a-good-token");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let client = place.load_client(
        "client: { auth_token_file: t }",
        &[],
        ClientOverrides::default(),
    );
    let server = place.load_server("server: { auth: { token_file: t } }", &[]);
    assert_eq!(client.is_ok(), server.is_ok(), "both sides judge alike");
    client.map(|loaded| loaded.warnings)
}

#[test]
fn writable_token_files_are_refused_and_readable_ones_a_warning() {
    let place = Place::new();
    let error = with_mode(&place, 0o666).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    let warnings = with_mode(&place, 0o644).unwrap();
    assert!(warnings[0].contains("can read"), "{warnings:?}");
    assert_eq!(with_mode(&place, 0o600).unwrap(), Vec::<String>::new());
}

#[test]
fn a_token_file_that_never_ends_is_refused() {
    let place = Place::new();
    let overrides = ClientOverrides {
        token_file: Some(Path::new("/dev/zero").to_owned()),
        ..ClientOverrides::default()
    };
    let error = place.load_client("client: {}", &[], overrides).unwrap_err();
    assert!(error.message().contains("is larger than"), "{error}");
}

#[test]
fn a_variable_with_one_underscore_is_warned_of() {
    let place = Place::new();
    let pairs: Pairs<'_> = &[("ADIT_TOKEN", "not-shown"), ("ADIT__TOKEN", "a-good-token")];
    let loaded = place.load_client("client: {}", pairs, ClientOverrides::default());
    let warnings = loaded.unwrap().warnings;
    assert!(warnings[0].contains("ADIT__TOKEN"), "{warnings:?}");
    assert!(!warnings[0].contains("not-shown"), "{warnings:?}");
    assert_eq!(
        place.load_server("server: {}", pairs).unwrap().warnings,
        warnings
    );
}

#[test]
fn scopes_of_the_file_restrict_the_token_of_the_environment() {
    let place = Place::new();
    let text = "server: { auth: { scopes: { groups: [office] } } }";
    let token = [("ADIT__TOKEN", "a-token-of-some-length")];
    let loaded = place.load_server(text, &token).unwrap();
    let [token] = &loaded.settings.tokens[..] else {
        panic!("{:?}", loaded.settings.tokens)
    };
    assert!(token.scopes.groups.is_some());
    // Without the token, no client would be restricted.
    let error = place.load_server(text, &[]).err().unwrap().to_string();
    assert!(error.contains("none is given"), "{error}");
    let replaced = "server: { auth: { token: another-token-0123, scopes: { groups: [office] } } }";
    let loaded = place.load_server(replaced, &[("ADIT__TOKEN", "a-token-of-some-length")]);
    assert!(loaded.unwrap().settings.tokens[0].scopes.groups.is_some());
}
