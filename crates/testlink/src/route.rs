//! The destination of visitors' requests, with layers and observer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use adit_ingress::{
    Admission, Destination, Direction, Director, Layer, Layers, RequestMeta, Session, layers,
};
use adit_link::{Failure, Reason};
use adit_trace::{NoObserver, Observer};

use crate::{Link, TUNNEL, link_grant};

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

/// The request or session that a director decides about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Request(&'a RequestMeta),
    Session(&'a Session),
}

type Direct = dyn Fn(Subject<'_>, &[u64]) -> Direction + Send + Sync;

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
    fn new(direct: impl Fn(Subject<'_>, &[u64]) -> Direction + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            direct: Box::new(direct),
            retries_left: AtomicUsize::new(100),
            needs_host: AtomicBool::new(true),
            avoided: Mutex::default(),
            sessions: Mutex::default(),
        })
    }

    /// How often the director has decided.
    pub fn calls(&self) -> usize {
        self.avoided.lock().unwrap().len()
    }

    fn decide(&self, subject: Subject<'_>, avoid: &[u64]) -> Direction {
        self.avoided.lock().unwrap().push(avoid.to_vec());
        (self.direct)(subject, avoid)
    }
}

impl Director for ScriptedDirector {
    fn direct(&self, visit: &RequestMeta, avoid: &[u64]) -> Direction {
        self.decide(Subject::Request(visit), avoid)
    }

    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction {
        self.sessions.lock().unwrap().push(session.clone());
        self.decide(Subject::Session(session), avoid)
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

/// Directs HTTP requests.
pub fn director(
    direct: impl Fn(&RequestMeta, &[u64]) -> Direction + Send + Sync + 'static,
) -> Arc<ScriptedDirector> {
    ScriptedDirector::new(move |subject, avoid| match subject {
        Subject::Request(visit) => direct(visit, avoid),
        Subject::Session(session) => panic!("unexpected session: {session:?}"),
    })
}

/// Directs TCP connections and UDP flows.
pub fn session_director(
    direct: impl Fn(&Session, &[u64]) -> Direction + Send + Sync + 'static,
) -> Arc<ScriptedDirector> {
    ScriptedDirector::new(move |subject, avoid| match subject {
        Subject::Session(session) => direct(session, avoid),
        Subject::Request(visit) => panic!("unexpected request: {visit:?}"),
    })
}

pub fn standard_layers() -> Vec<Box<dyn Layer>> {
    vec![
        Box::new(layers::HopByHop),
        Box::new(layers::Forwarded::default()),
    ]
}

/// The way between an entry and the links: layers, a director, an observer.
pub struct Route {
    pub(crate) links: Vec<Link>,
    pub(crate) director: Arc<ScriptedDirector>,
    layers: Vec<Box<dyn Layer>>,
    observer: Arc<dyn Observer>,
}

impl Route {
    /// A route with one link for everything, with the number 1.
    pub fn to(link: &Link) -> Self {
        let there = link.clone();
        let director = ScriptedDirector::new(move |_, _| there.direction(1));
        Self::director(director).links(std::slice::from_ref(link))
    }

    /// A route in which the first attempt uses the first link, with the number 0, and each further one the next link.
    pub fn through(links: &[Link]) -> Self {
        let there = links.to_vec();
        let director = ScriptedDirector::new(move |_, avoid| match there.get(avoid.len()) {
            Some(link) => link.direction(avoid.len() as u64),
            None => fail(Reason::NoClient),
        });
        Self::director(director).links(links)
    }

    /// A route whose director is this one.
    pub fn director(director: Arc<ScriptedDirector>) -> Self {
        Self {
            links: Vec::new(),
            director,
            layers: standard_layers(),
            observer: Arc::new(NoObserver),
        }
    }

    /// The links that must be idle when the entry has settled.
    #[must_use]
    pub fn links(mut self, links: &[Link]) -> Self {
        self.links = links.to_vec();
        self
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
