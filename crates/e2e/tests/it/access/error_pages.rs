//! Error pages of the configuration, by status and reason. F52.

use std::{fs, sync::Arc};

use adit_e2e::{Server, ServerOptions, Visitor, eventually};

use super::{SOON, get_with, source, verdict};

const CONFIG: &str = "server:
  timeouts: { startup_grace: 0s }
  layers: [{ ip: { deny: [127.8.0.66] } }]
  error_pages:
    - { reason: access_denied, html_file: denied.html }
    - { status: [404, 403], html_file: sorry.html, json_file: sorry.json }
";

#[tokio::test]
async fn pages_of_the_configuration_replace_the_texts() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| fs::write(state.path().join(name), text).unwrap();
    write("denied.html", "<p>closed");
    write("sorry.html", "<p>{{status}} {{reason}} {{request_id}}");
    write("sorry.json", "{\"status\":{{status}}}");
    let options = ServerOptions {
        config: CONFIG.to_owned(),
        state: Some(state.clone()),
        ..ServerOptions::default()
    };
    let server = Server::start(options).await;
    let visit = async |last: u8, accept: &str| {
        let mut visitor = Visitor::http1_from(source(last), server.http, "a.localhost").await;
        get_with(&mut visitor, "/", &[("accept", accept)]).await
    };
    let page = visit(1, "text/html,*/*;q=0.8").await;
    assert_eq!(verdict(&page), (404, "no_tunnel"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let id = page.header("adit-request-id");
    assert_eq!(page.text(), format!("<p>404 no_tunnel {id}"));
    let json = visit(1, "application/json").await;
    assert_eq!(json.header("content-type"), "application/json");
    assert_eq!(json.text(), "{\"status\":404}");
    let text = visit(1, "*/*").await;
    assert!(text.text().contains("reason:  no_tunnel"));
    let denied = visit(66, "text/html").await;
    assert_eq!(verdict(&denied), (403, "access_denied"));
    assert_eq!(denied.text(), "<p>closed");
    // The first page has no JSON.
    assert_eq!(
        visit(66, "application/json").await.text(),
        "{\"status\":403}"
    );
    write("sorry.html", "<p>changed");
    eventually("the changed page", SOON, async || {
        (visit(1, "text/html").await.text() == "<p>changed").then_some(())
    })
    .await;
}
