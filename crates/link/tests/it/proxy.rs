//! The way to the server through an outbound proxy.

use std::net::SocketAddr;

use adit_link::grpc::{Proxy, ProxyError};
use adit_net::{HostPort, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const GREETING: &[u8] = b"the server speaks first";

/// A proxy that accepts one connection.
struct Listening {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Listening {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self { listener, addr }
    }

    /// The result of a connection through this proxy, whose URL begins with `scheme` and has `credentials`, while `serve`
    /// takes the part of the proxy.
    async fn connect<F: Future>(
        &self,
        (scheme, credentials): (&str, &str),
        serve: impl FnOnce(TcpStream) -> F,
    ) -> (Result<Stream, ProxyError>, F::Output) {
        let url = format!("{scheme}://{credentials}{}", self.addr);
        let proxy: Proxy = url.parse().unwrap();
        // A name that only the proxy can resolve.
        let server = HostPort::new("tunnel.internal", 7000);
        let serving = async { serve(self.listener.accept().await.unwrap().0).await };
        tokio::join!(proxy.connect(&server), serving)
    }
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut read = vec![0; length];
    stream.read_exact(&mut read).await.unwrap();
    read
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Asserts that the greeting arrives as a whole.
async fn is_greeted(stream: Result<Stream, ProxyError>) {
    let mut read = vec![0; GREETING.len()];
    stream.unwrap().read_exact(&mut read).await.unwrap();
    assert_eq!(read, GREETING);
}

#[tokio::test]
async fn an_http_proxy_connects_by_name() {
    let listening = Listening::new().await;
    let (stream, (head, _open)) = listening
        .connect(("http", ""), async |mut proxy| {
            let head = read_head(&mut proxy).await;
            // The bytes of the server follow the head in one segment.
            let response = [
                b"HTTP/1.1 200 Connection established\r\nVia: a\r\n\r\n",
                GREETING,
            ];
            proxy.write_all(&response.concat()).await.unwrap();
            (head, proxy)
        })
        .await;
    let expected = "CONNECT tunnel.internal:7000 HTTP/1.1\r\nHost: tunnel.internal:7000\r\n\r\n";
    assert_eq!(head, expected);
    is_greeted(stream).await;
}

/// The head of the response may arrive byte by byte, in small segments.
#[tokio::test]
async fn the_response_of_an_http_proxy_may_be_cut_anywhere() {
    let listening = Listening::new().await;
    let (stream, _open) = listening
        .connect(("http", ""), async |mut proxy| {
            proxy.set_nodelay(true).unwrap();
            read_head(&mut proxy).await;
            for byte in b"HTTP/1.1 200 OK\r\n\r\n" {
                proxy.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            proxy.write_all(GREETING).await.unwrap();
            proxy
        })
        .await;
    is_greeted(stream).await;
}

#[tokio::test]
async fn an_http_proxy_is_given_the_credentials() {
    let listening = Listening::new().await;
    let (stream, head) = listening
        .connect(("http", "Aladdin:open%20sesame@"), async |mut proxy| {
            let head = read_head(&mut proxy).await;
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
            proxy.write_all(refusal).await.unwrap();
            head
        })
        .await;
    let expected = "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    assert!(head.contains(expected), "{head}");
    let error = stream.unwrap_err();
    assert!(matches!(error, ProxyError::Credentials { .. }), "{error}");
    assert!(!error.to_string().contains("sesame"), "{error}");
}

#[tokio::test]
async fn other_responses_of_an_http_proxy_are_errors() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(20_000));
    for (response, expected) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\n\r\nx",
            "status 502",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "does not respond as an HTTP proxy",
        ),
        (&long, "does not respond as an HTTP proxy"),
        ("HTTP/1.1 200 OK\r\n", "has closed the connection"),
        ("", "has closed the connection"),
    ] {
        let listening = Listening::new().await;
        let (stream, ()) = listening
            .connect(("http", ""), async |mut proxy| {
                read_head(&mut proxy).await;
                // A client that has seen enough closes.
                let _ = proxy.write_all(response.as_bytes()).await;
            })
            .await;
        let error = stream.unwrap_err().to_string();
        assert!(error.contains(expected), "{response:.40}: {error}");
    }
}

/// RFC 1928: method, request with a domain name (type 3), reply.
const SOCKS_CONNECT: &[u8] = b"\x05\x01\x00\x03\x0ftunnel.internal\x1b\x58";
const SOCKS_SUCCEEDED: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";

#[tokio::test]
async fn a_socks_proxy_connects_by_name() {
    let listening = Listening::new().await;
    let (stream, (request, _open)) = listening
        .connect(("socks5", ""), async |mut proxy| {
            assert_eq!(read(&mut proxy, 3).await, b"\x05\x01\x00");
            proxy.write_all(b"\x05\x00").await.unwrap();
            let request = read(&mut proxy, SOCKS_CONNECT.len()).await;
            let response = [SOCKS_SUCCEEDED, GREETING].concat();
            proxy.write_all(&response).await.unwrap();
            (request, proxy)
        })
        .await;
    assert_eq!(request, SOCKS_CONNECT);
    is_greeted(stream).await;
}

/// RFC 1929: version, user, password; the status after it.
#[tokio::test]
async fn a_socks_proxy_is_given_the_credentials() {
    for (status, is_accepted) in [(0, true), (1, false)] {
        let listening = Listening::new().await;
        let (stream, sent) = listening
            .connect(("socks5h", "ann:secret@"), async |mut proxy| {
                let methods = read(&mut proxy, 2).await[1];
                read(&mut proxy, methods.into()).await;
                proxy.write_all(b"\x05\x02").await.unwrap();
                let sent = read(&mut proxy, 12).await;
                proxy.write_all(&[1, status]).await.unwrap();
                if is_accepted {
                    read(&mut proxy, SOCKS_CONNECT.len()).await;
                    proxy.write_all(SOCKS_SUCCEEDED).await.unwrap();
                }
                sent
            })
            .await;
        assert_eq!(sent, b"\x01\x03ann\x06secret");
        match stream {
            Ok(_) => assert!(is_accepted),
            Err(error) => {
                assert!(matches!(error, ProxyError::Credentials { .. }), "{error}");
                assert!(!is_accepted);
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_of_a_socks_proxy_is_an_error() {
    let listening = Listening::new().await;
    let (stream, ()) = listening
        .connect(("socks5", ""), async |mut proxy| {
            read(&mut proxy, 3).await;
            proxy.write_all(b"\x05\x00").await.unwrap();
            read(&mut proxy, SOCKS_CONNECT.len()).await;
            // Connection refused.
            let reply = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00";
            proxy.write_all(reply).await.unwrap();
        })
        .await;
    let error = stream.unwrap_err();
    assert!(matches!(error, ProxyError::Socks { .. }), "{error}");
    assert!(
        error.to_string().contains("tunnel.internal:7000"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named() {
    let addr = {
        let listening = Listening::new().await;
        listening.addr
    };
    let proxy: Proxy = format!("http://ann:secret@{addr}").parse().unwrap();
    let connected = proxy.connect(&HostPort::new("a.test", 1)).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, ProxyError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&addr.to_string()) && !text.contains("secret"),
        "{text}"
    );
}
