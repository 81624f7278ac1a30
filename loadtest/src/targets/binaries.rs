//! The shipped programs: `adit-server`, and `adit` once for each client of the group, with the services as a separate
//! process.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{self, Ports};
use super::{Entries, TargetError, own_entries};
use crate::events::{Event, How, Side};
use crate::process::{Process, ProcessError};
use crate::services::Hosted;

/// The names of client processes. They are fixed texts, because scenarios have few clients.
const CLIENTS: [&str; 8] = [
    "adit-0", "adit-1", "adit-2", "adit-3", "adit-4", "adit-5", "adit-6", "adit-7",
];

/// A target of separate processes, see the module.
pub(crate) struct Binaries {
    entries: Entries,
    programs: PathBuf,
    dir: PathBuf,
    server_file: PathBuf,
    client_files: Vec<PathBuf>,
    clients: Vec<Option<Process>>,
    server: Option<Process>,
    _services: Hosted,
}

/// The fields of the file that `adit-server` writes when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    pid: u32,
}

impl Binaries {
    pub(super) async fn start(
        programs: &Path,
        clients: usize,
        dir: &Path,
    ) -> Result<Self, TargetError> {
        let ports = Ports::free()?;
        let services = Hosted::start(dir).await?;
        let server_file = config::server(dir, &ports)?;
        let client_files = (0..clients)
            .map(|number| config::client(dir, number, &ports, &services.addresses))
            .collect::<Result<Vec<_>, _>>()?;
        let mut target = Self {
            entries: own_entries(&ports),
            programs: programs.to_owned(),
            dir: dir.to_owned(),
            server_file,
            client_files,
            clients: (0..clients).map(|_| None).collect(),
            server: None,
            _services: services,
        };
        target.start_server().await?;
        for number in 0..clients {
            target.start_client(number).await?;
        }
        Ok(target)
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    async fn start_server(&mut self) -> Result<(), TargetError> {
        let program = self.programs.join("adit-server");
        let file = self.server_file.to_string_lossy();
        let mut server = Process::start(
            "adit-server",
            &program,
            &["--config", &file],
            &[],
            &self.dir,
        )?;
        let ready_file = config::server_json(&self.dir);
        // The file of a killed server still exists.
        let ready = async |process: &Process| {
            let text = fs::read_to_string(&ready_file).ok()?;
            let ready: Ready = serde_json::from_str(&text).ok()?;
            (ready.pid == process.pid()).then_some(())
        };
        server
            .until("server.json in its state directory", ready)
            .await?;
        self.server = Some(server);
        Ok(())
    }

    async fn start_client(&mut self, number: usize) -> Result<(), TargetError> {
        let program = self.programs.join("adit");
        let file = self.client_files[number].to_string_lossy();
        let name = CLIENTS[number % CLIENTS.len()];
        let arguments = ["--config", &file, "start"];
        let mut client = Process::start(name, &program, &arguments, &[], &self.dir)?;
        let url = async |process: &Process| process.first_line();
        client.until("public URL on the first line", url).await?;
        self.clients[number] = Some(client);
        Ok(())
    }

    pub(super) async fn restart(&mut self, event: &Event) -> Result<(), TargetError> {
        let process = match event.side {
            Side::Client(number) => self.clients[number].take(),
            Side::Server => self.server.take(),
        };
        if let Some(process) = process {
            match event.how {
                How::Kill => process.stop().await,
                How::Drain => process.terminate().await?,
            }
        }
        tokio::time::sleep(event.down).await;
        match event.side {
            Side::Client(number) => self.start_client(number).await,
            Side::Server => self.start_server().await,
        }
    }

    /// # Errors
    ///
    /// Returns [`ProcessError::Ended`] if a process has ended.
    pub(super) fn check_running(&mut self) -> Result<(), ProcessError> {
        let clients = self.clients.iter_mut().flatten();
        clients
            .chain(&mut self.server)
            .try_for_each(Process::check_running)
    }

    pub(super) async fn stop(self) {
        for process in self.clients.into_iter().flatten().chain(self.server) {
            process.stop().await;
        }
    }
}
