//! Services over HTTP/2, with prior knowledge or over TLS: requests share connections.
//!
//! One task serves one request: it sends what the visitor says and passes on what the service answers, and whatever ends
//! it, the stream is reset unless it is whole.

mod download;
mod grpc;
mod head;
mod lost;
mod pool;
mod request;
mod settled;
mod upload;

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use adit_codec::ResetCode;
use adit_link::{Exchange, RecvHalf, SendHalf};
use adit_trace::Phase;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::Response;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::head::Head;
use self::{
    download::Download,
    lost::{Lost, explain},
    pool::{Kind, Place, Pool},
    request::request,
    upload::{Piece, Upload, is_bare},
};
use super::interim::Interim;
use crate::{
    connect::tls::Dialer,
    request::{account::Account, broken::Broken},
    resources::Resources,
    stats::Stats,
};

/// Connections that a request may find closed before it is given up. It has left on none of them.
const MAX_TRIES: usize = 3;

/// The client of one service.
pub(crate) struct Client {
    resources: Arc<Resources>,
    pool: Arc<Pool>,
    running: AtomicUsize,
}

impl Client {
    pub(crate) fn new(dialer: Dialer, resources: Arc<Resources>) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(dialer, resources.clone()),
            resources,
            running: AtomicUsize::new(0),
        })
    }

    /// Serves a request in a task of its own.
    pub(crate) fn dispatch(self: &Arc<Self>, mut account: Account<Head>, exchange: Exchange) {
        let limit = self.resources.config.max_connections;
        if self.running.fetch_add(1, Ordering::Relaxed) >= limit {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let why = format!("{limit} requests to {} are running", self.pool.address());
            account.give_up(exchange.send, ResetCode::Limit, &why);
            return;
        }
        let counted = Counted(self.clone());
        tokio::spawn(async move { counted.0.serve(account, exchange).await });
    }

    pub(crate) fn retire(&self) {
        self.pool.retire();
    }

    pub(crate) fn count(&self, stats: &mut Stats) {
        self.pool.count(stats);
    }

    async fn serve(&self, mut account: Account<Head>, exchange: Exchange) {
        let Exchange { send, recv } = exchange;
        let mut answered = false;
        let lost = self
            .exchange(&mut account, &send, recv, &mut answered)
            .await
            .err();
        let is_call = matches!(account.head, Head::Grpc(_));
        let (code, why) = match lost {
            None => return account.course.on_complete(),
            Some(Lost::Broken(Broken::Gone)) => return account.course.on_gone(&send),
            Some(Lost::Unseen(why)) if !answered => (ResetCode::Refused, why.into()),
            Some(Lost::Reset(reason, why)) if is_call => {
                let status = grpc::status_of(reason);
                return grpc::end_with(&send, &mut account, status, &why, answered);
            }
            Some(Lost::TooLarge(why)) if is_call => {
                let status = grpc::RESOURCE_EXHAUSTED;
                return grpc::end_with(&send, &mut account, status, &why, answered);
            }
            Some(Lost::Broken(Broken::Reset(code, why))) => (code, why),
            Some(
                Lost::Unseen(why)
                | Lost::Reset(_, why)
                | Lost::TooLarge(why)
                | Lost::Broken(Broken::Died(why)),
            ) => (ResetCode::ServiceAborted, why.into()),
        };
        account.give_up(send, code, &why);
    }

    async fn exchange(
        &self,
        account: &mut Account<Head>,
        send: &SendHalf,
        recv: RecvHalf,
        answered: &mut bool,
    ) -> Result<(), Lost> {
        // The place is kept as long as the request has its stream.
        let (answer, stream, _place) = self.begin(account, send, &recv).await?;
        let Account {
            head,
            service,
            course,
            moved,
        } = account;
        let (stream, length) = stream;
        let mut upload = Upload::new(recv, stream, length, moved);
        let mut interim = head.interim();
        let mut answer = pin!(answer_of(answer, interim.as_mut(), send));
        let response = loop {
            let due = self.answer_due(head, &upload);
            tokio::select! {
                biased;
                answer = answer.as_mut() => break answer,
                sent = upload.run(), if upload.over_since().is_none() => sent.map_err(at_fault)?,
                // Before that, it is over when the visitor's direction is: what came before a break is delivered.
                () = send.closed(), if upload.over_since().is_some() => {
                    return Err(Broken::Gone.into());
                }
                () = until(due) => {
                    let wait = self.resources.config.response_timeout;
                    let why = format!("the service did not answer within {wait:?}");
                    return Err(Broken::Reset(ResetCode::ServiceTimeout, why.into()).into());
                }
            }
        };
        let response = response?;
        let lines = response.headers().iter();
        let lines = lines.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        service.compress(send, lines);
        let config = &self.resources.config;
        let status = response.status().as_u16();
        let download = Download::begin(response, head, send, moved, config)?;
        *answered = true;
        course.on_answer(status, download.is_over() && upload.over_since().is_some());
        course.on_grpc_status(download.grpc_status());
        let mut passing = pin!(download.pass_on());
        let passed = loop {
            tokio::select! {
                biased;
                passed = passing.as_mut() => break passed,
                sent = upload.run(), if upload.over_since().is_none() => sent.map_err(at_fault)?,
                () = send.closed(), if upload.over_since().is_some() => {
                    return Err(Broken::Gone.into());
                }
            }
        };
        if matches!(passed, Err(Lost::Broken(Broken::Gone))) {
            upload.run().await.map_err(at_fault)?;
        }
        course.on_grpc_status(passed?);
        // A call is over with its answer. Of an exchange of HTTP the service may go on reading the request (RFC 9113,
        // 8.1).
        if let Head::Http(_) = head {
            upload
                .run_out(self.resources.config.early_response_timeout)
                .await;
        }
        Ok(())
    }

    /// Opens a stream with the request's head; with the stream comes the length of the body, if the head says it.
    async fn begin(
        &self,
        account: &mut Account<Head>,
        send: &SendHalf,
        recv: &RecvHalf,
    ) -> Result<(ResponseFuture, (SendStream<Piece>, Option<u64>), Place), Lost> {
        let (request, length) = request(account)?;
        let course = &mut account.course;
        let kind = if recv.is_complete() {
            Kind::Whole
        } else {
            Kind::Streamed
        };
        let mut tries = 1;
        let mut place = loop {
            course.begin(Phase::Queue);
            let place = tokio::select! {
                biased;
                place = self.pool.place(kind) => place,
                () = send.abandoned() => return Err(Broken::Gone.into()),
            };
            course.end(Phase::Queue);
            let mut place = match place {
                Ok(place) => place,
                Err(broken) => {
                    // Whoever is told that there is no connection has waited for one to be made.
                    course.on_dialled(None);
                    return Err(broken.into());
                }
            };
            if let Some(made) = place.made.take() {
                course.on_dialled(Some(made));
            }
            // Nothing has left yet: another connection will do as well.
            match poll_fn(|cx| place.sender.poll_ready(cx)).await {
                Ok(()) => break place,
                Err(_) if tries < MAX_TRIES => {
                    self.resources
                        .counters
                        .retried
                        .fetch_add(1, Ordering::Relaxed);
                    place.forget_connection();
                    tries += 1;
                }
                Err(error) => return Err(Lost::Unseen(explain("the connection ended", &error))),
            }
        };
        let bare = is_bare(recv, length);
        let (answer, stream) = place.sender.send_request(request, bare).map_err(|error| {
            if error.is_io() || error.is_go_away() {
                Lost::Unseen(explain("the connection ended", &error))
            } else {
                Broken::aborted(explain("the request cannot be sent", &error)).into()
            }
        })?;
        course.on_asked();
        Ok((answer, (stream, length), place))
    }

    /// When an answer is overdue. A call of gRPC may be silent for as long as its visitor waits (P-8.3).
    fn answer_due(&self, head: &Head, upload: &Upload) -> Option<Instant> {
        match head {
            Head::Http(_) => Some(upload.over_since()? + self.resources.config.response_timeout),
            Head::Grpc(_) => None,
        }
    }
}

/// The final answer. Interim ones are passed on as they come.
async fn answer_of(
    mut answer: ResponseFuture,
    mut interim: Option<&mut Interim>,
    send: &SendHalf,
) -> Result<Response<RecvStream>, Lost> {
    let lost = |error: h2::Error| Lost::of(&error, "the service did not answer");
    poll_fn(|cx| {
        // Taken out of h2's hands also where they go no further: it keeps what nobody takes.
        while let Poll::Ready(Some(response)) = answer.poll_informational(cx) {
            let response = response.map_err(lost)?;
            let Some(interim) = &mut interim else {
                continue;
            };
            let lines = response.headers().iter();
            let lines = lines.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            interim.pass_on(response.status().as_u16(), lines, send)?;
        }
        Pin::new(&mut answer).poll(cx).map_err(lost)
    })
    .await
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The visitor's body is not what it was said to be.
fn at_fault(why: &'static str) -> Lost {
    Broken::Reset(ResetCode::ProtocolError, why.into()).into()
}

/// One running request of the count.
struct Counted(Arc<Client>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
