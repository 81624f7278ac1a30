//! The private service behind every tunnel.
//!
//! A small HTTP/1.1 server on plain sockets, with one task per connection, on one thread. It has keep-alive and
//! `TCP_NODELAY`, writes head and body at once when both are ready, and allocates nothing for a small response. It is
//! small so that its own cost does not hide the tunnel's cost; it is not made for untrusted clients.
//!
//! | request | response |
//! |---|---|
//! | `GET /small` | 1 KiB of the pattern |
//! | `GET /bytes/{n}?from=` | n bytes of the pattern, from an offset on (0) |
//! | `POST /sink` | empty, after the body has been read to its end |
//! | `GET /zeros`, `GET /chunks` | a chunked body without end: leading zeros, chunks of a byte |
//! | `POST /upload` | the number of received bytes, and their checksum |
//! | `GET /sse?n=&every=` | n events, `every` milliseconds apart |
//! | `GET /events?every_us=&bytes=` | events without end at the same moments for every subscriber, see [`Event`] |
//! | `GET /clock` | microseconds since 1970 |
//! | `GET /status/{code}` | that status |

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern::{Checksum, Pattern};

/// Length of the response to `/small`.
pub(crate) const SMALL_BYTES: u64 = 1024;

/// The length limit of a request head; a tunnel adds a few fields to the head that a visitor sends.
const HEAD_LIMIT_BYTES: usize = 16 * 1024;

/// How much of a large body is written at once.
const WRITE_BYTES: u64 = 64 * 1024;

/// Serves until the future is dropped.
pub(super) async fn serve(listener: TcpListener) {
    let small: &'static [u8] = small_response().leak();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A visitor that disconnects early is not an error of the service.
                    let _ = connection(stream, small).await;
                });
            }
            // The process has no free file descriptors: wait until connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn small_response() -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {SMALL_BYTES}\r\n\r\n"
    )
    .into_bytes();
    response.extend_from_slice(Pattern::shared().piece(0, SMALL_BYTES));
    response
}

async fn connection(mut stream: TcpStream, small: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_LIMIT_BYTES];
    let mut filled = 0;
    loop {
        let head_len = loop {
            if let Some(end) = head_end(&buffer[..filled]) {
                break end;
            }
            if filled == buffer.len() {
                return respond(&mut stream, 431, "head too long\n").await;
            }
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        let Some(request) = Request::parse(&buffer[..head_len]) else {
            return respond(&mut stream, 400, "not a request this service knows\n").await;
        };
        let close = request.close;
        let mut used = head_len;
        match request.route {
            Route::Small => stream.write_all(small).await?,
            Route::Bytes { length, from } => bytes(&mut stream, length, from).await?,
            Route::Events { count, every } => events(&mut stream, count, every).await?,
            Route::FanOut { every_us, bytes } => fan_out(&mut stream, every_us, bytes).await?,
            Route::Clock => respond(&mut stream, 200, &unix_us().to_string()).await?,
            Route::Sink => return sink(&mut stream).await,
            Route::Endless(chunk) => return endless(&mut stream, chunk).await,
            Route::Status(code) => respond(&mut stream, code, "as requested\n").await?,
            Route::Unknown => respond(&mut stream, 404, "no such page\n").await?,
            Route::Upload => {
                let Some(length) = request.length else {
                    return respond(&mut stream, 411, "send a content-length\n").await;
                };
                if request.expects_continue {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                }
                let here = usize::try_from(length)
                    .unwrap_or(usize::MAX)
                    .min(filled - used);
                let mut sum = Checksum::new();
                sum.update(&buffer[used..used + here]);
                used += here;
                // The buffer cannot contain bytes of a next request unless the upload is complete, so it is free for
                // reading.
                upload(&mut stream, length, &mut sum).await?;
            }
        }
        if close {
            // The peer may still be sending; the half-close lets the peer read the end of the response before a reset.
            return stream.shutdown().await;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

/// The length of the head, with the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    route: Route,
    length: Option<u64>,
    close: bool,
    expects_continue: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Small,
    Bytes {
        length: u64,
        from: u64,
    },
    Upload,
    Events {
        count: u64,
        every: Duration,
    },
    FanOut {
        every_us: u64,
        bytes: u64,
    },
    Clock,
    Status(u16),
    /// Reads and discards the body.
    Sink,
    /// A chunked body without end that repeats these bytes.
    Endless(&'static [u8]),
    Unknown,
}

impl Request {
    fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = head.split(|byte| *byte == b'\n');
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let method = words.next()?;
        let target = std::str::from_utf8(words.next()?).ok()?;
        let mut request = Self {
            route: Route::parse(method, target),
            length: None,
            close: false,
            expects_continue: false,
        };
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                request.length = Some(std::str::from_utf8(value).ok()?.parse().ok()?);
            } else if name.eq_ignore_ascii_case(b"connection") {
                request.close = value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case(b"expect") {
                request.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Some(request)
    }
}

impl Route {
    fn parse(method: &[u8], target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let number = |key: &str, or: u64| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == key)
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(or)
        };
        match (method, path) {
            (b"GET", "/small") => Self::Small,
            (b"POST", "/upload") => Self::Upload,
            (b"POST", "/sink") => Self::Sink,
            (b"GET", "/zeros") => Self::Endless(b"0000000000000000"),
            (b"GET", "/chunks") => Self::Endless(b"1\r\nx\r\n"),
            (b"GET", "/sse") => Self::Events {
                count: number("n", 10),
                every: Duration::from_millis(number("every", 100)),
            },
            (b"GET", "/events") => Self::FanOut {
                every_us: number("every_us", 100_000).max(1),
                bytes: number("bytes", 64).min(EVENT_LIMIT_BYTES),
            },
            (b"GET", "/clock") => Self::Clock,
            (b"GET", path) => path
                .strip_prefix("/bytes/")
                .and_then(|length| length.parse().ok())
                .map(|length| Self::Bytes {
                    length,
                    from: number("from", 0),
                })
                .or_else(|| {
                    let code = path.strip_prefix("/status/")?.parse().ok()?;
                    (200..600).contains(&code).then_some(Self::Status(code))
                })
                .unwrap_or(Self::Unknown),
            _ => Self::Unknown,
        }
    }
}

async fn respond(stream: &mut TcpStream, status: u16, text: &str) -> io::Result<()> {
    // Responses with these two statuses have neither body nor length (RFC 9110, 15.3.5 and 15.4.5).
    let whole = if matches!(status, 204 | 304) {
        format!("HTTP/1.1 {status} -\r\n\r\n")
    } else {
        let length = text.len();
        format!(
            "HTTP/1.1 {status} -\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
        )
    };
    stream.write_all(whole.as_bytes()).await
}

async fn sink(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn endless(stream: &mut TcpStream, chunk: &[u8]) -> io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    let block = chunk.repeat(16 * 1024 / chunk.len().max(1));
    loop {
        stream.write_all(&block).await?;
    }
}

async fn bytes(stream: &mut TcpStream, length: u64, from: u64) -> io::Result<()> {
    let pattern = Pattern::shared();
    let mut first = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    let mut sent = length.min(WRITE_BYTES);
    // The pattern repeats, so no offset is too large.
    let from = from % (1 << 40);
    first.extend_from_slice(pattern.piece(from, sent));
    stream.write_all(&first).await?;
    while sent < length {
        let piece = pattern.piece(from + sent, WRITE_BYTES.min(length - sent));
        stream.write_all(piece).await?;
        sent += piece.len() as u64;
    }
    Ok(())
}

async fn upload(stream: &mut TcpStream, length: u64, sum: &mut Checksum) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = length - sum.finish().0;
        if left == 0 {
            break;
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum.update(&buffer[..read]);
    }
    let (count, checksum) = sum.finish();
    respond(
        stream,
        200,
        &format!("{{\"bytes\":{count},\"checksum\":\"{checksum:016x}\"}}\n"),
    )
    .await
}

async fn events(stream: &mut TcpStream, count: u64, every: Duration) -> io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await?;
    let mut due = tokio::time::Instant::now();
    for event in 0..count {
        let text = format!("id: {event}\ndata: {event}\n\n");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        stream.write_all(chunk.as_bytes()).await?;
        due += every;
        if event + 1 < count {
            tokio::time::sleep_until(due).await;
        }
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// The length limit of an event's text.
pub(crate) const EVENT_LIMIT_BYTES: u64 = 64 * 1024;

/// One event of `/events`: `id: NUMBER`, and as data the microsecond (since 1970) at which the event was due, and a
/// text that is derived from the number.
///
/// Event `n` is due at microsecond `n * every_us`, so that all subscribers receive the same events at the same moments,
/// whenever they subscribed, and the service keeps no state for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) due_us: u64,
}

impl Event {
    /// The complete text of the event, with the empty line at its end.
    pub(crate) fn text(self, bytes: u64) -> Vec<u8> {
        let mut text = format!("id: {}\ndata: {} ", self.number, self.due_us).into_bytes();
        let piece = Pattern::shared().piece(self.number, bytes);
        text.extend(piece.iter().map(|byte| b'a' + byte % 26));
        text.extend_from_slice(b"\n\n");
        text
    }
}

/// Microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Waits until the other side has ended or failed; bytes received in that time are ignored.
async fn ended(stream: &TcpStream) {
    let mut ignored = [0; 256];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut ignored) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

async fn fan_out(stream: &mut TcpStream, every_us: u64, bytes: u64) -> io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await?;
    for number in unix_us() / every_us + 1.. {
        let due_us = number.saturating_mul(every_us);
        let left = Duration::from_micros(due_us.saturating_sub(unix_us()));
        // This detects at once that a subscriber has disconnected, and not only when a write fails.
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = ended(stream) => return Ok(()),
        }
        let text = Event { number, due_us }.text(bytes);
        let mut chunk = format!("{:x}\r\n", text.len()).into_bytes();
        chunk.extend_from_slice(&text);
        chunk.extend_from_slice(b"\r\n");
        stream.write_all(&chunk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Request {
        Request::parse(head.as_bytes()).unwrap()
    }

    #[test]
    fn routes_differ() {
        let route = |line: &str| parse(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n")).route;
        assert_eq!(route("GET /small"), Route::Small);
        let bytes = |length, from| Route::Bytes { length, from };
        assert_eq!(route("GET /bytes/17"), bytes(17, 0));
        assert_eq!(route("GET /bytes/17?from=4"), bytes(17, 4));
        assert_eq!(route("POST /upload"), Route::Upload);
        assert_eq!(route("GET /status/503"), Route::Status(503));
        assert_eq!(route("GET /status/99"), Route::Unknown);
        assert_eq!(route("GET /bytes/x"), Route::Unknown);
        assert_eq!(route("GET /clock"), Route::Clock);
        assert_eq!(
            route("GET /events?every_us=0&bytes=9999999"),
            Route::FanOut {
                every_us: 1,
                bytes: EVENT_LIMIT_BYTES
            }
        );
        assert_eq!(route("POST /small"), Route::Unknown);
        assert_eq!(
            route("GET /sse?n=3&every=20"),
            Route::Events {
                count: 3,
                every: Duration::from_millis(20)
            }
        );
    }

    #[test]
    fn the_fields_that_matter_are_read() {
        let request = parse(
            "POST /upload HTTP/1.1\r\nContent-Length: 42\r\nCONNECTION: Close\r\nexpect: 100-continue\r\n\r\n",
        );
        assert_eq!(request.length, Some(42));
        assert!(request.close && request.expects_continue);
        let plain = parse("GET /small HTTP/1.1\r\nconnection: keep-alive\r\n\r\n");
        assert!(!plain.close && !plain.expects_continue && plain.length.is_none());
    }

    #[test]
    fn a_head_ends_at_the_empty_line() {
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\r"), None);
    }

    async fn exchange(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        server.abort();
        String::from_utf8_lossy(&response).into_owned()
    }

    #[test]
    fn an_event_has_its_due_time_and_number() {
        let event = Event {
            number: 3,
            due_us: 300,
        };
        let text = String::from_utf8(event.text(5)).unwrap();
        let letters = text
            .strip_prefix("id: 3\ndata: 300 ")
            .and_then(|rest| rest.strip_suffix("\n\n"))
            .unwrap();
        assert_eq!(letters.len(), 5);
        assert!(letters.bytes().all(|byte| byte.is_ascii_lowercase()));
        let other = Event { number: 4, ..event };
        assert_ne!(other.text(5)[16..], event.text(5)[16..]);
    }

    #[tokio::test]
    async fn an_upload_is_counted_and_summed() {
        let body = Pattern::shared().piece(0, 100_000);
        let mut sum = Checksum::new();
        sum.update(body);
        let mut request =
            b"POST /upload HTTP/1.1\r\ncontent-length: 100000\r\nconnection: close\r\n\r\n"
                .to_vec();
        request.extend_from_slice(body);
        let wanted = format!(
            "{{\"bytes\":100000,\"checksum\":\"{:016x}\"}}",
            sum.finish().1
        );
        let response = exchange(&request).await;
        assert!(response.contains(&wanted), "{response}");
    }

    #[tokio::test]
    async fn requests_on_one_connection_get_responses_in_order() {
        let response = exchange(
            b"GET /status/418 HTTP/1.1\r\n\r\nPOST /upload HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi\
              GET /sse?n=2&every=1 HTTP/1.1\r\nconnection: close\r\n\r\n",
        )
        .await;
        let (teapot, rest) = response.split_once("as requested").unwrap();
        assert!(teapot.starts_with("HTTP/1.1 418"), "{teapot}");
        let (upload, events) = rest.split_once("text/event-stream").unwrap();
        assert!(upload.contains("\"bytes\":2"), "{upload}");
        assert!(
            events.ends_with("id: 1\ndata: 1\n\n\r\n0\r\n\r\n"),
            "{events}"
        );
    }
}
