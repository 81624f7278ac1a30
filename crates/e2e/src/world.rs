//! One server, one client, and one service.

use std::net::SocketAddr;

use crate::{Body, Client, ClientOptions, FullResponse, Raw, Server, Service, Visitor, get};

/// The host of a world's tunnel.
pub const HOST: &str = "web.localhost";

/// One server, one client, and one service.
#[derive(Debug)]
pub struct World {
    /// The client, which is dropped first: otherwise it would log that the others are gone.
    pub client: Client,
    /// The server.
    pub server: Server,
    /// The service, unless the caller has another one.
    pub service: Option<Service>,
}

impl World {
    /// A world with [`Service::site`].
    pub async fn site() -> Self {
        Self::of(Service::site("site").await).await
    }

    /// A world with this service.
    pub async fn of(service: Service) -> Self {
        let mut world = Self::before(service.addr).await;
        world.service = Some(service);
        world
    }

    /// A world with [`Service::site`] over h2c.
    pub async fn h2c() -> Self {
        let service = Service::site("site").await;
        let server = Server::plain().await;
        let options = ClientOptions::http(&server, "client-1", "web", service.addr)
            .arg("--local-protocol", "h2c");
        let client = Client::start(options).await;
        Self {
            client,
            server,
            service: Some(service),
        }
    }

    /// A world whose service listens on `addr`.
    pub async fn before(addr: SocketAddr) -> Self {
        Self::configured("", addr).await
    }

    /// A world whose service listens on `addr`, with a file for the server.
    pub async fn configured(config: &str, addr: SocketAddr) -> Self {
        let server = Server::with(config).await;
        let client = Client::http(&server, "client-1", "web", addr).await;
        Self {
            client,
            server,
            service: None,
        }
    }

    /// The service.
    ///
    /// # Panics
    /// Panics when the world was started without a service of its own.
    #[must_use]
    pub fn service(&self) -> &Service {
        self.service.as_ref().expect("a service of this world")
    }

    /// A visitor over HTTP/1.1.
    pub async fn http1(&self) -> Visitor {
        Visitor::http1(self.server.http, HOST).await
    }

    /// A visitor over HTTP/2.
    pub async fn http2(&self) -> Visitor {
        Visitor::http2(self.server.http, HOST).await
    }

    /// A visitor that writes bytes.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.server.http).await
    }

    /// Sends a GET request on a connection of its own.
    pub async fn get(&self, path: &str) -> FullResponse {
        get(self.server.http, HOST, path).await
    }

    /// Sends a POST request on a connection of its own.
    pub async fn post(&self, path: &str, body: Body) -> FullResponse {
        self.http1().await.post(path, body).await
    }
}
