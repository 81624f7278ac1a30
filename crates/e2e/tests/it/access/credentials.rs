//! The layers `basic_auth` and `header_token`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use adit_e2e::{Visitor, binary, connect_from, empty, eventually};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use tokio_tungstenite::{
    client_async,
    tungstenite::{self, client::IntoClientRequest},
};

use super::{HOST, SOON, Web, get_with, received, source, verdict};

const ALICE: &str =
    "[{ basic_auth: { users: [{ name: alice, password: correct horse }], realm: office } }]";
const TOKEN: &str = "a token of the test";
const TOKENS: &str = "[{ header_token: { tokens: [a token of the test] } }]";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// `adit hash-password`, with this text on standard input.
fn hash_password(text: &str) -> (bool, String) {
    let mut process = Command::new(binary("adit"))
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = process.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.success(), text.trim().to_owned())
}

#[tokio::test]
async fn p_15_6_a_user_is_admitted_and_the_service_learns_the_name() {
    let web = Web::new("", ALICE).await;
    let asked = web.get(1, "/request").await;
    assert_eq!(verdict(&asked), (401, "unauthenticated_visitor"));
    let challenge = asked.header("www-authenticate");
    assert_eq!(challenge, "Basic realm=\"office\", charset=\"UTF-8\"");
    for (user, password) in [("alice", "wrong horse"), ("bob", "correct horse"), ("", "")] {
        let line = basic(user, password);
        let denied = web
            .get_with(1, "/request", &[("authorization", &line)])
            .await;
        assert_eq!(verdict(&denied), (401, "unauthenticated_visitor"), "{user}");
    }
    let line = basic("alice", "correct horse");
    let spoofed = [
        ("authorization", &*line),
        ("adit-user", "root"),
        ("adit_user", "root"),
    ];
    let admitted = web.get_with(1, "/request", &spoofed).await;
    assert_eq!(admitted.status, 200);
    assert_eq!(received(&admitted, "adit-user"), ["alice"]);
    assert!(received(&admitted, "adit_user").is_empty());
    assert!(received(&admitted, "authorization").is_empty());
    assert_eq!(web.service.stats.begun(), 1);
    // Three wrong ones and a right one; the answer to that is kept.
    assert_eq!(web.count("/access/password_checks").await, 4);
    for _ in 0..5 {
        let again = web.get_with(2, "/who", &[("authorization", &line)]).await;
        assert_eq!(again.status, 200);
    }
    assert_eq!(web.count("/access/password_checks").await, 4);
    assert_eq!(web.count("/access/denied/basic_auth").await, 4);
}

/// Regression of others: an answer of one tunnel was taken for another, and a changed password had no effect at once.
#[tokio::test]
async fn p_15_6_kept_answers_hold_for_one_tunnel_and_one_revision() {
    let mut web = Web::new("", ALICE).await;
    let other = adit_e2e::ClientOptions::file(
        &web.server,
        "other",
        &super::file(&[format!(
            "name: other, local_port: {}, layers: {}",
            web.service.port(),
            ALICE.replace("correct horse", "another horse")
        )]),
    );
    let _other = adit_e2e::Client::start(other).await;
    let line = basic("alice", "correct horse");
    let lines = [("authorization", &*line)];
    assert_eq!(web.get_with(1, "/who", &lines).await.status, 200);
    let mut there = Visitor::http1_from(source(1), web.server.http, "other.localhost").await;
    let denied = get_with(&mut there, "/who", &lines).await;
    assert_eq!(verdict(&denied), (401, "unauthenticated_visitor"));

    web.change(&ALICE.replace("correct horse", "changed horse"));
    eventually("the changed password", SOON, async || {
        let old = web.get_with(1, "/who", &lines).await;
        (old.status == 401).then_some(())
    })
    .await;
    let line = basic("alice", "changed horse");
    let lines = [("authorization", &*line)];
    assert_eq!(web.get_with(1, "/who", &lines).await.status, 200);
}

#[tokio::test]
async fn p_15_6_hashes_are_made_by_the_command() {
    let (made, hash) = hash_password("correct horse\n");
    assert!(made && hash.starts_with("$argon2id$"), "{hash}");
    let (made, error) = hash_password("short\n");
    assert!(!made && error.contains("from 8 to 512 bytes"), "{error}");
    let layers = format!(
        "[{{ basic_auth: {{ users: [{{ name: alice, hash: \"{hash}\" }}], keep: true }} }}]"
    );
    let web = Web::new("", &layers).await;
    let line = basic("alice", "correct horse");
    let admitted = web
        .get_with(1, "/request", &[("authorization", &line)])
        .await;
    assert_eq!(admitted.status, 200);
    assert_eq!(received(&admitted, "authorization"), [line]);
}

/// A hash of another client must not take up the server's memory.
#[tokio::test]
async fn p_15_6_many_requests_at_once_need_one_check() {
    let server = "server: { limits: { max_password_checks: 1, max_waiting_password_checks: 4 } }";
    let web = Web::new(server, ALICE).await;
    let visitor = Visitor::http2(web.server.http, HOST).await;
    let line = basic("alice", "correct horse");
    let requests = (0..40).map(|_| {
        let (mut visitor, line) = (visitor.share(), line.clone());
        async move {
            get_with(&mut visitor, "/who", &[("authorization", &line)])
                .await
                .status
        }
    });
    let statuses = futures_util::future::join_all(requests).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(web.count("/access/password_checks").await, 1);
    // One address may have one of the four places: other credentials get 503.
    let requests = (0..20).map(|number| {
        let mut visitor = visitor.share();
        let line = basic("alice", &format!("guess {number:09}"));
        async move { get_with(&mut visitor, "/who", &[("authorization", &line)]).await }
    });
    let responses = futures_util::future::join_all(requests).await;
    let busy: Vec<_> = { responses.iter() }
        .filter(|response| response.status == 503)
        .collect();
    assert!(!busy.is_empty());
    for response in &busy {
        assert_eq!(verdict(response), (503, "limit"));
        assert_eq!(response.header("retry-after"), "1");
    }
    assert!(responses.iter().all(|response| response.status != 200));
    // The verified user is not kept waiting.
    let again = web.get_with(1, "/who", &[("authorization", &line)]).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn p_15_7_either_header_carries_a_token_and_is_removed() {
    let web = Web::new("", TOKENS).await;
    for lines in [
        &[][..],
        &[("authorization", "Bearer another token")],
        &[("adit-access-token", "another token of mine")],
    ] {
        let denied = web.get_with(1, "/request", lines).await;
        assert_eq!(verdict(&denied), (401, "unauthenticated_visitor"));
        assert_eq!(denied.header("www-authenticate"), "Bearer");
    }
    let bearer = format!("Bearer {TOKEN}");
    let admitted = web
        .get_with(1, "/request", &[("authorization", &bearer)])
        .await;
    assert_eq!(admitted.status, 200);
    assert!(received(&admitted, "authorization").is_empty());
    let lines = [
        ("adit-access-token", TOKEN),
        ("authorization", "Basic b3du"),
    ];
    let admitted = web.get_with(1, "/request", &lines).await;
    assert_eq!(admitted.status, 200);
    assert!(received(&admitted, "adit-access-token").is_empty());
    assert_eq!(received(&admitted, "authorization"), ["Basic b3du"]);
}

#[tokio::test]
async fn p_15_7_calls_and_websockets_pass_the_same_layer() {
    let web = Web::new("", TOKENS).await;
    let mut visitor = Visitor::http2(web.server.http, HOST).await;
    let mut call = visitor.request(&Method::POST, "/pkg.Echo/Say", empty());
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert(CONTENT_TYPE, grpc);
    let response = visitor.whole(call).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("grpc-status"), "16");
    assert_eq!(response.reason(), "unauthenticated_visitor");

    let stream = connect_from(source(1), web.server.http).await;
    match client_async(format!("ws://{HOST}/"), stream).await {
        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 401),
        other => panic!("{other:?}"),
    }
    // With a token the handshake reaches the service, which does not know WebSocket.
    let mut request = format!("ws://{HOST}/").into_client_request().unwrap();
    let token = HeaderValue::from_static(TOKEN);
    request.headers_mut().insert("adit-access-token", token);
    let stream = connect_from(source(1), web.server.http).await;
    match client_async(request, stream).await {
        Err(tungstenite::Error::Http(response)) => assert_ne!(response.status(), 401),
        other => panic!("{other:?}"),
    }
    assert_eq!(web.service.stats.begun(), 1);
}

/// A visitor of the office needs no password, and its credentials are removed as those of others are.
#[tokio::test]
async fn p_15_3_a_sufficient_address_needs_no_password() {
    let layers = format!(
        "[{{ ip: {{ allow: [127.8.0.1], deny: [127.8.0.66] }}, sufficient: true }}, \
         {{ header_token: {{ tokens: [{TOKEN}] }}, sufficient: true }}, {}",
        ALICE.trim_start_matches('[')
    );
    let web = Web::new("", &layers).await;
    let line = basic("alice", "correct horse");
    let both = [
        ("authorization", &*line),
        ("adit-access-token", TOKEN),
        ("adit-user", "root"),
    ];
    let inside = web.get_with(1, "/request", &both).await;
    assert_eq!(inside.status, 200);
    for name in ["authorization", "adit-access-token", "adit-user"] {
        assert!(received(&inside, name).is_empty(), "{name}");
    }
    assert_eq!(web.count("/access/password_checks").await, 0);
    assert_eq!(
        verdict(&web.get(2, "/who").await),
        (401, "unauthenticated_visitor")
    );
    assert_eq!(web.get_with(2, "/who", &both[..1]).await.status, 200);
    assert_eq!(web.get_with(2, "/who", &both[1..2]).await.status, 200);
    let closed = web.get_with(66, "/who", &both).await;
    assert_eq!(verdict(&closed), (403, "access_denied"));
}

#[tokio::test]
async fn p_15_4_a_dry_run_of_credentials_changes_no_request() {
    let layers = format!(
        "[{{ enforce: false, {} {{ enforce: false, {}",
        ALICE
            .trim_start_matches("[{")
            .trim_end_matches(']')
            .to_owned()
            + ",",
        TOKENS.trim_start_matches("[{")
    );
    let web = Web::new("", &layers).await;
    let line = basic("alice", "correct horse");
    let lines = [("authorization", &*line), ("adit-access-token", TOKEN)];
    let admitted = web.get_with(1, "/request", &lines).await;
    assert_eq!(received(&admitted, "authorization"), [line]);
    assert_eq!(received(&admitted, "adit-access-token"), [TOKEN]);
    assert!(received(&admitted, "adit-user").is_empty());
    assert_eq!(web.get(1, "/who").await.status, 200);
    assert_eq!(web.count("/access/would_deny/basic_auth").await, 1);
    assert_eq!(web.count("/access/would_deny/header_token").await, 1);
}
