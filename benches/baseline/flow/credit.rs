//! Credit of one request within that of its link.

use std::sync::{Arc, Mutex};

use adit_flow::{Budget, MAX_WINDOW, MESSAGE_COST, RecvCredit, SendCredit};
use tokio::sync::Semaphore;

use super::lock;
use crate::case::Role;

const WINDOW: u32 = 64 * 1024;
const LINK_WINDOW: u32 = 16 << 20;

/// Credit of one request within that of its link, both ends of it.
pub trait Credit: Send + 'static {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;
    /// What the requests of a link share.
    type Link: Clone + Default + Send;

    /// Creates a new request.
    fn request(link: &Self::Link) -> Self;

    /// Charges, sends, receives and consumes a message and returns its credit, at the latest when the sender would
    /// otherwise wait for it. Returns false when there was no credit.
    fn message(&mut self, payload: usize) -> bool;
}

/// The credit of this project: absolute limits with one owner each; only growth accesses shared state.
#[derive(Debug)]
pub struct OurCredit {
    sender: SendCredit,
    receiver: RecvCredit,
    budget: Budget,
}

/// The budget of a link within that of a process.
#[derive(Debug, Clone)]
pub struct OurLink(Budget);

impl Default for OurLink {
    fn default() -> Self {
        Self(Budget::new(64 << 20).child(LINK_WINDOW.into()))
    }
}

impl Credit for OurCredit {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;
    type Link = OurLink;

    fn request(link: &OurLink) -> Self {
        Self {
            sender: SendCredit::new(WINDOW),
            receiver: RecvCredit::new(WINDOW),
            budget: link.0.clone(),
        }
    }

    fn message(&mut self, payload: usize) -> bool {
        let cost = payload as u64 + MESSAGE_COST;
        if self.sender.take(payload).is_err() || self.receiver.on_received(cost).is_err() {
            return false;
        }
        if self.receiver.consume(cost)
            && let Some(grant) = self.receiver.grant(&self.budget, MAX_WINDOW)
        {
            return self.sender.on_window(grant.limit, grant.consumed).is_ok();
        }
        true
    }
}

/// A locked counter for the request and one for the link; the credit of each message is returned separately.
#[derive(Debug)]
pub struct LockedCredit {
    request: Mutex<u64>,
    link: LockedLink,
}

/// The counter of the link.
#[derive(Debug, Clone)]
pub struct LockedLink(Arc<Mutex<u64>>);

impl Default for LockedLink {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LINK_WINDOW.into())))
    }
}

fn charge(counter: &Mutex<u64>, cost: u64) -> bool {
    let mut credit = lock(counter);
    let rest = credit.checked_sub(cost);
    *credit = rest.unwrap_or(*credit);
    rest.is_some()
}

impl Credit for LockedCredit {
    const NAME: &'static str = "locked_counters";
    const ROLE: Role = Role::Naive;
    type Link = LockedLink;

    fn request(link: &LockedLink) -> Self {
        Self {
            request: Mutex::new(WINDOW.into()),
            link: link.clone(),
        }
    }

    fn message(&mut self, payload: usize) -> bool {
        let cost = payload as u64 + MESSAGE_COST;
        if !charge(&self.request, cost) || !charge(&self.link.0, cost) {
            return false;
        }
        *lock(&self.request) += cost;
        *lock(&self.link.0) += cost;
        true
    }
}

/// Bytes as permits of a semaphore for the request and one for the link.
#[derive(Debug)]
pub struct SemaphoreCredit {
    request: Semaphore,
    link: SemaphoreLink,
}

/// The semaphore of the link.
#[derive(Debug, Clone)]
pub struct SemaphoreLink(Arc<Semaphore>);

impl Default for SemaphoreLink {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LINK_WINDOW as usize)))
    }
}

impl Credit for SemaphoreCredit {
    const NAME: &'static str = "tokio_semaphores";
    const ROLE: Role = Role::Rival;
    type Link = SemaphoreLink;

    fn request(link: &SemaphoreLink) -> Self {
        Self {
            request: Semaphore::new(WINDOW as usize),
            link: link.clone(),
        }
    }

    fn message(&mut self, payload: usize) -> bool {
        let cost = payload + usize::try_from(MESSAGE_COST).unwrap_or(usize::MAX);
        let many = u32::try_from(cost).unwrap_or(u32::MAX);
        let (Ok(request), Ok(link)) = (
            self.request.try_acquire_many(many),
            self.link.0.try_acquire_many(many),
        ) else {
            return false;
        };
        // The permits move with the message; consumption returns them elsewhere.
        request.forget();
        link.forget();
        self.request.add_permits(cost);
        self.link.0.add_permits(cost);
        true
    }
}

/// One level of HTTP/2's flow control with both ends: windows are increased when half of one has been consumed.
#[derive(Debug)]
struct Http2Window {
    send: i64,
    receive: i64,
    owed: i64,
    half: i64,
}

impl Http2Window {
    const fn new(window: u32) -> Self {
        Self {
            send: window as i64,
            receive: window as i64,
            owed: 0,
            half: window as i64 / 2,
        }
    }

    fn message(&mut self, cost: i64) -> bool {
        if self.send < cost || self.receive < cost {
            return false;
        }
        self.send -= cost;
        self.receive -= cost;
        self.owed += cost;
        if self.owed >= self.half {
            self.receive += self.owed;
            self.send += self.owed;
            self.owed = 0;
        }
        true
    }
}

/// The windows of an HTTP/2 stream and of its connection; the connection's windows are behind its lock. Their size is
/// fixed: unlike the windows of this project, they do not measure whether they should grow. The comparison ignores
/// that, which favours them.
#[derive(Debug)]
pub struct Http2Credit {
    stream: Http2Window,
    link: Http2Link,
}

/// The windows of the connection.
#[derive(Debug, Clone)]
pub struct Http2Link(Arc<Mutex<Http2Window>>);

impl Default for Http2Link {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Http2Window::new(LINK_WINDOW))))
    }
}

impl Credit for Http2Credit {
    const NAME: &'static str = "http2_windows";
    const ROLE: Role = Role::Rival;
    type Link = Http2Link;

    fn request(link: &Http2Link) -> Self {
        Self {
            stream: Http2Window::new(WINDOW),
            link: link.clone(),
        }
    }

    fn message(&mut self, payload: usize) -> bool {
        let cost = i64::try_from(payload).unwrap_or(i64::MAX);
        self.stream.message(cost) && lock(&self.link.0).message(cost)
    }
}
