//! Whatever becomes of a request, its record says it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, HttpConfig, Layer, layers};
use adit_link::{Dispatch, Failure, IncomingRequest, Reason};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use crate::{
    rig::{CARRIED, Records, Rig, crossed, recorder},
    world::{
        Link, World, answer, config, destination, director, head, read_to_end, read_until,
        standard_layers, within,
    },
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn send(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).await.unwrap();
}

/// An entry whose director says this.
async fn directed(
    layers: Vec<Box<dyn Layer>>,
    direct: impl Fn(&[u64]) -> Direction + Send + Sync + 'static,
) -> (World, Records) {
    let (recorder, records) = recorder(1.0);
    let director = director(move |_, avoid| direct(avoid));
    let world = World::observed(config(), layers, director, recorder).await;
    (world, records)
}

#[tokio::test]
async fn a_request_that_is_led_nowhere_says_why() {
    for (reason, status) in [(Reason::NoTunnel, 404), (Reason::NoClient, 503)] {
        let failed = move || Failure::new(reason, "nowhere");
        let at_once = directed(standard_layers(), move |_| Direction::Fail(failed())).await;
        let later = directed(standard_layers(), move |_| {
            Direction::Wait(Box::pin(async move { Err(failed()) }))
        });
        for (world, mut records) in [at_once, later.await] {
            let mut visitor = world.connect().await;
            send(&mut visitor, GET).await;
            read_until(&mut visitor, "\r\n\r\n").await;
            let told = within(records.recv()).await.unwrap();
            told.led_nowhere();
            assert_eq!(told.phases(), ["accept", "queue", "route", "end"]);
            assert_eq!((told.status, told.reason), (status, Some(reason.as_str())));
            // What we said to it is an answer as any.
            assert!(told.answered.is_some() && told.sent > 0);
        }
    }
}

#[tokio::test]
async fn a_request_that_no_layer_lets_pass_was_waiting() {
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let permits = layers::Permits::new(Gate::new(0, 10), wait);
        let nobody = |_: &[u64]| -> Direction { panic!("it does not come so far") };
        let (world, mut records) = directed(vec![Box::new(permits)], nobody).await;
        let mut visitor = world.connect().await;
        send(&mut visitor, GET).await;
        read_until(&mut visitor, "\r\n\r\n").await;
        let told = within(records.recv()).await.unwrap();
        assert_eq!(told.phases(), ["accept", "queue", "end"]);
        let waited = told.spans()[1];
        assert!(waited.end.unwrap() - waited.start >= wait);
        assert_eq!((told.status, told.reason), (503, Some("limit")));
        told.led_nowhere();
    }
}

#[tokio::test]
async fn a_request_that_is_refused_for_its_form_has_a_record_as_well() {
    let mut rig = Rig::new().await;
    let key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\n";
    for (lines, protocol, status) in [
        (
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "http",
            400,
        ),
        ("Host: a\r\nHost: b\r\n", "http", 400),
        ("", "http", 400),
        (&format!("Host: a\r\n{key}"), "websocket", 426),
    ] {
        let mut visitor = rig.world.connect().await;
        send(&mut visitor, &format!("GET /a?b HTTP/1.1\r\n{lines}\r\n")).await;
        let answer = read_until(&mut visitor, "\r\n\r\n").await;
        assert!(answer.contains(&format!(" {status} ")), "{answer}");
        let told = rig.told().await;
        assert_eq!((told.protocol, told.status), (protocol, status), "{lines}");
        assert_eq!(told.reason, Some("bad_request"));
        assert_eq!((&told.asked.1[..], &told.asked.3[..]), ("GET", "/a"));
        assert!(told.timeline.is_none() && told.answered.is_some() && told.sent > 0);
        assert!(told.visitor.starts_with("127.0.0.1:"));
        told.led_nowhere();
    }
    rig.is_over().await;
}

#[tokio::test]
async fn a_head_that_hyper_cannot_read_has_reason_and_record() {
    let mut rig = Rig::new().await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300_000));
    for (bytes, status, reason) in [
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("nonsense\r\n\r\n", 400, "bad_request"),
        (&long, 431, "header_too_large"),
    ] {
        let mut visitor = rig.world.connect().await;
        send(&mut visitor, bytes).await;
        let answer = read_to_end(&mut visitor).await.unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{answer}");
        assert!(answer.contains(&format!("adit-reason: {reason}\r\n")));
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\ndate: "), "{answer}");
        let told = rig.told().await;
        assert_eq!((told.protocol, told.status), ("http", status));
        assert_eq!(told.reason, Some(reason));
        let id = uuid::Uuid::from_bytes(told.uuid);
        assert!(answer.contains(&format!("adit-request-id: {id}\r\n")));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(told.sent, body.len() as u64);
        assert!(told.visitor.starts_with("127.0.0.1:"));
        told.led_nowhere();
    }
    let stats = rig.world.http.stats();
    assert_eq!(stats.failed(Reason::BadRequest), 2);
    assert_eq!(stats.failed(Reason::HeaderTooLarge), 1);
    assert_eq!(stats.requests, 3);
    // Behind a request that is served, it is known as well.
    let mut visitor = rig.world.connect().await;
    send(&mut visitor, GET).await;
    let (_, exchange) = rig.http().await;
    answer(&exchange, 204, &[], b"");
    drop(exchange);
    read_until(&mut visitor, "\r\n\r\n").await;
    rig.told().await;
    send(&mut visitor, "G@T / HTTP/1.1\r\n\r\n").await;
    let refusal = read_to_end(&mut visitor).await.unwrap();
    assert!(
        refusal.contains("adit-reason: bad_request\r\n"),
        "{refusal}"
    );
    assert_eq!(rig.told().await.status, 400);
    rig.is_over().await;
}

/// P-3.10.
#[tokio::test]
async fn a_request_of_http2_that_h2_refuses_has_a_record() {
    let mut rig = Rig::new().await;
    let mut visitor = rig.world.connect().await;
    // Preface, SETTINGS, and HEADERS of stream 1: GET, http, `:path: /?"` and `:authority: a`, as literals.
    let block = b"\x82\x86\x04\x03/?\"\x01\x01a";
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(block);
    visitor.write_all(&bytes).await.unwrap();
    let told = rig.told().await;
    assert_eq!((told.protocol, told.status), ("http", 0));
    assert_eq!(
        (told.reason, told.asked.4),
        (Some("bad_request"), "HTTP/2.0")
    );
    assert!(told.visitor.starts_with("127.0.0.1:"));
    told.led_nowhere();
    assert_eq!(rig.world.http.stats().failed(Reason::BadRequest), 1);
}

#[tokio::test]
async fn a_visitor_that_leaves_is_told_of_where_it_left() {
    let mut rig = Rig::new().await;
    // While it waits for its answer, and while it gets it.
    for (answers, status, sent) in [(false, 0, 0), (true, 200, 4)] {
        let mut visitor = rig.world.connect().await;
        send(&mut visitor, GET).await;
        let (_, exchange) = rig.http().await;
        if answers {
            exchange
                .send
                .respond(head(200, &[], b"part"), false)
                .unwrap();
            read_until(&mut visitor, "part\r\n").await;
        }
        socket2::SockRef::from(&visitor)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(visitor);
        let told = rig.told().await;
        assert_eq!(told.outcome(), (status, Some("cancelled"), 0, sent));
        assert_eq!(told.answered.is_some(), answers);
        let seen = if answers { 5 } else { 4 };
        assert_eq!(told.phases(), CARRIED[..seen]);
        // What lasted has no end of its own.
        assert_eq!(told.spans()[3].end.is_some(), answers);
        told.led_to("web");
    }
    rig.is_over().await;
}

#[tokio::test]
async fn a_visitor_that_takes_nothing_has_stalled() {
    let times = HttpConfig {
        stall_timeout: Duration::from_millis(100),
        ..config()
    };
    let mut rig = Rig::with(times, 1.0).await;
    let mut visitor = rig.world.connect().await;
    send(&mut visitor, GET).await;
    let (_, exchange) = rig.http().await;
    exchange.send.respond(head(200, &[], b""), false).unwrap();
    let much = exchange.send.send_all(vec![b'x'; 64 << 20].into(), true);
    assert!(within(much).await.is_err());
    let told = rig.told().await;
    assert_eq!((told.status, told.reason), (200, Some("stalled")));
    assert!(told.sent > 0);
    assert_eq!(told.phases(), CARRIED);
}

#[tokio::test]
async fn a_body_that_does_not_come_has_stalled() {
    let times = HttpConfig {
        stall_timeout: Duration::from_millis(100),
        ..config()
    };
    for length in [100, 100_000] {
        let mut rig = Rig::with(times.clone(), 1.0).await;
        let mut visitor = rig.world.connect().await;
        let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\npart");
        send(&mut visitor, &post).await;
        read_until(&mut visitor, "\r\n\r\n").await;
        let told = rig.told().await;
        assert_eq!((told.status, told.reason), (408, Some("stalled")));
        assert_eq!(told.received, 4, "of {length}");
        let phases: &[_] = match length {
            // A small one is read before it is led anywhere.
            100 => &["accept", "queue", "end"],
            _ => &CARRIED,
        };
        assert_eq!(told.phases(), phases);
    }
}

#[tokio::test]
async fn what_the_service_or_the_link_breaks_off_says_who_it_was() {
    let lost = |rig: &Rig| {
        let lane = &rig.world.links[0].lane;
        lane.close(&Failure::new(Reason::LinkLost, "cut"));
    };
    for (begun, link, status, reason) in [
        (false, false, 502, "service_aborted"),
        (true, false, 200, "service_aborted"),
        (false, true, 502, "link_lost"),
        (true, true, 200, "link_lost"),
    ] {
        let mut rig = Rig::new().await;
        // Not to be tried elsewhere.
        let mut visitor = rig.world.connect().await;
        send(&mut visitor, &GET.replace("GET", "DELETE")).await;
        let (_, exchange) = rig.http().await;
        if begun {
            exchange
                .send
                .respond(head(200, &[], b"abc"), false)
                .unwrap();
            read_until(&mut visitor, "abc\r\n").await;
        }
        if link {
            lost(&rig);
            drop(exchange);
        } else {
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        }
        let told = rig.told().await;
        assert_eq!((told.status, told.reason), (status, Some(reason)));
        assert_eq!(told.phases(), CARRIED);
        if begun {
            assert_eq!(told.sent, 3);
        }
        told.led_to("web");
    }
}

struct Client(u64, UnboundedSender<(u64, IncomingRequest)>);

impl Dispatch for Client {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.1.send((self.0, opened));
    }
}

#[tokio::test]
async fn each_try_on_another_client_has_its_own_phases() {
    let (tell, mut opened) = unbounded_channel();
    let links = [0, 1, 2].map(|number| Link::to(Arc::new(Client(number, tell.clone()))));
    let there = links.clone();
    let (world, mut records) = directed(standard_layers(), move |avoid| {
        let link = u64::try_from(avoid.len()).unwrap();
        Direction::Go(destination(&there[avoid.len()], link))
    })
    .await;
    let contexts: Mutex<Vec<String>> = Mutex::default();
    let mut visitor = world.connect().await;
    send(&mut visitor, GET).await;
    for number in 0..3 {
        let (at, IncomingRequest { head, exchange }) = within(opened.recv()).await.unwrap();
        assert_eq!(at, number);
        let adit_link::RequestHead::Http(head) = head else {
            panic!("{head:?}");
        };
        contexts
            .lock()
            .unwrap()
            .push(head.open.traceparent.to_string());
        if number < 2 {
            exchange.send.reset(ResetCode::Refused, "not here");
        } else {
            answer(&exchange, 200, &[("content-length", "2")], b"ok");
        }
    }
    read_until(&mut visitor, "ok").await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!((told.outcome(), told.retries), ((200, None, 0, 2), 2));
    assert_eq!(
        told.phases(),
        [
            "accept", "queue", "route", "transit", "route", "transit", "route", "transit", "end"
        ]
    );
    assert!(told.spans()[..8].iter().all(|span| span.end.is_some()));
    for (at, context) in contexts.lock().unwrap().iter().enumerate() {
        crossed(&told, at, context);
    }
    let ids = told.transits();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[tokio::test]
async fn a_request_that_is_refused_everywhere_counts_its_tries() {
    let (tell, mut opened) = unbounded_channel();
    let link = Link::to(Arc::new(Client(0, tell)));
    let (world, mut records) = directed(standard_layers(), move |avoid| {
        Direction::Go(destination(&link, u64::try_from(avoid.len()).unwrap()))
    })
    .await;
    let mut visitor = world.connect().await;
    send(
        &mut visitor,
        &GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    )
    .await;
    for _ in 0..3 {
        let (_, IncomingRequest { exchange, .. }) = within(opened.recv()).await.unwrap();
        exchange.send.reset(ResetCode::Refused, "not here");
    }
    read_to_end(&mut visitor).await.unwrap();
    let told = within(records.recv()).await.unwrap();
    assert_eq!((told.status, told.reason), (502, Some("refused")));
    assert_eq!((told.retries, told.transits().len()), (2, 3));
    assert_eq!(told.phases().last(), Some(&"end"));
}
