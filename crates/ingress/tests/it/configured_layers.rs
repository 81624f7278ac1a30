//! Layers of a configuration: their order, their effect, and the responses that pass them (P-3.13).

use std::sync::{Arc, Mutex};

use adit_codec::{HttpRequest, ResetCode};
use adit_ingress::{
    Direction, Http, Layer, Layers,
    layers::{
        Access, AccessBounds, Forwarded, HeaderEdit, HopByHop, LayerConfig, LayerList, Redirect,
        RequiredHeader, Respond, Via,
    },
};
use adit_link::{Exchange, Reason};
use adit_net::Stream;
use adit_testlink::{
    Link, Route,
    exchanges::{hello, respond},
    fail,
    grpc::Visitor,
    http_config, http1,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn set(name: &str, value: &str) -> HeaderEdit {
    let mut edit = HeaderEdit::default();
    edit.set(name.as_bytes(), value.as_bytes()).unwrap();
    edit
}

/// A layer that adds its name to a header line of the response.
fn marks(name: &str) -> LayerConfig {
    let mut edit = HeaderEdit::default();
    edit.add(b"x-passed", name.as_bytes()).unwrap();
    LayerConfig::ResponseHeaders(edit)
}

fn key() -> LayerConfig {
    let mut key = RequiredHeader::new(b"x-key", 403).unwrap();
    key.accept(b"one").unwrap();
    key.accept(b"other").unwrap();
    LayerConfig::RequireHeader(key)
}

fn page(status: u32, body: &'static str) -> LayerConfig {
    let mut page = Respond::new(status).unwrap();
    page.set_body(body).unwrap();
    LayerConfig::Respond(page)
}

/// A route to `link` through `before` routing and `after` it.
fn route(link: &Link, before: &[LayerConfig], after: &[LayerConfig]) -> Route {
    let (there, after) = (link.clone(), Layers::new(of_list(after)));
    let route = Route::director(std::slice::from_ref(link), move |_, _| {
        let mut destination = there.destination(1);
        destination.layers = after.clone();
        Direction::Go(destination)
    });
    route.layers(chain(before))
}

/// The layers of a configuration after those that every request passes, as in a server.
fn chain(before: &[LayerConfig]) -> Vec<Box<dyn Layer>> {
    let mut chain: Vec<Box<dyn Layer>> = vec![
        Box::new(HopByHop),
        Box::new(Via::new(0x2a)),
        Box::new(Forwarded::default()),
    ];
    chain.extend(of_list(before));
    chain
}

/// The layers of a list of a configuration.
fn of_list(layers: &[LayerConfig]) -> Vec<Box<dyn Layer>> {
    let (place, access) = ("test", &Access::new(AccessBounds::default()));
    let list = LayerList {
        layers,
        place,
        access,
    };
    list.layers()
}

/// The status, and the names of the layers that the response has passed.
fn passed(response: &str) -> (&str, Vec<&str>) {
    (&response[9..12], http1::values(response, "x-passed"))
}

#[tokio::test(start_paused = true)]
async fn requests_pass_in_the_order_of_the_list() {
    let link = Link::serving(hello);
    let gives = LayerConfig::RequestHeaders(set("x-key", "one"));
    for (layers, status) in [([gives.clone(), key()], "200"), ([key(), gives], "403")] {
        for is_before in [true, false] {
            let (before, after): (&[_], &[_]) = if is_before {
                (&layers, &[])
            } else {
                (&[], &layers)
            };
            let entry = route(&link, before, after).http(http_config());
            let response = entry.raw(GET).await.unwrap();
            assert_eq!(&response[9..12], status, "before: {is_before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn responses_pass_in_the_reverse_order() {
    let link = Link::serving(hello);
    let (before, after) = ([marks("a"), marks("b")], [marks("c"), marks("d")]);
    let entry = route(&link, &before, &after).http(http_config());
    let response = entry.raw(GET).await.unwrap();
    assert_eq!(passed(&response), ("200", vec!["d", "c", "b", "a"]));
    assert_eq!(http1::values(&response, "via").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn request_has_the_changes_of_its_layers() {
    let seen = Arc::new(Mutex::new(None));
    let notes = seen.clone();
    let link = Link::serving(move |request: HttpRequest, exchange: Exchange| {
        *notes.lock().unwrap() = Some(request.headers);
        async move { respond(&exchange, 200, &[("server", "a")], b"") }
    });
    let mut request = set("x-set", "1");
    request.remove(b"x-gone").unwrap();
    let mut response = HeaderEdit::default();
    response.remove(b"Server").unwrap();
    let layers = [
        LayerConfig::RequestHeaders(request),
        LayerConfig::ResponseHeaders(response),
    ];
    let entry = route(&link, &[], &layers).http(http_config());
    let request = GET.replace("Host:", "X-Gone: 1\r\nX-Set: 2\r\nHost:");
    let response = entry.raw(request).await.unwrap();
    assert!(http1::values(&response, "server").is_empty(), "{response}");
    let headers = seen.lock().unwrap().take().unwrap();
    assert_eq!(headers.first(b"x-set"), Some(&b"1"[..]));
    assert_eq!(headers.first(b"x-gone"), None);
}

#[tokio::test(start_paused = true)]
async fn p_3_13_response_of_a_layer_passes_those_before_it() {
    let link = Link::serving(hello);
    let closed = || page(503, "closed");
    for (before, after, names) in [
        (vec![marks("a"), closed(), marks("b")], vec![], vec!["a"]),
        (vec![closed(), marks("a")], vec![marks("b")], vec![]),
        (
            vec![marks("a")],
            vec![marks("b"), closed(), marks("c")],
            vec!["b", "a"],
        ),
        (vec![], vec![closed()], vec![]),
    ] {
        let entry = route(&link, &before, &after).http(http_config());
        let response = entry.raw(GET).await.unwrap();
        assert_eq!(passed(&response), ("503", names));
        assert!(response.ends_with("\r\n\r\nclosed"), "{response}");
        assert!(http1::values(&response, "via").is_empty(), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn p_3_13_error_response_passes_the_layers_before_the_failure() {
    let refusing = Link::serving(|_, exchange: Exchange| async move {
        exchange.send.reset(ResetCode::ServiceTimeout, "late");
    });
    let entry = route(&refusing, &[marks("a")], &[marks("b")]).http(http_config());
    let response = entry.raw(GET).await.unwrap();
    assert_eq!(passed(&response), ("504", vec!["b", "a"]));
    assert!(http1::values(&response, "via").is_empty(), "{response}");

    let lost = Route::director(&[], |_, _| fail(Reason::NoTunnel));
    let entry = lost.layers(chain(&[marks("a")])).http(http_config());
    let response = entry.raw(GET).await.unwrap();
    assert_eq!(passed(&response), ("404", vec!["a"]));

    // This head is rejected before it is a request.
    let response = entry.raw("GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(passed(&response), ("400", vec![]));
}

#[tokio::test(start_paused = true)]
async fn p_3_13_call_receives_a_status_that_has_passed_the_layers() {
    let link = Link::serving(hello);
    let entry = route(&link, &[marks("a")], &[marks("b"), key()]).http(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let response = visitor.call("/a.B/C", &[], b"").await;
    // PERMISSION_DENIED
    assert_eq!(response.verdict().0, "7");
    let passed = response
        .headers
        .iter()
        .filter(|(name, _)| name == "x-passed");
    let names: Vec<_> = passed.map(|(_, value)| value).collect();
    assert_eq!(names, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn required_header_has_one_of_its_values() {
    let link = Link::serving(hello);
    let any = RequiredHeader::new(b"x-key", 404).unwrap();
    let any = LayerConfig::RequireHeader(any);
    for (layer, lines, status) in [
        (key(), "", "403"),
        (key(), "X-Key: neither\r\n", "403"),
        (key(), "X-Key: on\r\n", "403"),
        (key(), "X-Key: One\r\n", "403"),
        (key(), "X-Key: other\r\n", "200"),
        (key(), "X-Key: neither\r\nX-Key: one\r\n", "200"),
        (any.clone(), "", "404"),
        (any, "X-Key: whatever\r\n", "200"),
    ] {
        let entry = route(&link, &[layer], &[]).http(http_config());
        let request = GET.replace("Host:", &format!("{lines}Host:"));
        let response = entry.raw(request).await.unwrap();
        assert_eq!(&response[9..12], status, "{lines}");
    }
}

#[tokio::test(start_paused = true)]
async fn redirection_keeps_path_and_query_and_ends_where_it_leads() {
    let link = Link::serving(hello);
    let redirect = |scheme, host| Redirect::new(scheme, host, 308).unwrap();
    for (redirect, host, target, location) in [
        (redirect("https", ""), "a", "/b?c=%20", "https://a/b?c=%20"),
        (redirect("https", ""), "a:7080", "/", "https://a/"),
        (redirect("https", ""), "a", "/\"", "https://a/\""),
        (
            redirect("https", "www.a:8443"),
            "a",
            "/b",
            "https://www.a:8443/b",
        ),
        (redirect("", "www.a"), "a", "//b", "http://www.a//b"),
        (redirect("", "www.a"), "www.a:80", "/", "http://www.a/"),
        (redirect("", "www.a"), "WWW.a", "/", ""),
        (redirect("http", ""), "a", "/", ""),
    ] {
        let layers = [LayerConfig::Redirect(redirect)];
        let entry = route(&link, &[], &layers).http(http_config());
        let request = GET.replace("GET /", &format!("GET {target}"));
        let request = request.replace("Host: a", &format!("Host: {host}"));
        let response = entry.raw(request).await.unwrap();
        let (status, locations) = match location {
            "" => ("200", vec![]),
            location => ("308", vec![location]),
        };
        let found = (&response[9..12], http1::values(&response, "location"));
        assert_eq!(found, (status, locations), "{host} {target}");
    }
    let layers = [LayerConfig::Redirect(redirect("https", ""))];
    let entry = route(&link, &[], &layers).http(http_config());
    let response = entry.raw(GET.replace("GET /", "OPTIONS *")).await.unwrap();
    assert_eq!(&response[9..12], "200");
}

/// A running request keeps the layers that it began with, also for its response.
#[tokio::test(start_paused = true)]
async fn next_request_of_a_connection_passes_new_layers() {
    let (link, mut incoming) = Link::scripted();
    let admission = route(&link, &[marks("old")], &[]).admission();
    let http = Http::new(http_config(), admission.clone());
    let (visitor, server) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let (mut visitor, ours) = Stream::in_memory(64 << 10, visitor, server);
    let peer = ours.peer_addr().unwrap();
    let serving = tokio::spawn(http.serve(ours, peer, std::future::pending()));
    for names in [["old"], ["new"]] {
        http1::send(&mut visitor, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (_, exchange) = incoming.http().await;
        admission.set_layers(chain(&[marks("new")]));
        respond(&exchange, 204, &[], b"");
        let response = http1::read_until(&mut visitor, "\r\n\r\n").await;
        assert_eq!(passed(&response), ("204", names.to_vec()));
    }
    drop(visitor);
    serving.await.unwrap();
}
