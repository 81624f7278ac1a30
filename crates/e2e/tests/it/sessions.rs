//! TCP connections and UDP flows through public ports, from the command line to the service and back. F06, F07, F17,
//! F18, F21, F43, F45, P-1.4, P-10.1 to P-10.5, P-11.1, P-11.4.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_e2e::{
    Client, ClientOptions, End, Process, Raw, Run, Scripted, Server, Service, count, eventually,
    get, run, within,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinHandle,
};

const SOON: Duration = Duration::from_secs(30);

/// `adit ARGS`, on the machine of `server`.
fn adit(server: &Server, id: &str, args: &[&str]) -> ClientOptions {
    ClientOptions {
        id: id.to_owned(),
        args: args.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        state: server.state().to_path_buf(),
    }
}

/// Starts a client, and returns the address in its first line: `tcp://ADDRESS`.
async fn start(options: ClientOptions, scheme: &str) -> (Client, SocketAddr) {
    let mut client = Client::start(options).await;
    let line = client.process().first_line().await;
    let addr = line.strip_prefix(scheme).and_then(|line| line.parse().ok());
    (client, addr.unwrap_or_else(|| panic!("{line}")))
}

/// A port of the server's address that is free.
async fn free(server: &Server) -> u16 {
    let listener = TcpListener::bind((server.tunnel.ip(), 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

async fn shown(server: &Server, pointer: &str, wanted: u64) {
    let what = format!("{pointer} at {wanted}");
    eventually(&what, SOON, async || {
        (count(&server.status().await, pointer) == wanted).then_some(())
    })
    .await;
}

/// Waits until no state of any visitor is left on either side.
async fn nothing_is_left(server: &Server, client: &Client) {
    for pointer in ["/tcp/open", "/process/pending", "/process/permits_in_use"] {
        shown(server, pointer, 0).await;
    }
    eventually("an idle client", SOON, async || {
        let status = client.status().await;
        let held = ["/pending", "/requests", "/service_connections"];
        let held: u64 = held.iter().map(|held| count(&status, held)).sum();
        (held == 0).then_some(())
    })
    .await;
}

/// Echoes the bytes of the visitor until its end.
async fn echo() -> Scripted {
    Scripted::start(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// A service that sends its name and closes.
async fn named(name: &'static str) -> Scripted {
    Scripted::start(move |mut stream| async move {
        let _ = stream.write_all(name.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0]).await;
    })
    .await
}

/// A service that sends `hello`, and reports how each connection ended: whether it was closed or reset.
async fn watched() -> (Scripted, mpsc::UnboundedReceiver<End>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let service = Scripted::start(move |stream| {
        let ends = ends.clone();
        async move {
            let mut raw = Raw { stream };
            raw.send("hello").await;
            let mut piece = [0; 4096];
            let end = loop {
                match raw.stream.read(&mut piece).await {
                    Ok(0) => break End::Closed,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        break End::Reset;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            let _ = ends.send(end);
        }
    })
    .await;
    (service, ended)
}

/// Sends a text and expects its echo.
async fn responses(addr: SocketAddr, text: &str) {
    let mut visitor = Raw::connect(addr).await;
    visitor.send(text).await;
    visitor.stream.shutdown().await.unwrap();
    let read = visitor.read_to_end().await;
    assert_eq!((read.text().as_str(), read.end), (text, End::Closed));
}

/// Tries until a service responds; a visitor that cannot be forwarded is reset.
async fn responds_again(addr: SocketAddr) {
    eventually("a response", SOON, async || {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        stream.write_all(b"again").await.ok()?;
        let mut response = [0; 5];
        let read = tokio::time::timeout(SOON, stream.read_exact(&mut response)).await;
        matches!(read, Ok(Ok(_))).then_some(())
    })
    .await;
}

/// Sends a megabyte and expects it back unchanged.
async fn carries(addr: SocketAddr) {
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    within("a megabyte", SOON, read.read_to_end(&mut back))
        .await
        .unwrap();
    sending.await.unwrap();
    assert!(back == bytes, "{} bytes, or others", back.len());
}

/// F06, F43: bytes cross a public port that the client requests, and one that the server chooses.
#[tokio::test]
async fn bytes_cross_a_requested_and_a_chosen_port() {
    let service = echo().await;
    // Connections are assigned to threads other than that of the link.
    let server = Server::with("server: { threads: 3 }").await;
    let port = free(&server).await;
    let (service_addr, asked) = (service.addr.to_string(), port.to_string());
    let args = [
        "tcp",
        &service_addr,
        "--remote-port",
        &asked,
        "--name",
        "asked",
    ];
    let (asking, addr) = start(adit(&server, "asking", &args), "tcp://").await;
    assert_eq!(addr, SocketAddr::new(server.tunnel.ip(), port));
    let args = ["tcp", &service_addr, "--name", "picked"];
    let (picking, picked) = start(adit(&server, "picking", &args), "tcp://").await;
    assert!(picked.ip() == server.tunnel.ip() && picked.port() > 0);
    for addr in [addr, picked] {
        responses(addr, "hello").await;
        carries(addr).await;
    }
    let status = server.status().await;
    assert_eq!(count(&status, "/tcp/total"), 4);
    assert_eq!(count(&status, "/process/public_ports"), 2);
    assert_eq!(status["tunnels"][0]["type"], "tcp");
    assert_eq!(count(&status, "/tunnels/0/port"), u64::from(port));
    nothing_is_left(&server, &asking).await;
    nothing_is_left(&server, &picking).await;
}

/// P-10.2: each direction ends independently.
#[tokio::test]
async fn p_10_2_either_side_may_end_its_direction_first() {
    let service = Scripted::start(|mut stream| async move {
        let mut asked = Vec::new();
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.unwrap();
        if &first == b"early" {
            // The service ends its own direction first; then it reads to the end of the visitor's.
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut asked).await.unwrap();
            assert_eq!(asked, b"still here");
        } else {
            stream.read_to_end(&mut asked).await.unwrap();
            stream.write_all(b"after the end").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let server = Server::plain().await;
    let service_addr = service.addr.to_string();
    let (client, addr) = start(adit(&server, "one", &["tcp", &service_addr]), "tcp://").await;
    let mut visitor = Raw::connect(addr).await;
    visitor.send("first").await;
    visitor.stream.shutdown().await.unwrap();
    let read = visitor.read_to_end().await;
    assert_eq!(
        (read.text().as_str(), read.end),
        ("after the end", End::Closed)
    );
    let mut visitor = Raw::connect(addr).await;
    visitor.send("early").await;
    let read = visitor.read_to_end().await;
    assert_eq!((read.text().as_str(), read.end), ("bye", End::Closed));
    visitor.send("still here").await;
    visitor.stream.shutdown().await.unwrap();
    nothing_is_left(&server, &client).await;
    assert_eq!(
        server.status().await["tcp"]["failures"],
        serde_json::json!({})
    );
}

/// F45: the service receives the visitor's address, and the address that the visitor connected to.
#[tokio::test]
async fn p_10_5_a_service_gets_the_visitors_address() {
    let service = echo().await;
    let server = Server::plain().await;
    let service_addr = service.addr.to_string();
    for version in ["v1", "v2"] {
        let args = [
            "tcp",
            &service_addr,
            "--name",
            version,
            "--proxy-protocol",
            version,
        ];
        let (_client, addr) = start(adit(&server, version, &args), "tcp://").await;
        let mut visitor = Raw::connect(addr).await;
        let own = visitor.stream.local_addr().unwrap();
        visitor.send("hello").await;
        visitor.stream.shutdown().await.unwrap();
        let read = visitor.read_to_end().await;
        let (IpAddr::V4(from), IpAddr::V4(to)) = (own.ip(), addr.ip()) else {
            panic!("{own}, {addr}")
        };
        let expected = if version == "v1" {
            format!("PROXY TCP4 {from} {to} {} {}\r\n", own.port(), addr.port()).into_bytes()
        } else {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            header.extend(from.octets());
            header.extend(to.octets());
            header.extend(own.port().to_be_bytes());
            header.extend(addr.port().to_be_bytes());
            header
        };
        assert_eq!(read.bytes, [&expected[..], b"hello"].concat(), "{version}");
    }
}

#[tokio::test]
async fn clients_of_a_group_share_a_port() {
    let services = [named("a").await, named("b").await];
    let server = Server::plain().await;
    let port = free(&server).await.to_string();
    let client = async |id: &str, service: &Scripted| {
        let service = service.addr.to_string();
        let args = [
            "tcp",
            &service,
            "--remote-port",
            &port,
            "--name",
            "db",
            "--group",
            "dbs",
        ];
        start(adit(&server, id, &args), "tcp://").await
    };
    let (_one, addr) = client("one", &services[0]).await;
    let (mut two, same) = client("two", &services[1]).await;
    assert_eq!(addr, same);
    let mut seen = String::new();
    for _ in 0..4 {
        seen += &Raw::connect(addr).await.read_to_end().await.text();
    }
    assert_eq!(
        (seen.matches('a').count(), seen.matches('b').count()),
        (2, 2)
    );
    // One client leaves; the port stays with the other one.
    two.terminate();
    assert!(two.exit(SOON).await.success());
    for _ in 0..3 {
        let read = Raw::connect(addr).await.read_to_end().await;
        assert_eq!(read.text(), "a");
    }
}

/// P-1.4: the result of a rejected announcement contains the cause and the holder of the name.
#[tokio::test]
async fn an_unavailable_port_is_rejected_with_the_cause() {
    let service = echo().await;
    let server = Server::with("server: { limits: { allow_ports: \"20000-65535\" } }").await;
    let refused = async |id: &str, port: u16| -> Run {
        let state = server.state().display().to_string();
        let env = [
            ("ADIT__STATE_DIR", &*state),
            ("ADIT__CLIENT__CLIENT_ID", id),
        ];
        let (service, port) = (service.addr.to_string(), port.to_string());
        let args = ["tcp", &service, "--remote-port", &port];
        run("adit", &args, &env, server.state()).await
    };
    let service_addr = service.addr.to_string();
    let (_holder, addr) = start(adit(&server, "holder", &["tcp", &service_addr]), "tcp://").await;
    // The port is held by a client, or by a program other than adit: it may become free.
    let foreign = TcpListener::bind((server.tunnel.ip(), 0)).await.unwrap();
    let foreign_port = foreign.local_addr().unwrap().port();
    for (port, cause) in [
        (addr.port(), "client `holder`"),
        (foreign_port, "is in use"),
    ] {
        let port = port.to_string();
        let args = ["tcp", &service_addr, "--remote-port", &port];
        let mut late = Client::start(adit(&server, "late", &args)).await;
        let shown = eventually("the cause", SOON, async || {
            let shown = late.process().stderr();
            shown
                .contains("the tunnel is announced again until it is accepted")
                .then_some(shown)
        })
        .await;
        assert!(shown.contains(cause), "{shown}");
        assert_eq!(late.process().stdout(), "");
    }
    let run = refused("late", 2222).await;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("allow_ports"), "{}", run.stderr);
    responses(addr, "undisturbed").await;
}

/// P-10.3, F17, F18: a client that is killed resets its connections; its port stays open, visitors wait for it, and a
/// client that returns has the same port.
#[tokio::test]
async fn p_10_3_a_killed_client_resets_and_returns_to_its_port() {
    let (service, mut ended) = watched().await;
    let server = Server::plain().await;
    let service_addr = service.addr.to_string();
    let (mut client, addr) = start(adit(&server, "one", &["tcp", &service_addr]), "tcp://").await;
    let mut running = Raw::connect(addr).await;
    running.read_text("hello").await;
    client.kill();
    let read = running.read_to_end().await;
    assert_eq!((read.bytes.len(), read.end), (0, End::Reset));
    // Visitors connect before a client is connected.
    let mut waiting = Raw::connect(addr).await;
    client.restart().await;
    waiting.read_text("hello").await;
    waiting.stream.shutdown().await.unwrap();
    // For the first connection, the service receives the end of the client's process; for the second one, the end of
    // the visitor.
    let _ = within("an end", SOON, ended.recv()).await;
    assert_eq!(
        within("an end", SOON, ended.recv()).await,
        Some(End::Closed)
    );
    drop(waiting);
    nothing_is_left(&server, &client).await;
    let status = server.status().await;
    assert_eq!(count(&status, "/process/public_ports"), 1);
    assert_eq!(count(&status, "/tcp/failures/link_lost"), 1);
}

/// P-10.3: when a server is killed, its connections end on both sides; the client reconnects to the restarted server
/// and has the same port.
#[tokio::test]
async fn p_10_3_a_killed_server_resets_the_service_and_reuses_its_port() {
    let (service, mut ended) = watched().await;
    let mut server = Server::plain().await;
    let service_addr = service.addr.to_string();
    let (client, addr) = start(adit(&server, "one", &["tcp", &service_addr]), "tcp://").await;
    let mut running = Raw::connect(addr).await;
    running.read_text("hello").await;
    server.kill();
    let read = running.read_to_end().await;
    assert_ne!(read.end, End::Open);
    assert_eq!(within("an end", SOON, ended.recv()).await, Some(End::Reset));
    server.restart().await;
    server.wait_for_clients(1).await;
    let mut again = Raw::connect(addr).await;
    again.read_text("hello").await;
    drop(again);
    nothing_is_left(&server, &client).await;
}

/// P-10.3, P-10.4: a service that resets, and a service that cannot be reached.
#[tokio::test]
async fn p_10_4_a_lost_service_resets_its_visitor() {
    let service = Scripted::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        let _ = stream.write_all(b"half of").await;
        Raw { stream }.reset();
    })
    .await;
    let server = Server::plain().await;
    let service_addr = service.addr;
    let args = ["tcp", &service_addr.to_string()];
    let (client, addr) = start(adit(&server, "one", &args), "tcp://").await;
    let mut visitor = Raw::connect(addr).await;
    visitor.send("hello").await;
    assert_eq!(visitor.read_to_end().await.end, End::Reset);
    drop(service);
    eventually("the service's port is closed", SOON, async || {
        TcpStream::connect(service_addr).await.err()
    })
    .await;
    let mut visitor = Raw::connect(addr).await;
    let read = visitor.read_to_end().await;
    assert_eq!((read.bytes.len(), read.end), (0, End::Reset));
    nothing_is_left(&server, &client).await;
    let status = server.status().await;
    assert_eq!(count(&status, "/tcp/failures/service_aborted"), 1);
    assert_eq!(count(&status, "/tcp/failures/dial_failed"), 1);
    // The service listens again on the same address.
    let listener = TcpListener::bind(service_addr).await.unwrap();
    let accepting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"back").await.unwrap();
    });
    let read = Raw::connect(addr).await.read_to_end().await;
    assert_eq!(read.text(), "back");
    accepting.await.unwrap();
}

/// A service in a separate process, which can be killed.
const PYTHON_ECHO: &str = r#"
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listener.getsockname()[1], flush=True)
def serve(peer):
    while data := peer.recv(65536):
        peer.sendall(data)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

fn python_echo(server: &Server, port: &str) -> Process {
    let sh = std::path::Path::new("/bin/sh");
    let args = ["-c", r#"exec python3 -c "$0" "$1""#, PYTHON_ECHO, port];
    Process::spawn("echo", sh, &args, &[], server.state())
}

#[tokio::test]
async fn a_killed_service_is_found_when_it_returns() {
    let server = Server::plain().await;
    let mut service = python_echo(&server, "0");
    let port = service.first_line().await;
    let (client, addr) = start(adit(&server, "one", &["tcp", &port]), "tcp://").await;
    let mut visitor = Raw::connect(addr).await;
    visitor.send("hello").await;
    visitor.read_text("hello").await;
    service.kill();
    // The system closes the connections of the killed process: with a reset if bytes were unread.
    assert_ne!(visitor.read_to_end().await.end, End::Open);
    drop(visitor);
    nothing_is_left(&server, &client).await;
    let _service = python_echo(&server, &port);
    responds_again(addr).await;
}

/// P-10.3: the reset of a visitor reaches the service.
#[tokio::test]
async fn p_10_3_a_visitors_reset_is_a_reset_for_the_service() {
    let (service, mut ended) = watched().await;
    let server = Server::plain().await;
    let service_addr = service.addr.to_string();
    let (client, addr) = start(adit(&server, "one", &["tcp", &service_addr]), "tcp://").await;
    let mut visitor = Raw::connect(addr).await;
    visitor.read_text("hello").await;
    visitor.reset();
    assert_eq!(within("an end", SOON, ended.recv()).await, Some(End::Reset));
    // A visitor whose process is killed while it sends.
    let mut visitor = Process::spawn(
        "visitor",
        std::path::Path::new("/bin/sh"),
        &[
            "-c",
            r#"exec python3 -c 'import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(s.recv(16).decode(), flush=True)
while True: s.sendall(b"x" * 4096)' "$0" "$1""#,
            &addr.ip().to_string(),
            &addr.port().to_string(),
        ],
        &[],
        server.state(),
    );
    assert_eq!(visitor.first_line().await, "hello");
    visitor.kill();
    assert!(within("an end", SOON, ended.recv()).await.is_some());
    nothing_is_left(&server, &client).await;
}

/// F17, P-10.4: for some time a visitor waits for a client; the port is closed when the tunnel is removed.
#[tokio::test]
async fn a_port_is_kept_for_a_while_and_then_closed() {
    let service = echo().await;
    let config =
        "server: { timeouts: { client_wait: 100ms, tunnel_retention: 3s, startup_grace: 0s } }";
    let server = Server::with(config).await;
    let service_addr = service.addr.to_string();
    let (mut client, addr) = start(adit(&server, "one", &["tcp", &service_addr]), "tcp://").await;
    responses(addr, "hello").await;
    client.terminate();
    assert!(client.exit(SOON).await.success());
    let read = Raw::connect(addr).await.read_to_end().await;
    assert_eq!((read.bytes.len(), read.end), (0, End::Reset));
    assert_eq!(count(&server.status().await, "/tcp/failures/no_client"), 1);
    eventually("a port that is closed", SOON, async || {
        let refused = TcpStream::connect(addr).await.err()?;
        (refused.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    shown(&server, "/process/public_ports", 0).await;
    client.restart().await;
    responses(addr, "the same again").await;
}

/// F21: a draining server accepts no new visitor, and completes the others.
#[tokio::test]
async fn a_draining_server_closes_ports_and_completes_connections() {
    let service = echo().await;
    let mut server = Server::plain().await;
    let flows = udp_echo(server.tunnel.ip()).await;
    let options = ClientOptions::file(
        &server,
        "one",
        &format!(
            "client: {{ tunnels: [ {{ name: a, type: tcp, local_port: {} }}, {{ name: b, type: udp, local_addr: {}, local_port: {} }} ] }}",
            service.addr.port(),
            flows.addr.ip(),
            flows.addr.port(),
        ),
    );
    let client = Client::start(options).await;
    let addrs = public(&client).await;
    let mut running = Raw::connect(addrs[0]).await;
    running.send("before").await;
    running.read_text("before").await;
    let datagrams = visitor(addrs[1]).await;
    assert_eq!(query(&datagrams, b"before").await, b"before");
    server.terminate();
    eventually("a port that is closed", SOON, async || {
        TcpStream::connect(addrs[0]).await.err().map(drop)
    })
    .await;
    running.send("after").await;
    running.read_text("after").await;
    assert_eq!(query(&datagrams, b"after").await, b"after");
    assert!(!server.process().has_ended());
    running.stream.shutdown().await.unwrap();
    assert_eq!(running.read_to_end().await.end, End::Closed);
    // The drain does not wait for the flow, which has no end: it takes much less than its 30 s.
    assert!(server.exit(Duration::from_secs(15)).await.success());
}

/// The addresses of a client's tunnels, in the order of its file.
async fn public(client: &Client) -> Vec<SocketAddr> {
    let status = client.status().await;
    let tunnels = status["tunnels"].as_array().unwrap().iter();
    let url = |tunnel: &Value| tunnel["public_url"].as_str().unwrap().to_owned();
    tunnels
        .map(|tunnel| url(tunnel).rsplit('/').next().unwrap().parse().unwrap())
        .collect()
}

/// Echoes each datagram, until it is dropped.
struct UdpEcho {
    addr: SocketAddr,
    echoing: JoinHandle<()>,
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.echoing.abort();
    }
}

async fn udp_echo(ip: IpAddr) -> UdpEcho {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let addr = socket.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&datagram[..length], from).await;
        }
    });
    UdpEcho { addr, echoing }
}

async fn visitor(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((addr.ip(), 0)).await.unwrap();
    socket.connect(addr).await.unwrap();
    socket
}

/// The echo of a datagram, which is sent again until it returns: a datagram may be lost.
async fn query(visitor: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    let mut response = vec![0; 65_536];
    eventually("a response to a datagram", SOON, async || {
        visitor.send(datagram).await.ok()?;
        let responded = visitor.recv(&mut response);
        let wait = Duration::from_secs(2);
        let length = tokio::time::timeout(wait, responded).await.ok()?.ok()?;
        Some(response[..length].to_vec())
    })
    .await
}

/// F07, P-11.1, P-11.4: each visitor has a flow of its own; a silent one ends, and a late datagram opens another.
#[tokio::test]
async fn p_11_4_datagrams_come_back_and_a_silent_flow_ends() {
    let server = Server::with("server: { threads: 3 }").await;
    let service = udp_echo(server.tunnel.ip()).await;
    let port = free(&server).await;
    let (service_addr, asked) = (service.addr.to_string(), port.to_string());
    let args = [
        "udp",
        &service_addr,
        "--remote-port",
        &asked,
        "--session-timeout",
        "1s",
    ];
    let (client, addr) = start(adit(&server, "one", &args), "udp://").await;
    assert_eq!(addr, SocketAddr::new(server.tunnel.ip(), port));
    let (one, two) = (visitor(addr).await, visitor(addr).await);
    assert_eq!(query(&one, b"one").await, b"one");
    assert_eq!(query(&two, b"two").await, b"two");
    // Datagrams are not split: the shortest and the longest.
    assert_eq!(query(&one, b"").await, b"");
    let longest: Vec<u8> = (0..65_507_u32).map(|n| (n % 249) as u8).collect();
    assert!(query(&two, &longest).await == longest);
    assert_eq!(count(&server.status().await, "/udp/total"), 2);
    shown(&server, "/udp/open", 0).await;
    let status = server.status().await;
    assert_eq!(count(&status, "/udp/silent"), 2);
    assert_eq!(count(&status, "/process/pending"), 0);
    assert_eq!(query(&one, b"late").await, b"late");
    assert_eq!(count(&server.status().await, "/udp/total"), 3);
    shown(&server, "/udp/open", 0).await;
    nothing_is_left(&server, &client).await;
}

/// F18: a killed client returns to its port, and visitors of UDP reach it again.
#[tokio::test]
async fn flows_come_back_with_their_client() {
    let server = Server::plain().await;
    let service = udp_echo(server.tunnel.ip()).await;
    let service_addr = service.addr.to_string();
    let (mut client, addr) = start(adit(&server, "one", &["udp", &service_addr]), "udp://").await;
    let visitor = visitor(addr).await;
    assert_eq!(query(&visitor, b"before").await, b"before");
    client.kill();
    client.restart().await;
    assert_eq!(query(&visitor, b"after").await, b"after");
    assert_eq!(public(&client).await, [addr]);
}

/// An HTTP tunnel with a port of its own accepts any host.
#[tokio::test]
async fn a_port_of_http_needs_no_host() {
    let service = Service::site("site").await;
    let server = Server::with("server: { timeouts: { startup_grace: 0s } }").await;
    let port = free(&server).await.to_string();
    let args = ["http", &service.addr.to_string(), "--remote-port", &port];
    let (_client, addr) = start(adit(&server, "one", &args), "http://").await;
    for host in ["anything.test", "web.localhost"] {
        let response = get(addr, host, "/who").await;
        assert_eq!(
            (response.status.as_u16(), response.text().as_str()),
            (200, "site")
        );
    }
    // The tunnel is selected by its port alone.
    let name = format!("http-{}.localhost", service.addr.port());
    let response = get(server.http, &name, "/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (404, "no_tunnel")
    );
    shown(&server, "/process/pending", 0).await;
}

/// F43: `adit status` shows the public ports, and the open connections and flows.
#[tokio::test]
async fn status_shows_ports_and_sessions() {
    let (service, _ended) = watched().await;
    let server = Server::plain().await;
    let flows = udp_echo(server.tunnel.ip()).await;
    let options = ClientOptions::file(
        &server,
        "one",
        &format!(
            "client: {{ tunnels: [ {{ name: ssh, type: tcp, local_port: {} }}, {{ name: dns, tunnel_type: udp, config: {{ local_addr: {}, local_port: {} }} }} ] }}",
            service.addr.port(),
            flows.addr.ip(),
            flows.addr.port(),
        ),
    );
    let client = Client::start(options).await;
    let addrs = public(&client).await;
    let mut running = Raw::connect(addrs[0]).await;
    running.read_text("hello").await;
    assert_eq!(query(&visitor(addrs[1]).await, b"x").await, b"x");
    let state = server.state().display().to_string();
    let env = [("ADIT__STATE_DIR", &*state)];
    let text = run("adit", &["status"], &env, server.state()).await.stdout;
    for part in [
        &format!("tcp://{}", addrs[0]),
        &format!("udp://{}", addrs[1]),
        "tcp connections: 1 open, 1 so far",
        "udp flows: 1 open, 1 so far",
        "datagrams dropped: 0 from visitors",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = run("adit", &["status", "--json"], &env, server.state()).await;
    let shown: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(count(&shown, "/server/tcp/open"), 1);
    assert_eq!(count(&shown, "/server/udp/open"), 1);
}
