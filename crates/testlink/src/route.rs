//! The destination of visitors' requests, with layers and observer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use adit_auth::{ClientClaim, Grant};
use adit_ingress::{
    Admission, Destination, Direction, Director, Layer, Layers, RequestMeta, Session, layers,
};
use adit_link::{Failure, Reason};
use adit_trace::{NoObserver, Observer};

use crate::{Link, TUNNEL};

/// The grant of client `office` of user `alice` in group `office`.
fn link_grant() -> Grant {
    let claim = ClientClaim {
        client_id: "office".parse().unwrap(),
        group_id: "office".parse().unwrap(),
    };
    Grant::for_link("alice".parse().unwrap(), claim)
}

impl Link {
    /// The destination of the tests' tunnel, through this link; `number` identifies it.
    pub fn destination(&self, number: u64) -> Destination {
        Destination {
            lane: self.near.clone(),
            grant: link_grant().for_tunnel(TUNNEL.parse().unwrap(), 7),
            tunnel: TUNNEL.into(),
            revision: 7,
            link: number,
            layers: Layers::default(),
            limits: None,
            compression: None,
            permit: None,
            hold: Box::new(()),
        }
    }

    pub fn direction(&self, number: u64) -> Direction {
        Direction::Go(self.destination(number))
    }
}

/// Rejects a request.
pub fn fail(reason: Reason) -> Direction {
    Direction::Fail(Failure::new(reason, "failed by the test"))
}

type Direct = dyn Fn(Option<&RequestMeta>, &[u64]) -> Direction + Send + Sync;

/// Lets a request wait for a client that never comes.
pub fn never() -> Direction {
    Direction::Wait(Box::pin(std::future::pending()))
}

/// A director whose decisions the test makes.
pub struct ScriptedDirector {
    direct: Box<Direct>,
    pub retries_left: AtomicUsize,
    pub needs_host: AtomicBool,
    /// The links to avoid, for each decision.
    pub avoided: Mutex<Vec<Vec<u64>>>,
    pub sessions: Mutex<Vec<Session>>,
}

impl ScriptedDirector {
    /// How often the director has decided.
    pub fn calls(&self) -> usize {
        self.avoided.lock().unwrap().len()
    }

    fn decide(&self, visit: Option<&RequestMeta>, avoid: &[u64]) -> Direction {
        self.avoided.lock().unwrap().push(avoid.to_vec());
        (self.direct)(visit, avoid)
    }
}

impl Director for ScriptedDirector {
    fn direct(&self, visit: &RequestMeta, avoid: &[u64]) -> Direction {
        self.decide(Some(visit), avoid)
    }

    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction {
        self.sessions.lock().unwrap().push(session.clone());
        self.decide(None, avoid)
    }

    fn needs_host(&self, _: u16) -> bool {
        self.needs_host.load(Ordering::Relaxed)
    }

    fn may_retry(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        let taken = self
            .retries_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok()
    }
}

/// The way between an entry and the links: layers, a director, an observer.
pub struct Route {
    pub(crate) links: Vec<Link>,
    pub(crate) director: Arc<ScriptedDirector>,
    pub layers: Vec<Box<dyn Layer>>,
    observer: Arc<dyn Observer>,
}

impl Route {
    /// A route with one link for everything, with the number 1.
    pub fn to(link: &Link) -> Self {
        let there = link.clone();
        Self::director(std::slice::from_ref(link), move |_, _| there.direction(1))
    }

    /// A route in which the first attempt uses the first link, with the number 0, and each further one the next link.
    pub fn through(links: &[Link]) -> Self {
        let there = links.to_vec();
        Self::director(links, move |_, avoid| match there.get(avoid.len()) {
            Some(link) => link.direction(avoid.len() as u64),
            None => fail(Reason::NoClient),
        })
    }

    /// The decision of the test about each request, `None` for a connection or flow, and the links to avoid. `links` are
    /// those that must be idle when the entry has settled.
    pub fn director(
        links: &[Link],
        direct: impl Fn(Option<&RequestMeta>, &[u64]) -> Direction + Send + Sync + 'static,
    ) -> Self {
        let director = ScriptedDirector {
            direct: Box::new(direct),
            retries_left: AtomicUsize::new(100),
            needs_host: AtomicBool::new(true),
            avoided: Mutex::default(),
            sessions: Mutex::default(),
        };
        Self {
            links: links.to_vec(),
            director: Arc::new(director),
            layers: vec![
                Box::new(layers::HopByHop),
                Box::new(layers::Forwarded::default()),
            ],
            observer: Arc::new(NoObserver),
        }
    }

    /// Replaces the standard layers with these.
    #[must_use]
    pub fn layers(mut self, layers: Vec<Box<dyn Layer>>) -> Self {
        self.layers = layers;
        self
    }

    /// Replaces the standard layers with this one.
    #[must_use]
    pub fn layer(self, layer: impl Layer) -> Self {
        self.layers(vec![Box::new(layer)])
    }

    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    pub fn admission(self) -> Arc<Admission> {
        Admission::observed(self.layers, self.director, self.observer)
    }
}
