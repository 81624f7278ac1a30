//! Which connections on the clients' port are in use.

use std::{collections::HashMap, sync::Arc, time::Duration};

use adit_link::control::ChannelId;
use adit_registry::{Fence, Registry};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::connections::Connections;

/// Counts the streams that each connection carries. Any program can connect; a connection without a registration and
/// without a stream must not hold a descriptor forever.
pub(crate) struct Channels {
    registry: Arc<Registry>,
    streams: Mutex<HashMap<ChannelId, usize>>,
    /// The bounds of the connections.
    pub(crate) connections: Connections,
}

/// A stream on a connection, counted until this is dropped.
pub(crate) struct ChannelUse {
    channels: Arc<Channels>,
    channel: ChannelId,
}

impl Channels {
    pub(crate) fn new(registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            streams: Mutex::default(),
            connections: Connections::default(),
        })
    }

    pub(crate) fn track(self: &Arc<Self>, channel: ChannelId) -> ChannelUse {
        *self.streams.lock().entry(channel).or_default() += 1;
        ChannelUse {
            channels: self.clone(),
            channel,
        }
    }

    /// Whether a session was registered on it or a stream is open.
    pub(crate) fn is_used(&self, channel: ChannelId) -> bool {
        self.streams.lock().contains_key(&channel) || self.registry.is_channel_used(channel)
    }

    /// Completes when two checks in a row find the connection unused: a stream may be about to open.
    pub(crate) async fn wait_until_unused(&self, channel: ChannelId, look_every: Duration) {
        let mut was_used = true;
        loop {
            tokio::time::sleep(look_every).await;
            let is_used = self.is_used(channel);
            if !is_used && !was_used {
                return;
            }
            was_used = is_used;
        }
    }

    /// Completes when the link that used the connection last is fenced (P-1.8), and no other one uses it.
    pub(crate) async fn fenced(
        &self,
        channel: ChannelId,
        mut link: watch::Receiver<Option<Fence>>,
    ) {
        loop {
            let fence = link.borrow_and_update().clone();
            let is_fenced = fence.as_ref().is_some_and(Fence::is_fenced);
            if is_fenced && !self.is_used(channel) {
                return;
            }
            let changed = match fence.filter(|_| !is_fenced) {
                Some(mut fence) => tokio::select! {
                    changed = link.changed() => changed,
                    () = fence.fenced() => Ok(()),
                },
                None => link.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

impl Drop for ChannelUse {
    fn drop(&mut self) {
        let mut streams = self.channels.streams.lock();
        if let Some(count) = streams.get_mut(&self.channel) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.channel);
                drop(streams);
                self.channels.connections.stream_ended(self.channel);
            }
        }
    }
}
