//! Links over interfaces that go down and up, and over paths that are dead in one direction, in network namespaces of
//! their own.
//!
//! Needs root and `ip`; without the permission the tests print that and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use adit_e2e::{Process, binary, eventually};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-of-some-length-0123456789";

/// Two connected network namespaces: the server is in one, client and service are in the other.
struct Cable {
    server: String,
    client: String,
}

impl Cable {
    /// Creates the namespaces; `None` when the system does not allow it.
    fn new(name: &str) -> Option<Self> {
        let id = std::process::id();
        let cable = Self {
            server: format!("adit-{name}-s{id}"),
            client: format!("adit-{name}-c{id}"),
        };
        let (s, c) = (&cable.server, &cable.client);
        let made = ran(&format!("ip netns add {s}")) && ran(&format!("ip netns add {c}"));
        let laid =
            made && ran(&format!(
                "ip -n {s} link add up0 type veth peer name up0 netns {c}"
            )) && ran(&format!("ip -n {s} addr add 10.200.0.1/24 dev up0"))
                && ran(&format!("ip -n {c} addr add 10.200.0.2/24 dev up0"))
                && [s, c].iter().all(|side| {
                    ran(&format!("ip -n {side} link set lo up"))
                        && ran(&format!("ip -n {side} link set up0 up"))
                });
        if !laid {
            eprintln!("skipped: network namespaces are not permitted here (run as root)");
        }
        laid.then_some(cable)
    }

    fn start(&self, side: &str, args: &[&str], env: &[(&str, &str)], dir: &Path) -> Process {
        let program = binary(args[0]).display().to_string();
        let mut line = vec!["netns", "exec", side, &program];
        line.extend(&args[1..]);
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Process::spawn(
            args[0],
            &adit_e2e::programs::program("ip"),
            &line,
            &env,
            dir,
        )
    }

    /// Server and client, connected; the server's log and state are in the directory.
    async fn connected(&self, dir: &TempDir) -> (Process, Process) {
        let state = |name: &str| dir.path().join(name).display().to_string();
        for name in ["s", "c"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let server_env = [
            ("ADIT__STATE_DIR", &*state("s")),
            ("ADIT__TOKEN", TOKEN),
            ("ADIT__SERVER__BIND_ADDR", "10.200.0.1"),
        ];
        let server = self.start(&self.server, &["adit-server"], &server_env, dir.path());
        // The two are not on loopback, so that the link is encrypted. The certificate of the CA is there before the ports
        // are open.
        let ca = dir.path().join("s/tls/ca.crt");
        eventually("the server's own CA", PATIENCE, async || {
            ca.exists().then_some(())
        })
        .await;
        let tls = format!(
            "{{ ca_file: {}, server_name: server.adit.internal }}",
            ca.display()
        );
        let client_env = [
            ("ADIT__STATE_DIR", &*state("c")),
            ("ADIT__TOKEN", TOKEN),
            ("ADIT__CLIENT__TLS", &*tls),
        ];
        let args = [
            "adit",
            "http",
            "9",
            "--server",
            "10.200.0.1:7000",
            "--name",
            "web",
        ];
        let client = self.start(&self.client, &args, &client_env, dir.path());
        eventually("a link", PATIENCE, async || {
            (epochs(&server) == 1).then_some(())
        })
        .await;
        (server, client)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for side in [&self.server, &self.client] {
            ran(&format!("ip netns del {side}"));
        }
    }
}

fn ran(line: &str) -> bool {
    let mut words = line.split(' ');
    let done = Command::new(words.next().unwrap()).args(words).output();
    done.is_ok_and(|done| done.status.success())
}

/// Number of registrations so far.
fn epochs(server: &Process) -> usize {
    server.stderr().matches("client registered").count()
}

/// A link whose interface is down for 0.5 s of every 2 s stays up: only the heartbeat decides whether it is alive.
#[tokio::test]
async fn a_link_lives_on_an_interface_that_flaps() {
    let Some(cable) = Cable::new("flap") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (server, _client) = cable.connected(&dir).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        assert!(ran(&format!("ip -n {} link set up0 down", cable.client)));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(ran(&format!("ip -n {} link set up0 up", cable.client)));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    let log = server.stderr();
    assert_eq!(epochs(&server), 1, "{log}");
    assert!(!log.contains("client disconnected"), "{log}");
}

/// The heartbeat detects that one direction of the connection drops everything, whichever direction it is.
#[tokio::test]
async fn a_half_dead_connection_is_replaced_within_15_s() {
    for (name, from_server) in [("deafs", false), ("deafc", true)] {
        let Some(cable) = Cable::new(name) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let (server, client) = cable.connected(&dir).await;
        // Only the current connection is blocked: a new one has another port.
        let shown = Command::new("ip")
            .args([
                "netns",
                "exec",
                &cable.server,
                "ss",
                "-tnH",
                "sport",
                "=",
                ":7000",
            ])
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let peer = shown
            .split_whitespace()
            .nth(4)
            .unwrap_or_else(|| panic!("{shown}"));
        let port = peer.rsplit(':').next().unwrap();
        let drop = if from_server {
            format!(
                "ip netns exec {} iptables -A OUTPUT -p tcp --dport {port} -j DROP",
                cable.server
            )
        } else {
            format!(
                "ip netns exec {} iptables -A INPUT -p tcp --sport {port} -j DROP",
                cable.server
            )
        };
        if !ran(&drop) {
            println!("skipped: iptables is not permitted here");
            return;
        }
        let begun = Instant::now();
        // The client reconnects under the same session, or under a new one if the server detected the loss first.
        eventually("another connection", Duration::from_secs(20), async || {
            let reopened = client.stderr().contains("control stream opened again");
            (reopened || epochs(&server) == 2).then_some(())
        })
        .await;
        let replaced = begun.elapsed();
        assert!(replaced < Duration::from_secs(15), "{replaced:?}");
    }
}
