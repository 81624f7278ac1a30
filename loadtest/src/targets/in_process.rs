//! Server, clients and services as threads of this process. This target starts quickly, but it does not measure the
//! tunnel alone: the threads share a process, its allocator and its counters with the generator.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use adit_client::Client;
use adit_config::{ClientOverrides, ServerOverrides, load_client, load_server};
use adit_server::Server;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::config::{self, Ports};
use super::{Entries, READY_WITHIN, TargetError, own_entries};
use crate::events::{Event, How, Side};
use crate::services::Running;

/// A target of threads, see the module.
pub(crate) struct InProcess {
    entries: Entries,
    server: Option<Server>,
    clients: Vec<Option<Client>>,
    server_file: PathBuf,
    client_files: Vec<PathBuf>,
    control: Control,
    _services: Running,
}

/// A thread with a runtime. The server accepts visitors of its TCP ports on the runtime where it was started, which
/// must not be the generator's thread.
struct Control {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs a future on the thread.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, TargetError>> + Send + 'static,
    ) -> Result<T, TargetError> {
        let done = self.handle.spawn(work).await;
        done.unwrap_or_else(|error| Err(TargetError::start(what, error)))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl InProcess {
    pub(super) async fn start(clients: usize, dir: &Path) -> Result<Self, TargetError> {
        let ports = Ports::free()?;
        let services = Running::start().map_err(|error| TargetError::start("services", error))?;
        let server_file = config::server(dir, &ports)?;
        let client_files = (0..clients)
            .map(|number| config::client(dir, number, &ports, &services.addresses()))
            .collect::<Result<Vec<_>, _>>()?;
        let control = Control::start().map_err(|error| TargetError::start("thread", error))?;
        let mut target = Self {
            entries: own_entries(&ports),
            server: None,
            clients: (0..clients).map(|_| None).collect(),
            server_file,
            client_files,
            control,
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
        let file = self.server_file.clone();
        let start = async move {
            let loaded = load_server(Some(&file), std::iter::empty(), &ServerOverrides::default())
                .map_err(|error| TargetError::start("server", error))?;
            Server::start(&loaded.settings).map_err(|error| TargetError::start("server", error))
        };
        let server = self.control.run("server", start).await?;
        self.server = Some(server);
        Ok(())
    }

    async fn start_client(&mut self, number: usize) -> Result<(), TargetError> {
        let file = self.client_files[number].clone();
        let start = async move {
            let loaded = load_client(Some(&file), std::iter::empty(), &ClientOverrides::default())
                .map_err(|error| TargetError::start("client", error))?;
            Client::start(loaded.settings).map_err(|error| TargetError::start("client", error))
        };
        let client = self.control.run("client", start).await?;
        let mut registrations = client.registrations();
        let registered = async {
            tokio::select! {
                registration = registrations.wait_for(Option::is_some) => {
                    let registration = registration.ok().and_then(|found| found.clone());
                    let tunnels = registration.map(|it| it.tunnels).unwrap_or_default();
                    let refused = tunnels.into_iter().find_map(|tunnel| tunnel.error);
                    refused.map_or(Ok(()), |error| Err(TargetError::start("client", error)))
                }
                ended = client.ended() => {
                    let why = ended.error.unwrap_or_else(|| ended.reason.to_string());
                    Err(TargetError::start("client", why))
                }
            }
        };
        timeout(READY_WITHIN, registered)
            .await
            .unwrap_or_else(|_| Err(TargetError::start("client", "does not register")))?;
        self.clients[number] = Some(client);
        Ok(())
    }

    async fn end_client(&mut self, number: usize, how: How) -> Result<(), TargetError> {
        let Some(client) = self.clients[number].take() else {
            return Ok(());
        };
        let end = async move {
            if how == How::Drain {
                client.drain().await;
            }
            client.stop();
            Ok(())
        };
        self.control.run("client", end).await
    }

    async fn end_server(&mut self, how: How) -> Result<(), TargetError> {
        let Some(server) = self.server.take() else {
            return Ok(());
        };
        let end = async move {
            if how == How::Drain {
                server.drain().await;
            }
            server.stop().await;
            Ok(())
        };
        self.control.run("server", end).await
    }

    pub(super) async fn restart(&mut self, event: &Event) -> Result<(), TargetError> {
        match event.side {
            Side::Client(number) => {
                self.end_client(number, event.how).await?;
                tokio::time::sleep(event.down).await;
                self.start_client(number).await
            }
            Side::Server => {
                self.end_server(event.how).await?;
                tokio::time::sleep(event.down).await;
                self.start_server().await
            }
        }
    }

    pub(super) async fn stop(mut self) {
        for number in 0..self.clients.len() {
            let _ = self.end_client(number, How::Kill).await;
        }
        let _ = self.end_server(How::Kill).await;
    }
}
