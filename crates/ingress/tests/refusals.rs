//! What bad input gets: the raw bytes of visitors who do not keep the rules, and of failures before the answer's head.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::atomic::Ordering, time::Duration};

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, Layer, Verdict, Visit, layers};
use adit_link::{Failure, Reason};
use tokio::io::AsyncWriteExt;

mod world;

use world::{
    Link, World, answer, config, destination, director, echo, hello, read_to_end, read_until,
    service, standard_layers, within,
};

/// The status line's code, and the reason header if there is one.
fn verdict(answer: &str) -> (&str, Option<&str>) {
    let status = answer.get(9..12).unwrap_or("");
    let reason = answer
        .lines()
        .find_map(|line| line.strip_prefix("adit-reason: "));
    (status, reason)
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_never_reaches_a_client() {
    let world = World::new(echo).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(300_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "x: y\r\n".repeat(300)
    );
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(65_535));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let zeros = format!("{chunked}00000000000000001\r\nx\r\n0\r\n\r\n");
    let blanks = format!("{chunked}1{}\r\nx\r\n0\r\n\r\n", " ".repeat(5_000));
    let bad = Some("bad_request");
    let large = Some("header_too_large");
    let table: &[(&str, &str, Option<&str>)] = &[
        // Two lengths.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: chunked\r\nX: y\r\ncontent-LENGTH:5\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "400",
            bad,
        ),
        // Codings.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        // Lines.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "400",
            bad,
        ),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\rHost: a\r\r", "400", bad),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / a HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "400", bad),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("nonsense\r\n\r\n", "400", bad),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "400", bad),
        // Whom it is for.
        ("GET / HTTP/1.1\r\n\r\n", "400", bad),
        ("GET / HTTP/1.0\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "400", bad),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "400", bad),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "400", bad),
        // Bodies.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "400",
            bad,
        ),
        // P-3.9: zeros in front, blanks behind.
        (&zeros, "400", bad),
        (&blanks, "400", bad),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "400",
            bad,
        ),
        // Too much.
        (&long, "431", large),
        (&many, "431", large),
        (&path, "414", large),
    ];
    for (request, status, reason) in table {
        let shown: String = request.chars().take(120).collect();
        let more = format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = world.raw(more.as_bytes()).await;
        let answer = answer.unwrap_or_else(|broken| panic!("reset after {broken:?}: {shown:?}"));
        assert_eq!(verdict(&answer), (*status, *reason), "{shown:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{shown:?}: {answer}");
        assert!(
            answer.contains("connection: close\r\n") || answer.starts_with("HTTP/1.0"),
            "{answer}"
        );
    }
    world.settle().await;
    // Bodies turn out bad only on the way: the exchange is then reset. Nothing else got there.
    let seen = world.seen.lock().unwrap();
    assert!(seen.iter().all(|r| &r.method[..] == b"POST"), "{seen:?}");
    assert_eq!(seen.len(), 8);
}

#[tokio::test]
async fn the_check_for_two_lengths_follows_pipelined_requests() {
    let world = World::new(echo).await;
    // Bodies that look like heads, of each framing, in one go and byte by byte.
    let fake = "POST /fake HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size = fake.len();
    let good = format!(
        "\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{fake}\
        POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n\
        {size:X};ext=\"1\"\r\n{fake}\r\n0\r\nContent-Length: 3\r\n\r\n\
        GET /3 HTTP/1.1\nHost: a\n\n\
        POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nX-Content-Length: 5\r\n\r\n\
        1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    );
    let bad = "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for step in [usize::MAX, 1, 7] {
        let mut stream = world.connect().await;
        stream.set_nodelay(true).unwrap();
        let all = format!("{good}{bad}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        for part in all.as_bytes().chunks(step.min(all.len())) {
            stream.write_all(part).await.unwrap();
            if step == 1 {
                tokio::task::yield_now().await;
            }
        }
        let answers = read_to_end(&mut stream).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
        assert_eq!(answers.matches(fake).count(), 2, "{answers}");
        let seen: Vec<_> = world.seen.lock().unwrap().drain(..).collect();
        let paths: Vec<_> = seen.iter().map(|r| &r.path[..]).collect();
        assert_eq!(paths, [&b"/1"[..], b"/2", b"/3", b"/4"]);
    }
}

#[tokio::test]
async fn targets_of_every_form_are_understood() {
    let world = World::new(hello).await;
    let table: &[(&str, &str, &str)] = &[
        ("GET /a?b HTTP/1.1\r\nHost: a\r\n", "a", "/a?b"),
        (
            "GET http://b:8080/c HTTP/1.1\r\nHost: a\r\n",
            "b:8080",
            "/c",
        ),
        ("GET http://b HTTP/1.1\r\nHost: b\r\n", "b", "/"),
        ("GET http://b/ HTTP/1.0\r\n", "b", "/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", "a", "*"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n", "[::1]:80", "/"),
        (
            "GET /%00/%2e%2e/ HTTP/1.1\r\nHost: A.Example\r\n",
            "A.Example",
            "/%00/%2e%2e/",
        ),
    ];
    for (request, authority, path) in table {
        let request = format!("{request}Connection: close\r\n\r\n");
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(verdict(&answer), ("200", None), "{request}");
        let seen = world.seen.lock().unwrap().pop_back().unwrap();
        assert_eq!(
            (&seen.authority[..], &seen.path[..]),
            (authority.as_bytes(), path.as_bytes())
        );
        assert_eq!(seen.headers.first(b"host"), None);
        assert_eq!(
            seen.headers.first(b"x-forwarded-host"),
            Some(authority.as_bytes())
        );
    }
}

#[tokio::test]
async fn failures_say_what_happened_and_what_to_do() {
    for reason in Reason::ALL {
        if reason == Reason::Cancelled {
            continue;
        }
        let director = director(move |_, _| Direction::Fail(Failure::new(reason, "it \"broke\"")));
        let world = World::assemble(config(), standard_layers(), director).await;
        let answer = world
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let status = reason.http_status().to_string();
        assert_eq!(verdict(&answer), (&status[..], Some(reason.as_str())));
        assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"));
        assert_eq!(
            answer.contains("retry-after: 1\r\n"),
            status == "503",
            "{answer}"
        );
        let id = answer
            .lines()
            .find_map(|l| l.strip_prefix("adit-request-id: "))
            .unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok());
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            text.contains(id) && text.contains("it \"broke\"") && text.contains(reason.as_str())
        );
        let answer = world
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let start = format!(
            r#"{{"status":{status},"reason":"{reason}","detail":"it \"broke\"","advice":""#
        );
        assert!(json.starts_with(&start), "{json}");
        assert_eq!(world.http.stats().failed(reason), 2);
        // HTTP/1.0 is answered in kind.
        let answer = world
            .raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{answer}"
        );
        // A head alone is answered with a head alone, and the connection serves on.
        let closes = matches!(
            reason,
            Reason::BadRequest | Reason::HeaderTooLarge | Reason::Stalled
        );
        let answer = world
            .raw(
                b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n\
                HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        let answers = if closes { 1 } else { 2 };
        assert_eq!(answer.matches("adit-reason").count(), answers, "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_failure_of_the_exchange_before_the_head_is_an_answer() {
    let table = [
        (ResetCode::DialFailed, "502", "dial_failed"),
        (ResetCode::ServiceTimeout, "504", "service_timeout"),
        (ResetCode::ServiceAborted, "502", "service_aborted"),
        (ResetCode::Limit, "503", "limit"),
        (ResetCode::NoTunnel, "404", "no_tunnel"),
        (ResetCode::Cancelled, "502", "service_aborted"),
    ];
    for (code, status, reason) in table {
        let world = World::new(move |_, exchange| async move {
            exchange.send.reset(code, "for a reason");
        })
        .await;
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
            2\r\nhi\r\n0\r\n\r\n",
        ] {
            let answer = world.raw(request.as_bytes()).await.unwrap();
            assert_eq!(verdict(&answer), (status, Some(reason)), "{answer}");
        }
        world.settle().await;
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up() {
    let mut config = config();
    config.service_timeout = Duration::from_millis(300);
    let world = World::with(config, |_, mut exchange| async move {
        // Reads what comes, answers nothing.
        while let Some(Ok(_)) = exchange.recv.part().await {}
        std::future::pending::<()>().await;
        drop(exchange);
    })
    .await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ] {
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(
            verdict(&answer),
            ("504", Some("service_timeout")),
            "{answer}"
        );
    }
    // As long as the body comes, the answer is not due.
    let mut stream = world.connect().await;
    let start = std::time::Instant::now();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..6 {
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = read_to_end(&mut stream).await.unwrap();
    assert_eq!(
        verdict(&answer),
        ("504", Some("service_timeout")),
        "{answer}"
    );
    assert!(start.elapsed() >= Duration::from_millis(750));
}

#[tokio::test]
async fn a_limit_makes_wait_and_then_refuses() {
    let gate = Gate::new(1, 10);
    let link = Link::new(service(hello));
    let there = link.clone();
    let mut layers = standard_layers();
    let permits = layers::Permits::new(gate.clone(), Duration::from_millis(200));
    layers.push(Box::new(permits));
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let world = World::assemble(config(), layers, director).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(verdict(&world.raw(request).await.unwrap()).0, "200");
    let permit = gate.try_acquire().unwrap();
    let answer = world.raw(request).await.unwrap();
    assert_eq!(verdict(&answer), ("503", Some("limit")));
    assert!(answer.contains("retry-after: 1\r\n"));
    // One that comes free in time is had.
    let waiting = world.raw(request);
    let freeing = async {
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(permit);
    };
    let (answer, ()) = within(async { tokio::join!(waiting, freeing) }).await;
    assert_eq!(verdict(&answer.unwrap()).0, "200");
    within(async {
        while gate.in_use() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_permit_is_held_as_long_as_the_answer_lasts() {
    let gate = Gate::new(5, 10);
    let link = Link::new(service(|_, exchange| async move {
        exchange
            .send
            .respond(world::head(200, &[], b""), false)
            .unwrap();
        exchange.send.send_all("first".into(), false).await.unwrap();
        // Until the visitor leaves.
        let gone = std::future::poll_fn(|cx| match exchange.send.poll_ready(cx) {
            std::task::Poll::Ready(Err(failure)) => std::task::Poll::Ready(failure),
            _ => std::task::Poll::Pending,
        });
        assert_eq!(gone.await.reason, Reason::Cancelled);
    }));
    let there = link.clone();
    let permits = layers::Permits::new(gate.clone(), Duration::ZERO);
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let mut world = World::assemble(config(), vec![Box::new(permits)], director).await;
    world.links.push(link);
    let mut stream = world.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "first\r\n").await;
    assert_eq!(gate.in_use(), 1);
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    world.settle().await;
    assert_eq!(gate.in_use(), 0);
    assert_eq!(world.http.stats().failed(Reason::Cancelled), 1);
}

struct Door;

impl Layer for Door {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        match visit.path.path() {
            "/closed" => Verdict::Stop(Failure::new(Reason::NoTunnel, "closed")),
            "/later" => Verdict::Wait(Box::pin(async {
                tokio::task::yield_now().await;
                Err(Failure::new(Reason::Limit, "later"))
            })),
            _ => {
                visit
                    .headers
                    .insert("x-door", http::HeaderValue::from_static("1"));
                Verdict::Continue
            }
        }
    }

    fn on_response(&self, visit: &Visit, response: &mut http::response::Parts) {
        assert!(visit.headers.contains_key("x-door"));
        response
            .headers
            .append("x-order", http::HeaderValue::from_static("door"));
    }
}

struct Hall;

impl Layer for Hall {
    fn on_response(&self, _: &Visit, response: &mut http::response::Parts) {
        response
            .headers
            .append("x-order", http::HeaderValue::from_static("hall"));
    }
}

#[tokio::test]
async fn layers_change_stop_and_are_passed_in_order() {
    let link = Link::new(service(
        |request: adit_codec::HttpRequest, exchange| async move {
            assert_eq!(request.headers.first(b"x-door"), Some(&b"1"[..]));
            answer(&exchange, 200, &[], b"");
        },
    ));
    let there = link.clone();
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let layers: Vec<Box<dyn Layer>> = vec![Box::new(Door), Box::new(Hall)];
    let world = World::assemble(config(), layers, director).await;
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let answer = world.raw(&get("/")).await.unwrap();
    assert!(
        answer.contains("x-order: hall\r\nx-order: door\r\n"),
        "{answer}"
    );
    let closed = world.raw(&get("/closed")).await.unwrap();
    assert_eq!(verdict(&closed), ("404", Some("no_tunnel")));
    let later = world.raw(&get("/later")).await.unwrap();
    assert_eq!(verdict(&later), ("503", Some("limit")));
    assert_eq!(world.director.asked.lock().unwrap().len(), 1);
}

/// Links that fail with `code` before any service sees the request, the last one good.
async fn failing(code: Option<ResetCode>, links: u64) -> World {
    let all: Vec<Link> = (0..links)
        .map(|number| {
            let last = number == links - 1;
            Link::new(service(move |request, mut exchange| async move {
                if last {
                    return echo(request, exchange).await;
                }
                match code {
                    Some(code) => exchange.send.reset(code, "not here"),
                    None => {
                        let _ = exchange.recv.part().await;
                        exchange.send.reset(ResetCode::Refused, "after the body");
                    }
                }
            }))
        })
        .collect();
    let there = all.clone();
    let director =
        director(
            move |_, avoid| match (0..links).find(|number| !avoid.contains(number)) {
                Some(number) => Direction::Go(destination(
                    &there[usize::try_from(number).unwrap()],
                    number,
                )),
                None => Direction::Fail(Failure::new(Reason::NoClient, "nobody left")),
            },
        );
    let mut world = World::assemble(config(), standard_layers(), director).await;
    world.links = all;
    world
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const INLINE: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
    Connection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[tokio::test]
async fn what_no_service_has_seen_is_tried_elsewhere() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        for request in [GET, INLINE] {
            let world = failing(Some(code), 3).await;
            let answer = world.raw(request.as_bytes()).await.unwrap();
            assert_eq!(verdict(&answer), ("200", None), "{request} {answer}");
            assert_eq!(answer.ends_with("hello"), request == INLINE);
            let asked = world.director.asked.lock().unwrap().clone();
            assert_eq!(asked, [vec![], vec![0], vec![0, 1]]);
            assert_eq!(world.http.stats().retries, 2);
            world.settle().await;
        }
        // Two more, and no more than that.
        let world = failing(Some(code), 4).await;
        let answer = world.raw(GET.as_bytes()).await.unwrap();
        assert_eq!(verdict(&answer).0, "502");
        assert_eq!(world.http.stats().retries, 2);
        // Nobody else: the first failure is the reason.
        let world = failing(Some(code), 2).await;
        world.director.asked.lock().unwrap().clear();
        world.director.retries_left.store(0, Ordering::Relaxed);
        let answer = world.raw(GET.as_bytes()).await.unwrap();
        let reason = if code == ResetCode::Refused {
            "refused"
        } else {
            "draining"
        };
        assert_eq!(
            verdict(&answer),
            ("502", Some(reason)),
            "the budget is spent"
        );
        assert_eq!(world.director.asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_body_that_has_been_begun_is_not_tried_again() {
    let world = failing(None, 2).await;
    let answer = world.raw(CHUNKED.as_bytes()).await.unwrap();
    assert_eq!(verdict(&answer), ("502", Some("refused")), "{answer}");
    assert_eq!(world.http.stats().retries, 0);
    world.settle().await;
}

#[tokio::test]
async fn a_body_that_has_not_been_begun_goes_elsewhere() {
    let world = failing(Some(ResetCode::Refused), 2).await;
    let mut stream = world.connect().await;
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    within(async {
        while world.http.stats().retries == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await.unwrap();
    assert_eq!(verdict(&answer), ("200", None), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_lost_link_is_no_reason_to_repeat_what_may_do_harm() {
    for (request, status) in [
        (GET, "200"),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "502",
        ),
        (INLINE, "502"),
    ] {
        let lost = Link::new(service(|_, exchange| async move {
            std::future::pending::<()>().await;
            drop(exchange);
        }));
        let good = Link::new(service(echo));
        let links = [lost.clone(), good];
        let lane = lost.lane.clone();
        let director = director(move |_, avoid| {
            Direction::Go(destination(&links[avoid.len()], avoid.len() as u64))
        });
        let world = World::assemble(config(), standard_layers(), director).await;
        let losing = async {
            while lane.open_requests() == 0 {
                tokio::task::yield_now().await;
            }
            lane.close(&Failure::new(Reason::LinkLost, "cut"));
        };
        let (answer, ()) =
            within(async { tokio::join!(world.raw(request.as_bytes()), losing) }).await;
        let answer = answer.unwrap();
        let reason = (status == "502").then_some("link_lost");
        assert_eq!(verdict(&answer), (status, reason), "{request}");
        // A lane that is over refuses at once, and any request goes elsewhere.
        let answer = world.raw(INLINE.as_bytes()).await.unwrap();
        assert_eq!(verdict(&answer), ("200", None));
    }
}

#[tokio::test]
async fn a_visitor_waits_for_a_client_that_comes() {
    let link = Link::new(service(hello));
    let director = director(move |visit, _| {
        let link = link.clone();
        let comes = visit.path.path() == "/comes";
        Direction::Wait(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if comes {
                Ok(destination(&link, 1))
            } else {
                Err(Failure::new(Reason::NoClient, "none came"))
            }
        }))
    });
    let world = World::assemble(config(), standard_layers(), director).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = world.raw(get("/comes").as_bytes()).await.unwrap();
    assert_eq!(verdict(&answer), ("200", None));
    let answer = world.raw(get("/comes-not").as_bytes()).await.unwrap();
    assert_eq!(verdict(&answer), ("503", Some("no_client")));
}

/// Regression: hyper ended the connection, with every request on it.
#[tokio::test]
async fn a_connect_with_content_ends_its_own_stream_alone() {
    let world = World::new(hello).await;
    let (mut requests, connection) = h2::client::handshake(world.connect().await).await.unwrap();
    tokio::spawn(connection);
    let connect = http::Request::connect("a:443").header("content-length", "5");
    let connect = connect.body(()).unwrap();
    let (response, mut send) = requests.send_request(connect, false).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["adit-reason"], "bad_request");
    let _ = send.send_data(bytes::Bytes::from_static(b"hello"), true);
    let get = http::Request::get("http://a/").body(()).unwrap();
    let (response, _) = requests.send_request(get, true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 200);
    assert_eq!(world.http.stats().connections, 1);
}
