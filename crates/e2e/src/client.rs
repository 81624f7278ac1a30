//! `adit` as a process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use serde_json::Value;

use crate::{Process, Server, binary, eventually, query};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The options with which a client is started.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The client id.
    pub id: String,
    /// The command line after `adit`.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The state directory of the client.
    pub state: PathBuf,
}

impl ClientOptions {
    /// `adit http PORT --name NAME --client-id ID`, on the machine of `server`.
    #[must_use]
    pub fn http(server: &Server, id: &str, name: &str, service: SocketAddr) -> Self {
        let service = service.to_string();
        let args = ["http", &service, "--name", name]
            .map(String::from)
            .to_vec();
        Self {
            id: id.to_owned(),
            args,
            env: Vec::new(),
            state: server.state().to_path_buf(),
        }
    }

    /// `adit start --config FILE`, on the machine of `server`; the file gets a name in its state directory.
    ///
    /// # Panics
    /// Panics when the file cannot be written.
    #[must_use]
    pub fn file(server: &Server, id: &str, config: &str) -> Self {
        let file = server.state().join(format!("{id}.yaml"));
        fs::write(&file, config).expect("a config file");
        let file = file.display().to_string();
        Self {
            id: id.to_owned(),
            args: ["start", "--config", &file].map(String::from).to_vec(),
            env: Vec::new(),
            state: server.state().to_path_buf(),
        }
    }

    /// Adds to the command line.
    #[must_use]
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        self.args.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the options of a client on another machine: its own state directory, and the address and token of the
    /// server.
    #[must_use]
    pub fn elsewhere(mut self, server: &Server, state: &Path) -> Self {
        state.clone_into(&mut self.state);
        let token = server.token_file().display().to_string();
        self.arg("--server", &server.tunnel.to_string())
            .arg("--token-file", &token)
    }
}

/// A client. Killed when dropped.
#[derive(Debug)]
pub struct Client {
    process: Process,
    options: ClientOptions,
}

impl Client {
    /// Starts `adit http`, and waits until it is connected.
    ///
    /// # Panics
    /// Panics when the client does not connect.
    pub async fn http(server: &Server, id: &str, name: &str, service: SocketAddr) -> Self {
        Self::start(ClientOptions::http(server, id, name, service)).await
    }

    /// Starts a client and waits until it is connected.
    ///
    /// # Panics
    /// Panics when the client does not connect.
    pub async fn start(options: ClientOptions) -> Self {
        let mut client = Self::spawn(options);
        client.connected().await;
        client
    }

    /// Starts a client without waiting.
    #[must_use]
    pub fn spawn(options: ClientOptions) -> Self {
        let process = spawn(&options);
        Self { process, options }
    }

    /// Waits until the client is connected.
    ///
    /// # Panics
    /// Panics when the client does not connect, or ends.
    pub async fn connected(&mut self) {
        eventually("a connected client", READY_WITHIN, async || {
            self.process.assert_running();
            self.admin()?;
            let status = self.status().await;
            (status["connection"] == "connected").then_some(())
        })
        .await;
    }

    /// The client id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.options.id
    }

    /// The process id of the client.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The address of the client's status, once the client has announced it.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        let name = format!("{}.{}.json", self.options.id, self.process.pid());
        let text = fs::read(self.options.state.join("clients").join(name)).ok()?;
        let announced: Value = serde_json::from_slice(&text).ok()?;
        announced["admin_addr"].as_str()?.parse().ok()
    }

    /// The status that the client reports.
    pub async fn status(&self) -> Value {
        query(self.admin().expect("an admin address"), "/api/status").await
    }

    /// Kills the client, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM to the client.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end of the client.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        self.process.exit(within).await
    }

    /// Starts the client again as the same installation, and waits until it is connected.
    ///
    /// # Panics
    /// Panics when the client does not connect.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.options);
        self.connected().await;
    }
}

fn spawn(options: &ClientOptions) -> Process {
    let mut env = vec![
        (
            "ADIT__STATE_DIR".to_owned(),
            options.state.display().to_string(),
        ),
        ("ADIT__CLIENT__CLIENT_ID".to_owned(), options.id.clone()),
    ];
    env.extend(options.env.iter().cloned());
    let name = format!("adit-{}", options.id);
    Process::spawn(&name, &binary("adit"), &options.args, &env, &options.state)
}
