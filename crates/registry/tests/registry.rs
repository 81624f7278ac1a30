//! Links that begin, are taken over and end, and the notifications about them. The lanes are real ones without a
//! transport.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_auth::{
    ClientClaim, ClientId, Grant, GroupId, InstanceSecret, LinkKey, SessionToken, UserName,
};
use adit_codec::Side;
use adit_link::{
    Failure, Lane, LocalReader, Reason,
    control::{ChannelId, ControlMessage},
    drive,
};
use adit_proto::{Drain, control::Kind};
use adit_registry::{
    Config, LaneGuard, Link, MembershipObserver, RegisterError, Registry, StreamError,
};
use adit_testlink::lane_of;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const SETUP: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Log(Mutex<Vec<(&'static str, u64)>>);

impl Log {
    fn note(&self, what: &'static str, link: &Link) {
        self.0.lock().unwrap().push((what, link.epoch()));
    }

    /// The notifications since the last call.
    fn take(&self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MembershipObserver for Log {
    fn link_up(&self, link: &Arc<Link>) {
        assert!(link.is_routable());
        self.note("up", link);
    }

    fn link_down(&self, link: &Arc<Link>) {
        assert!(!link.is_routable());
        self.note("down", link);
    }

    fn link_gone(&self, link: &Arc<Link>) {
        assert!(link.is_ended());
        self.note("gone", link);
    }
}

struct World {
    registry: Arc<Registry>,
    log: Arc<Log>,
}

fn world() -> World {
    world_with(3)
}

fn world_with(max_clients_per_user: usize) -> World {
    let log = Arc::new(Log::default());
    let config = Config {
        max_clients: 3,
        max_clients_per_user,
        max_requests_per_client: 5,
        max_waiting: 5,
        shares: adit_flow::Shares::NONE,
        takeover_probe: 2 * SECOND,
        setup: SETUP,
        first_epoch: 100,
    };
    World {
        registry: Registry::new(config, log.clone()),
        log,
    }
}

fn peer() -> std::net::SocketAddr {
    ([192, 0, 2, 1], 4000).into()
}

fn key(session: u8) -> LinkKey {
    SessionToken::from_random([session; 32]).key()
}

impl World {
    async fn register_as(
        &self,
        user: &str,
        client: &str,
        machine: u8,
        session: u8,
    ) -> Result<(Arc<Link>, ChannelId), RegisterError> {
        let claim = ClientClaim {
            client_id: ClientId::parse(client).unwrap(),
            group_id: GroupId::parse("web").unwrap(),
        };
        let grant = Grant::for_link(UserName::parse(user).unwrap(), claim);
        let instance = InstanceSecret::from_random([machine; 32]).key();
        let channel = ChannelId::next();
        let registered = self
            .registry
            .register(grant, instance, key(session), (channel, peer()), 2)
            .await?;
        Ok((registered.link, channel))
    }

    /// Machine `machine` registers as `client`; its session has the number `session`.
    async fn register(
        &self,
        client: &str,
        machine: u8,
        session: u8,
    ) -> Result<(Arc<Link>, ChannelId), RegisterError> {
        self.register_as("ann", client, machine, session).await
    }

    fn open(&self, session: u8, number: u32) -> Result<(Arc<Lane>, LaneGuard), StreamError> {
        self.registry
            .open_lane(key(session), number, |_| lane_of(Side::Server))
    }

    fn counts(&self) -> (usize, usize) {
        let stats = self.registry.stats();
        (stats.links, stats.channels)
    }
}

/// P-1.6: a link is routable while at least one of its lanes is open.
#[tokio::test(start_paused = true)]
async fn a_link_is_up_while_it_has_a_lane() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    assert_eq!(link.epoch(), 100);
    assert!(!link.is_routable() && link.lane().is_none());
    assert_eq!(world.log.take(), []);
    let (first, first_guard) = world.open(1, 0).unwrap();
    assert_eq!(world.log.take(), [("up", 100)]);
    let (second, second_guard) = world.open(1, 1).unwrap();
    assert_eq!(world.log.take(), [], "it is up already");
    let taken: Vec<_> = (0..4).map(|_| link.lane().unwrap()).collect();
    for lane in [&first, &second] {
        let turns = taken.iter().filter(|taken| Arc::ptr_eq(taken, lane));
        assert_eq!(turns.count(), 2);
    }
    drop(first_guard);
    assert_eq!(world.log.take(), []);
    assert!((0..4).all(|_| Arc::ptr_eq(&link.lane().unwrap(), &second)));
    drop(second_guard);
    assert_eq!(world.log.take(), [("down", 100)]);
    // The session is valid as long as its channel is open (P-1.7).
    let (_, guard) = world.open(1, 1).unwrap();
    drop(guard);
    assert_eq!(world.log.take(), [("up", 100), ("down", 100)]);
    assert_eq!(world.counts(), (1, 1));
}

/// Regression: a closed lane counted as open until its guard was dropped, and visitors were sent to it.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_over_takes_no_requests() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    let (lane, guard) = world.open(1, 0).unwrap();
    lane.close(&Failure::new(Reason::LinkLost, "cut"));
    assert!(!link.is_routable() && link.lane().is_none());
    world.log.take();
    // The lane is opened again before the old one has been removed: the removal of the old one must not affect the new
    // one.
    let (newer, newer_guard) = world.open(1, 0).unwrap();
    assert_eq!(world.log.take(), [("up", 100)]);
    drop(guard);
    assert!(link.is_routable());
    assert_eq!(world.log.take(), []);
    assert!(Arc::ptr_eq(&link.lane().unwrap(), &newer));
    drop(newer_guard);
    assert_eq!(world.log.take(), [("down", 100)]);
}

/// P-1.7: the requests of the old data stream fail, the link lives on.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_opened_twice_closes_the_first() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    let (old, old_guard) = world.open(1, 0).unwrap();
    let (new, _new_guard) = world.open(1, 0).unwrap();
    assert!(old.is_closed() && !new.is_closed());
    drop(old_guard);
    assert!(link.is_routable());
    assert_eq!(world.log.take(), [("up", 100)]);
}

/// P-1.5: a stream of an unknown session, or with a lane number beyond the lanes of its session, is refused.
#[tokio::test(start_paused = true)]
async fn streams_of_no_session_or_beyond_its_lanes_are_refused() {
    let world = world();
    let (link, channel) = world.register("a", 1, 1).await.unwrap();
    assert_eq!(world.open(9, 0).err(), Some(StreamError::StaleSession));
    let beyond = StreamError::NoSuchLane { lane: 2, lanes: 2 };
    assert_eq!(world.open(1, 2).err(), Some(beyond));
    assert!(world.registry.session(key(1)).is_ok());
    world.registry.channel_closed(channel);
    assert!(link.is_ended());
    assert_eq!(world.open(1, 0).err(), Some(StreamError::StaleSession));
    assert!(world.registry.open_control(key(1)).is_err());
    assert_eq!(world.log.take(), [("down", 100), ("gone", 100)]);
    assert_eq!(world.counts(), (0, 0));
}

/// P-1.6. Regression: a session whose data stream was being opened again was removed as well.
#[tokio::test(start_paused = true)]
async fn a_session_that_never_opens_is_forgotten_and_no_other() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    let (other, _) = world.register("b", 2, 2).await.unwrap();
    drop(world.open(2, 0).unwrap());
    tokio::time::sleep(SETUP / 2).await;
    assert!(!link.is_ended());
    tokio::time::sleep(SETUP).await;
    assert!(link.is_ended() && !other.is_ended());
    assert_eq!(world.counts(), (1, 1));
    assert!(world.open(2, 0).is_ok());
}

/// Regression: each registration left a task behind for the time of the setup.
#[tokio::test(start_paused = true)]
async fn registrations_in_a_loop_leave_no_tasks() {
    let world = world();
    for session in 0..100 {
        world.register("a", 1, session).await.unwrap();
        tokio::task::yield_now().await;
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    assert!(metrics.num_alive_tasks() <= 2);
    assert_eq!(world.counts(), (1, 1));
    assert_eq!(world.registry.stats().taken_over, 99);
}

/// P-1.8: the new session takes over at once, and every stream of the old epoch is closed.
#[tokio::test(start_paused = true)]
async fn the_same_machine_takes_over_at_once() {
    let world = world();
    let (old, old_channel) = world.register("a", 1, 1).await.unwrap();
    let (old_lane, old_guard) = world.open(1, 0).unwrap();
    let (control, mut messages) = world.registry.open_control(key(1)).unwrap();
    world.log.take();
    let start = Instant::now();
    let (new, _) = world.register("a", 1, 2).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!((old.epoch(), new.epoch()), (100, 101));
    assert!(old_lane.is_closed() && old.is_ended() && old.lane().is_none());
    assert!(messages.recv().await.is_none());
    assert_eq!(world.log.take(), [("down", 100), ("gone", 100)]);
    assert_eq!(world.open(1, 0).err(), Some(StreamError::StaleSession));
    // The guards of the old session are dropped late, and do not affect the new one.
    let (_, _new_guard) = world.open(2, 0).unwrap();
    drop((old_guard, control));
    world.registry.channel_closed(old_channel);
    assert!(new.is_routable());
    assert_eq!(world.log.take(), [("up", 101)]);
    assert_eq!(world.counts(), (1, 1));
}

fn message() -> ControlMessage {
    ControlMessage::new(0, Kind::Drain(Drain::default()))
}

/// P-1.8: a client that responds keeps the name; any byte is a response.
#[tokio::test(start_paused = true)]
async fn another_machine_is_refused_while_the_holder_responds() {
    let world = world();
    let (old, _) = world.register("a", 1, 1).await.unwrap();
    let (lane, _guard) = world.open(1, 0).unwrap();
    // The client's end: returns every byte.
    let reader = LocalReader::from(lane.outbound());
    tokio::spawn(async move { drive(&lane, reader).await });
    let refused = world.register("a", 2, 2).await.unwrap_err();
    assert!(matches!(refused, RegisterError::ClientIdTaken { .. }));
    assert!(refused.to_string().contains("`a`"), "{refused}");
    assert!(old.is_routable());
    assert_eq!(world.registry.stats().refused, 1);
    assert_eq!(world.open(2, 0).err(), Some(StreamError::StaleSession));
}

/// P-1.8: a client that does not respond within the probe loses its name.
#[tokio::test(start_paused = true)]
async fn another_machine_takes_over_from_a_silent_holder() {
    let world = world();
    let (old, _) = world.register("a", 1, 1).await.unwrap();
    let (lane, _guard) = world.open(1, 0).unwrap();
    let start = Instant::now();
    let (new, _) = world.register("a", 2, 2).await.unwrap();
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert!(old.is_ended() && lane.is_closed());
    // A holder without a data stream is not probed.
    let start = Instant::now();
    let (newer, _) = world.register("a", 1, 3).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(new.is_ended() && !newer.is_ended());
}

/// P-1.4. Regression: epochs were assigned before the holder was probed, so that the later of two links could have the
/// lower one.
#[tokio::test(start_paused = true)]
async fn epochs_grow_in_the_order_of_takeovers() {
    let world = world();
    world.register("a", 1, 1).await.unwrap();
    let (_, _guard) = world.open(1, 0).unwrap();
    let (slow, quick) = tokio::join!(world.register("a", 2, 2), async {
        tokio::time::sleep(SECOND).await;
        world.register("a", 1, 3).await
    });
    let (slow, quick) = (slow.unwrap().0, quick.unwrap().0);
    assert!(quick.is_ended() && !slow.is_ended());
    assert_eq!((quick.epoch(), slow.epoch()), (101, 102));
}

#[tokio::test(start_paused = true)]
async fn a_registration_cancelled_during_its_probe_changes_nothing() {
    let world = world();
    let (old, _) = world.register("a", 1, 1).await.unwrap();
    let (_, _guard) = world.open(1, 0).unwrap();
    let asked = tokio::time::timeout(SECOND, world.register("a", 2, 2)).await;
    assert!(asked.is_err());
    tokio::time::sleep(SETUP * 2).await;
    assert!(old.is_routable());
    assert_eq!(world.counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn names_belong_to_users_and_clients_are_counted() {
    let world = world();
    world.register("a", 1, 1).await.unwrap();
    let other = world.register_as("bob", "a", 1, 2).await.unwrap_err();
    assert!(matches!(other, RegisterError::OtherUser { .. }));
    world.register("b", 1, 3).await.unwrap();
    world.register("c", 1, 4).await.unwrap();
    let full = world.register("d", 1, 5).await.unwrap_err();
    assert_eq!(full, RegisterError::TooManyClients { limit: 3 });
    world.register("a", 1, 6).await.expect("it is here already");
    assert_eq!(world.registry.stats().refused, 2);
}

#[tokio::test(start_paused = true)]
async fn p_1_24_a_user_has_a_share_of_the_clients() {
    let world = world_with(2);
    let (first, _) = world.register("a", 1, 1).await.unwrap();
    world.register("b", 1, 2).await.unwrap();
    let refused = world.register("c", 1, 3).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("`server.limits.max_clients_per_user`"),
        "{text}"
    );
    // A client that drains has its place until it has ended, and one that comes back takes its own.
    world.registry.drain(&first);
    assert!(world.register("c", 1, 3).await.is_err());
    let (again, _) = world.register("a", 1, 4).await.unwrap();
    world.register_as("bob", "d", 1, 5).await.unwrap();
    let full = world.register_as("cid", "e", 1, 6).await.unwrap_err();
    assert_eq!(full, RegisterError::TooManyClients { limit: 3 });
    let failure = Failure::new(Reason::LinkLost, "over");
    world.registry.end(&again, &failure);
    world.register("c", 1, 7).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p_1_8_a_link_reports_that_it_is_fenced() {
    let world = world();
    let (old, _) = world.register("a", 1, 1).await.unwrap();
    let mut fence = old.fence();
    assert!(!fence.is_fenced());
    world.register("a", 1, 2).await.unwrap();
    fence.fenced().await;
    assert!(old.is_ended());
    drop(old);
    assert!(fence.is_fenced());
}

/// P-1.7: a session whose channel is lost ends with its last stream on another channel.
#[tokio::test(start_paused = true)]
async fn a_lost_channel_ends_the_session_with_its_last_stream() {
    let world = world();
    let (link, channel) = world.register("a", 1, 1).await.unwrap();
    assert!(world.registry.is_channel_used(channel));
    // The streams are on another channel.
    let (_, guard) = world.open(1, 1).unwrap();
    let (control, _messages) = world.registry.open_control(key(1)).unwrap();
    world.registry.channel_closed(channel);
    assert!(!world.registry.is_channel_used(channel));
    assert!(link.is_routable());
    drop(guard);
    assert!(!link.is_ended() && !link.is_routable());
    drop(control);
    assert!(link.is_ended());
    let notified = [("up", 100), ("down", 100), ("down", 100), ("gone", 100)];
    assert_eq!(world.log.take(), notified);
    assert_eq!(world.counts(), (0, 0));
}

/// P-1.7: control streams and data streams are independent.
#[tokio::test(start_paused = true)]
async fn an_old_control_stream_does_not_close_its_successor() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    assert!(!link.send_control(message()), "none is open");
    let (old, mut old_messages) = world.registry.open_control(key(1)).unwrap();
    let (new, mut new_messages) = world.registry.open_control(key(1)).unwrap();
    assert!(old_messages.recv().await.is_none());
    drop(old);
    assert!(link.send_control(message()));
    assert!(new_messages.recv().await.is_some());
    // A client that does not read receives at most the messages that its queue holds.
    let sent = (0..1000).filter(|_| link.send_control(message()));
    assert_eq!(sent.count(), 64);
    assert!(link.stats().control);
    drop(new);
    assert!(!link.stats().control && !link.is_ended());
}

/// P-6.6: a link that drains receives no new requests, and its lanes stay open.
#[tokio::test(start_paused = true)]
async fn a_draining_link_gets_no_new_requests() {
    let world = world();
    let (link, _) = world.register("a", 1, 1).await.unwrap();
    let (lane, _guard) = world.open(1, 0).unwrap();
    world.log.take();
    world.registry.drain(&link);
    world.registry.drain(&link);
    assert_eq!(world.log.take(), [("down", 100)]);
    assert!(link.is_draining() && !link.is_routable() && !lane.is_closed());
}

/// P-6.4: losing the epoch fails all requests of the link, and no state is left.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_registry_closes_everything() {
    let world = world();
    let mut links = Vec::new();
    let mut lanes = Vec::new();
    for (client, session) in [("a", 1), ("b", 2)] {
        let (link, _) = world.register(client, 1, session).await.unwrap();
        links.push(Arc::downgrade(&link));
        lanes.push(world.open(session, 0).unwrap());
        lanes.push(world.open(session, 1).unwrap());
    }
    let failure = Failure::new(Reason::Draining, "the server is stopping");
    world.registry.close(&failure);
    for (lane, _) in &lanes {
        assert_eq!(lane.closed(), Some(failure.clone()));
    }
    assert_eq!(world.counts(), (0, 0));
    assert!(world.registry.links().is_empty());
    let weak: Vec<_> = lanes.iter().map(|(lane, _)| Arc::downgrade(lane)).collect();
    drop(lanes);
    tokio::task::yield_now().await;
    assert!(weak.iter().all(|lane| lane.upgrade().is_none()), "lanes");
    assert!(links.iter().all(|link| link.upgrade().is_none()), "links");
}
