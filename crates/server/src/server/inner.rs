//! The parts of a running server.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use adit_flow::Gate;
use adit_ingress::layers::Access;
use adit_registry::Registry;
use tokio::{runtime::Handle, sync::watch};

use super::{https::Https, visitors::Visitors};
use crate::{
    clients_tls::ClientsTls, configuration::InForce, directory::Directory, floods::Floods,
    identities::Identities, issued::Issued, lanes::Lanes, newcomers::Newcomers, ports::Ports,
    traffic::Traffic, upstreams::Upstreams, worker::Announcer,
};

pub(super) struct Inner {
    pub(super) started: Instant,
    pub(super) in_force: Arc<InForce>,
    pub(super) tunnel_addr: SocketAddr,
    pub(super) http_addr: SocketAddr,
    pub(super) https: Option<Arc<Https>>,
    pub(super) issued: Option<Issued>,
    pub(super) tls: Arc<ClientsTls>,
    pub(super) registry: Arc<Registry>,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) floods: Arc<Floods>,
    pub(super) directory: Arc<Directory>,
    pub(super) announcer: Announcer,
    pub(super) lanes: Arc<Lanes>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) entries: Arc<Visitors>,
    pub(super) ports: Arc<Ports>,
    pub(super) permits: Arc<Gate>,
    pub(super) access: Arc<Access>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) identities: Arc<Identities>,
    pub(super) drain: watch::Receiver<bool>,
    pub(super) runtimes: Vec<Handle>,
}
