//! A client over a transport without a network: no part of the server needs gRPC.

use std::{path::PathBuf, sync::Arc};

use adit_auth::{Authenticator, ClientClaim, Credential, Denied, Grant, UserName};
use adit_codec::{HttpResponseHead, Side};
use adit_flow::Budget;
use adit_link::{
    Dispatch, IncomingRequest, Lane,
    control::{
        CAPABILITIES, Channel as _, ControlMessage, LaneRequest, RefusalReason, Transport as _,
    },
    drive,
};
use adit_proto::{
    ConfigSyncRequest, PROTOCOL_VERSION, RegisterRequest, TunnelsAnnounce, control::Kind,
};
use adit_testlink::{MemoryTransport, TunnelRequest, lane_config, read, until};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use super::{SECOND, tunnel, world};
use crate::{
    channels::Channels,
    configuration::{ConfigSource as _, FixedSource, InForce},
    floods::Floods,
    lanes::Lanes,
    service::Service,
    settings::{Limits, PublicUrl, Settings, Timeouts, TrustedProxies},
    upstreams::Upstreams,
    worker,
};

/// Accepts every credential.
struct Anyone;

impl Authenticator for Anyone {
    fn authenticate(&self, _: &Credential, claim: &ClientClaim) -> Result<Grant, Denied> {
        let user = UserName::parse("ann").unwrap();
        Ok(Grant::for_link(user, claim.clone()))
    }

    fn is_valid(&self, _: &Grant) -> bool {
        true
    }
}

/// Default settings, with ports that are never bound.
fn in_force() -> Arc<InForce> {
    let any = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        tunnel_addr: any,
        http_addr: any,
        admin_addr: None,
        max_clients: 10,
        threads: 1,
        domain: None,
        tokens: Vec::new(),
        shared_groups: Vec::new(),
        state_dir: PathBuf::new(),
        trusted_proxies: TrustedProxies::default(),
        layers: Vec::new(),
        public_url: PublicUrl::default(),
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        rules: Vec::new(),
        upstreams: Vec::new(),
    };
    let source = Arc::new(FixedSource::new(settings));
    let first = source.watch().borrow().clone();
    InForce::new(first, source)
}

/// Responds to each request with a short body.
struct Hello;

impl Dispatch for Hello {
    fn dispatch(&self, request: IncomingRequest) {
        let head = HttpResponseHead { status: 200 };
        let head = head.encode(std::iter::empty(), b"hello").unwrap();
        request.exchange.send.respond(head, true).unwrap();
        tokio::spawn(async move {
            let mut recv = request.exchange.recv;
            while recv.part().await.is_some() {}
        });
    }
}

#[tokio::test]
async fn a_client_serves_a_request_over_a_memory_transport() {
    let world = world();
    let in_force = in_force();
    let (channels, floods) = (Channels::new(world.registry.clone()), Floods::new());
    let stop = watch::Sender::new(false);
    let worker = worker::start(world.directory.clone(), None, SECOND, stop.subscribe());
    let (announcer, thread) = worker.unwrap();
    let service = Service::new(
        world.registry.clone(),
        (channels.clone(), floods.clone()),
        (world.directory.clone(), announcer),
        Upstreams::none(),
        Arc::new(Anyone),
        in_force.clone(),
    );
    let lanes = Lanes::new(
        world.registry.clone(),
        channels.clone(),
        floods,
        in_force,
        Budget::new(1 << 20),
        Upstreams::none(),
    );
    let transport = MemoryTransport::new(Arc::new(service), Arc::new(lanes));

    let (channel, driver) = transport.connect().await.unwrap();
    let driver = tokio::spawn(driver);
    let id = channel.connection().channel;
    let request = RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
        client_id: "laptop".into(),
        instance_secret: vec![7; 32].into(),
        lanes: 1,
        ..RegisterRequest::default()
    };
    let session = channel.register(request).await.unwrap().session;
    assert!(!channel.connection().allowance.is_used_up());

    let refused = channel.open_control("another session").await.err().unwrap();
    assert_eq!(refused.reason(), Some(RefusalReason::StaleSession));
    let mut control = channel.open_control(&session).await.unwrap();
    assert!(channels.is_used(id));
    let announce = Kind::TunnelsAnnounce(TunnelsAnnounce {
        sequence: 1,
        tunnels: vec![tunnel("shop", &[])],
    });
    control
        .outbound
        .send(ControlMessage::new(3, announce))
        .await
        .unwrap();
    let reply = control.inbound.next().await.unwrap().unwrap();
    assert_eq!(reply.request_id, 3);
    let Some(Kind::TunnelResults(results)) = reply.kind else {
        panic!("{reply:?}");
    };
    assert_eq!(results.results[0].error, None);
    let synced = channel.sync_config(&session, ConfigSyncRequest { known_revision: 0 });
    assert_eq!(synced.await.unwrap().revision, results.revision);

    let lane = Lane::new(
        lane_config(Side::Client),
        Budget::new(1 << 20),
        Arc::new(Hello),
    );
    let beyond = LaneRequest {
        session: &session,
        lane: 9,
    };
    let refused = channel.open_lane(&lane, beyond).await.err().unwrap();
    assert_eq!(refused.reason(), Some(RefusalReason::BadRequest));
    let first = LaneRequest { lane: 0, ..beyond };
    let reader = channel.open_lane(&lane, first).await.unwrap();
    let driven = tokio::spawn(async move { drive(&lane, reader).await });

    let visit = world.direct("shop.localhost", &[]).await.unwrap();
    let head = TunnelRequest::get("/").tunnel("shop").http(b"");
    let mut exchange = visit.lane.open(head, true, None).unwrap();
    let response = read(&mut exchange.recv).await.unwrap();
    assert_eq!(response.body, b"hello");
    drop(exchange);

    // After the end of the lane and of the control stream, no state of the client is left.
    driven.abort();
    drop((control, channel));
    driver.abort();
    world.registry.channel_closed(id);
    until("the link is gone", || world.registry.stats().links == 0).await;
    assert!(!channels.is_used(id));
    stop.send_replace(true);
    thread.join().unwrap();
}
