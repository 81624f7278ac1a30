//! A client that calls the server by the traits of `adit_link::control` alone: no part of the server needs gRPC.

use std::{path::Path, sync::Arc};

use adit_auth::NoRecords;
use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{
    Failure, Reason,
    control::{
        AcceptLane as _, CAPABILITIES, ChannelId, ClientConnection, ControlMessage,
        ControlServer as _, LaneRequest, Refusal, RefusalReason,
    },
};
use adit_proto::{
    ConfigSyncRequest, PROTOCOL_VERSION, RegisterRequest, TunnelsAnnounce, control::Kind,
};
use adit_testlink::{
    Incoming, Link, TunnelRequest, exchanges::respond, lane, lane_config, read, until,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{SECOND, anyone, tunnel, world};
use crate::{
    authentication::Authentication,
    channels::Channels,
    clients_tls::ClientsTls,
    configuration::{ConfigSource as _, FixedSource, InForce},
    enrolment::Enrolment,
    floods::Floods,
    guesses::Guesses,
    identities::Identities,
    lanes::Lanes,
    service::Service,
    settings::{Settings, TunnelTls},
    traffic::Traffic,
    upstreams::Upstreams,
    usage_keeper::UsageKeeper,
    worker,
};

/// Default settings, with ports that are never bound.
fn in_force() -> Arc<InForce> {
    let any = ([127, 0, 0, 1], 0).into();
    let settings = Settings::new(any, any);
    let source = Arc::new(FixedSource::new(settings));
    let first = source.watch().borrow().clone();
    InForce::new(first, source)
}

#[tokio::test]
async fn a_client_serves_a_request_without_grpc() {
    let world = world();
    let in_force = in_force();
    let any = ([127, 0, 0, 1], 0).into();
    let (channels, floods) = (Channels::new(world.registry.clone()), Floods::new());
    let stop = watch::Sender::new(false);
    let worker = worker::start(
        world.directory.clone(),
        None,
        UsageKeeper::new(Traffic::none(), None),
        SECOND,
        stop.subscribe(),
    );
    let (announcer, thread) = worker.unwrap();
    let authorization = anyone(&world.registry);
    let settings = Settings::new(any, any);
    let identities = Identities::start(&settings, Arc::new(NoRecords)).unwrap();
    let service = Service::new(
        world.registry.clone(),
        (channels.clone(), floods.clone()),
        (world.directory.clone(), announcer),
        Upstreams::none(),
        (
            authorization.clone(),
            Authentication::new(
                authorization,
                identities.clone(),
                (floods.clone(), Arc::new(Guesses::new(10))),
                in_force.clone(),
            ),
            Enrolment::new(
                identities,
                ClientsTls::start(&TunnelTls::Off, any, Path::new(""))
                    .unwrap()
                    .into(),
            ),
        ),
        in_force.clone(),
    );
    let lanes = Lanes {
        registry: world.registry.clone(),
        channels: channels.clone(),
        floods,
        config: in_force,
        budget: Budget::new(1 << 20),
        upstreams: Upstreams::none(),
        authorization: anyone(&world.registry),
        traffic: Traffic::none(),
    };

    let id = ChannelId::next();
    let connection = ClientConnection::new(id, ([192, 0, 2, 7], 4000).into());
    let request = RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
        client_id: "laptop".into(),
        instance_secret: vec![7; 32].into(),
        lanes: 1,
        ..RegisterRequest::default()
    };
    let registered = service.register(&connection, request).await;
    let session = registered.unwrap().session;
    assert!(!connection.allowance.is_used_up());

    let open_control = |session: &str| {
        let (outbound, queued) = mpsc::channel(16);
        let queued = Box::pin(ReceiverStream::new(queued).map(Ok));
        let inbound = service.open_control(&connection, session, queued)?;
        Ok::<_, Refusal>((outbound, inbound))
    };
    let refused = open_control("another session").err().unwrap();
    assert_eq!(refused.reason, RefusalReason::StaleSession);
    let (outbound, mut inbound) = open_control(&session).unwrap();
    assert!(channels.is_used(id));
    let announce = Kind::TunnelsAnnounce(TunnelsAnnounce {
        sequence: 1,
        tunnels: vec![tunnel("shop", &[])],
    });
    let announce = ControlMessage::new(3, announce);
    outbound.send(announce).await.unwrap();
    let reply = inbound.next().await.unwrap().unwrap();
    assert_eq!(reply.request_id, 3);
    let Some(Kind::TunnelResults(results)) = reply.kind else {
        panic!("{reply:?}");
    };
    assert_eq!(results.results[0].error, None);
    let synced = service.sync_config(&session, ConfigSyncRequest { known_revision: 0 });
    assert_eq!(synced.unwrap().revision, results.revision);

    let beyond = LaneRequest {
        session: &session,
        lane: 9,
    };
    let refused = lanes.accept_lane(beyond, id).err().unwrap();
    assert_eq!(refused.reason, RefusalReason::BadRequest);
    let first = LaneRequest { lane: 0, ..beyond };
    let accepted = lanes.accept_lane(first, id).unwrap();
    let (dispatch, mut incoming) = Incoming::channel();
    let lane = lane(lane_config(Side::Client), dispatch);
    let link = Link::between(accepted.lane, lane);

    let visit = world.direct("shop.localhost", &[]).await.unwrap();
    let head = TunnelRequest::get("/").tunnel("shop").http(b"");
    let mut exchange = visit.lane.open(head, true, None).unwrap();
    let (_, served) = incoming.http().await;
    respond(&served, 200, &[], b"hello");
    let response = read(&mut exchange.recv).await.unwrap();
    assert_eq!(response.body, b"hello");
    drop((exchange, served));

    // After the end of the lane and of the control stream, no state of the client is left.
    let lost = Failure::new(Reason::LinkLost, "cut");
    (accepted.on_end)(&lost, link.near.received_bytes());
    drop((link, accepted.guard, outbound, inbound));
    world.registry.channel_closed(id);
    until("the link is gone", || world.registry.stats().links == 0).await;
    assert!(!channels.is_used(id));
    stop.send_replace(true);
    thread.join().unwrap();
}
