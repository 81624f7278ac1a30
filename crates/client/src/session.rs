//! One registration, and its streams.
//!
//! [`dial`] connects, registers, opens every stream and announces the tunnels. [`Session::serve`] keeps the streams
//! open: each lane and the control stream have a task that opens the stream again when it is lost, while the others
//! continue (P-1.7). The session is over when no stream is left, when the server does not know it any more, or when a
//! task stops retrying.

mod connection;
mod control;
mod events;
mod lanes;
mod retry;

use std::{sync::Arc, time::Instant};

use adit_egress::Egress;
use adit_link::{
    Failure, Lane, Reason,
    control::{CallError, Channel, ControlMessage, Transport},
};
use adit_proto::ConfigSyncRequest;
use secrecy::SecretString;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

pub(crate) use self::{connection::DialError, events::SessionObserver};
use self::{
    connection::{Connection, dial_error, no_response, register, transient},
    control::{ControlKeeper, ControlStream, QUEUE, tunnels},
    events::{Event, Streams},
    lanes::{LaneFactory, LaneKeeper, OpenLane},
    retry::Retry,
};
use crate::{
    announcements::{Announcements, Supported},
    settings::Settings,
};

/// A session with every stream open.
pub(crate) struct Session<T: Transport> {
    pub(crate) epoch: u64,
    /// The revision of the server's configuration.
    pub(crate) revision: u64,
    /// Requests that the client may open at a time (P-2.9); 0 when the server states none.
    pub(crate) max_requests: u32,
    /// The token with which the session was registered, if the server can continue it with another one.
    pub(crate) renewable: Option<SecretString>,
    /// Whether the server issues certificates.
    pub(crate) has_certificates: bool,
    pub(crate) announcements: Announcements,
    pub(crate) control: mpsc::Sender<ControlMessage>,
    session: String,
    settings: watch::Receiver<Arc<Settings>>,
    factory: Arc<LaneFactory<T>>,
    lanes: Vec<OpenLane<T::Channel>>,
    /// The connection of the first lane, which the control stream uses as well.
    channel: watch::Sender<Option<T::Channel>>,
    outbound_control: mpsc::Receiver<ControlMessage>,
    control_stream: ControlStream,
}

/// Connects, registers, opens the streams, and announces the tunnels.
pub(crate) async fn dial<T: Transport>(
    transport: &Arc<T>,
    mut settings: watch::Receiver<Arc<Settings>>,
    instance: [u8; 32],
    egress: &Arc<Egress>,
) -> Result<Session<T>, DialError> {
    let current = settings.borrow_and_update().clone();
    let within = current.timeouts.connect;
    let dialled = dial_unbounded(transport, (&current, settings), instance, egress);
    match timeout(within, dialled).await {
        Ok(result) => result,
        Err(_) => {
            let (server, text) = (current.server_addr(), no_response(within));
            // The proxy may not have responded, because it is of the other kind, or does not reach the server.
            Err(transient(match &current.proxy {
                Some(proxy) => {
                    format!("{server}: {text} over the proxy {proxy}; is it a proxy of this kind?")
                }
                None => format!("{server}: {text}"),
            }))
        }
    }
}

async fn dial_unbounded<T: Transport>(
    transport: &Arc<T>,
    (settings, changes): (&Arc<Settings>, watch::Receiver<Arc<Settings>>),
    instance: [u8; 32],
    egress: &Arc<Egress>,
) -> Result<Session<T>, DialError> {
    let connection = Connection::open(&**transport, settings).await?;
    let channel = connection.channel.clone();
    let response = register(settings, instance, &channel).await?;
    let link = response.settings.unwrap_or_default();
    let factory = LaneFactory::new(transport, settings, &response, &link, egress);
    // The first lane uses the connection of the registration; further lanes are for more cores and paths.
    let mut lanes = vec![factory.open(0, Some(connection)).await?];
    for index in 1..link.lanes.clamp(1, settings.lanes.max(1)) {
        lanes.push(factory.open(index, None).await?);
    }
    let error = |error| dial_error(settings, &channel, &error);
    let mut control_stream = ControlStream::open(&channel, &response.session)
        .await
        .map_err(error)?;
    let supports = |name: &str| response.capabilities.iter().any(|known| known == name);
    let mut announcements = Announcements::new(
        tunnels(settings),
        &settings.server_host,
        Supported::of(&response.capabilities),
        Instant::now(),
    );
    let announced = control_stream
        .announce(&mut announcements)
        .await
        .map_err(error)?;
    let (control, outbound_control) = mpsc::channel(QUEUE);
    Ok(Session {
        epoch: response.epoch,
        revision: announced.unwrap_or(response.revision),
        max_requests: link.max_requests,
        renewable: settings.token.clone().filter(|_| supports("renewal")),
        has_certificates: supports("certificates"),
        announcements,
        control,
        session: response.session,
        settings: changes,
        factory: Arc::new(factory),
        lanes,
        channel: watch::Sender::new(Some(channel)),
        outbound_control,
        control_stream,
    })
}

impl<T: Transport> Session<T> {
    /// The lanes of the session, all of them open.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.iter().map(|open| open.lane.clone()).collect()
    }

    /// Lists the server's upstreams on request.
    pub(crate) fn upstreams(&self) -> Upstreams<T::Channel> {
        Upstreams {
            channel: self.channel.subscribe(),
            session: self.session.clone(),
        }
    }

    /// Runs until the session is over, and returns the reason.
    ///
    /// # Cancel safety
    /// Dropping it ends the session.
    pub(crate) async fn serve(self, observer: Arc<impl SessionObserver>) -> Failure {
        let (events, mut happened) = mpsc::channel(QUEUE);
        let streams = Streams::new(events);
        let config = self.settings.borrow().reconnect.clone();
        let retry = || Retry::established(config.clone(), self.epoch);
        let mut lanes = self.lanes();
        // These are tasks, although this function waits for them: if they were woken inside the runtime's root future,
        // each batch would cost one more poll of the sockets. All of them end with the session.
        let mut tasks = JoinSet::new();
        let control = ControlKeeper {
            session: self.session,
            channel: self.channel.subscribe(),
            settings: self.settings,
            outbound: self.outbound_control,
            announcements: self.announcements,
            retry: retry(),
            streams: streams.clone(),
            observer: observer.clone(),
        };
        tasks.spawn(control.run(self.control_stream));
        for (index, open) in (0..).zip(self.lanes) {
            let channel = match index {
                0 => self.channel.clone(),
                _ => watch::Sender::new(None),
            };
            let keeper = LaneKeeper {
                index,
                factory: self.factory.clone(),
                retry: retry(),
                streams: streams.clone(),
                channel,
            };
            tasks.spawn(keeper.run(open));
        }
        drop(streams);
        let failure = supervise(&mut happened, &mut lanes, &*observer).await;
        for lane in &lanes {
            lane.close(&failure);
        }
        failure
    }
}

/// Processes the events of the streams until the session is over; `lanes` holds the newest lane of each number.
async fn supervise(
    events: &mut mpsc::Receiver<Event>,
    lanes: &mut [Arc<Lane>],
    observer: &impl SessionObserver,
) -> Failure {
    let mut has_control = true;
    let mut lost = vec![false; lanes.len()];
    let mut last = Failure::new(Reason::Internal, "the tasks of the session ended");
    while let Some(event) = events.recv().await {
        match event {
            Event::LaneLost { index, failure } => {
                if let Some(lost) = lost.get_mut(index as usize) {
                    *lost = true;
                }
                last = failure;
            }
            Event::LaneUp { index, lane } => {
                let index = index as usize;
                if let (Some(slot), Some(lost)) = (lanes.get_mut(index), lost.get_mut(index)) {
                    *lost = false;
                    observer.on_lane(index, &lane);
                    *slot = lane;
                }
            }
            Event::ControlLost => has_control = false,
            Event::ControlUp => {
                has_control = true;
                observer.on_control_reopened();
            }
            Event::Over(failure) => return failure,
        }
        let has_lanes = lost.contains(&false);
        if !has_lanes && (!has_control || observer.is_draining()) {
            return last;
        }
    }
    last
}

/// Lists the upstreams that the server defines.
pub(crate) struct Upstreams<C> {
    channel: watch::Receiver<Option<C>>,
    session: String,
}

impl<C: Channel> Upstreams<C> {
    /// The names of the upstreams.
    pub(crate) async fn fetch(&self) -> Result<Vec<String>, CallError> {
        let channel = self.channel.borrow().clone();
        let channel = channel.ok_or_else(|| CallError::Lost("not connected".into()))?;
        let request = ConfigSyncRequest { known_revision: 0 };
        let response = channel.sync_config(&self.session, request).await?;
        let upstreams = response.upstreams.into_iter();
        Ok(upstreams.map(|upstream| upstream.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use adit_proto::control::Kind;

    use super::*;
    use crate::{links::tests::lane, status::TunnelOutcome};

    #[derive(Default)]
    struct Recorder {
        reopened: Mutex<Vec<usize>>,
        drains: AtomicBool,
    }

    impl SessionObserver for Recorder {
        fn on_control(&self, _: Kind) {}

        fn on_tunnels(&self, _: Vec<TunnelOutcome>) {}

        fn on_lane(&self, index: usize, _: &Arc<Lane>) {
            self.reopened.lock().unwrap().push(index);
        }

        fn on_control_reopened(&self) {
            self.reopened.lock().unwrap().push(usize::MAX);
        }

        fn is_draining(&self) -> bool {
            self.drains.load(Ordering::Relaxed)
        }
    }

    fn lost(index: u32) -> Event {
        Event::LaneLost {
            index,
            failure: failure(index),
        }
    }

    fn failure(index: u32) -> Failure {
        Failure::new(Reason::LinkLost, format!("lane {index}"))
    }

    fn up(index: u32) -> Event {
        Event::LaneUp {
            index,
            lane: lane(),
        }
    }

    /// The end of a session with two lanes after these events; `None` when the session continues.
    async fn ends(recorder: &Recorder, events: impl IntoIterator<Item = Event>) -> Option<Failure> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        for event in events {
            sender.send(event).await.unwrap();
        }
        let mut lanes = [lane(), lane()];
        let ended = supervise(&mut receiver, &mut lanes, recorder);
        tokio::select! {
            biased;
            failure = ended => Some(failure),
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test]
    async fn p_1_7_a_session_outlives_each_of_its_streams() {
        let recorder = Recorder::default();
        let events = [
            lost(0),
            up(0),
            Event::ControlLost,
            lost(1),
            up(1),
            lost(0),
            Event::ControlUp,
            lost(1),
        ];
        assert_eq!(ends(&recorder, events).await, None);
        let reopened = recorder.reopened.into_inner().unwrap();
        assert_eq!(reopened, [0, 1, usize::MAX]);
    }

    #[tokio::test]
    async fn p_1_7_a_session_ends_with_its_last_stream() {
        let recorder = Recorder::default();
        let events = [lost(0), Event::ControlLost, lost(1)];
        assert_eq!(ends(&recorder, events).await, Some(failure(1)));
        let events = [lost(1), lost(0), Event::ControlLost];
        assert_eq!(ends(&recorder, events).await, Some(failure(0)));
        let events = [Event::Over(failure(7))];
        assert_eq!(ends(&recorder, events).await, Some(failure(7)));
    }

    #[tokio::test]
    async fn p_6_6_a_draining_session_ends_with_its_last_lane() {
        let recorder = Recorder::default();
        recorder.drains.store(true, Ordering::Relaxed);
        assert_eq!(ends(&recorder, [lost(0)]).await, None);
        assert_eq!(ends(&recorder, [lost(0), lost(1)]).await, Some(failure(1)));
    }
}
