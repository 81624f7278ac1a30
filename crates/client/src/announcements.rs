//! The tunnels of a session: which of them the server has accepted, when the others are announced again (P-1.4), and
//! the messages that a change of the settings causes (P-1.15). `now` is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::{
    Tunnel, TunnelDestroy, TunnelResult, TunnelResults, TunnelsAnnounce, control::Kind,
};
use adit_trace::Printable;

use crate::status::TunnelOutcome;

/// A refused tunnel is announced again after this time; the pause doubles after each announcement of which nothing was
/// accepted.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A message without a response is repeated after this time: control messages may be lost with their stream.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// The tunnels of one session.
#[derive(Debug)]
pub(crate) struct Announcements {
    tunnels: Vec<(Tunnel, State)>,
    /// Tunnels that were removed from the settings; the server has not confirmed their end.
    leaving: Vec<Leaving>,
    server_host: String,
    supported: Supported,
    sequence: u64,
    /// The last announcement, while its results are outstanding.
    outstanding: Option<Sent>,
    /// When the next announcement is due.
    due: Option<Instant>,
    pause: Duration,
}

/// The fields of an announcement that the server knows: it would leave out others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Supported {
    layers: bool,
    https: bool,
    acme: bool,
}

impl Supported {
    /// What the server's capabilities include (P-1.2).
    pub(crate) fn of(capabilities: &[String]) -> Self {
        let has = |wanted: &str| capabilities.iter().any(|name| name == wanted);
        Self {
            layers: has("layers"),
            https: has("https"),
            acme: has("acme"),
        }
    }

    /// What the tunnel has requested and the server ignores, which it does not report itself (P-14.10).
    fn ignored(self, tunnel: &Tunnel) -> Option<String> {
        (tunnel.obtain_certificates && !self.acme).then(|| {
            "the server obtains no certificates for single tunnels (`ssl_cert: auto`); install the same version of adit on both sides"
                .to_owned()
        })
    }

    /// What the tunnel needs and the server does not know.
    fn missing(self, tunnel: &Tunnel) -> Option<&'static str> {
        let needs_https = tunnel.https.is_some() || tunnel.visitor_tls != 0;
        match () {
            () if !self.layers && !tunnel.layers.is_empty() => Some("layers"),
            () if !self.https && needs_https => Some("HTTPS for visitors"),
            () => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The server has not responded to the announcement of the tunnel.
    Unknown,
    Accepted {
        public_url: String,
        note: Option<String>,
    },
    /// Another client holds a name that the tunnel needs.
    Waiting { error: String },
    /// The announcement can never be accepted.
    Refused { error: String },
}

/// A message that has no response yet.
#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    repeat_at: Instant,
}

#[derive(Debug)]
struct Leaving {
    name: String,
    /// `None` until the message has been sent on the current control stream.
    sent: Option<Sent>,
}

impl Announcements {
    /// The announcements of a new session. All tunnels are due for announcement at `now`.
    pub(crate) fn new(
        tunnels: Vec<Tunnel>,
        server_host: &str,
        supported: Supported,
        now: Instant,
    ) -> Self {
        let mut announcements = Self {
            tunnels: Vec::new(),
            leaving: Vec::new(),
            server_host: server_host.to_owned(),
            supported,
            sequence: 0,
            outstanding: None,
            due: None,
            pause: FIRST_PAUSE,
        };
        announcements.update(tunnels, now);
        announcements
    }

    /// Applies a change of the settings: new and changed tunnels are due for announcement, removed ones for
    /// destruction; the others keep their state.
    pub(crate) fn update(&mut self, tunnels: Vec<Tunnel>, now: Instant) {
        let before = std::mem::take(&mut self.tunnels).into_iter();
        let mut before: HashMap<String, (Tunnel, State)> = before
            .map(|(tunnel, state)| (tunnel.name.clone(), (tunnel, state)))
            .collect();
        for tunnel in tunnels {
            // The server handles control messages in order: a tunnel that is announced again outlives its destruction.
            self.leaving.retain(|leaving| leaving.name != tunnel.name);
            let missing = self.supported.missing(&tunnel);
            let state = match (before.remove(&tunnel.name), missing) {
                (Some((known, state)), _) if known == tunnel => state,
                (known, Some(missing)) => {
                    // The server would continue to serve the tunnel as it was.
                    if known.is_some() && self.sequence > 0 {
                        let name = tunnel.name.clone();
                        self.leaving.push(Leaving { name, sent: None });
                    }
                    State::unsupported(missing)
                }
                _ => State::Unknown,
            };
            if state == State::Unknown {
                self.due = Some(now);
            }
            self.tunnels.push((tunnel, state));
        }
        // Before the first announcement the server knows none of them.
        if self.sequence > 0 {
            let removed = before.into_keys().map(|name| Leaving { name, sent: None });
            self.leaving.extend(removed);
        }
    }

    /// The next message that is due at `now`. Destructions are first: names that they free may be announced right
    /// after.
    pub(crate) fn next_message(&mut self, now: Instant) -> Option<Kind> {
        let mut leaving = self.leaving.iter_mut();
        if let Some(leaving) = leaving.find(|leaving| leaving.due(now) <= now) {
            self.sequence += 1;
            leaving.sent = Some(Sent {
                sequence: self.sequence,
                repeat_at: now + RESPONSE_WITHIN,
            });
            return Some(Kind::TunnelDestroy(TunnelDestroy {
                name: leaving.name.clone(),
                sequence: self.sequence,
            }));
        }
        if self.announcement_due().is_some_and(|due| due <= now) {
            return self.announce(now).map(Kind::TunnelsAnnounce);
        }
        None
    }

    /// The announcement of every tunnel that is neither accepted nor permanently refused.
    fn announce(&mut self, now: Instant) -> Option<TunnelsAnnounce> {
        let open = self.tunnels.iter().filter(|(_, state)| state.is_open());
        let tunnels: Vec<_> = open.map(|(tunnel, _)| tunnel.clone()).collect();
        self.due = None;
        self.outstanding = None;
        if tunnels.is_empty() {
            return None;
        }
        self.sequence += 1;
        self.outstanding = Some(Sent {
            sequence: self.sequence,
            repeat_at: now + RESPONSE_WITHIN,
        });
        Some(TunnelsAnnounce {
            sequence: self.sequence,
            tunnels,
        })
    }

    /// Processes results of the server. Returns whether they belong to the last announcement or to a destruction.
    /// `random` is from 0 to 1.
    pub(crate) fn on_results(
        &mut self,
        results: &TunnelResults,
        now: Instant,
        random: f64,
    ) -> bool {
        let leaving = self.leaving.iter().position(|leaving| {
            let sent = leaving.sent;
            sent.is_some_and(|sent| sent.sequence == results.sequence)
        });
        if let Some(index) = leaving {
            // Whether the server knew the tunnel or not, it does not serve it now.
            self.leaving.remove(index);
            return true;
        }
        let is_last = |sent: &mut Sent| sent.sequence == results.sequence;
        if self.outstanding.take_if(is_last).is_none() {
            return false;
        }
        let mut some_accepted = false;
        for result in &results.results {
            let mut state = State::of(result, &self.server_host);
            some_accepted |= matches!(state, State::Accepted { .. });
            let mut same = self.tunnels.iter_mut();
            if let Some((tunnel, known)) = same.find(|(tunnel, _)| tunnel.name == result.name) {
                if let State::Accepted { note, .. } = &mut state {
                    *note = note.take().or_else(|| self.supported.ignored(tunnel));
                }
                *known = state;
            }
        }
        if some_accepted {
            self.pause = FIRST_PAUSE;
        }
        if self.due.is_none() && self.tunnels.iter().any(|(_, state)| state.is_open()) {
            // The pause is random, so that clients that wait for the same name do not announce at the same moment.
            self.due = Some(now + self.pause.mul_f64(random.mul_add(0.5, 0.75)));
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        true
    }

    /// Called when the server reports that a name, a host or a port has become free.
    pub(crate) fn on_freed(&mut self, now: Instant) {
        self.pause = FIRST_PAUSE;
        if self.due.is_some() {
            self.due = Some(now);
        }
    }

    /// Called when the control stream was lost, perhaps with messages or results.
    pub(crate) fn on_stream_lost(&mut self, now: Instant) {
        if self.outstanding.take().is_some() {
            self.due = Some(now);
        }
        for leaving in &mut self.leaving {
            leaving.sent = None;
        }
    }

    /// When [`Announcements::next_message`] is to be called next.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let leaving = self.leaving.iter().map(|leaving| leaving.due(now)).min();
        [leaving, self.announcement_due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn announcement_due(&self) -> Option<Instant> {
        let repeat_at = self.outstanding.map(|sent| sent.repeat_at);
        [self.due, repeat_at].into_iter().flatten().min()
    }

    /// Whether every announcement and destruction has had its response.
    pub(crate) fn is_settled(&self) -> bool {
        self.outstanding.is_none()
            && self.leaving.is_empty()
            && !self
                .tunnels
                .iter()
                .any(|(_, state)| *state == State::Unknown)
    }

    /// The outcomes of the announcement, one for each tunnel.
    pub(crate) fn outcomes(&self) -> Vec<TunnelOutcome> {
        let outcomes = self.tunnels.iter().map(|(tunnel, state)| {
            let (public_url, error, waiting) = match state {
                State::Unknown => (
                    String::new(),
                    Some("the server has not responded".into()),
                    true,
                ),
                State::Accepted { public_url, .. } => (public_url.clone(), None, false),
                State::Waiting { error } => (String::new(), Some(error.clone()), true),
                State::Refused { error } => (String::new(), Some(error.clone()), false),
            };
            TunnelOutcome {
                name: tunnel.name.clone(),
                public_url,
                error,
                waiting,
                note: match state {
                    State::Accepted { note, .. } => note.clone(),
                    _ => None,
                },
            }
        });
        outcomes.collect()
    }
}

impl Leaving {
    fn due(&self, now: Instant) -> Instant {
        self.sent.map_or(now, |sent| sent.repeat_at)
    }
}

impl State {
    /// The state of a tunnel with layers, on a server that does not know them (P-1.16).
    fn unsupported(what: &str) -> Self {
        Self::Refused {
            error: format!(
                "the server does not support {what}; install the same version of adit on both sides"
            ),
        }
    }

    fn of(result: &TunnelResult, server_host: &str) -> Self {
        match &result.error {
            None => Self::Accepted {
                public_url: Printable(&below_wildcard(
                    &reachable(&result.public_url, server_host),
                    &result.name,
                ))
                .to_string(),
                note: (!result.note.is_empty()).then(|| Printable(&result.note).to_string()),
            },
            // The announcement itself is invalid, and would be refused again.
            Some(error) if error.code == "bad_request" => Self::Refused {
                error: Printable(&error.message).to_string(),
            },
            Some(error) => Self::Waiting {
                error: Printable(&error.message).to_string(),
            },
        }
    }

    const fn is_open(&self) -> bool {
        matches!(self, Self::Unknown | Self::Waiting { .. })
    }
}

/// Replaces the unspecified address in a public URL by the host under which this client reaches the server. A server
/// that listens on all its addresses and has no domain sends such URLs.
fn reachable(public_url: &str, server_host: &str) -> String {
    let everywhere = ["://0.0.0.0:", "://[::]:"];
    let split = everywhere
        .iter()
        .find_map(|host| public_url.split_once(host));
    match split {
        Some((scheme, rest)) if server_host.contains(':') => {
            format!("{scheme}://[{server_host}]:{rest}")
        }
        Some((scheme, rest)) => format!("{scheme}://{server_host}:{rest}"),
        None => public_url.to_owned(),
    }
}

/// Replaces a wildcard label by the name of the tunnel, so that the URL can be visited.
fn below_wildcard(public_url: &str, tunnel: &str) -> String {
    match public_url.split_once("://*.") {
        Some((scheme, below)) => format!("{scheme}://{}.{below}", tunnel.to_ascii_lowercase()),
        None => public_url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::Error;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const ALL: Supported = Supported {
        layers: true,
        https: true,
        acme: true,
    };

    fn tunnel(name: &str) -> Tunnel {
        Tunnel {
            name: name.into(),
            ..Tunnel::default()
        }
    }

    fn changed(name: &str) -> Tunnel {
        Tunnel {
            domains: vec!["new.example".into()],
            ..tunnel(name)
        }
    }

    fn three(now: Instant) -> Announcements {
        let tunnels = ["web", "ssh", "bad"].map(tunnel);
        Announcements::new(tunnels.into(), "a.example", ALL, now)
    }

    /// Three tunnels that the server has accepted.
    fn accepted(now: Instant) -> Announcements {
        let mut all = three(now);
        let first = announce(&mut all, now);
        let results = [("web", ""), ("ssh", ""), ("bad", "")];
        respond(&mut all, &first, &results, now);
        assert!(all.is_settled());
        assert_eq!(all.next_message(now), None);
        all
    }

    fn announce(announcements: &mut Announcements, now: Instant) -> TunnelsAnnounce {
        match announcements.next_message(now) {
            Some(Kind::TunnelsAnnounce(announce)) => announce,
            other => panic!("expected an announcement, found {other:?}"),
        }
    }

    fn destroy(announcements: &mut Announcements, now: Instant) -> TunnelDestroy {
        match announcements.next_message(now) {
            Some(Kind::TunnelDestroy(destroy)) => destroy,
            other => panic!("expected a destruction, found {other:?}"),
        }
    }

    fn result(name: &str, code: &str) -> TunnelResult {
        TunnelResult {
            name: name.into(),
            public_url: if code.is_empty() {
                "tcp://0.0.0.0:22"
            } else {
                ""
            }
            .into(),
            error: (!code.is_empty()).then(|| Error {
                code: code.into(),
                message: format!("{code} of {name}"),
                detail: String::new(),
            }),
            note: String::new(),
        }
    }

    fn results(sequence: u64, results: &[(&str, &str)]) -> TunnelResults {
        TunnelResults {
            sequence,
            results: results
                .iter()
                .map(|(name, code)| result(name, code))
                .collect(),
            revision: 1,
        }
    }

    fn respond(
        announcements: &mut Announcements,
        announce: &TunnelsAnnounce,
        outcomes: &[(&str, &str)],
        now: Instant,
    ) {
        let results = results(announce.sequence, outcomes);
        assert!(announcements.on_results(&results, now, 0.5));
    }

    fn names(announce: &TunnelsAnnounce) -> Vec<&str> {
        announce
            .tunnels
            .iter()
            .map(|tunnel| &*tunnel.name)
            .collect()
    }

    #[test]
    fn p_1_4_taken_names_are_announced_again_and_invalid_tunnels_not() {
        let now = Instant::now();
        let mut all = three(now);
        let first = announce(&mut all, now);
        assert_eq!(names(&first), ["web", "ssh", "bad"]);
        let refused = [("web", "name_taken"), ("ssh", ""), ("bad", "bad_request")];
        respond(&mut all, &first, &refused, now);
        let [web, ssh, bad] = all.outcomes().try_into().unwrap();
        assert_eq!(web.error.as_deref(), Some("name_taken of web"));
        assert_eq!((web.waiting, bad.waiting), (true, false));
        assert_eq!((&*ssh.public_url, ssh.error), ("tcp://a.example:22", None));
        assert_eq!(all.due(now), Some(now + SECOND));
        assert_eq!(all.next_message(now), None);
        let again = announce(&mut all, now + SECOND);
        assert_eq!(names(&again), ["web"]);
        respond(&mut all, &again, &[("web", "")], now);
        assert_eq!((all.due(now), all.next_message(now)), (None, None));
    }

    #[test]
    fn p_1_4_the_pause_grows_to_a_minute() {
        let mut now = Instant::now();
        let mut all = three(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let first = announce(&mut all, now);
            respond(&mut all, &first, &[("web", "port_taken")], now);
            let due = all.due(now).unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn p_1_4_a_freed_name_is_announced_at_once() {
        let now = Instant::now();
        let mut all = accepted(now);
        all.on_freed(now);
        assert_eq!(all.due(now), None);
        let mut all = three(now);
        let first = announce(&mut all, now);
        respond(&mut all, &first, &[("web", "name_taken")], now);
        all.on_freed(now + SECOND / 2);
        assert_eq!(all.due(now), Some(now + SECOND / 2));
    }

    #[test]
    fn p_1_4_an_announcement_without_results_is_repeated() {
        let now = Instant::now();
        let mut all = three(now);
        let lost = announce(&mut all, now);
        assert_eq!(all.due(now), Some(now + RESPONSE_WITHIN));
        all.on_stream_lost(now + SECOND);
        assert_eq!(all.due(now), Some(now + SECOND));
        let second = announce(&mut all, now + SECOND);
        let late = results(lost.sequence, &[]);
        assert!(!all.on_results(&late, now, 0.5));
        let accepted = [("web", ""), ("ssh", ""), ("bad", "")];
        respond(&mut all, &second, &accepted, now);
        assert!(all.outcomes().iter().all(|tunnel| tunnel.error.is_none()));
        assert!(!all.on_results(&late, now, 0.5), "it belongs to nothing");
    }

    #[test]
    fn p_1_15_only_new_and_changed_tunnels_are_announced() {
        let now = Instant::now();
        let mut all = accepted(now);
        let tunnels = vec![changed("web"), tunnel("ssh"), tunnel("bad"), tunnel("new")];
        all.update(tunnels.clone(), now);
        assert!(!all.is_settled());
        let update = announce(&mut all, now);
        assert_eq!(names(&update), ["web", "new"]);
        assert_eq!(all.next_message(now), None, "nothing is destroyed");
        respond(&mut all, &update, &[("web", ""), ("new", "")], now);
        assert!(all.is_settled());
        all.update(tunnels, now);
        assert!(all.is_settled(), "the same settings change nothing");
        assert_eq!(all.next_message(now), None);
    }

    #[test]
    fn p_1_16_layers_are_not_announced_to_a_server_without_them() {
        let with_layers = |name| Tunnel {
            layers: vec![adit_proto::Layer::default()],
            ..tunnel(name)
        };
        let now = Instant::now();
        let tunnels = vec![with_layers("web"), tunnel("ssh")];
        let mut all = Announcements::new(tunnels.clone(), "a.example", Supported::default(), now);
        let first = announce(&mut all, now);
        assert_eq!(names(&first), ["ssh"]);
        respond(&mut all, &first, &[("ssh", "")], now);
        assert!(all.is_settled());
        let [web, ssh] = all.outcomes().try_into().unwrap();
        assert!(web.error.is_some() && !web.waiting && ssh.error.is_none());
        // `ssh` must not remain without its new layers, and `web` is announced now that it has none.
        all.update(vec![tunnel("web"), with_layers("ssh")], now);
        let destroyed = destroy(&mut all, now);
        assert_eq!(destroyed.name, "ssh");
        assert_eq!(names(&announce(&mut all, now)), ["web"]);
        let mut new = Announcements::new(tunnels, "a.example", ALL, now);
        assert_eq!(names(&announce(&mut new, now)), ["web", "ssh"]);
    }

    #[test]
    fn p_14_7_https_is_not_announced_to_a_server_without_it() {
        let redirecting = Tunnel {
            https: Some(adit_proto::VisitorHttps::default()),
            ..tunnel("web")
        };
        let passing = Tunnel {
            visitor_tls: adit_proto::VisitorTls::PassThrough.into(),
            ..tunnel("ssh")
        };
        let now = Instant::now();
        let old = Supported {
            https: false,
            ..ALL
        };
        let tunnels = vec![redirecting, passing];
        let mut all = Announcements::new(tunnels.clone(), "a.example", old, now);
        assert_eq!(all.next_message(now), None);
        let error = all.outcomes()[0].error.clone().unwrap();
        assert!(error.contains("does not support HTTPS"), "{error}");
        let mut all = Announcements::new(tunnels, "a.example", ALL, now);
        assert_eq!(names(&announce(&mut all, now)), ["web", "ssh"]);
    }

    #[test]
    fn p_14_10_a_request_for_certificates_that_is_ignored_is_noted() {
        let wanting = Tunnel {
            obtain_certificates: true,
            ..tunnel("web")
        };
        let now = Instant::now();
        let old = Supported { acme: false, ..ALL };
        let note = |supported, from_server: &str| {
            let tunnels = vec![wanting.clone(), tunnel("ssh")];
            let mut all = Announcements::new(tunnels, "a.example", supported, now);
            let first = announce(&mut all, now);
            assert_eq!(names(&first), ["web", "ssh"]);
            let mut results = results(first.sequence, &[("web", ""), ("ssh", "")]);
            results.results[0].note = from_server.into();
            assert!(all.on_results(&results, now, 0.5));
            let [web, ssh] = all.outcomes().try_into().unwrap();
            assert!(web.error.is_none() && ssh.note.is_none());
            web.note
        };
        assert_eq!(note(ALL, ""), None);
        assert_eq!(note(ALL, "no\u{7}CA").as_deref(), Some("no\\u{7}CA"));
        let own = note(old, "").unwrap();
        assert!(own.contains("install the same version"), "{own}");
    }

    #[test]
    fn p_1_15_removed_tunnels_are_destroyed_before_others_are_announced() {
        let now = Instant::now();
        let mut all = accepted(now);
        all.update(vec![tunnel("ssh"), tunnel("new")], now);
        let mut destroyed = [destroy(&mut all, now), destroy(&mut all, now)];
        destroyed.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!([&*destroyed[0].name, &*destroyed[1].name], ["bad", "web"]);
        let update = announce(&mut all, now);
        assert_eq!(names(&update), ["new"]);
        respond(&mut all, &update, &[("new", "")], now);
        assert!(!all.is_settled(), "the destructions are unconfirmed");
        let first = results(destroyed[0].sequence, &[("bad", "no_tunnel")]);
        assert!(all.on_results(&first, now, 0.5));
        assert!(!all.on_results(&first, now, 0.5), "confirmed once");
        let second = results(destroyed[1].sequence, &[("web", "")]);
        assert!(all.on_results(&second, now, 0.5));
        assert!(all.is_settled());
        let left: Vec<_> = all.outcomes().into_iter().map(|left| left.name).collect();
        assert_eq!(left, ["ssh", "new"]);
    }

    #[test]
    fn p_1_15_an_unconfirmed_destruction_is_repeated() {
        let now = Instant::now();
        let mut all = accepted(now);
        all.update(vec![tunnel("ssh"), tunnel("bad")], now);
        let first = destroy(&mut all, now);
        assert_eq!(all.due(now), Some(now + RESPONSE_WITHIN));
        let second = destroy(&mut all, now + RESPONSE_WITHIN);
        assert_eq!(first.name, second.name);
        all.on_stream_lost(now + RESPONSE_WITHIN);
        let third = destroy(&mut all, now + RESPONSE_WITHIN);
        let late = results(second.sequence, &[("web", "")]);
        assert!(!all.on_results(&late, now, 0.5));
        assert!(all.on_results(&results(third.sequence, &[("web", "")]), now, 0.5));
        assert!(all.is_settled());
    }

    #[test]
    fn p_1_15_a_tunnel_that_returns_is_announced_again() {
        let now = Instant::now();
        let mut all = accepted(now);
        all.update(vec![tunnel("ssh"), tunnel("bad")], now);
        let destroyed = destroy(&mut all, now);
        all.update(["web", "ssh", "bad"].map(tunnel).into(), now);
        let again = announce(&mut all, now);
        assert_eq!(names(&again), ["web"]);
        let confirmed = results(destroyed.sequence, &[("web", "")]);
        assert!(!all.on_results(&confirmed, now, 0.5));
        respond(&mut all, &again, &[("web", "")], now);
        assert!(all.is_settled());
        assert_eq!(all.outcomes().len(), 3);
    }

    #[test]
    fn p_1_15_results_of_an_older_announcement_do_not_count() {
        let now = Instant::now();
        let mut all = three(now);
        let first = announce(&mut all, now);
        all.update(vec![changed("web"), tunnel("ssh")], now);
        assert_eq!(destroy(&mut all, now).name, "bad");
        let second = announce(&mut all, now);
        assert_eq!(names(&second), ["web", "ssh"]);
        let old = results(first.sequence, &[("web", ""), ("ssh", ""), ("bad", "")]);
        assert!(!all.on_results(&old, now, 0.5));
        respond(
            &mut all,
            &second,
            &[("web", "name_taken"), ("ssh", "")],
            now,
        );
        assert!(all.outcomes()[0].waiting);
    }

    #[test]
    fn the_url_of_a_wildcard_can_be_visited() {
        let url = |public_url| below_wildcard(public_url, "Web");
        assert_eq!(
            url("http://*.a.example:7080/b"),
            "http://web.a.example:7080/b"
        );
        assert_eq!(url("http://a.example/*."), "http://a.example/*.");
    }

    #[test]
    fn control_characters_of_the_server_are_escaped() {
        let hostile = "http://a\u{1b}]0;x\u{7}\r\n\u{202e}b";
        let mut result = TunnelResult {
            public_url: hostile.into(),
            ..TunnelResult::default()
        };
        let State::Accepted { public_url, .. } = State::of(&result, "localhost") else {
            panic!("it was accepted");
        };
        result.error = Some(Error {
            message: hostile.repeat(1_000),
            ..Error::default()
        });
        let State::Waiting { error } = State::of(&result, "localhost") else {
            panic!("it was refused");
        };
        for text in [&public_url, &error] {
            assert!(text.starts_with("http://a\\u{1b}]0;x\\u{7}\\r\\n\\u{202e}b"));
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert!(error.len() < 8_192, "{}", error.len());
    }

    #[test]
    fn an_unspecified_address_is_replaced_by_the_servers() {
        for (announced, host, shown) in [
            ("tcp://0.0.0.0:22", "a.example", "tcp://a.example:22"),
            ("udp://[::]:53", "192.0.2.1", "udp://192.0.2.1:53"),
            ("http://0.0.0.0:8081/api", "::1", "http://[::1]:8081/api"),
            ("tcp://127.0.0.1:22", "a.example", "tcp://127.0.0.1:22"),
            ("http://web.localhost:80", "b", "http://web.localhost:80"),
            ("", "b", ""),
        ] {
            assert_eq!(reachable(announced, host), shown);
        }
    }
}
