//! The private service that every tunnel leads to.
//!
//! Holds: a small HTTP/1.1 server on raw sockets, one task per connection, on
//! one thread. Promises: keep-alive, `TCP_NODELAY`, head and body in one write
//! when both are at hand, nothing allocated for a small answer. It is lean so
//! that its own cost does not hide the tunnel's; it is not a server for
//! strangers.
//!
//! | request | answer |
//! |---|---|
//! | `GET /small` | 1 KiB of the pattern |
//! | `GET /bytes/{n}` | n bytes of the pattern |
//! | `POST /upload` | how many bytes came, and their checksum |
//! | `GET /sse?n=&every=` | n events, `every` milliseconds apart |
//! | `GET /status/{code}` | that status |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern::{Checksum, Pattern};

/// Length of the answer to `/small`.
pub(crate) const SMALL_BYTES: u64 = 1024;

/// A request head may be this long; a tunnel adds a few fields to ours.
const HEAD_LIMIT_BYTES: usize = 16 * 1024;

/// How much of a large body is written at once.
const WRITE_BYTES: u64 = 64 * 1024;

/// Serves until the process is ended. Prints `listening ADDRESS` once it
/// accepts connections.
///
/// # Errors
/// The port cannot be bound.
pub(crate) async fn run(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    anstream::println!("listening {}", listener.local_addr()?);
    serve(listener).await
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let small: &'static [u8] = small_answer().leak();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A visitor who leaves early is not this side's error.
                    let _ = connection(stream, small).await;
                });
            }
            // Out of descriptors: let running connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn small_answer() -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {SMALL_BYTES}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(Pattern::shared().piece(0, SMALL_BYTES));
    answer
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
                return answer(&mut stream, 431, "head too long\n").await;
            }
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        let Some(request) = Request::parse(&buffer[..head_len]) else {
            return answer(&mut stream, 400, "not a request this service knows\n").await;
        };
        let close = request.close;
        let mut used = head_len;
        match request.route {
            Route::Small => stream.write_all(small).await?,
            Route::Bytes(length) => bytes(&mut stream, length).await?,
            Route::Events { count, every } => events(&mut stream, count, every).await?,
            Route::Status(code) => answer(&mut stream, code, "as asked\n").await?,
            Route::Unknown => answer(&mut stream, 404, "no such page\n").await?,
            Route::Upload => {
                let Some(length) = request.length else {
                    return answer(&mut stream, 411, "send a content-length\n").await;
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
                // Nothing of a next request can be in the buffer unless the
                // upload is complete, so it is free to be read into.
                upload(&mut stream, length, &mut sum).await?;
            }
        }
        if close {
            // The peer may still be sending; half-close so that it reads the
            // end before any reset.
            return stream.shutdown().await;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

/// Where the head ends, the empty line included.
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
    Bytes(u64),
    Upload,
    Events { count: u64, every: Duration },
    Status(u16),
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
            (b"GET", "/sse") => Self::Events {
                count: number("n", 10),
                every: Duration::from_millis(number("every", 100)),
            },
            (b"GET", path) => path
                .strip_prefix("/bytes/")
                .and_then(|length| length.parse().ok())
                .map(Self::Bytes)
                .or_else(|| {
                    let code = path.strip_prefix("/status/")?.parse().ok()?;
                    (200..600).contains(&code).then_some(Self::Status(code))
                })
                .unwrap_or(Self::Unknown),
            _ => Self::Unknown,
        }
    }
}

async fn answer(stream: &mut TcpStream, status: u16, text: &str) -> io::Result<()> {
    // These two carry neither body nor length (RFC 9110, 15.3.5 and 15.4.5).
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

async fn bytes(stream: &mut TcpStream, length: u64) -> io::Result<()> {
    let pattern = Pattern::shared();
    let mut first = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    let mut sent = length.min(WRITE_BYTES);
    first.extend_from_slice(pattern.piece(0, sent));
    stream.write_all(&first).await?;
    while sent < length {
        let piece = pattern.piece(sent, WRITE_BYTES.min(length - sent));
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
    answer(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Request {
        Request::parse(head.as_bytes()).unwrap()
    }

    #[test]
    fn routes_are_told_apart() {
        let route = |line: &str| parse(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n")).route;
        assert_eq!(route("GET /small"), Route::Small);
        assert_eq!(route("GET /bytes/17"), Route::Bytes(17));
        assert_eq!(route("POST /upload"), Route::Upload);
        assert_eq!(route("GET /status/503"), Route::Status(503));
        assert_eq!(route("GET /status/99"), Route::Unknown);
        assert_eq!(route("GET /bytes/x"), Route::Unknown);
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
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        server.abort();
        String::from_utf8_lossy(&answer).into_owned()
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
        let answer = exchange(&request).await;
        assert!(answer.contains(&wanted), "{answer}");
    }

    #[tokio::test]
    async fn requests_on_one_connection_are_answered_in_order() {
        let answer = exchange(
            b"GET /status/418 HTTP/1.1\r\n\r\nPOST /upload HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi\
              GET /sse?n=2&every=1 HTTP/1.1\r\nconnection: close\r\n\r\n",
        )
        .await;
        let (teapot, rest) = answer.split_once("as asked").unwrap();
        assert!(teapot.starts_with("HTTP/1.1 418"), "{teapot}");
        let (upload, events) = rest.split_once("text/event-stream").unwrap();
        assert!(upload.contains("\"bytes\":2"), "{upload}");
        assert!(
            events.ends_with("id: 1\ndata: 1\n\n\r\n0\r\n\r\n"),
            "{events}"
        );
    }
}
