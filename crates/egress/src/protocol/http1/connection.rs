//! The task of one connection: requests one after the other, and the wait between them.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use adit_codec::{HttpRequest, ResetCode};
use adit_link::{Exchange, SendHalf};
use adit_splice::tcp::Socket;
use adit_trace::Phase;
use bytes::Bytes;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::{
    connect::dial::dial,
    protocol::upgrade,
    request::{account::Account, broken::Broken, job::Job},
};

use super::{
    download::Download,
    pool::{Next, Pool},
    request::is_idempotent,
    slot::Slot,
    timer::Timer,
    upload::Upload,
};

/// The place of a connection in its pool's count, given back whatever becomes of the task.
struct Place {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    counted: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counted {
            self.pool.abandon(&self.slot);
        }
    }
}

/// How an exchange left its connection.
enum After {
    /// Fit for another.
    Fit,
    /// Of no use.
    Unfit,
    /// The visitor broke off: the service is to have what came before that, and then a reset.
    BrokenOff,
    /// Dead before it was of any: this one is to be begun anew.
    Again(Job),
    /// It speaks another protocol from here on, of which some has come.
    Switched(Job, Bytes),
}

/// How an exchange came to its end.
enum Ended {
    /// Its connection is fit for another.
    Fit,
    /// Its connection is of no use.
    Unfit,
    /// The service has changed to the protocol that was offered.
    Switched,
}

struct Connection {
    place: Place,
    upload: Upload,
    download: Download,
    timer: Timer,
}

/// Serves `job` on a new connection, and then what comes.
pub(crate) async fn run(pool: Arc<Pool>, job: Job) {
    let idle_timeout = pool.shared.config.idle_timeout;
    let turn_bytes = pool.shared.config.turn_bytes;
    let mut connection = Connection {
        place: Place {
            pool,
            slot: Arc::default(),
            counted: true,
        },
        upload: Upload::new(),
        download: Download::new(turn_bytes),
        timer: Timer::new(Instant::now() + idle_timeout),
    };
    connection.run(job).await;
}

impl Connection {
    async fn run(&mut self, mut job: Job) {
        let pool = self.place.pool.clone();
        let counters = &pool.shared.counters;
        let mut kept = None;
        loop {
            job.account.course.end(Phase::Queue);
            let reused = kept.is_some();
            let ready = match kept.take() {
                Some(socket) => {
                    counters.reused.fetch_add(1, Ordering::Relaxed);
                    Some((job, socket))
                }
                None => connect(&pool, job).await,
            };
            let after = match ready {
                Some((job, mut socket)) => {
                    match self.serve(&mut socket, job, reused).await {
                        After::Switched(job, early) => {
                            // On the heap: few connections come here.
                            Box::pin(upgrade::carry(socket, job, early, &pool.shared)).await;
                            After::Unfit
                        }
                        After::Fit => {
                            kept = Some(socket);
                            After::Fit
                        }
                        After::BrokenOff => {
                            let within = pool.shared.config.stall_timeout;
                            Socket::new(socket).reset_after_delivery(within).await;
                            After::Unfit
                        }
                        after => after,
                    }
                }
                None => After::Unfit,
            };
            let next = match (after, &mut kept) {
                (After::Again(job), _) => {
                    counters.retried.fetch_add(1, Ordering::Relaxed);
                    Some(job)
                }
                (After::Fit, Some(socket)) => match pool.release(&self.place.slot) {
                    Next::Serve(job) => Some(job),
                    Next::Close => {
                        self.place.counted = false;
                        None
                    }
                    Next::Wait => {
                        let (next, alive) = self.idle(socket).await;
                        if !alive {
                            kept = None;
                        }
                        next
                    }
                },
                (After::Fit | After::Unfit | After::BrokenOff | After::Switched(..), _) => {
                    let next = pool.replace();
                    self.place.counted = next.is_some();
                    next
                }
            };
            match next {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    /// Waits for the next request; whether the connection is still of use. None: it has ended and is not counted.
    async fn idle(&mut self, socket: &mut TcpStream) -> (Option<Job>, bool) {
        let Place { pool, slot, .. } = &self.place;
        let deadline = Instant::now() + pool.shared.config.idle_timeout;
        let timer = &mut self.timer;
        let given = poll_fn(|cx| {
            // The socket first: a request that comes together with the end goes to a new connection.
            if poll_silence(cx, socket).is_ready() {
                return Poll::Ready(None);
            }
            match slot.poll(cx) {
                Poll::Ready(job) => Poll::Ready(Some(job)),
                Poll::Pending => timer.poll(cx, deadline).map(|()| None),
            }
        });
        let (job, alive) = match given.await {
            Some(job) => (job, true),
            None if pool.withdraw(slot) => {
                let next = pool.replace();
                self.place.counted = next.is_some();
                return (next, false);
            }
            // Taken from the idle ones in this moment: the request is about to be put into the slot.
            None => (poll_fn(|cx| slot.poll(cx)).await, false),
        };
        if job.is_none() {
            // Closed by the pool, which counts it no more.
            self.place.counted = false;
        }
        (job, alive)
    }

    async fn serve(&mut self, socket: &mut TcpStream, job: Job, reused: bool) -> After {
        let Job {
            mut account,
            exchange: Exchange { send, recv },
        } = job;
        self.upload.begin(recv, Instant::now());
        self.download
            .begin(&account.head, account.service.compression);
        let result = poll_fn(|cx| self.poll_exchange(cx, socket, &mut account, &send)).await;
        let after = match result {
            Ok(Ended::Switched) => match self.upload.take_rest() {
                Some(recv) => {
                    let exchange = Exchange { send, recv };
                    After::Switched(Job { account, exchange }, self.download.take_early())
                }
                None => {
                    account.give_up(
                        send,
                        ResetCode::Internal,
                        "nothing can come from the visitor",
                    );
                    After::Unfit
                }
            },
            Ok(ended) => {
                account.course.on_complete();
                if !self.upload.is_done() {
                    self.upload.stop();
                }
                if matches!(ended, Ended::Fit) {
                    After::Fit
                } else {
                    After::Unfit
                }
            }
            Err(Broken::Gone) => {
                account.course.on_gone(&send);
                if self.upload.is_aborted() {
                    After::BrokenOff
                } else {
                    After::Unfit
                }
            }
            Err(Broken::Reset(code, why)) => {
                account.give_up(send, code, &why);
                After::Unfit
            }
            Err(Broken::Died(why)) => match self.upload.take_unread() {
                Some(recv)
                    if reused
                        && !account.course.is_retried()
                        && is_idempotent(&account.head.method) =>
                {
                    account.course.on_retry();
                    After::Again(Job {
                        account,
                        exchange: Exchange { send, recv },
                    })
                }
                _ => {
                    account.give_up(send, ResetCode::ServiceAborted, &why);
                    After::Unfit
                }
            },
        };
        self.upload.clear();
        after
    }

    /// Both directions, and the clock.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
        account: &mut Account<Box<HttpRequest>>,
        send: &SendHalf,
    ) -> Poll<Result<Ended, Broken>> {
        let shared = &self.place.pool.shared;
        let config = &shared.config;
        let was_over = self.download.is_done();
        let uploaded = self.upload.poll(cx, socket, account)?.is_ready();
        if self.upload.has_written() {
            account.course.on_asked();
        }
        if self.upload.is_reset() {
            self.download.on_reset();
        }
        let download = &mut self.download;
        let downloaded = match download.poll(cx, socket, send, shared, account) {
            // Nobody wants the answer any more, but the service is to have what the visitor sent before it broke off.
            Poll::Ready(Err(Broken::Gone)) if !uploaded && self.upload.goes_on(cx) => false,
            downloaded => downloaded?.is_ready(),
        };
        if self.upload.is_broken() && self.download.has_begun() {
            self.upload.stop();
        }
        if downloaded && uploaded {
            let fit = self.upload.is_done() && self.download.keeps_alive();
            return Poll::Ready(Ok(if self.download.is_switched() {
                Ended::Switched
            } else if fit {
                Ended::Fit
            } else {
                Ended::Unfit
            }));
        }
        if downloaded && !self.download.is_switched() {
            // P-3.6: answered early. It may read on, unless it has said or shown that it will not.
            if !self.download.keeps_alive() || poll_silence(cx, socket).is_ready() {
                return Poll::Ready(Ok(Ended::Unfit));
            }
            if !was_over {
                self.upload.set_progress(Instant::now());
            }
        }
        let blocked = self.upload.is_blocked();
        let wait = if blocked && downloaded {
            config.early_response_timeout
        } else if blocked {
            config.stall_timeout
        } else if uploaded && self.download.awaits_head() {
            config.response_timeout
        } else {
            return Poll::Pending;
        };
        if self
            .timer
            .poll(cx, self.upload.progress_at() + wait)
            .is_pending()
        {
            return Poll::Pending;
        }
        Poll::Ready(if downloaded {
            Ok(Ended::Unfit)
        } else if blocked {
            Err(Broken::Reset(
                ResetCode::ServiceTimeout,
                format!("the service has read nothing of the request for {wait:?}").into(),
            ))
        } else {
            Err(Broken::Reset(
                ResetCode::ServiceTimeout,
                format!("the service did not answer within {wait:?}").into(),
            ))
        })
    }
}

/// A new connection for a request, or nothing when the request is over: its visitor has been told or has left.
async fn connect(pool: &Pool, mut job: Job) -> Option<(Job, TcpStream)> {
    job.account.course.begin(Phase::Dial);
    let dialled = tokio::select! {
        biased;
        // First: one that waited long may have been left already.
        () = job.exchange.send.abandoned() => {
            job.account.course.on_gone(&job.exchange.send);
            return None;
        }
        dialled = dial(&pool.address, pool.shared.config.dial_timeout) => dialled,
    };
    job.account.course.end(Phase::Dial);
    match dialled {
        Ok(socket) => {
            pool.shared.counters.dialled.fetch_add(1, Ordering::Relaxed);
            Some((job, socket))
        }
        Err(why) => {
            job.reset(ResetCode::DialFailed, &why);
            None
        }
    }
}

/// Ready when the service says something, or closes, where it has nothing to say.
fn poll_silence(cx: &mut Context<'_>, socket: &mut TcpStream) -> Poll<()> {
    let mut byte = [0];
    Pin::new(socket)
        .poll_read(cx, &mut ReadBuf::new(&mut byte))
        .map(|_| ())
}
