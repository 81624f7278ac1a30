//! An egress at the far end of a link, with real services behind it.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_link::Failure;

use crate::{Link, LinkOptions, Request, Response, TUNNEL, read};

/// An HTTP/1 service on this machine.
pub fn http_service(port: u16) -> ServiceConfig {
    ServiceConfig::new("127.0.0.1", port, Protocol::Http1)
}

/// A link whose far end is an egress.
#[derive(Clone)]
pub struct EgressLink {
    pub link: Link,
    pub egress: Arc<Egress>,
}

impl Deref for EgressLink {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl EgressLink {
    pub fn new(config: Config) -> Self {
        Self::with(&LinkOptions::default(), Egress::new(config))
    }

    pub fn with(options: &LinkOptions, egress: Arc<Egress>) -> Self {
        let link = Link::new(options, egress.clone());
        Self { link, egress }
    }

    /// To one service.
    pub fn to(service: ServiceConfig, config: Config) -> Self {
        let link = Self::new(config);
        link.serve(service);
        link
    }

    /// The tunnel of the tests leads to this service.
    pub fn serve(&self, service: ServiceConfig) {
        let services = HashMap::from([(TUNNEL.into(), service)]);
        self.egress.set_services(services);
    }

    /// Sends a request whose body is in its head, and reads the response.
    pub async fn request(&self, request: &Request<'_>, body: &[u8]) -> Result<Response, Failure> {
        let mut exchange = self.open(request.http(body), true);
        read(&mut exchange.recv).await
    }

    pub async fn get(&self, path: &str) -> Result<Response, Failure> {
        self.request(&Request::get(path), b"").await
    }
}
