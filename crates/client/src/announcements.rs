//! Which tunnels the server has accepted, and when the others are announced again (P-1.4). `now` is an argument.

use std::time::{Duration, Instant};

use adit_proto::{Tunnel, TunnelResult, TunnelResults, TunnelsAnnounce};
use adit_trace::Printable;

use crate::status::TunnelOutcome;

/// What was refused is announced again after this; twice as long after each time that nothing was accepted.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// An announcement without an answer is repeated after this: control messages may be lost with their stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The tunnels of one session.
#[derive(Debug)]
pub(crate) struct Announcements {
    tunnels: Vec<(Tunnel, State)>,
    server_host: String,
    sequence: u64,
    /// The announcement without an answer yet is repeated then.
    unanswered: Option<Instant>,
    /// What was refused is announced again then.
    due: Option<Instant>,
    pause: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No answer has come.
    Unknown,
    Accepted {
        public_url: String,
    },
    /// Somebody else holds what it needs.
    Waiting {
        error: String,
    },
    /// It can never be accepted.
    Refused {
        error: String,
    },
}

impl Announcements {
    pub(crate) fn new(tunnels: Vec<Tunnel>, server_host: &str) -> Self {
        let tunnels = tunnels.into_iter().map(|tunnel| (tunnel, State::Unknown));
        Self {
            tunnels: tunnels.collect(),
            server_host: server_host.to_owned(),
            sequence: 0,
            unanswered: None,
            due: None,
            pause: FIRST_PAUSE,
        }
    }

    /// The message that announces what is neither accepted nor hopeless; nothing when there is no such tunnel.
    pub(crate) fn announce(&mut self, now: Instant) -> Option<TunnelsAnnounce> {
        let open = self.tunnels.iter().filter(|(_, state)| state.is_open());
        let tunnels: Vec<_> = open.map(|(tunnel, _)| tunnel.clone()).collect();
        self.due = None;
        self.unanswered = None;
        if tunnels.is_empty() {
            return None;
        }
        self.sequence += 1;
        self.unanswered = Some(now + ANSWER_WITHIN);
        Some(TunnelsAnnounce {
            sequence: self.sequence,
            tunnels,
        })
    }

    /// The server has answered. Whether it is the answer to the last announcement. `random` is from 0 to 1.
    pub(crate) fn on_results(
        &mut self,
        results: &TunnelResults,
        now: Instant,
        random: f64,
    ) -> bool {
        if results.sequence != self.sequence || self.unanswered.take().is_none() {
            return false;
        }
        let mut some_accepted = false;
        for result in &results.results {
            let state = State::of(result, &self.server_host);
            some_accepted |= matches!(state, State::Accepted { .. });
            let mut same = self.tunnels.iter_mut();
            if let Some((_, known)) = same.find(|(tunnel, _)| tunnel.name == result.name) {
                *known = state;
            }
        }
        if some_accepted {
            self.pause = FIRST_PAUSE;
        }
        if self.tunnels.iter().any(|(_, state)| state.is_open()) {
            // Clients that wait for the same name do not all come at the same moment.
            self.due = Some(now + self.pause.mul_f64(random.mul_add(0.5, 0.75)));
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        true
    }

    /// The server says that something has become free.
    pub(crate) fn on_freed(&mut self, now: Instant) {
        self.pause = FIRST_PAUSE;
        if self.due.is_some() {
            self.due = Some(now);
        }
    }

    /// The control stream was lost, perhaps with an announcement or its answer.
    pub(crate) fn on_stream_lost(&mut self, now: Instant) {
        if self.unanswered.take().is_some() {
            self.due = Some(now);
        }
    }

    /// When [`Announcements::announce`] is to be called next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.unanswered.or(self.due)
    }

    /// One outcome for each tunnel whose answer has come.
    pub(crate) fn outcomes(&self) -> Vec<TunnelOutcome> {
        let outcomes = self.tunnels.iter().map(|(tunnel, state)| {
            let (public_url, error, waiting) = match state {
                State::Unknown => (
                    String::new(),
                    Some("the server has not answered".into()),
                    true,
                ),
                State::Accepted { public_url } => (public_url.clone(), None, false),
                State::Waiting { error } => (String::new(), Some(error.clone()), true),
                State::Refused { error } => (String::new(), Some(error.clone()), false),
            };
            TunnelOutcome {
                name: tunnel.name.clone(),
                public_url,
                error,
                waiting,
            }
        });
        outcomes.collect()
    }
}

impl State {
    fn of(result: &TunnelResult, server_host: &str) -> Self {
        match &result.error {
            None => Self::Accepted {
                public_url: Printable(&below_wildcard(
                    &reachable(&result.public_url, server_host),
                    &result.name,
                ))
                .to_string(),
            },
            // What is wrong with the announcement itself is wrong the next time too.
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

/// A public URL whose host is "everywhere", as a server writes it that listens on all its addresses and knows no name
/// for them, with the host by which this client has found the server.
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

/// A URL that can be visited. Of a wildcard it is one of many, with the name of the tunnel in its place.
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

    fn three() -> Announcements {
        let tunnel = |name: &str| Tunnel {
            name: name.into(),
            ..Tunnel::default()
        };
        Announcements::new(["web", "ssh", "bad"].map(tunnel).into(), "a.example")
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
        }
    }

    fn answer(
        announcements: &mut Announcements,
        announce: &TunnelsAnnounce,
        results: &[(&str, &str)],
        now: Instant,
    ) {
        let results = TunnelResults {
            sequence: announce.sequence,
            results: results
                .iter()
                .map(|(name, code)| result(name, code))
                .collect(),
            revision: 1,
        };
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
    fn p_1_4_what_is_held_is_announced_again_and_what_is_wrong_is_not() {
        let (mut all, now) = (three(), Instant::now());
        let first = all.announce(now).unwrap();
        assert_eq!(names(&first), ["web", "ssh", "bad"]);
        let refused = [("web", "name_taken"), ("ssh", ""), ("bad", "bad_request")];
        answer(&mut all, &first, &refused, now);
        let [web, ssh, bad] = all.outcomes().try_into().unwrap();
        assert_eq!(web.error.as_deref(), Some("name_taken of web"));
        assert_eq!((web.waiting, bad.waiting), (true, false));
        assert_eq!((&*ssh.public_url, ssh.error), ("tcp://a.example:22", None));
        assert_eq!(all.due(), Some(now + SECOND));
        let again = all.announce(now + SECOND).unwrap();
        assert_eq!(names(&again), ["web"]);
        answer(&mut all, &again, &[("web", "")], now);
        assert_eq!((all.due(), all.announce(now)), (None, None));
    }

    #[test]
    fn p_1_4_the_pause_grows_to_a_minute() {
        let (mut all, mut now) = (three(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let announce = all.announce(now).unwrap();
            answer(&mut all, &announce, &[("web", "port_taken")], now);
            let due = all.due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn p_1_4_what_becomes_free_is_announced_at_once() {
        let (mut all, now) = (three(), Instant::now());
        all.on_freed(now);
        assert_eq!(all.due(), None);
        let announce = all.announce(now).unwrap();
        answer(&mut all, &announce, &[("web", "name_taken")], now);
        all.on_freed(now + SECOND / 2);
        assert_eq!(all.due(), Some(now + SECOND / 2));
    }

    #[test]
    fn p_1_4_an_answer_that_is_lost_is_asked_for_again() {
        let (mut all, now) = (three(), Instant::now());
        let lost = all.announce(now).unwrap();
        assert_eq!(all.due(), Some(now + ANSWER_WITHIN));
        all.on_stream_lost(now + SECOND);
        assert_eq!(all.due(), Some(now + SECOND));
        let second = all.announce(now + SECOND).unwrap();
        let late = TunnelResults {
            sequence: lost.sequence,
            ..TunnelResults::default()
        };
        assert!(!all.on_results(&late, now, 0.5));
        answer(
            &mut all,
            &second,
            &[("web", ""), ("ssh", ""), ("bad", "")],
            now,
        );
        assert!(all.outcomes().iter().all(|tunnel| tunnel.error.is_none()));
        // Nobody asked for this one.
        assert!(!all.on_results(&late, now, 0.5));
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
    fn text_of_the_server_cannot_move_the_cursor() {
        let hostile = "http://a\u{1b}]0;x\u{7}\r\n\u{202e}b";
        let mut result = TunnelResult {
            public_url: hostile.into(),
            ..TunnelResult::default()
        };
        let State::Accepted { public_url } = State::of(&result, "localhost") else {
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
    fn a_server_that_listens_everywhere_is_called_as_it_was_found() {
        for (told, host, shown) in [
            ("tcp://0.0.0.0:22", "a.example", "tcp://a.example:22"),
            ("udp://[::]:53", "192.0.2.1", "udp://192.0.2.1:53"),
            ("http://0.0.0.0:8081/api", "::1", "http://[::1]:8081/api"),
            ("tcp://127.0.0.1:22", "a.example", "tcp://127.0.0.1:22"),
            ("http://web.localhost:80", "b", "http://web.localhost:80"),
            ("", "b", ""),
        ] {
            assert_eq!(reachable(told, host), shown);
        }
    }
}
