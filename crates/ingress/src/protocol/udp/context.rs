//! State that the ports and the flows of the UDP entry share.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{net::UdpSocket, time::Instant};

use super::{stats::Counters, waiting::Room};
use crate::{config::UdpConfig, forward::admission::Admission};

/// State that all ports share.
pub(super) struct UdpContext {
    pub(super) config: ArcSwap<UdpConfig>,
    pub(super) admission: Arc<Admission>,
    /// The memory for datagrams that wait for a destination.
    pub(super) room: Arc<Room>,
    pub(super) counters: Counters,
}

impl UdpContext {
    pub(super) fn new(config: UdpConfig, admission: Arc<Admission>) -> Self {
        let room = Room::new(config.max_waiting_bytes_per_flow, config.max_waiting_bytes);
        Self {
            config: ArcSwap::from_pointee(config),
            admission,
            room: Arc::new(room),
            counters: Counters::default(),
        }
    }
}

/// State that the flows of one port share.
pub(super) struct PortContext {
    pub(super) udp: Arc<UdpContext>,
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) local_text: String,
    pub(super) opened: Instant,
    admitted: Mutex<Admitted>,
}

#[derive(Default)]
struct Admitted {
    /// The visitors of flows that were admitted, since the last [`PortContext::take_admitted`]: at most one for each flow.
    visitors: Vec<SocketAddr>,
    /// The task that reads the port.
    reader: Option<Waker>,
}

impl PortContext {
    pub(super) fn new(udp: Arc<UdpContext>, socket: UdpSocket, local: SocketAddr) -> Self {
        Self {
            udp,
            socket,
            local,
            local_text: local.to_string(),
            opened: Instant::now(),
            admitted: Mutex::default(),
        }
    }

    /// Notifies the task that reads the port: the flow of `visitor` has passed all layers, and counts as one.
    pub(super) fn on_admitted(&self, visitor: SocketAddr) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.visitors.push(visitor);
        let reader = admitted.reader.take();
        drop(admitted);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Visitors whose flows were admitted. The waker is woken when there are others.
    pub(super) fn take_admitted(&self, cx: &Context<'_>) -> Vec<SocketAddr> {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut admitted.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        std::mem::take(&mut admitted.visitors)
    }

    /// Time since the port was opened, by the runtime's clock.
    pub(super) fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.udp.counters
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.udp.admission
    }
}
