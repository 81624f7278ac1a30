//! Who may visit: access layers of the server, of rules and of tunnels, for every protocol. F34, F44, P-15.1 to P-15.4.

mod addresses;
mod bans;
mod credentials;
mod error_pages;
mod forward_auth;
mod load_balancers;
mod rates;

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_e2e::{
    Client, ClientOptions, End, FullResponse, Raw, Server, Service, Visitor, count, eventually,
};
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::net::TcpSocket;

/// The time limit of operations that must not hang.
const SOON: Duration = Duration::from_secs(30);
const ID: &str = "office";
const HOST: &str = "web.localhost";

/// An address of visitors: every address of 127.0.0.0/8 belongs to this machine.
fn source(last: u8) -> IpAddr {
    [127, 8, 0, last].into()
}

/// A client's file with these tunnels; each is written as YAML on one line.
fn file(tunnels: &[String]) -> String {
    let lines = tunnels
        .iter()
        .map(|tunnel| format!("    - {{ {tunnel} }}\n"));
    format!("client:\n  tunnels:\n{}", lines.collect::<String>())
}

/// A server with this file, and a client with the tunnel `web` to a site, with these layers.
struct Web {
    client: Client,
    server: Server,
    service: Service,
}

impl Web {
    async fn new(server: &str, layers: &str) -> Self {
        let service = Service::site("site").await;
        let server = Server::with(server).await;
        let options = ClientOptions::file(&server, ID, &Self::file(&service, layers));
        let client = Client::start(options).await;
        Self {
            client,
            server,
            service,
        }
    }

    fn file(service: &Service, layers: &str) -> String {
        let tunnel = format!(
            "name: web, local_port: {}, layers: {layers}",
            service.port()
        );
        file(&[tunnel])
    }

    async fn visitor(&self, last: u8) -> Visitor {
        Visitor::http1_from(source(last), self.server.http, HOST).await
    }

    /// The response to a GET request from an address.
    async fn get(&self, last: u8, path: &str) -> FullResponse {
        self.visitor(last).await.get(path).await
    }

    /// The response to a GET request with header lines.
    async fn get_with(&self, last: u8, path: &str, lines: &[(&str, &str)]) -> FullResponse {
        get_with(&mut self.visitor(last).await, path, lines).await
    }

    /// Replaces the layers of the tunnel, and sends SIGHUP.
    fn change(&mut self, layers: &str) {
        let file = self.server.state().join(format!("{ID}.yaml"));
        let aside = file.with_extension("new");
        std::fs::write(&aside, Self::file(&self.service, layers)).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        self.client.process().signal("HUP");
    }

    async fn count(&self, pointer: &str) -> u64 {
        count(&self.server.status().await, pointer)
    }
}

/// The response to a GET request with header lines.
async fn get_with(visitor: &mut Visitor, path: &str, lines: &[(&str, &str)]) -> FullResponse {
    let mut request = visitor.request(&Method::GET, path, adit_e2e::empty());
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(name, value);
    }
    visitor.whole(request).await.unwrap()
}

/// Status and reason of a response.
fn verdict(response: &FullResponse) -> (u16, &str) {
    let reason = response.headers.get("adit-reason");
    let reason = reason.map_or("", |reason| reason.to_str().unwrap());
    (response.status.as_u16(), reason)
}

/// The public address of the tunnel with this name.
async fn port_of(server: &Server, name: &str) -> SocketAddr {
    let port = eventually("a public port", SOON, async || {
        let status = server.status().await;
        let tunnels = status["tunnels"].as_array().unwrap();
        let tunnel = tunnels.iter().find(|tunnel| tunnel["name"] == name)?;
        tunnel["port"].as_u64()
    })
    .await;
    SocketAddr::new(server.tunnel.ip(), u16::try_from(port).unwrap())
}

/// Whether a connection is reset before a byte arrives; otherwise `hello` arrives. The reset may come so early that it is
/// reported as that of the connect.
async fn is_reset(last: u8, addr: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source(last), 0).into()).unwrap();
    let stream = match socket.connect(addr).await {
        Ok(stream) => stream,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            return true;
        }
    };
    let mut raw = Raw { stream };
    let read = raw.read_until(|bytes| bytes.len() >= "hello".len()).await;
    match read.end {
        End::Reset => {
            assert_eq!(read.text(), "");
            true
        }
        _ => {
            assert_eq!(read.text(), "hello");
            false
        }
    }
}

/// Waits until a counter of the server has this value.
async fn reaches(server: &Server, pointer: &str, wanted: u64) {
    let what = format!("{pointer} at {wanted}");
    eventually(&what, SOON, async || {
        (count(&server.status().await, pointer) == wanted).then_some(())
    })
    .await;
}

/// The header lines of a request as the service received them, from `/request`.
fn received(response: &FullResponse, name: &str) -> Vec<String> {
    let seen: Value = serde_json::from_str(&response.text()).unwrap();
    let lines = seen["headers"].as_array().unwrap().iter();
    let named = lines.filter(|line| line[0] == name);
    named
        .map(|line| line[1].as_str().unwrap().to_owned())
        .collect()
}
