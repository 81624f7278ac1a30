//! An egress at the far end of a link, with real services behind it.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_link::{Failure, LaneConfig};
use adit_trace::Edge;

use crate::{Link, Recorded, Recorder, Records, Response, TUNNEL, TunnelRequest, ends, read};

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
        Self::with(ends(), Egress::new(config))
    }

    pub fn with(ends: [LaneConfig; 2], egress: Arc<Egress>) -> Self {
        let link = Link::with(ends, egress.clone());
        Self { link, egress }
    }

    /// A link to an egress with one service.
    pub fn to(service: ServiceConfig, config: Config) -> Self {
        let link = Self::new(config);
        link.serve(service);
        link
    }

    /// Sets the service of the tests' tunnel.
    pub fn serve(&self, service: ServiceConfig) {
        let services = HashMap::from([(TUNNEL.into(), service)]);
        self.egress.set_services(services);
    }

    /// Sends a request whose body is in its head, and reads the response.
    pub async fn request(
        &self,
        request: &TunnelRequest<'_>,
        body: &[u8],
    ) -> Result<Response, Failure> {
        let mut exchange = self.open(request.http(body), true);
        read(&mut exchange.recv).await
    }

    pub async fn get(&self, path: &str) -> Result<Response, Failure> {
        self.request(&TunnelRequest::get(path), b"").await
    }
}

/// A link whose far end is an egress with an observer.
pub struct ObservedEgress {
    pub link: EgressLink,
    pub recorder: Arc<Recorder>,
    records: Records,
}

impl ObservedEgress {
    /// A link to an egress with one service and an observer that begins no traces.
    pub fn to(service: ServiceConfig, config: Config) -> Self {
        Self::with_ratio(service, config, 0.0)
    }

    pub fn with_ratio(service: ServiceConfig, config: Config, ratio: f64) -> Self {
        let (recorder, records) = Recorder::new(ratio);
        let egress = Egress::with_observer(config, recorder.clone());
        let link = EgressLink::with(ends(), egress);
        link.serve(service);
        Self {
            link,
            recorder,
            records,
        }
    }

    pub async fn record(&mut self) -> Recorded {
        let record = self.records.next().await;
        assert_eq!((record.edge, record.retries), (Edge::Egress, 0));
        record
    }

    /// The next record, which must be the last one.
    pub async fn only_record(&mut self) -> Recorded {
        let record = self.record().await;
        self.settled().await;
        record
    }

    /// No request is open, and all records have been checked.
    pub async fn settled(&mut self) {
        self.link.settled().await;
        tokio::task::yield_now().await;
        self.records.expect_none();
    }
}
