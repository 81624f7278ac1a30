//! The layer `ban`, and `adit-server ban`.

use adit_e2e::{Raw, Run, connect_from, run};

use super::{Web, file, is_reset, port_of, reaches, source, verdict};

const RULES: &str = "[{ ban: { after: 3, within: 1m, duration: 1h } }, \
     { header_token: { tokens: [a token of the test] } }]";
const WRONG: &[(&str, &str)] = &[("adit-access-token", "a wrong token of mine")];
const RIGHT: &[(&str, &str)] = &[("adit-access-token", "a token of the test")];

/// `adit-server ban ARGS` on the server's machine.
async fn ban(web: &Web, args: &[&str]) -> Run {
    let state = web.server.state().display().to_string();
    let args = [&["ban"], args, &["--state-dir", &state]].concat();
    run("adit-server", &args, &[], web.server.state()).await
}

#[tokio::test]
async fn p_15_9_denials_lead_to_a_ban_that_can_be_seen_and_ended() {
    let web = Web::new("", RULES).await;
    // A visitor that has not tried a token is not counted.
    for _ in 0..5 {
        assert_eq!(web.get(1, "/who").await.status, 401);
    }
    for _ in 0..3 {
        assert_eq!(web.get_with(1, "/who", WRONG).await.status, 401);
    }
    let banned = web.get_with(1, "/who", RIGHT).await;
    assert_eq!(verdict(&banned), (403, "banned"));
    let wait: u64 = banned.header("retry-after").parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    assert_eq!(web.get_with(2, "/who", RIGHT).await.status, 200);

    let status = web.server.status().await;
    assert_eq!(status["access"]["bans"][0]["network"], "127.8.0.1");
    assert_eq!(status["access"]["bans"][0]["place"], "tunnel office/web");
    let listed = ban(&web, &["list"]).await;
    assert!(listed.stdout.contains("127.8.0.1"), "{listed:?}");
    assert!(listed.stdout.contains("tunnel office/web"), "{listed:?}");
    assert!(listed.stdout.starts_with("network "), "{listed:?}");
    let listed = ban(&web, &["list", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed[0]["network"], "127.8.0.1");
    let wrong = ban(&web, &["clear", "nobody"]).await;
    assert!(
        wrong.stderr.contains("\"nobody\" is neither an address"),
        "{wrong:?}"
    );
    assert_eq!(
        ban(&web, &["clear", "127.8.0.9"]).await.stdout.trim(),
        "0 bans ended"
    );
    assert_eq!(
        ban(&web, &["clear", "127.8.0.1"]).await.stdout.trim(),
        "1 ban ended"
    );
    assert_eq!(web.get_with(1, "/who", RIGHT).await.status, 200);
    assert_eq!(
        ban(&web, &["list"]).await.stdout.trim(),
        "no address is banned"
    );
}

/// A ban of the server follows from denials of tunnels, and holds for connections of TCP as well.
#[tokio::test]
async fn p_15_9_a_ban_of_the_server_holds_for_every_protocol() {
    let config = "server: { layers: [{ ban: { after: 2 } }] }";
    let web = Web::new(config, "[{ ip: { deny: [127.8.0.1] } }]").await;
    let service = adit_e2e::Scripted::start(|stream| async move {
        Raw { stream }.send("hello").await;
    })
    .await;
    let port = service.addr.port();
    let tunnel = file(&[format!(
        "name: ssh, type: tcp, local_port: {port}, remote_port: 0"
    )]);
    let options = adit_e2e::ClientOptions::file(&web.server, "other", &tunnel);
    let _other = adit_e2e::Client::start(options).await;
    let addr = port_of(&web.server, "ssh").await;
    let mut open = Raw {
        stream: connect_from(source(1), addr).await,
    };
    assert_eq!(open.read_text("hello").await.text(), "hello");
    for _ in 0..2 {
        assert_eq!(verdict(&web.get(1, "/who").await), (403, "access_denied"));
    }
    assert_eq!(verdict(&web.get(1, "/who").await), (403, "banned"));
    assert!(is_reset(1, addr).await);
    reaches(&web.server, "/access/denied/ban", 2).await;
    reaches(&web.server, "/tcp/failures/banned", 1).await;
}

/// A ban of one tunnel's list says nothing about the visitors of another tunnel.
#[tokio::test]
async fn p_15_9_a_tunnel_bans_for_itself_alone() {
    let web = Web::new("", RULES).await;
    let port = web.service.port();
    let other = file(&[format!("name: other, local_port: {port}")]);
    let options = adit_e2e::ClientOptions::file(&web.server, "other", &other);
    let _other = adit_e2e::Client::start(options).await;
    for _ in 0..3 {
        web.get_with(1, "/who", WRONG).await;
    }
    assert_eq!(
        verdict(&web.get_with(1, "/who", RIGHT).await),
        (403, "banned")
    );
    let http = web.server.http;
    let mut there = adit_e2e::Visitor::http1_from(source(1), http, "other.localhost").await;
    assert_eq!(there.get("/who").await.status, 200);
}

#[tokio::test]
async fn p_15_4_a_dry_run_of_a_ban_admits_all() {
    let web = Web::new("", &RULES.replacen("} },", "}, enforce: false },", 1)).await;
    for _ in 0..3 {
        web.get_with(1, "/who", WRONG).await;
    }
    assert_eq!(web.get_with(1, "/who", RIGHT).await.status, 200);
    assert_eq!(web.count("/access/would_deny/ban").await, 1);
    assert_eq!(web.count("/access/denied/ban").await, 0);
}
