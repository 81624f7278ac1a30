//! The control stream of a session: opened again when it is lost (P-1.7), and the tunnels that it announces.

use std::{sync::Arc, time::Instant};

use adit_link::{
    Compression, Failure, Reason,
    control::{CallError, Channel, ControlChannel, ControlMessage, RefusalReason},
};
use adit_proto::{Hsts, ProtocolType, Tunnel, VisitorHttps, VisitorTls, control::Kind};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::StreamExt;

use super::{
    connection::no_response,
    events::{Event, SessionObserver, Streams, stale},
    retry::Retry,
};
use crate::{
    announced_layers::announced_layers,
    announcements::Announcements,
    settings::{Settings, TunnelKind, TunnelSettings},
};

/// The number of messages that may wait to be sent.
pub(super) const QUEUE: usize = 16;

/// Control messages that are kept while the first announcement is outstanding.
const MOST_EARLY: usize = 16;

/// A control stream that is open.
pub(super) struct ControlStream {
    channel: ControlChannel,
    /// Messages that arrived before the results of the first announcement.
    early: Vec<Kind>,
}

impl ControlStream {
    pub(super) async fn open(channel: &impl Channel, session: &str) -> Result<Self, CallError> {
        Ok(Self {
            channel: channel.open_control(session).await?,
            early: Vec::new(),
        })
    }

    /// Announces the tunnels for the first time and waits for the results. Returns the revision that contains them.
    pub(super) async fn announce(
        &mut self,
        announcements: &mut Announcements,
    ) -> Result<Option<u64>, CallError> {
        let Some(announce) = announcements.next_message(Instant::now()) else {
            return Ok(None);
        };
        // The queue of a new stream has room.
        drop(
            self.channel
                .outbound
                .try_send(ControlMessage::new(0, announce)),
        );
        loop {
            match self.next().await? {
                Kind::TunnelResults(results) => {
                    let now = Instant::now();
                    if announcements.on_results(&results, now, rand::random()) {
                        return Ok(Some(results.revision));
                    }
                }
                kind if self.early.len() < MOST_EARLY => self.early.push(kind),
                _ => {}
            }
        }
    }

    /// The next control message.
    ///
    /// # Cancel safety
    /// Yes.
    async fn next(&mut self) -> Result<Kind, CallError> {
        loop {
            let Some(message) = self.channel.inbound.next().await else {
                let ended = "the server ended the control stream";
                return Err(CallError::Lost(ended.into()));
            };
            if let Some(kind) = message?.kind {
                return Ok(kind);
            }
        }
    }
}

/// Keeps the control stream open until the session ends.
pub(super) struct ControlKeeper<C, O> {
    pub(super) session: String,
    /// The connection on which the stream is opened.
    pub(super) channel: watch::Receiver<Option<C>>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    /// Messages that the client itself sends.
    pub(super) outbound: mpsc::Receiver<ControlMessage>,
    pub(super) announcements: Announcements,
    pub(super) retry: Retry,
    pub(super) streams: Streams,
    pub(super) observer: Arc<O>,
}

impl<C: Channel, O: SessionObserver> ControlKeeper<C, O> {
    pub(super) async fn run(mut self, mut stream: ControlStream) {
        while self.talk(stream).await {
            self.announcements.on_stream_lost(Instant::now());
            self.streams.report(Event::ControlLost).await;
            match self.reopen().await {
                Ok(opened) => stream = opened,
                Err(failure) => return self.streams.report(Event::Over(failure)).await,
            }
            tracing::info!("control stream opened again");
            self.streams.report(Event::ControlUp).await;
        }
    }

    async fn reopen(&mut self) -> Result<ControlStream, Failure> {
        let within = self.settings.borrow().timeouts.connect;
        let mut ready = self.retry.lost().await;
        loop {
            ready.map_err(|reason| Failure::new(Reason::LinkLost, reason.to_string()))?;
            let is_open =
                |channel: &Option<C>| channel.as_ref().is_some_and(|open| !open.is_closed());
            // The first lane opens the connection.
            let channel = self.channel.wait_for(is_open).await.ok();
            let Some(channel) = channel.and_then(|channel| channel.clone()) else {
                return Err(stale());
            };
            let error = match timeout(within, ControlStream::open(&channel, &self.session)).await {
                Ok(Ok(stream)) => {
                    self.retry.opened();
                    return Ok(stream);
                }
                Ok(Err(error)) if error.reason() == Some(RefusalReason::StaleSession) => {
                    return Err(stale());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => no_response(within),
            };
            tracing::debug!("control stream not opened: {error}");
            ready = self.retry.failed(adit_reconnect::Failure::Transient).await;
        }
    }

    /// Exchanges messages until the stream is lost; false when the session needs no other stream.
    async fn talk(&mut self, mut stream: ControlStream) -> bool {
        for kind in std::mem::take(&mut stream.early) {
            self.on_kind(kind);
        }
        let outbound = stream.channel.outbound.clone();
        loop {
            let due = self.announcements.due(Instant::now());
            let ready = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
                outbound.reserve().await
            };
            tokio::select! {
                kind = stream.next() => match kind {
                    Ok(kind) => self.on_kind(kind),
                    Err(_) => return true,
                },
                message = self.outbound.recv() => match message {
                    // The message is lost when the server does not read its control stream.
                    Some(message) => drop(outbound.try_send(message)),
                    None => return false,
                },
                Ok(()) = self.settings.changed() => self.on_settings(),
                // The connection of the stream is gone, although the stream may not have detected it: the peer was
                // silent.
                Ok(()) = self.channel.changed() => return true,
                permit = ready => {
                    let Ok(permit) = permit else {
                        return true;
                    };
                    if let Some(message) = self.announcements.next_message(Instant::now()) {
                        permit.send(ControlMessage::new(0, message));
                    }
                }
            }
        }
    }

    fn on_settings(&mut self) {
        let tunnels = tunnels(&self.settings.borrow_and_update());
        self.announcements.update(tunnels, Instant::now());
        self.report();
    }

    fn on_kind(&mut self, kind: Kind) {
        let now = Instant::now();
        match kind {
            Kind::TunnelResults(results) => {
                if self.announcements.on_results(&results, now, rand::random()) {
                    self.report();
                }
            }
            Kind::TunnelsFreed(_) => self.announcements.on_freed(now),
            kind => self.observer.on_control(kind),
        }
    }

    /// Reports the outcomes once all tunnels of the settings have one.
    fn report(&self) {
        if self.announcements.is_settled() {
            self.observer.on_tunnels(self.announcements.outcomes());
        }
    }
}

/// The tunnels of the settings, in the form of an announcement.
pub(super) fn tunnels(settings: &Settings) -> Vec<Tunnel> {
    settings.tunnels.iter().map(announcement).collect()
}

fn announcement(tunnel: &TunnelSettings) -> Tunnel {
    Tunnel {
        name: tunnel.name.clone(),
        protocol_type: match tunnel.kind {
            TunnelKind::Http => ProtocolType::Http,
            TunnelKind::Grpc => ProtocolType::Grpc,
            TunnelKind::WebSocket => ProtocolType::Websocket,
            TunnelKind::Tcp | TunnelKind::Tls => ProtocolType::Tcp,
            TunnelKind::Udp => ProtocolType::Udp,
        }
        .into(),
        domains: tunnel.domains.clone(),
        locations: tunnel.locations.clone(),
        remote_port: tunnel.remote_port.into(),
        load_balance: tunnel.load_balance.name().to_owned(),
        weight: tunnel.weight,
        hash_on: tunnel.hash_on.clone(),
        compression: tunnel
            .compression
            .map_or("", Compression::as_str)
            .to_owned(),
        session_timeout_millis: match tunnel.kind {
            TunnelKind::Udp => {
                u32::try_from(tunnel.service.session_timeout.as_millis()).unwrap_or(u32::MAX)
            }
            _ => 0,
        },
        layers: announced_layers(&tunnel.layers),
        https: (tunnel.redirect_https || tunnel.hsts.is_some()).then(|| VisitorHttps {
            redirect: tunnel.redirect_https,
            hsts: tunnel.hsts.map(|hsts| Hsts {
                max_age_seconds: hsts.max_age.as_secs(),
                include_subdomains: hsts.include_subdomains,
            }),
        }),
        visitor_tls: match tunnel.kind {
            TunnelKind::Tls => VisitorTls::PassThrough,
            _ if tunnel.terminates_tls => VisitorTls::Terminate,
            _ => VisitorTls::Unspecified,
        }
        .into(),
        obtain_certificates: tunnel.obtains_certificates,
    }
}
