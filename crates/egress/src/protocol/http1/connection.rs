//! The task of one connection: it connects, serves one request after the other, and waits between them.

use adit_net::Stream;
use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use adit_codec::ResetCode;
use adit_splice::tcp::Socket;
use adit_trace::Phase;
use tokio::time::Instant;

use super::{
    exchange::{After, ExchangeDriver, poll_unsolicited},
    pool::{NextStep, Pool},
    request::Http1Request,
    slot::Slot,
    upgrade,
};
use crate::forward::record::Outcome;

/// The membership of a connection in its pool, which ends however the task ends.
struct PoolMembership {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    counted: bool,
}

impl Drop for PoolMembership {
    fn drop(&mut self) {
        if self.counted {
            self.pool.on_task_dropped(&self.slot);
        }
    }
}

struct Connection {
    membership: PoolMembership,
    driver: ExchangeDriver,
}

/// Serves `request` on a new connection, and the following ones on the same connection while it is reusable.
pub(super) async fn run(pool: Arc<Pool>, request: Http1Request) {
    let driver = ExchangeDriver::new(&pool.resources.config);
    let mut connection = Connection {
        membership: PoolMembership {
            pool,
            slot: Arc::default(),
            counted: true,
        },
        driver,
    };
    connection.run(request).await;
}

impl Connection {
    async fn run(&mut self, mut request: Http1Request) {
        let pool = self.membership.pool.clone();
        let resources = &*pool.resources;
        let counters = &resources.counters;
        let mut kept = None;
        loop {
            request.record.timeline.end(Phase::Queue);
            let reused = kept.is_some();
            let ready = match kept.take() {
                Some(socket) => {
                    counters.reused.fetch_add(1, Ordering::Relaxed);
                    Some((request, socket))
                }
                None => connect(&pool, request).await,
            };
            let after = match ready {
                Some((request, mut socket)) => {
                    let driver = &mut self.driver;
                    match driver.serve(&mut socket, request, reused, resources).await {
                        After::Upgraded(request, early) => {
                            // Boxed: it is rarely used, and unboxed it would enlarge the future of every connection.
                            Box::pin(upgrade::run(socket, request, early, resources)).await;
                            After::Close
                        }
                        After::Reuse => {
                            kept = Some(socket);
                            After::Reuse
                        }
                        After::ResetBehind => {
                            let within = resources.config.stall_timeout;
                            Socket::new(socket).reset_after_delivery(within).await;
                            After::Close
                        }
                        after => after,
                    }
                }
                None => After::Close,
            };
            let next = match (after, &mut kept) {
                (After::Retry(request), _) => {
                    counters.retried.fetch_add(1, Ordering::Relaxed);
                    Some(request)
                }
                (After::Reuse, Some(socket)) => match pool.release(&self.membership.slot) {
                    NextStep::Serve(request) => Some(request),
                    NextStep::Close => {
                        self.membership.counted = false;
                        None
                    }
                    NextStep::Wait => {
                        let (next, is_alive) = self.wait(socket).await;
                        if !is_alive {
                            kept = None;
                        }
                        next
                    }
                },
                (After::Reuse | After::Close | After::ResetBehind | After::Upgraded(..), _) => {
                    let next = pool.on_connection_lost();
                    self.membership.counted = next.is_some();
                    next
                }
            };
            match next {
                Some(next) => request = next,
                None => return,
            }
        }
    }

    /// Waits for the next request; `None` if the connection has ended, which is not counted any more then. The second
    /// value states whether the connection can serve the request.
    async fn wait(&mut self, socket: &mut Stream) -> (Option<Http1Request>, bool) {
        let PoolMembership { pool, slot, .. } = &self.membership;
        let deadline = Instant::now() + pool.resources.config.idle_timeout;
        let driver = &mut self.driver;
        let woken = poll_fn(|cx| {
            // The socket is checked first: a request that arrives together with the end is sent on a new connection.
            if poll_unsolicited(cx, socket).is_ready() {
                return Poll::Ready(None);
            }
            match slot.poll(cx) {
                Poll::Ready(request) => Poll::Ready(Some(request)),
                Poll::Pending => driver.poll_deadline(cx, deadline).map(|()| None),
            }
        });
        let (request, is_alive) = match woken.await {
            Some(request) => (request, true),
            None if pool.withdraw(slot) => {
                let next = pool.on_connection_lost();
                self.membership.counted = next.is_some();
                return (next, false);
            }
            // The connection is not idle any more: the pool is about to put a request into the slot.
            None => (poll_fn(|cx| slot.poll(cx)).await, false),
        };
        if request.is_none() {
            // The pool has closed the connection, and does not count it any more.
            self.membership.counted = false;
        }
        (request, is_alive)
    }
}

/// Opens a new connection for a request; `None` when the request has ended: it was reset, or its opener has left.
async fn connect(pool: &Pool, mut request: Http1Request) -> Option<(Http1Request, Stream)> {
    request.record.timeline.begin(Phase::Dial);
    let dialled = tokio::select! {
        biased;
        // This is checked first, because the opener of a request that waited long may have left.
        () = request.exchange.send.abandoned() => {
            let outcome = Outcome::of_abandoned(&request.exchange.send);
            request.record.finish(outcome);
            return None;
        }
        dialled = pool.dialer.dial(pool.resources.config.dial_timeout) => dialled,
    };
    request.record.timeline.end(Phase::Dial);
    match dialled {
        Ok(socket) => {
            pool.resources
                .counters
                .dialled
                .fetch_add(1, Ordering::Relaxed);
            Some((request, socket))
        }
        Err(error) => {
            if let Some(chosen) = &pool.chosen {
                chosen.on_failed(&error);
            }
            request.reset(ResetCode::DialFailed, &error.to_string());
            None
        }
    }
}
