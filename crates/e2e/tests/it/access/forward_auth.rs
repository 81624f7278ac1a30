//! The layer `forward_auth`, with a small provider.

use adit_e2e::{
    Body, Client, ClientOptions, Server, Service, Visitor, connect_from, empty, feed, full,
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE},
};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_tungstenite::{client_async, tungstenite};

use super::{HOST, ID, SOON, Web, file, get_with, received, source, verdict};

const LAYERS: &str = "[{ forward_auth: sso }]";
const GOOD: (&str, &str) = ("cookie", "session=good");

/// The heads of the requests that the provider receives.
type Asked = mpsc::UnboundedReceiver<(String, HeaderMap)>;

/// A provider: a session admits, a wrong `authorization` gets 401, everybody else is sent to a log-in. `/forbidden` is
/// never admitted, `/large` gets a long response, `/who?endless` one without an end, and `/slow` none.
async fn provider() -> (Service, Asked) {
    let (seen, asked) = mpsc::unbounded_channel();
    let service = Service::start(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, _) = request.into_parts();
            let _ = seen.send((parts.uri.to_string(), parts.headers.clone()));
            let uri = parts.headers["x-forwarded-uri"]
                .to_str()
                .unwrap()
                .to_owned();
            if uri == "/slow" {
                std::future::pending::<()>().await;
            }
            let is_known = parts
                .headers
                .get(COOKIE)
                .is_some_and(|cookie| cookie == "session=good");
            let response = Response::builder();
            let response = match &*uri {
                "/forbidden" => response.status(403).body(full("not for you")),
                "/who?endless" => response.body(endless()),
                "/large" => response.status(403).body(full("x".repeat(200_000))),
                _ if is_known => response
                    .header("remote-user", "alice")
                    .header("remote-groups", "a")
                    .header("remote-groups", "b")
                    .header("x-other", "not copied")
                    .body(empty()),
                _ if parts.headers.contains_key(AUTHORIZATION) => {
                    response.status(401).body(full("wrong"))
                }
                _ => response
                    .status(302)
                    .header(LOCATION, "https://sso.example/login")
                    .header(SET_COOKIE, "state=1")
                    .body(full("log in")),
            };
            Ok(response.unwrap())
        }
    })
    .await;
    (service, asked)
}

/// A large body that does not end before it is unwanted.
fn endless() -> Body {
    let (feeder, body) = feed();
    tokio::spawn(async move {
        feeder.send("x".repeat(200_000)).await;
        feeder.unwanted().await;
    });
    body
}

fn config(provider: &Service) -> String {
    format!(
        "server:\n  forward_auth: [{{ name: sso, url: \"http://{}/verify?a=b\", \
         copy_headers: [remote-user, remote-groups], send_headers: x-tenant, timeout: 500ms }}]\n",
        provider.addr
    )
}

#[tokio::test]
async fn p_15_10_a_session_is_admitted_with_the_headers_of_the_provider() {
    let (provider, mut asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    let lines = [
        GOOD,
        ("x-tenant", "one"),
        ("x-secret", "not sent"),
        ("remote-user", "root"),
        ("remote_user", "root"),
        ("x-other", "of the visitor"),
    ];
    let admitted = web.get_with(1, "/request?c=d", &lines).await;
    assert_eq!(admitted.status, 200);
    assert_eq!(received(&admitted, "remote-user"), ["alice"]);
    assert_eq!(received(&admitted, "remote-groups"), ["a", "b"]);
    assert!(received(&admitted, "remote_user").is_empty());
    assert_eq!(received(&admitted, "x-other"), ["of the visitor"]);
    assert_eq!(received(&admitted, "cookie"), ["session=good"]);
    let (target, head) = asked.recv().await.unwrap();
    assert_eq!(target, "/verify?a=b");
    for (name, value) in [
        ("host", &*provider.addr.to_string()),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-uri", "/request?c=d"),
        ("x-forwarded-for", "127.8.0.1"),
        ("cookie", "session=good"),
        ("x-tenant", "one"),
    ] {
        assert_eq!(head[name], value, "{name}");
    }
    assert!(!head.contains_key("x-secret") && !head.contains_key("remote-user"));
    // One connection carries the requests one after the other.
    for _ in 0..5 {
        assert_eq!(web.get_with(1, "/who", &[GOOD]).await.status, 200);
    }
    assert_eq!(provider.stats.connections(), 1);
}

#[tokio::test]
async fn p_15_10_any_other_response_is_that_of_the_visitor() {
    let (provider, _asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    let login = web.get(1, "/who").await;
    assert_eq!(login.status, 302);
    assert_eq!(login.header("location"), "https://sso.example/login");
    assert_eq!(
        (login.header("set-cookie"), &*login.text()),
        ("state=1", "log in")
    );
    let wrong = web
        .get_with(1, "/who", &[("authorization", "Bearer x")])
        .await;
    assert_eq!((wrong.status.as_u16(), &*wrong.text()), (401, "wrong"));
    let forbidden = web.get_with(1, "/forbidden", &[GOOD]).await;
    assert_eq!(
        (forbidden.status.as_u16(), &*forbidden.text()),
        (403, "not for you")
    );
    assert_eq!(web.service.stats.begun(), 0);
    assert_eq!(web.count("/access/denied/forward_auth").await, 3);
    assert_eq!(web.count("/visitors/failures/access_denied").await, 2);
    assert_eq!(
        web.count("/visitors/failures/unauthenticated_visitor")
            .await,
        1
    );
}

#[tokio::test]
async fn p_15_10_the_provider_receives_no_body() {
    let (provider, mut asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    let mut visitor = web.visitor(1).await;
    let mut request = visitor.request(&Method::POST, "/echo", full("a body"));
    request
        .headers_mut()
        .insert(COOKIE, HeaderValue::from_static(GOOD.1));
    let response = visitor.whole(request).await.unwrap();
    assert_eq!(
        (response.status.as_u16(), &*response.text()),
        (200, "a body")
    );
    let (_, head) = asked.recv().await.unwrap();
    assert_eq!(head["x-forwarded-method"], "POST");
    assert!(!head.contains_key("content-length") && !head.contains_key("transfer-encoding"));
}

/// The body of a response that admits is for nobody.
#[tokio::test]
async fn p_15_10_the_body_of_a_provider_that_admits_is_not_awaited() {
    let (provider, _asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    for _ in 0..2 {
        assert_eq!(web.get_with(1, "/who?endless", &[GOOD]).await.status, 200);
    }
    assert_eq!(web.service.stats.begun(), 2);
    assert_eq!(web.count("/access/denied/forward_auth").await, 0);
}

#[tokio::test]
async fn p_15_10_a_provider_that_is_away_admits_nobody() {
    let (provider, _asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    for path in ["/slow", "/large"] {
        let response = web.get_with(1, path, &[GOOD]).await;
        assert_eq!(verdict(&response), (503, "internal"), "{path}");
        assert_eq!(response.header("retry-after"), "1");
    }
    drop(provider);
    let response = web.get_with(1, "/who", &[GOOD]).await;
    assert_eq!(verdict(&response), (503, "internal"));
    assert_eq!(web.service.stats.begun(), 0);
}

#[tokio::test]
async fn p_15_10_calls_and_websockets_pass_the_provider() {
    let (provider, _asked) = provider().await;
    let web = Web::new(&config(&provider), LAYERS).await;
    let mut visitor = Visitor::http2(web.server.http, HOST).await;
    for (line, status) in [(None, "7"), (Some("Bearer x"), "16")] {
        let mut call = visitor.request(&Method::POST, "/pkg.Echo/Say", empty());
        let grpc = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert(CONTENT_TYPE, grpc);
        if let Some(line) = line {
            let line = HeaderValue::from_static(line);
            call.headers_mut().insert(AUTHORIZATION, line);
        }
        let response = visitor.whole(call).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("grpc-status"), status);
    }
    let stream = connect_from(source(1), web.server.http).await;
    match client_async(format!("ws://{HOST}/"), stream).await {
        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 302),
        other => panic!("{other:?}"),
    }
    assert_eq!(web.service.stats.begun(), 0);
}

/// The headers of the provider are removed from visitors that it is not asked about.
#[tokio::test]
async fn p_15_10_headers_of_the_provider_are_never_those_of_a_visitor() {
    let (provider, mut asked) = provider().await;
    let layers = "[{ ip: { allow: [127.8.0.1] }, sufficient: true }, { forward_auth: sso }]";
    let web = Web::new(&config(&provider), layers).await;
    let inside = web
        .get_with(1, "/request", &[("remote-user", "root")])
        .await;
    assert_eq!(inside.status, 200);
    assert!(received(&inside, "remote-user").is_empty());
    assert!(asked.try_recv().is_err());
    assert_eq!(web.get(2, "/request").await.status, 302);
}

/// A service that trusts the headers of a provider goes on to trust them when the server does not know it any more.
#[tokio::test]
async fn p_15_10_headers_of_a_removed_provider_are_not_those_of_a_visitor() {
    let (provider, _asked) = provider().await;
    let layers = "[{ ip: { allow: [127.8.0.1] }, sufficient: true }, { forward_auth: sso }]";
    let web = Web::new(&config(&provider), layers).await;
    web.server.follows("server: {}", 2).await;
    let lines = [("remote-user", "root"), ("remote_groups", "wheel")];
    let inside = web.get_with(1, "/request", &lines).await;
    assert_eq!(inside.status, 200);
    for name in ["remote-user", "remote_groups"] {
        assert!(received(&inside, name).is_empty(), "{name}");
    }
    let elsewhere = web.get_with(2, "/request", &[GOOD]).await;
    assert_eq!(verdict(&elsewhere), (500, "internal"));
}

#[tokio::test]
async fn p_15_10_the_lines_of_a_provider_replace_those_of_layers_before_it() {
    let (provider, _asked) = provider().await;
    let layers = "[{ request_headers: { set: { remote-user: nobody, remote_groups: none } } }, \
         { forward_auth: sso }]";
    let web = Web::new(&config(&provider), layers).await;
    let admitted = web.get_with(1, "/request", &[GOOD]).await;
    assert_eq!(received(&admitted, "remote-user"), ["alice"]);
    assert_eq!(received(&admitted, "remote-groups"), ["a", "b"]);
    assert!(received(&admitted, "remote_groups").is_empty());
}

/// A client can name a provider of the server's configuration, and nothing else.
#[tokio::test]
async fn p_15_10_a_tunnel_with_an_unknown_provider_is_refused() {
    let service = Service::site("site").await;
    let server = Server::with("server: { timeouts: { startup_grace: 0s } }").await;
    let tunnel = format!(
        "name: web, local_port: {}, layers: {LAYERS}",
        service.port()
    );
    let mut client = Client::spawn(ClientOptions::file(&server, ID, &file(&[tunnel])));
    // It is the only tunnel of the client, which ends therefore.
    assert_eq!(client.exit(SOON).await.code(), Some(1));
    let error = client.process().stderr();
    assert!(error.contains("server.forward_auth"), "{error}");
    let mut visitor = Visitor::http1(server.http, HOST).await;
    assert_eq!(get_with(&mut visitor, "/who", &[]).await.status, 404);
}
