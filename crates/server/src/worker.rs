//! The thread of the directory: it runs announcements and other long operations instead of the data threads. It also
//! removes unused tunnels and names, and stores the owners of names, and what has been used of quotas, in the state
//! directory.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use adit_proto::{Error as ProtoError, Tunnel as Announced, TunnelResult};
use adit_registry::Link;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    directory::Directory,
    names::{Name, NamesFile},
    usage_keeper::{USAGE_KEPT, UsageKeeper},
};

/// Announcements that may wait in the queue; beyond them, control streams wait.
const QUEUE: usize = 1_024;

/// The most announcements that are added in one snapshot.
const BATCH: usize = 32;

/// A client whose announcement took some time waits this many times as long for its response: one client takes at most
/// a tenth of the thread, however often it announces.
const PAUSE: u32 = 9;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often changed owners of names are written.
const SAVE_LOOK: Duration = Duration::from_secs(1);

/// At the end, the last write may take this long.
const SAVE_GRACE: Duration = Duration::from_secs(2);

enum Job {
    Run(Box<dyn FnOnce() + Send>),
    Announce {
        link: Arc<Link>,
        tunnels: Vec<Announced>,
        reply: oneshot::Sender<(Vec<TunnelResult>, Duration)>,
    },
    Withdraw {
        link: Arc<Link>,
        name: String,
        reply: oneshot::Sender<bool>,
    },
    Release {
        name: Name,
        reply: oneshot::Sender<Result<usize, String>>,
    },
}

/// Sends jobs to the thread, and waits for their results.
#[derive(Clone)]
pub(crate) struct Announcer {
    jobs: mpsc::Sender<Job>,
}

impl Announcer {
    /// Announces tunnels of a client: one result for each (P-1.4).
    ///
    /// # Cancel safety
    /// The announcement may have been processed or not.
    pub(crate) async fn announce(
        &self,
        link: &Arc<Link>,
        tunnels: Vec<Announced>,
    ) -> Vec<TunnelResult> {
        let names: Vec<_> = tunnels.iter().map(|tunnel| tunnel.name.clone()).collect();
        let (reply, replied) = oneshot::channel();
        let job = Job::Announce {
            link: link.clone(),
            tunnels,
            reply,
        };
        match self.submit(job, replied).await {
            Some((results, took)) => {
                tokio::time::sleep(LONGEST_PAUSE.min(took * PAUSE)).await;
                results
            }
            None => names.into_iter().map(stopping).collect(),
        }
    }

    /// Removes one client from a tunnel. Returns whether the client served it.
    pub(crate) async fn withdraw(&self, link: &Arc<Link>, name: String) -> bool {
        let (reply, replied) = oneshot::channel();
        let job = Job::Withdraw {
            link: link.clone(),
            name,
            reply,
        };
        self.submit(job, replied).await.unwrap_or_default()
    }

    /// Takes a name from its owner, and with a group all names of the group. Returns the number of released names.
    ///
    /// # Errors
    /// Something uses it, or the server is stopping.
    pub(crate) async fn release(&self, name: Name) -> Result<usize, String> {
        let (reply, replied) = oneshot::channel();
        let stopping = || Err("the server is stopping".to_owned());
        self.submit(Job::Release { name, reply }, replied)
            .await
            .unwrap_or_else(stopping)
    }

    /// Runs `work` between announcements.
    ///
    /// # Cancel safety
    /// The work may run or not.
    pub(crate) async fn run(&self, work: impl FnOnce() + Send + 'static) {
        // Sending fails only when the server is stopping.
        let _ = self.jobs.send(Job::Run(Box::new(work))).await;
    }

    async fn submit<T>(&self, job: Job, replied: oneshot::Receiver<T>) -> Option<T> {
        self.jobs.send(job).await.ok()?;
        replied.await.ok()
    }
}

fn stopping(name: String) -> TunnelResult {
    TunnelResult {
        name,
        public_url: String::new(),
        error: Some(ProtoError {
            code: "draining".into(),
            message: "the server is stopping".into(),
            detail: String::new(),
        }),
        note: String::new(),
    }
}

/// Starts the thread. It removes unused tunnels and names every `look`, stores the owners of names in `file`, and ends
/// when `stop` becomes true. `usage` stores what has been used.
pub(crate) fn start(
    directory: Arc<Directory>,
    file: Option<NamesFile>,
    usage: UsageKeeper,
    look: Duration,
    stop: watch::Receiver<bool>,
) -> io::Result<(Announcer, JoinHandle<()>)> {
    let (jobs, receiver) = mpsc::channel(QUEUE);
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let thread = thread::Builder::new()
        .name("directory".to_owned())
        .spawn(move || {
            runtime.block_on(run(directory, receiver, file, usage, look, stop));
            // A disk that hangs must not keep the server from ending.
            runtime.shutdown_background();
        })?;
    Ok((Announcer { jobs }, thread))
}

async fn run(
    directory: Arc<Directory>,
    mut jobs: mpsc::Receiver<Job>,
    file: Option<NamesFile>,
    mut usage: UsageKeeper,
    look: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut keeper = Keeper::new(directory.clone(), file);
    let mut batch = Vec::with_capacity(BATCH);
    let (mut look, mut save) = (interval(look), interval(SAVE_LOOK));
    let mut keep_usage = interval(USAGE_KEPT);
    for ticks in [&mut look, &mut save, &mut keep_usage] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            // A dropped sender stops the thread too.
            _ = stop.wait_for(|stop| *stop) => break,
            count = jobs.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
                work(&directory, batch.drain(..));
            }
            _ = look.tick() => directory.forget(Instant::now()),
            _ = save.tick() => keeper.look().await,
            _ = keep_usage.tick() => usage.look().await,
        }
    }
    keeper.finish().await;
    usage.finish().await;
}

/// Runs the jobs in their order; consecutive announcements are added in one snapshot.
fn work(directory: &Directory, jobs: impl Iterator<Item = Job>) {
    let mut waiting = Vec::new();
    for job in jobs {
        match job {
            Job::Announce {
                link,
                tunnels,
                reply,
            } => waiting.push((link, tunnels, reply)),
            Job::Run(work) => {
                announce(directory, &mut waiting);
                work();
            }
            Job::Withdraw { link, name, reply } => {
                announce(directory, &mut waiting);
                let _ = reply.send(directory.withdraw(&link, &name, Instant::now()));
            }
            Job::Release { name, reply } => {
                announce(directory, &mut waiting);
                let _ = reply.send(directory.release(&name, Instant::now()));
            }
        }
    }
    announce(directory, &mut waiting);
}

type Waiting = (
    Arc<Link>,
    Vec<Announced>,
    oneshot::Sender<(Vec<TunnelResult>, Duration)>,
);

fn announce(directory: &Directory, waiting: &mut Vec<Waiting>) {
    if waiting.is_empty() {
        return;
    }
    let announced = waiting.iter();
    let announced: Vec<_> = announced
        .map(|(link, tunnels, _)| (link, &**tunnels))
        .collect();
    let results = directory.announce_each(&announced, Instant::now());
    for ((_, _, reply), results) in waiting.drain(..).zip(results) {
        // The client may have left in the meantime: its link was not added, or has been removed.
        let _ = reply.send(results);
    }
}

/// Stores the owners of names in a file, on another thread: announcements do not wait for the disk.
struct Keeper {
    directory: Arc<Directory>,
    file: Option<NamesFile>,
    /// The number of the last change that is in the file, or is being written.
    kept: u64,
    writing: Option<task::JoinHandle<io::Result<()>>>,
    has_failed: bool,
}

impl Keeper {
    fn new(directory: Arc<Directory>, file: Option<NamesFile>) -> Self {
        Self {
            kept: directory.owners_changed(),
            directory,
            file,
            writing: None,
            has_failed: false,
        }
    }

    /// Starts to write changes, unless the last write is still running.
    async fn look(&mut self) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            let path = self.file.as_ref().map(NamesFile::path);
            match writing.await {
                Ok(Err(error)) if !self.has_failed => {
                    self.has_failed = true;
                    tracing::warn!(
                        path = %path.unwrap_or(std::path::Path::new("")).display(),
                        %error,
                        "the owners of names cannot be written: they are lost when the server restarts"
                    );
                }
                Ok(Ok(())) => self.has_failed = false,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let changes = self.directory.owners_changed();
        if self.writing.is_some() || changes == self.kept {
            return;
        }
        let Some(file) = self.file.clone() else {
            return;
        };
        self.kept = changes;
        let directory = self.directory.clone();
        let write = move || file.write(directory.owners());
        self.writing = Some(task::spawn_blocking(write));
    }

    /// Writes the remaining changes, unless the disk does not respond.
    async fn finish(mut self) {
        let finished = async {
            // The loop runs first for the running write, and then for later changes.
            for _ in 0..2 {
                if let Some(writing) = &mut self.writing {
                    let _ = writing.await;
                    self.writing = None;
                }
                self.look().await;
            }
            if let Some(writing) = &mut self.writing {
                let _ = writing.await;
            }
        };
        if timeout(SAVE_GRACE, finished).await.is_err() {
            tracing::warn!("the owners of names were not written in time");
        }
    }
}
