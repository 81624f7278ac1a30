//! Visitors, with one driver for each kind of load. Each driver checks every received byte.

mod chunked;
pub(crate) mod grpc;
pub(crate) mod http;
mod slow;
mod sse;
mod tcp;
mod udp;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::failure::{Failed, Failure};
use crate::pool::{Driver, Pool};
use crate::scenario::{Kind, Load, Mix};
use crate::schedule::{Arrivals, Schedule};
use crate::tally::Tally;
use crate::targets::{Entries, Web};

/// A probe that takes longer is repeated.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// The values that all loads of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) entries: Entries,
    /// The beginning of the warm-up.
    pub(crate) begin: Instant,
    /// The end of the window.
    pub(crate) end: Instant,
    /// An exchange that takes longer has failed.
    pub(crate) timeout: Duration,
    /// The time that exchanges in progress at the end of the window may take.
    pub(crate) grace: Duration,
}

/// A running load. Dropping it ends the load.
pub(crate) struct Running {
    /// `None` if the load has no schedule.
    pub(crate) schedule: Option<Arc<Schedule>>,
    pub(crate) tasks: JoinSet<()>,
    /// When the last exchange of the run is due.
    pub(crate) last_due: Option<Instant>,
}

/// Starts the visitors of a load; they end by themselves after the window.
pub(crate) fn start(
    load: &Load,
    arrivals: Arrivals,
    ground: &Ground,
    tally: &Arc<Tally>,
) -> Running {
    let last = arrivals
        .count()
        .checked_sub(1)
        .and_then(|last| arrivals.due(last));
    let last_due = last.map(|last| ground.begin + last);
    let schedule = Arc::new(Schedule::open(ground.begin, arrivals));
    let mut tasks = JoinSet::new();
    let mut crew = Crew {
        load,
        ground,
        schedule: &schedule,
        tally,
        tasks: &mut tasks,
    };
    let sizes = load.sizes.clone();
    let entries = &ground.entries;
    // A missing entry was rejected before: a load without its entry has nothing to do.
    match load.kind {
        Kind::Http | Kind::Upload => {
            if let Some(web) = &entries.http {
                let upload = load.kind == Kind::Upload;
                let close = load.per_connection == Some(1);
                let driver = http::Http::new(web, sizes, upload, close, tally.clone());
                crew.pool(driver, load.connections);
            }
        }
        Kind::WebSocket => {
            if let Some(web) = &entries.websocket {
                let driver = websocket::Echo::new(web, sizes, tally.clone());
                crew.pool(driver, load.connections);
            }
        }
        Kind::GrpcUnary => {
            if let Some(web) = &entries.grpc {
                let driver = grpc::Unary::new(web, load.connections, sizes, tally.clone());
                crew.pool(driver, load.connections * load.streams);
            }
        }
        Kind::GrpcStream => {
            if let Some(web) = &entries.grpc {
                let driver = grpc::Stream::new(web, load.connections, sizes, tally.clone());
                crew.pool(driver, load.connections * load.streams);
            }
        }
        Kind::TcpEcho => {
            if let Some(entry) = entries.tcp {
                crew.pool(
                    tcp::Echo::new(entry, sizes, tally.clone()),
                    load.connections,
                );
            }
        }
        Kind::TcpDownload | Kind::TcpUpload => {
            if let Some(entry) = entries.tcp {
                let up = load.kind == Kind::TcpUpload;
                crew.pool(
                    tcp::Bulk::new(entry, sizes, up, tally.clone()),
                    load.connections,
                );
            }
        }
        Kind::Udp { response_within } => {
            if let Some(entry) = entries.udp {
                crew.udp(entry, response_within);
            }
        }
        Kind::Sse => {
            if let Some(web) = &entries.http {
                for _ in 0..load.connections {
                    let subscriber = sse::Subscriber::new(web, load, ground, tally.clone());
                    crew.tasks.spawn(subscriber.run());
                }
                return Running {
                    schedule: None,
                    tasks,
                    last_due: Duration::try_from_secs_f64(1.0 / load.rate)
                        .ok()
                        .and_then(|period| ground.end.checked_sub(period)),
                };
            }
        }
        Kind::SlowReaders { bytes_per_s } => {
            if let Some(web) = &entries.http {
                let bytes = sizes.largest();
                for number in 0..load.connections {
                    let reader = slow::Reader {
                        web: web.clone(),
                        number: number as u64,
                        bytes,
                        bytes_per_s,
                        ground: ground.clone(),
                        tally: tally.clone(),
                    };
                    crew.tasks.spawn(reader.run());
                }
                return Running {
                    schedule: None,
                    tasks,
                    last_due: ground.end.checked_sub(slow::TICK),
                };
            }
        }
    }
    Running {
        schedule: Some(schedule),
        tasks,
        last_due,
    }
}

struct Crew<'a> {
    load: &'a Load,
    ground: &'a Ground,
    schedule: &'a Arc<Schedule>,
    tally: &'a Arc<Tally>,
    tasks: &'a mut JoinSet<()>,
}

impl Crew<'_> {
    fn pool<D: Driver>(&mut self, driver: D, visitors: usize) {
        let pool = Arc::new(Pool {
            driver,
            schedule: self.schedule.clone(),
            tally: self.tally.clone(),
            per_session: self.load.per_connection,
            timeout: Some(self.ground.timeout),
        });
        pool.start(visitors, self.tasks);
    }

    fn udp(&mut self, entry: SocketAddr, response_within: Duration) {
        let shared = Arc::new(udp::Flows {
            entry,
            sizes: self.load.sizes.clone(),
            response_within,
            per_flow: self.load.per_connection,
            schedule: self.schedule.clone(),
            tally: self.tally.clone(),
        });
        for _ in 0..self.load.connections {
            self.tasks.spawn(shared.clone().send());
        }
    }
}

/// Makes one small exchange of a kind on a new connection, and checks the response.
///
/// # Errors
/// Returns an error when the exchange failed.
pub(crate) async fn probe(kind: Kind, entries: &Entries) -> Result<(), Failed> {
    let tally = Arc::new(Tally::new().map_err(|error| Failed::new(Failure::Connect, error))?);
    let sizes = Mix::new([(32, 1)]);
    let none = || Failed::new(Failure::Connect, "no entry");
    let http = || entries.http.as_ref().ok_or_else(none);
    let probed = async {
        match kind {
            Kind::Http | Kind::Upload | Kind::Sse | Kind::SlowReaders { .. } => {
                once(http::Http::new(http()?, sizes, false, true, tally)).await
            }
            Kind::WebSocket => {
                let web = entries.websocket.as_ref().ok_or_else(none)?;
                once(websocket::Echo::new(web, sizes, tally)).await
            }
            Kind::GrpcUnary | Kind::GrpcStream => {
                let web = entries.grpc.as_ref().ok_or_else(none)?;
                once(grpc::Unary::new(web, 1, sizes, tally)).await
            }
            Kind::TcpEcho | Kind::TcpDownload | Kind::TcpUpload => {
                once(tcp::Echo::new(entries.tcp.ok_or_else(none)?, sizes, tally)).await
            }
            Kind::Udp { .. } => udp::probe(entries.udp.ok_or_else(none)?).await,
        }
    };
    timeout(PROBE_WITHIN, probed)
        .await
        .unwrap_or_else(|_| Err(Failure::Timeout.into()))
}

async fn once<D: Driver>(driver: D) -> Result<(), Failed> {
    let mut session = driver.open().await?;
    if driver.exchange(&mut session, 0).await? {
        driver.close(session).await?;
    }
    Ok(())
}

async fn connect(target: SocketAddr) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| Failed::new(Failure::Connect, error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| Failed::new(Failure::Connect, error))?;
    Ok(stream)
}

async fn read(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut [u8],
) -> Result<usize, Failed> {
    match stream.read(buffer).await {
        Ok(0) => Err(Failure::Cut.into()),
        Ok(read) => Ok(read),
        Err(error) => Err(Failed::new(Failure::Read, error)),
    }
}

/// Creates the failure of a response whose bytes are not the requested ones.
fn wrong_bytes(web: &Web, what: impl std::fmt::Display) -> Failed {
    Failed::new(Failure::WrongBytes, format!("{}: {what}", web.host))
}
