//! Layers before and after routing: they respond, change requests, and wait.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use adit_ingress::{Direction, Layer, Layers, LocalResponse, RequestMeta, Verdict};
use adit_link::{Failure, Reason};
use adit_testlink::{
    Link, Recorder, Route,
    exchanges::{hello, respond},
    http_config,
};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE, response::Parts};
use tokio::sync::Notify;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Where a layer is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    BeforeRouting,
    AfterRouting,
}

const PLACES: [Place; 2] = [Place::BeforeRouting, Place::AfterRouting];

impl Place {
    /// A route to `link` with `layers` in this place.
    fn route(self, link: &Link, layers: Vec<Box<dyn Layer>>) -> Route {
        match self {
            Self::BeforeRouting => Route::to(link).layers(layers),
            Self::AfterRouting => routed_through(link, Layers::new(layers)).layers(Vec::new()),
        }
    }
}

/// A route to `link`, whose tunnel has these layers.
fn routed_through(link: &Link, layers: Layers) -> Route {
    let there = link.clone();
    Route::director(std::slice::from_ref(link), move |_, _| {
        let mut destination = there.destination(1);
        destination.layers = layers.clone();
        Direction::Go(destination)
    })
}

/// Responds to requests without credentials.
struct Login;

impl Layer for Login {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        if request.headers.contains_key("authorization") {
            return Verdict::Continue;
        }
        let realm = HeaderValue::from_static("Basic realm=\"adit\"");
        let text = HeaderValue::from_static("text/plain");
        let response = LocalResponse::new(StatusCode::UNAUTHORIZED)
            .with_header(WWW_AUTHENTICATE, realm)
            .with_body(text, "log in");
        Verdict::respond(response)
    }
}

#[tokio::test]
async fn layer_responds_instead_of_the_service() {
    for place in PLACES {
        let link = Link::serving(hello);
        let (observer, mut records) = Recorder::new(0.0);
        let route = place.route(&link, vec![Box::new(Login)]);
        let entry = route.observer(observer).http(http_config());
        let response = entry.raw(GET).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
        assert!(head.contains("\r\nwww-authenticate: Basic realm=\"adit\"\r\n"));
        assert_eq!(body, "log in");
        let record = records.next().await;
        assert_eq!(record.outcome(), (401, None, 0, 6));
        let routed = usize::from(place == Place::AfterRouting);
        assert_eq!(entry.director.calls(), routed, "{place:?}");

        let request = GET.replace("Host:", "Authorization: Basic YQ==\r\nHost:");
        let response = entry.raw(request).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        entry.settled().await;
        assert_eq!(entry.stats().failures.total(), 0);
    }
}

/// Adds a header to requests and responses, and counts requests.
#[derive(Default)]
struct Mark(Arc<AtomicUsize>);

impl Layer for Mark {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mark = HeaderValue::from_static("1");
        request.headers.append("x-mark", mark);
        Verdict::Continue
    }

    fn on_response(&self, request: &RequestMeta, response: &mut Parts) {
        assert!(request.headers.contains_key("x-mark"));
        let mark = HeaderValue::from_static("1");
        response.headers.append("x-mark", mark);
    }
}

#[tokio::test]
async fn layer_changes_request_and_response() {
    for place in PLACES {
        let link = Link::serving(|request: adit_codec::HttpRequest, exchange| async move {
            assert_eq!(request.headers.first(b"x-mark"), Some(&b"1"[..]));
            respond(&exchange, 200, &[], b"");
        });
        let route = place.route(&link, vec![Box::<Mark>::default()]);
        let entry = route.http(http_config());
        let response = entry.raw(GET).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("x-mark: 1\r\n"), "{response}");
    }
}

#[tokio::test]
async fn director_sees_only_changes_before_routing() {
    for place in PLACES {
        let link = Link::serving(hello);
        let marked = Arc::new(Mutex::new(None));
        let (seen, there) = (marked.clone(), link.clone());
        let after = match place {
            Place::BeforeRouting => Layers::default(),
            Place::AfterRouting => Layers::new(vec![Box::<Mark>::default()]),
        };
        let route = Route::director(std::slice::from_ref(&link), move |request, _| {
            *seen.lock().unwrap() = Some(request.unwrap().headers.contains_key("x-mark"));
            let mut destination = there.destination(1);
            destination.layers = after.clone();
            Direction::Go(destination)
        });
        let before: Vec<Box<dyn Layer>> = match place {
            Place::BeforeRouting => vec![Box::<Mark>::default()],
            Place::AfterRouting => Vec::new(),
        };
        let entry = route.layers(before).http(http_config());
        entry.raw(GET).await.unwrap();
        let is_before = place == Place::BeforeRouting;
        assert_eq!(*marked.lock().unwrap(), Some(is_before), "{place:?}");
    }
}

/// Waits for a notification, then changes the request.
struct Lookup {
    started: Arc<Notify>,
    found: Arc<Notify>,
}

impl Layer for Lookup {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        Verdict::Wait(Box::pin(async move {
            self.started.notify_one();
            self.found.notified().await;
            if request.path.path() == "/rejected" {
                return Verdict::Reject(Failure::new(Reason::Limit, "no"));
            }
            let user = HeaderValue::from_static("anna");
            request.headers.insert("x-user", user);
            Verdict::Continue
        }))
    }
}

#[tokio::test]
async fn layer_waits_and_then_changes_or_rejects_the_request() {
    for place in PLACES {
        let link = Link::serving(|request: adit_codec::HttpRequest, exchange| async move {
            assert_eq!(request.headers.first(b"x-user"), Some(&b"anna"[..]));
            respond(&exchange, 200, &[], b"");
        });
        let (started, found) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let lookup = Lookup {
            started: started.clone(),
            found: found.clone(),
        };
        let entry = place
            .route(&link, vec![Box::new(lookup)])
            .http(http_config());
        for (path, status) in [("/", "200"), ("/rejected", "503")] {
            let waiting = async {
                started.notified().await;
                assert!(link.is_idle());
                found.notify_one();
            };
            let request = GET.replace("GET /", &format!("GET {path}"));
            let (response, ()) = tokio::join!(entry.raw(request), waiting);
            assert_eq!(&response.unwrap()[9..12], status, "{place:?} {path}");
        }
    }
}

#[tokio::test]
async fn retry_does_not_pass_the_layers_of_a_tunnel_again() {
    let refusing = Link::serving(|_, exchange: adit_link::Exchange| async move {
        let code = adit_codec::ResetCode::Refused;
        exchange.send.reset(code, "not here");
    });
    let serving = Link::serving(|request: adit_codec::HttpRequest, exchange| async move {
        let marks = request
            .headers
            .lines()
            .filter(|(name, _)| *name == b"x-mark");
        assert_eq!(marks.count(), 1);
        respond(&exchange, 200, &[], b"");
    });
    let passed = Arc::new(AtomicUsize::new(0));
    let layers = Layers::new(vec![Box::new(Mark(passed.clone()))]);
    let links = [refusing, serving];
    let there = links.clone();
    let route = Route::director(&links, move |_, avoid| {
        let mut destination = there[avoid.len()].destination(avoid.len() as u64);
        destination.layers = layers.clone();
        Direction::Go(destination)
    });
    let entry = route.http(http_config());
    let response = entry.raw(GET).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("x-mark: 1\r\n"), "{response}");
    assert_eq!(entry.stats().retries, 1);
    assert_eq!(passed.load(Ordering::Relaxed), 1);
}

/// Adds its name to a list when a request passes it.
struct Named(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Layer for Named {
    fn on_request<'r>(&'r self, _: &'r mut RequestMeta) -> Verdict<'r> {
        self.1.lock().unwrap().push(self.0);
        Verdict::Continue
    }

    fn on_response(&self, _: &RequestMeta, _: &mut Parts) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[tokio::test]
async fn responses_pass_both_lists_in_reverse_order() {
    let link = Link::serving(hello);
    let order = Arc::new(Mutex::new(Vec::new()));
    let named = |name| Box::new(Named(name, order.clone())) as Box<dyn Layer>;
    let after = Layers::new(vec![named("c"), named("d")]);
    let route = routed_through(&link, after);
    let route = route.layers(vec![named("a"), named("b")]);
    let entry = route.http(http_config());
    entry.raw(GET).await.unwrap();
    let expected = ["a", "b", "c", "d", "d", "c", "b", "a"];
    assert_eq!(*order.lock().unwrap(), expected);
}
