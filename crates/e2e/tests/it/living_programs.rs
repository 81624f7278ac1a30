//! Conditions that must neither end a program nor corrupt its output: full disks, readers that leave, unusable state
//! directories, signals, a server that starts late. F26, F39, F43.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, pipe},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use adit_e2e::{
    Client, ClientOptions, Process, Server, Service, binary, count, eventually, get, own_address,
    run,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A path below which no file can be created, not even by root.
const NOWHERE: &str = "/proc/adit";

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    async fn terminated(&mut self) -> ExitStatus {
        let kill = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(kill.unwrap().success());
        eventually("the end of the program", SOON, async || {
            self.0.try_wait().unwrap()
        })
        .await
    }
}

/// The program on a machine with this state directory.
fn program(name: &str, args: &[&str], state: &Path) -> Command {
    let mut command = Command::new(binary(name));
    command
        .args(args)
        .env_clear()
        .env("ADIT__STATE_DIR", state)
        .stdin(Stdio::null());
    command
}

fn full_disk() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A server that listens only on free ports.
fn server(state: &Path) -> Command {
    let addr = own_address();
    let mut command = program(
        "adit-server",
        &["--bind-port", "0", "--http-port", "0"],
        state,
    );
    command
        .env("ADIT__SERVER__BIND_ADDR", addr.to_string())
        .env("ADIT__SERVER__ADMIN__BIND", format!("{addr}:0"));
    command
}

async fn announced(state: &Path, key: &str) -> SocketAddr {
    eventually("a server that says where it is", SOON, async || {
        let announced: Value =
            serde_json::from_slice(&fs::read(state.join("server.json")).ok()?).ok()?;
        announced[key].as_str()?.parse().ok()
    })
    .await
}

async fn served(http: SocketAddr, host: &str) {
    eventually("a response of the service", SOON, async || {
        (get(http, host, "/who").await.text() == "site").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_under_the_output_ends_neither_program() {
    let service = Service::site("site").await;
    let state = tempfile::tempdir().unwrap();
    let mut server = Killed(
        server(state.path())
            .env("ADIT__LOG", "debug")
            .stdout(full_disk())
            .stderr(full_disk())
            .spawn()
            .unwrap(),
    );
    let http = announced(state.path(), "http_addr").await;
    let port = service.port().to_string();
    let mut client = Killed(
        program(
            "adit",
            &["http", &port, "--name", "web", "-v"],
            state.path(),
        )
        .stdout(full_disk())
        .stderr(full_disk())
        .spawn()
        .unwrap(),
    );
    served(http, "web.localhost").await;
    assert!(!client.has_ended() && !server.has_ended());
    assert!(client.terminated().await.success());
    assert!(server.terminated().await.success());
}

#[test]
fn a_command_that_cannot_print_does_not_panic() {
    let state = tempfile::tempdir().unwrap();
    let code = |name: &str, args: &[&str]| {
        let mut command = program(name, args, state.path());
        let status = command.stdout(full_disk()).stderr(full_disk()).status();
        status.unwrap().code()
    };
    for (name, args, expected) in [
        ("adit-server", &["--check"][..], 0),
        ("adit", &["--check", "http", "80"], 0),
        ("adit-server", &["--help"], 0),
        ("adit", &["--version"], 0),
        ("adit-server", &["--bind-port", "many"], 2),
        ("adit", &["status"], 1),
        // The output is the result of the command, and it is lost.
        ("adit", &["completion", "bash"], 1),
    ] {
        assert_eq!(code(name, args), Some(expected), "{name} {args:?}");
    }
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let state = tempfile::tempdir().unwrap();
    for args in [&["completion", "bash"][..], &["--help"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = program("adit", args, state.path())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", output.status);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    }
}

/// Both streams are one pipe, as for a script; the program has a warning to print.
#[tokio::test]
async fn the_first_line_on_a_pipe_is_the_public_url() {
    let service = Service::site("site").await;
    let server = Server::plain().await;
    let token = server.state().join("readable");
    fs::write(&token, server.token()).unwrap();
    for name in ["one", "two", "three"] {
        let (reader, writer) = pipe().unwrap();
        let port = service.port().to_string();
        let token = token.display().to_string();
        let args = ["http", &port, "--name", name, "--token-file", &token];
        let child = program("adit", &args, server.state())
            .env("ADIT_TOKEN", "misspelt")
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let _child = Killed(child);
        let lines = tokio::task::spawn_blocking(move || {
            BufReader::new(reader)
                .lines()
                .take(5)
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        });
        let lines = lines.await.unwrap();
        assert_eq!(
            lines[0],
            format!("http://{name}.localhost:{}", server.http.port())
        );
        for part in ["ADIT__TOKEN", "can read", "connected"] {
            assert!(
                lines[1..].iter().any(|line| line.contains(part)),
                "{part}: {lines:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_without_its_server_logs_once_that_it_waits() {
    let service = Service::site("site").await;
    let mut server = Server::plain().await;
    server.kill();
    let state = tempfile::tempdir().unwrap();
    let options =
        ClientOptions::http(&server, "early", "web", service.addr).elsewhere(&server, state.path());
    let mut client = Client::spawn(options);
    eventually("some dials", SOON, async || {
        client.admin()?;
        let dials = count(&client.status().await, "/cores/reconnect_dials");
        (dials >= 5).then_some(())
    })
    .await;
    server.restart().await;
    client.connected().await;
    let log = client.process().stderr();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("trying again until it succeeds"),
        "{log}"
    );
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_made_is_a_warning() {
    let service = Service::site("site").await;
    let logs = tempfile::tempdir().unwrap();
    let addr = own_address();
    let common = [
        ("ADIT__STATE_DIR", NOWHERE.to_owned()),
        ("ADIT__TOKEN", "a token of both".to_owned()),
        ("ADIT__SERVER__BIND_ADDR", addr.to_string()),
        ("ADIT__SERVER__ADMIN__BIND", "off".to_owned()),
    ];
    let common = common.map(|(name, value)| (name.to_owned(), value));
    let args = ["--bind-port", "0", "--http-port", "0"];
    let mut server = Process::spawn(
        "server",
        &binary("adit-server"),
        &args,
        &common,
        logs.path(),
    );
    let (http, tunnel) = eventually("the addresses of the server", SOON, async || {
        server.assert_running();
        let output = server.stdout();
        let line = |start: &str| {
            let line = output.lines().find_map(|line| line.strip_prefix(start))?;
            line.trim()
                .trim_start_matches("http://")
                .parse::<SocketAddr>()
                .ok()
        };
        Some((line("visitors")?, line("clients")?))
    })
    .await;
    let (port, at) = (service.port().to_string(), tunnel.to_string());
    let args = ["http", &port, "--name", "web", "--server", &at];
    let mut client = Process::spawn("client", &binary("adit"), &args, &common, logs.path());
    client.first_line().await;
    served(http, "web.localhost").await;
    for process in [&mut server, &mut client] {
        eventually("a warning", SOON, async || {
            let log = process.stderr();
            (log.contains("WARN") && log.contains(NOWHERE)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_server_does_not_hide_the_first() {
    let mut first = Server::plain().await;
    let state = first.state().to_owned();
    let mut second = Killed(
        server(&state)
            .stdout(Stdio::null())
            .stderr(File::create(state.join("second.err")).unwrap())
            .spawn()
            .unwrap(),
    );
    let expected = format!("another adit-server (pid {})", first.pid());
    eventually("a line about the first", SOON, async || {
        let log = fs::read_to_string(state.join("second.err")).unwrap();
        log.contains(&expected).then_some(())
    })
    .await;
    assert!(second.terminated().await.success());
    let announced: Value =
        serde_json::from_slice(&fs::read(state.join("server.json")).unwrap()).unwrap();
    assert_eq!(announced["pid"].as_u64(), Some(first.pid().into()));
    let text = state.display().to_string();
    let status = run("adit", &["status"], &[("ADIT__STATE_DIR", &text)], &state).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    first.process().assert_running();
}

#[tokio::test]
async fn signals_reopen_logs_or_change_nothing() {
    let service = Service::site("site").await;
    let mut server = Server::with("server: { telemetry: { access_log: access.log } }\n").await;
    let mut client = Client::http(&server, "client-1", "web", service.addr).await;
    served(server.http, "web.localhost").await;
    let (log, old) = (
        server.state().join("access.log"),
        server.state().join("access.log.1"),
    );
    let lines = |file: &Path| fs::read_to_string(file).unwrap_or_default().lines().count();
    eventually("a line of the access log", SOON, async || {
        (lines(&log) > 0).then_some(())
    })
    .await;
    fs::rename(&log, &old).unwrap();
    for process in [server.process(), client.process()] {
        for signal in ["USR1", "USR2", "XFSZ", "PIPE"] {
            process.signal(signal);
        }
        eventually("words about the signals", SOON, async || {
            process.assert_running();
            let log = process.stderr();
            (log.contains("SIGUSR1") && log.contains("SIGUSR2 is ignored")).then_some(())
        })
        .await;
    }
    served(server.http, "web.localhost").await;
    eventually("a line of the new access log", SOON, async || {
        (lines(&log) > 0).then_some(())
    })
    .await;
    assert!(lines(&old) > 0);
    client.terminate();
    assert!(client.exit(SOON).await.success());
    server.terminate();
    assert!(server.exit(SOON).await.success());
}

#[tokio::test]
async fn a_bad_token_ends_a_client_with_its_place() {
    let state = tempfile::tempdir().unwrap();
    let text = state.path().display().to_string();
    let file = state.path().join("client.yaml");
    let path = file.display().to_string();
    let args = ["start", "--config", &path];
    for (token, place) in [
        ("\"a\\nb\"", "client.yaml:3:15"),
        ("5", "client.yaml:3:15"),
        ("\"\"", "client.yaml:3:15"),
    ] {
        let config = format!(
            "client:\n  server_addr: 192.0.2.1\n  auth_token: {token}\n  tunnels: [{{ name: a, local_port: 1 }}]\n"
        );
        fs::write(&file, config).unwrap();
        for check in [&args[..], &["--config", &path, "--check"]] {
            let ended = run("adit", check, &[("ADIT__STATE_DIR", &text)], state.path()).await;
            assert_eq!(ended.code, Some(2), "{}", ended.stderr);
            assert!(ended.stderr.contains(place), "{}", ended.stderr);
        }
    }
    // There is neither a file nor a server, so the program cannot start.
    let ended = run(
        "adit",
        &["start"],
        &[("ADIT__STATE_DIR", &text)],
        state.path(),
    )
    .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("no tunnel"), "{}", ended.stderr);
}
