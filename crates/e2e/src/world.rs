//! One server, one client, and one service behind them.

use std::net::SocketAddr;

use crate::{Body, Client, ClientOptions, FullResponse, Raw, Server, Service, Visitor, get};

/// The host of a world's tunnel.
pub const HOST: &str = "web.localhost";

/// One server, one client, and one service behind them.
#[derive(Debug)]
pub struct World {
    /// Dropped first: otherwise it would log the absence of the others at the end.
    pub client: Client,
    /// The server.
    pub server: Server,
    /// The service, unless the caller has its own.
    pub service: Option<Service>,
}

impl World {
    /// In front of [`Service::site`].
    pub async fn site() -> Self {
        Self::of(Service::site("site").await).await
    }

    /// In front of a service.
    pub async fn of(service: Service) -> Self {
        let mut world = Self::before(service.addr).await;
        world.service = Some(service);
        world
    }

    /// In front of [`Service::site`] by h2c.
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

    /// In front of whatever listens on `addr`.
    pub async fn before(addr: SocketAddr) -> Self {
        Self::configured("", addr).await
    }

    /// In front of whatever listens on `addr`, with a file for the server.
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
    /// When the caller has its own.
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

    /// GET on a connection of its own.
    pub async fn get(&self, path: &str) -> FullResponse {
        get(self.server.http, HOST, path).await
    }

    /// POST on a connection of its own.
    pub async fn post(&self, path: &str, body: Body) -> FullResponse {
        self.http1().await.post(path, body).await
    }
}
