//! Compares hyper's client with the client of this crate for the same bytes of a service: both read the same response,
//! or both refuse it.
//!
//! Promises:
//! - a response that hyper accepts is forwarded: status, headers in order, body, trailers;
//! - a response that hyper refuses is refused;
//! - only this client refuses responses that cannot be forwarded to another hop: with a length and a transfer coding,
//!   with a coding other than `chunked`, with an unrequested change of protocol;
//! - only hyper refuses two trailers that are separated by a single LF, which both accept between the lines of a head
//!   (RFC 9112, 2.2): it has room for as many trailers as there are CRLFs, and then reports too many.

use std::{cell::Cell, time::Duration};

use adit_egress::Config;
use adit_testlink::{
    EgressLink, TunnelRequest, http_service, http1::read_head, tcp::serve, within,
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};

/// A way to announce the length of a body.
#[derive(Debug, Clone)]
enum Framed {
    Length(i8),
    Lengths(&'static str),
    Chunked(Vec<usize>, &'static str),
    Close,
}

#[derive(Debug, Clone)]
struct Scripted {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    method: &'static str,
}

fn framed() -> impl Strategy<Value = Framed> {
    prop_oneof![
        4 => Just(Framed::Length(0)),
        1 => (-2..3_i8).prop_map(Framed::Length),
        1 => prop::sample::select(vec!["5, 5", "5,6", "+5", "", "0x5", "5 5", "99999999999999999999"]).prop_map(Framed::Lengths),
        4 => (
            prop::collection::vec(1..2000_usize, 0..6),
            prop::sample::select(vec!["", "x-t: 1\r\n", "X-T: 1\r\nx-u:2\r\n", "bad\r\n", "a: b\r", "a : b\r\n"])
        )
            .prop_map(|(sizes, trailers)| Framed::Chunked(sizes, trailers)),
        2 => Just(Framed::Close),
    ]
}

const LINES: &[&str] = &[
    "X-A: 1\r\n",
    "x-a:2 \r\n",
    "Set-Cookie: a=b; c\r\n",
    "X-Empty:\r\n",
    "X-Tab: a\tb\r\n",
    "X-High: \u{e9}\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Date: Fri, 20 Nov 2026 00:00:00 GMT\r\n",
    "bad name: x\r\n",
    " folded\r\n",
    "nocolon\r\n",
    "X-Nul: \0\r\n",
    "X-Lf: a\n",
    ": empty\r\n",
];

fn response() -> impl Strategy<Value = Scripted> {
    let status = prop_oneof![
        6 => Just("HTTP/1.1 200 OK"),
        1 => Just("HTTP/1.1 204 No Content"),
        1 => Just("HTTP/1.1 304 Not Modified"),
        1 => Just("HTTP/1.0 200 OK"),
        1 => Just("HTTP/1.1 404"),
        1 => Just("HTTP/1.1 999 Odd"),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        1 => Just("HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 201 Made"),
        1 => prop::sample::select(vec!["HTTP/2.0 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1  200 OK", "\r\nHTTP/1.1 200 OK", "HTTP/1.1 099 X", "ICY 200 OK"]),
    ];
    // The first nine lines are valid; a few of the heads have an invalid one.
    let lines = prop::collection::vec(prop_oneof![20 => 0..9_usize, 1 => 9..LINES.len()], 0..6);
    (
        status,
        lines,
        framed(),
        0..6000_usize,
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
        prop::option::weighted(0.15, (any::<prop::sample::Index>(), any::<u8>())),
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::sample::select(vec!["GET", "GET", "GET", "HEAD"]),
    )
        .prop_map(
            |(status, lines, framed, size, truncate, flip, cuts, method)| {
                let mut bytes = format!("{status}\r\n").into_bytes();
                for line in lines {
                    // Header lines are encoded in Latin-1.
                    bytes.extend(
                        LINES[line]
                            .chars()
                            .map(|c| u8::try_from(u32::from(c)).unwrap()),
                    );
                }
                let payload = |size: usize| (0..size).map(|i| b'a' + u8::try_from(i % 26).unwrap());
                match framed {
                    Framed::Length(off) => {
                        let announced = size.saturating_add_signed(off.into());
                        bytes.extend(format!("Content-Length: {announced}\r\n\r\n").bytes());
                        bytes.extend(payload(size));
                    }
                    Framed::Lengths(text) => {
                        bytes.extend(format!("content-length: {text}\r\n\r\nabcde").bytes());
                    }
                    Framed::Chunked(sizes, trailers) => {
                        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                        for size in sizes {
                            bytes.extend(format!("{size:X};e=1\r\n").bytes());
                            bytes.extend(payload(size));
                            bytes.extend(b"\r\n");
                        }
                        bytes.extend(format!("0\r\n{trailers}\r\n").bytes());
                    }
                    Framed::Close => {
                        bytes.extend(b"\r\n");
                        bytes.extend(payload(size));
                    }
                }
                if let Some((place, byte)) = flip {
                    // The start has most of the significant bytes.
                    let place = place.index(bytes.len().min(200));
                    bytes[place] = byte;
                }
                if let Some(end) = truncate {
                    bytes.truncate(end.index(bytes.len()));
                }
                let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
                cuts.sort_unstable();
                Scripted {
                    bytes,
                    cuts,
                    method,
                }
            },
        )
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Sorts lines by name; lines with one name keep their order. hyper's map has no other order.
fn sorted(mut lines: Vec<(String, String)>) -> Vec<(String, String)> {
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

async fn by_hyper(port: u16, method: &str) -> Result<Seen, String> {
    let text = |error: hyper::Error| format!("{error:?}");
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(text)?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri("/")
        .header("host", "x")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.map_err(text)?;
    let (parts, body) = response.into_parts();
    let lines = |map: &hyper::HeaderMap| -> Vec<(String, String)> {
        map.iter()
            .map(|(name, value)| (name.to_string(), latin(value.as_bytes())))
            .filter(|(name, _)| !["connection", "transfer-encoding"].contains(&&name[..]))
            .collect()
    };
    let mut headers = lines(&parts.headers);
    // A repeated length is forwarded once.
    for (name, value) in &mut headers {
        if name == "content-length" {
            *value = value.split(',').next().unwrap().trim().into();
        }
    }
    let body = body.collect().await.map_err(text)?;
    let trailers = body.trailers().map(lines).unwrap_or_default();
    connection.abort();
    Ok(Seen {
        status: parts.status.as_u16(),
        headers: sorted(headers),
        body: body.to_bytes().to_vec(),
        trailers: sorted(trailers),
    })
}

async fn by_us(port: u16, method: &str) -> Result<Seen, String> {
    let link = EgressLink::to(http_service(port), Config::default());
    let response = link
        .request(&TunnelRequest::new(method, "/", &[]), b"")
        .await
        .map_err(|f| f.to_string())?;
    Ok(Seen {
        status: response.status,
        headers: sorted(response.headers),
        body: response.body,
        trailers: sorted(response.trailers),
    })
}

const STRICTER: [&str; 3] = [
    "invalid or ambiguous Content-Length",
    "unsupported Transfer-Encoding",
    "switched protocols",
];

/// The error of hyper when it has room for fewer trailers than there are.
const TOO_MANY: &str = "TooManyHeaders";

/// Two trailers that are separated by a single LF.
fn parted_by_a_bare_lf() -> Scripted {
    let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\nx-u: 2\r\n\r\n";
    Scripted {
        bytes: bytes.to_vec(),
        cuts: Vec::new(),
        method: "GET",
    }
}

#[test]
fn hyper_and_ours_read_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (scripts, fed) = mpsc::unbounded_channel::<Scripted>();
    let fed = std::sync::Arc::new(tokio::sync::Mutex::new(fed));
    let port = runtime.block_on(serve(move |mut socket, _| {
        let fed = fed.clone();
        async move {
            let script = fed.lock().await.recv().await.unwrap();
            if read_head(&mut socket).await.is_none() {
                return;
            }
            let mut at = 0;
            for cut in script.cuts.iter().copied().chain([script.bytes.len()]) {
                if socket.write_all(&script.bytes[at..cut]).await.is_err() {
                    return;
                }
                at = cut;
                if cut < script.bytes.len() {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            }
            // The connection is closed in order: a reset could discard bytes that were written.
            let _ = socket.shutdown().await;
            let _ = tokio::time::timeout(Duration::from_millis(200), read_head(&mut socket)).await;
        }
    }));
    let (whole, refused, parted) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Cases {
        cases: 1000,
        failure_persistence: None,
        ..Cases::default()
    });
    let compare = |script: Scripted| {
        let method = script.method;
        let (hyper, ours) = runtime.block_on(within(async {
            scripts.send(script.clone()).unwrap();
            let hyper = by_hyper(port, method).await;
            scripts.send(script.clone()).unwrap();
            (hyper, by_us(port, method).await)
        }));
        let text = latin(&script.bytes[..script.bytes.len().min(300)]);
        match (&hyper, &ours) {
            (Ok(hyper), Ok(ours)) => {
                whole.set(whole.get() + 1);
                prop_assert_eq!(hyper, ours, "{}", text);
            }
            (Err(_), Err(_)) => refused.set(refused.get() + 1),
            (Ok(_), Err(why)) if STRICTER.iter().any(|part| why.contains(part)) => {
                refused.set(refused.get() + 1);
            }
            (Err(why), Ok(ours)) if why.contains(TOO_MANY) && ours.trailers.len() == 2 => {
                parted.set(parted.get() + 1);
            }
            _ => prop_assert!(false, "hyper {:?}\nours {:?}\n{}", hyper, ours, text),
        }
        Ok(())
    };
    compare(parted_by_a_bare_lf()).unwrap();
    assert_eq!(parted.get(), 1, "hyper has become wiser");
    runner.run(&response(), compare).unwrap();
    let (whole, refused) = (whole.get(), refused.get());
    assert!(
        whole > 100 && refused > 50,
        "both kinds were seen: {whole}, {refused}"
    );
}
