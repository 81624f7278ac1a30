//! `adit-server` as a process.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, binary, count, eventually, query};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The options with which a server is started.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The content of a YAML file; no file if it is empty.
    pub config: String,
    /// Environment variables in addition to the addresses and the state directory.
    pub env: Vec<(String, String)>,
    /// The state directory, if it must exist before the server.
    pub state: Option<Arc<TempDir>>,
}

/// A server, ready when it is returned. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    options: ServerOptions,
    state: Arc<TempDir>,
    /// Address for clients.
    pub tunnel: SocketAddr,
    /// Address for visitors.
    pub http: SocketAddr,
    /// Address for HTTPS visitors, if the configuration has one.
    pub https: Option<SocketAddr>,
    /// Address of the admin port.
    pub admin: SocketAddr,
}

/// An unused loopback address: outgoing connections use ports of 127.0.0.1, so that the ports of a killed server stay
/// free for it.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mixed = std::process::id().wrapping_mul(0x9E37_79B1) ^ number.wrapping_mul(0x85EB_CA6B);
    let [a, b, c, _] = mixed.to_be_bytes();
    Ipv4Addr::new(127, a | 1, b, c.clamp(1, 254))
}

impl Server {
    /// Starts a server with a configuration that sets only the addresses.
    pub async fn plain() -> Self {
        Self::start(ServerOptions::default()).await
    }

    /// Starts a server with a file.
    pub async fn with(config: &str) -> Self {
        Self::start(ServerOptions {
            config: config.to_owned(),
            ..ServerOptions::default()
        })
        .await
    }

    /// Starts a server and waits until it has announced its addresses.
    ///
    /// # Panics
    /// Panics when the server does not start.
    pub async fn start(options: ServerOptions) -> Self {
        let made = || Arc::new(tempfile::tempdir().expect("a directory"));
        let state = options.state.clone().unwrap_or_else(made);
        let any = SocketAddr::from((own_address(), 0));
        let process = spawn(&options, state.path(), any, any, any);
        Self::announced(process, options, state).await
    }

    async fn announced(mut process: Process, options: ServerOptions, state: Arc<TempDir>) -> Self {
        let announced = running(&mut process, state.path()).await;
        let addr = |key: &str| -> SocketAddr {
            let text = announced[key].as_str().expect("an address");
            text.parse().expect("an address")
        };
        Self {
            tunnel: addr("tunnel_addr"),
            http: addr("http_addr"),
            https: announced["https_addr"].as_str().map(|_| addr("https_addr")),
            admin: addr("admin_addr"),
            process,
            options,
            state,
        }
    }

    /// The state directory, where clients of the same machine find the server.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The file with the token that the server generated.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.state().join("token")
    }

    /// The token that the server generated.
    ///
    /// # Panics
    /// Panics when the server has generated no token.
    #[must_use]
    pub fn token(&self) -> String {
        fs::read_to_string(self.token_file())
            .expect("a token")
            .trim()
            .to_owned()
    }

    /// The process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces the server's file as an editor does: by a new file with the same name. The server must have been
    /// started with a file.
    ///
    /// # Panics
    /// Panics when the file cannot be written.
    pub fn replace_config(&self, config: &str) {
        let aside = self.state().join("server.yaml.new");
        fs::write(&aside, config).expect("a config file");
        fs::rename(&aside, self.state().join("server.yaml")).expect("a config file");
    }

    /// Replaces the server's file, and waits until the server has applied `revision`.
    ///
    /// # Panics
    /// Panics when the server does not apply it.
    pub async fn follows(&self, config: &str, revision: u64) {
        self.replace_config(config);
        let what = format!("revision {revision} in force");
        eventually(&what, READY_WITHIN, async || {
            let status = self.status().await;
            (status["config"]["revision"] == revision).then_some(())
        })
        .await;
    }

    /// Sends SIGHUP, and waits until the server has applied another configuration.
    ///
    /// # Panics
    /// Panics when the server does not apply one.
    pub async fn reload(&mut self) {
        let revision = |status: &Value| count(status, "/config/revision");
        let before = revision(&self.status().await);
        self.process.signal("HUP");
        eventually("another revision", READY_WITHIN, async || {
            (revision(&self.status().await) > before).then_some(())
        })
        .await;
    }

    /// The status that the server reports.
    pub async fn status(&self) -> Value {
        query(self.admin, "/api/status").await
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM to the server.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end of the server.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        self.process.exit(within).await
    }

    /// Starts the server again on the same addresses, with the same state directory.
    ///
    /// # Panics
    /// Panics when the server does not start.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(
            &self.options,
            self.state.path(),
            self.tunnel,
            self.http,
            self.admin,
        );
        running(&mut self.process, self.state.path()).await;
    }

    /// Waits until `clients` clients accept requests.
    ///
    /// # Panics
    /// Panics when the clients do not connect.
    pub async fn wait_for_clients(&self, clients: usize) {
        let what = format!("{clients} routable clients");
        eventually(&what, READY_WITHIN, async || {
            let status = self.status().await;
            let listed = status["clients"].as_array().into_iter().flatten();
            let tunnels = status["tunnels"].as_array().into_iter().flatten();
            let serving: Vec<_> = tunnels
                .filter_map(|tunnel| tunnel["clients"].as_array())
                .flatten()
                .collect();
            let routable = listed.filter(|client| {
                client["lanes"].as_u64() > Some(0)
                    && client["draining"] == Value::Bool(false)
                    // Tunnels are announced after the registration.
                    && serving.contains(&&client["client_id"])
            });
            (routable.count() == clients).then_some(())
        })
        .await;
    }
}

fn spawn(
    options: &ServerOptions,
    state: &Path,
    tunnel: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
) -> Process {
    let mut args = Vec::new();
    if !options.config.is_empty() {
        let file = state.join("server.yaml");
        fs::write(&file, &options.config).expect("a config file");
        args.push(String::from("--config"));
        args.push(file.display().to_string());
    }
    let mut env = vec![
        ("ADIT__STATE_DIR".to_owned(), state.display().to_string()),
        (
            "ADIT__SERVER__BIND_ADDR".to_owned(),
            tunnel.ip().to_string(),
        ),
        (
            "ADIT__SERVER__BIND_PORT".to_owned(),
            tunnel.port().to_string(),
        ),
        (
            "ADIT__SERVER__HTTP__BIND_PORT".to_owned(),
            http.port().to_string(),
        ),
        ("ADIT__SERVER__ADMIN__BIND".to_owned(), admin.to_string()),
    ];
    env.extend(options.env.iter().cloned());
    Process::spawn("adit-server", &binary("adit-server"), &args, &env, state)
}

/// Waits for the file with the addresses of this process.
async fn running(process: &mut Process, state: &Path) -> Value {
    let pid = u64::from(process.pid());
    eventually("the addresses of the server", READY_WITHIN, async || {
        process.assert_running();
        let text = fs::read(state.join("server.json")).ok()?;
        let announced: Value = serde_json::from_slice(&text).ok()?;
        (announced["pid"].as_u64() == Some(pid)).then_some(announced)
    })
    .await
}
