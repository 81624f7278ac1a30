//! Peers without a token, and visitors that use every descriptor: the resources of the process, and which visitors are
//! still served.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, HOST, Raw, Server, ServerOptions, Service, World, count, eventually,
    get, procfs,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The memory that all connections without a session may use together: `docs/architecture.md`, "Bounded memory".
const UNAUTHENTICATED_CEILING_BYTES: u64 = 32 << 20;

/// A `Register` call with the beginning of a message of 3.9 MB, in frames that every HTTP/2 server accepts.
fn half_registration() -> Vec<u8> {
    const MESSAGE_BYTES: usize = 3_900_000;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    // HPACK: POST, http, and literals with names of the static table (RFC 7541, appendix A).
    let mut headers = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.bytes());
    };
    literal(&[0x04], "/adit.tunnel.v1.TunnelService/Register");
    literal(&[0x01], "server");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &headers));
    let mut message = vec![0];
    message.extend(u32::try_from(MESSAGE_BYTES).unwrap().to_be_bytes());
    message.resize(MESSAGE_BYTES, b'a');
    for piece in message.chunks(16 * 1024) {
        bytes.extend(frame(0, 0, 1, piece));
    }
    bytes
}

/// 400 connections that send the bytes, each for at most `patience`: not all of them can be written, and unread bytes
/// stay on this side. `look` is called after each connection.
async fn attack(
    server: &Server,
    bytes: &'static [u8],
    patience: Duration,
    mut look: impl FnMut(),
) -> Vec<TcpStream> {
    let mut attackers = JoinSet::new();
    for _ in 0..400 {
        let tunnel = server.tunnel;
        attackers.spawn(async move {
            let mut stream = TcpStream::connect(tunnel).await.unwrap();
            let _ = timeout(patience, stream.write_all(bytes)).await;
            stream
        });
    }
    let mut held = Vec::new();
    while let Some(stream) = attackers.join_next().await {
        held.push(stream.unwrap());
        look();
    }
    held
}

async fn no_connection_without_a_session(server: &Server) {
    eventually("no connection without a session", PATIENCE, async || {
        let status = server.status().await;
        (count(&status, "/process/unauthenticated") == 0).then_some(())
    })
    .await;
}

/// P-1.12: peers without a token cannot fill the memory, during the attack or after it.
#[tokio::test]
async fn p_1_12_half_registrations_stay_below_the_ceiling() {
    procfs::allow_descriptors(2_000);
    // All connections have one address here, so the bound for one address is that for all.
    let config = "server: { limits: { max_unauthenticated_per_address: 256 } }";
    let server = Server::with(config).await;
    // The memory that the first connection causes does not count as that of the attack.
    drop(get(server.http, HOST, "/who").await);
    let before = procfs::resident_bytes(server.pid());
    let mut peak = 0;
    let bytes = half_registration().leak();
    let held = attack(&server, bytes, Duration::from_secs(2), || {
        peak = peak.max(procfs::resident_bytes(server.pid()));
    })
    .await;
    let unauthenticated = count(&server.status().await, "/process/unauthenticated");
    assert!(unauthenticated <= 256, "{unauthenticated}");
    assert!(unauthenticated >= 100, "no attack: {unauthenticated}");
    let grown = peak.saturating_sub(before);
    assert!(
        grown <= UNAUTHENTICATED_CEILING_BYTES,
        "{grown} bytes during"
    );
    // The oldest connections are closed to make room for a client with a token.
    let service = Service::site("site").await;
    let client = Client::http(&server, "client-1", "web", service.addr).await;
    assert_eq!(get(server.http, HOST, "/who").await.status, 200);
    drop((client, held));
    no_connection_without_a_session(&server).await;
    let kept = procfs::resident_bytes(server.pid()).saturating_sub(before);
    assert!(
        kept <= UNAUTHENTICATED_CEILING_BYTES / 2,
        "{kept} bytes after"
    );
    println!("grown {grown}, kept {kept}");
}

fn lines(server: &mut Server, text: &str) -> Vec<String> {
    let log = server.process().stderr();
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

/// Regression: the departure of the client was logged as a lost connection.
#[tokio::test]
async fn a_client_that_has_drained_is_logged_as_left() {
    let mut world = World::site().await;
    world.client.terminate();
    let status = world.client.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    let ended = eventually("a line about the client", PATIENCE, async || {
        let ended = lines(&mut world.server, "client disconnected");
        (!ended.is_empty()).then_some(ended)
    })
    .await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(ended[0].contains("left after a drain"), "{ended:?}");
    assert!(ended[0].contains("reason=\"draining\""), "{ended:?}");
    let lost = lines(&mut world.server, "lost");
    assert!(lost.is_empty(), "{lost:?}");
}

/// P-1.12: the allocator keeps memory of an attack and uses it again for the next one. It grows during the first three
/// attacks (6, 12 and 16 MB in a debug build) and then stays nearly the same (17.5 MB after the fifth).
#[tokio::test]
async fn p_1_12_repeated_attacks_do_not_climb_over_the_ceiling() {
    procfs::allow_descriptors(2_000);
    let config =
        "server: { limits: { max_unauthenticated_per_address: 256 }, timeouts: { setup: 1s } }";
    let server = Server::with(config).await;
    drop(get(server.http, HOST, "/who").await);
    let before = procfs::resident_bytes(server.pid());
    let bytes = half_registration().leak();
    let mut kept = Vec::new();
    for _ in 0..5 {
        let mut peak = 0;
        let held = attack(&server, bytes, Duration::from_millis(400), || {
            peak = peak.max(procfs::resident_bytes(server.pid()));
        })
        .await;
        let grown = peak.saturating_sub(before);
        assert!(grown <= UNAUTHENTICATED_CEILING_BYTES, "{grown} bytes");
        drop(held);
        no_connection_without_a_session(&server).await;
        kept.push(procfs::resident_bytes(server.pid()).saturating_sub(before));
    }
    println!("kept {kept:?}");
    let climbed = kept[4].saturating_sub(kept[2]);
    assert!(climbed <= UNAUTHENTICATED_CEILING_BYTES / 8, "{kept:?}");
}

/// The server's log contains a client that was killed, and a wrong token, with their addresses.
#[tokio::test]
async fn a_killed_client_and_a_wrong_token_are_logged_once() {
    let mut world = World::site().await;
    let peer = "peer=";
    let registered = lines(&mut world.server, "client registered");
    assert!(
        registered.len() == 1 && registered[0].contains(peer),
        "{registered:?}"
    );
    world.client.kill();
    let ended = eventually("a line about the client", PATIENCE, async || {
        let ended = lines(&mut world.server, "client disconnected");
        (!ended.is_empty()).then_some(ended)
    })
    .await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(
        ended[0].contains("INFO") && ended[0].contains("client-1"),
        "{ended:?}"
    );
    assert!(
        ended[0].contains(peer) && ended[0].contains("link_lost"),
        "{ended:?}"
    );
}

/// Opens connections to one listener that send nothing.
async fn silent(addr: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for number in 0..number {
        // Of many addresses, because one has a share of the connections only.
        let last = u8::try_from(number % 100 + 1).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 9, 9, last], 0).into()).unwrap();
        // Connections that are not accepted wait in the backlog.
        if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), socket.connect(addr)).await {
            held.push(stream);
        }
    }
    held
}

/// The server raises the soft limit to the hard limit. With 128 descriptors, 300 silent visitors leave room for links,
/// the admin page, and the visitors of other ports.
#[tokio::test]
async fn silent_visitors_at_128_descriptors_do_not_exclude_others() {
    procfs::allow_descriptors(2_000);
    let options = ServerOptions {
        config: "server: { timeouts: { head: 1s } }".into(),
        env: vec![
            ("TEST_DESCRIPTORS".into(), "128".into()),
            ("TEST_SOFT_DESCRIPTORS".into(), "100".into()),
        ],
        ..ServerOptions::default()
    };
    let mut server = Server::start(options).await;
    assert_eq!(procfs::descriptor_limits(server.pid()), (128, 128));
    let service = Service::site("site").await;
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: web, type: http, local_port: {port} }}\n    \
         - {{ name: raw, type: tcp, local_port: {port} }}\n",
        port = service.addr.port()
    );
    let _client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
    let tunnels = server.status().await["tunnels"].clone();
    let raw = tunnels
        .as_array()
        .unwrap()
        .iter()
        .find_map(|tunnel| tunnel["port"].as_u64());
    let raw = SocketAddr::new(server.http.ip(), u16::try_from(raw.unwrap()).unwrap());
    let begun = Instant::now();
    let held = silent(server.http, 300).await;
    eventually(
        "every descriptor of the listener in use",
        PATIENCE,
        async || {
            let log = server.process().stderr();
            log.contains("visitors wait").then_some(())
        },
    )
    .await;
    // The admin page, a visitor of another port, and a client that connects now are served.
    let visitor = get(raw, "any", "/who").await;
    assert_eq!(visitor.status, 200);
    let second = Client::http(&server, "client-2", "second", service.addr).await;
    let open = procfs::descriptors(server.pid());
    assert!(open < 128, "{open}");
    // The silent visitors are closed after some time, and the visitors behind them are served.
    let web = eventually("a visitor of the flooded port", PATIENCE, async || {
        let mut visitor = Raw::connect(server.http).await;
        visitor
            .send("GET /who HTTP/1.1\r\nhost: web.localhost\r\nconnection: close\r\n\r\n")
            .await;
        Some(visitor.read_to_end().await.status())
    })
    .await;
    assert_eq!(web, 200);
    drop((held, second));
    let log = server.process().stderr();
    let lines = log
        .lines()
        .filter(|line| line.contains("visitors wait") || line.contains("accept failed"));
    let (lines, seconds) = (lines.count() as u64, begun.elapsed().as_secs());
    assert!(
        lines <= 2 * seconds + 2,
        "{lines} lines in {seconds} s\n{log}"
    );
}
