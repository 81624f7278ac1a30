//! Services over HTTP/2 with prior knowledge, through hyper: one shared connection for each, made anew when it is lost.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use adit_codec::{HeaderBlock, HttpRequest, HttpResponseHead, ResetCode};
use adit_link::{Exchange, RecvHalf, SendHalf};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::{
    dial::{Address, dial},
    fields::{allows_trailers, content_length, elements, is_barred_from_trailers, is_hop_by_hop},
    job::{Broken, Job, gone},
    service::{self, Service, Stats},
};

mod upload;

use upload::{Progress, Upload};

type Sender = http2::SendRequest<Upload>;

/// The largest window of HTTP/2 (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Frames as large as a message of the tunnel (P-2.1).
const MAX_FRAME_BYTES: u32 = 64 * 1024;

/// The connection to one service.
pub(crate) struct Shared {
    address: Address,
    shared: Arc<service::Shared>,
    /// Held while the connection is made, so that it is made once.
    sender: Mutex<Option<Sender>>,
    running: AtomicUsize,
    retired: AtomicBool,
    connected: Arc<AtomicUsize>,
}

impl Shared {
    pub(crate) fn new(address: Address, shared: Arc<service::Shared>) -> Arc<Self> {
        Arc::new(Self {
            address,
            shared,
            sender: Mutex::new(None),
            running: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            connected: Arc::default(),
        })
    }

    /// Serves a request in a task of its own.
    pub(crate) fn dispatch(self: &Arc<Self>, job: Job) {
        let limit = self.shared.config.max_connections;
        if self.running.fetch_add(1, Ordering::Relaxed) >= limit {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let why = format!("{limit} requests to {} are running", self.address);
            job.reset(ResetCode::Limit, &why);
            return;
        }
        let place = Place(self.clone());
        tokio::spawn(async move { place.0.serve(job).await });
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        // Whoever holds the lock is about to use the connection, and drops it afterwards.
        if let Ok(mut sender) = self.sender.try_lock() {
            *sender = None;
        }
    }

    pub(crate) fn count(&self, stats: &mut Stats) {
        let connected = self.connected.load(Ordering::Relaxed);
        stats.connections += connected;
        if self.running.load(Ordering::Relaxed) == 0 {
            stats.idle += connected;
        }
    }

    async fn serve(&self, job: Job) {
        let Job {
            head,
            exchange: Exchange { send, recv },
            service,
            ..
        } = job;
        if let Err(Broken::Reset(code, why)) = self.exchange(&head, &service, &send, recv).await {
            tracing::debug!(code = code.reason(), %why, "request reset");
            send.reset(code, &why);
        }
    }

    async fn exchange(
        &self,
        head: &HttpRequest,
        service: &Service,
        send: &SendHalf,
        recv: RecvHalf,
    ) -> Result<(), Broken> {
        let progress = Arc::new(Progress::new());
        let mut request = request(head, service, recv, progress.clone())?;
        let mut retried = false;
        let response = loop {
            let (mut sender, reused) = self.sender(send).await?;
            let answer = tokio::select! {
                biased;
                answer = sender.try_send_request(request) => answer,
                () = gone(send) => return Err(Broken::Gone),
                () = progress.silence(self.shared.config.answer_timeout) => {
                    let wait = self.shared.config.answer_timeout;
                    return Err(Broken::Reset(
                        ResetCode::ServiceTimeout,
                        format!("the service did not answer within {wait:?}").into(),
                    ));
                }
            };
            match answer {
                Ok(response) => break response,
                Err(mut error) => match error.take_message() {
                    // The request has not left: the connection was lost or is being given up.
                    Some(unsent) if reused && !retried => {
                        self.shared.counters.retried.fetch_add(1, Ordering::Relaxed);
                        self.forget().await;
                        retried = true;
                        request = unsent;
                    }
                    _ => {
                        if let Some(code) = progress.fault() {
                            return Err(code);
                        }
                        return Err(Broken::aborted(format!(
                            "the service did not answer: {}",
                            explain(error.error())
                        )));
                    }
                },
            }
        };
        let to_head = head.method == "HEAD";
        self.pass_on(response, to_head, send, &progress).await
    }

    /// The connection, made if there is none; whether it was there.
    async fn sender(&self, send: &SendHalf) -> Result<(Sender, bool), Broken> {
        tokio::select! {
            biased;
            sender = self.connect() => sender,
            () = gone(send) => Err(Broken::Gone),
        }
    }

    async fn connect(&self) -> Result<(Sender, bool), Broken> {
        let mut current = self.sender.lock().await;
        if let Some(sender) = &*current
            && !sender.is_closed()
        {
            self.shared.counters.reused.fetch_add(1, Ordering::Relaxed);
            return Ok((sender.clone(), true));
        }
        *current = None;
        let config = &self.shared.config;
        let refused = |why: String| Broken::Reset(ResetCode::DialFailed, why.into());
        let socket = dial(&self.address, config.dial_timeout)
            .await
            .map_err(refused)?;
        let window = config.h2c_stream_window_bytes;
        // Room for every stream's window: what one visitor does not take must not hold up the others.
        let all = u64::from(window) * (config.max_connections as u64).max(1);
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(
                u32::try_from(all).unwrap_or(MAX_WINDOW).min(MAX_WINDOW),
            )
            .max_frame_size(MAX_FRAME_BYTES)
            .handshake::<_, Upload>(TokioIo::new(socket));
        let (sender, connection) = tokio::time::timeout(config.dial_timeout, handshake)
            .await
            .map_err(|_| refused(format!("connect {}: no HTTP/2 in time", self.address)))?
            .map_err(|error| refused(format!("connect {}: {}", self.address, explain(&error))))?;
        let connected = Connected::new(&self.connected);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an HTTP/2 service lost");
            }
            drop(connected);
        });
        self.shared.counters.dialled.fetch_add(1, Ordering::Relaxed);
        if !self.retired.load(Ordering::Relaxed) {
            *current = Some(sender.clone());
        }
        Ok((sender, false))
    }

    async fn forget(&self) {
        *self.sender.lock().await = None;
    }

    async fn pass_on(
        &self,
        response: Response<Incoming>,
        to_head: bool,
        send: &SendHalf,
        progress: &Progress,
    ) -> Result<(), Broken> {
        let (parts, mut body) = response.into_parts();
        let mut early = Bytes::new();
        let mut trailers = None;
        let bodiless = to_head || matches!(parts.status.as_u16(), 204 | 304);
        // What is here already rides along: one message for a small answer.
        if !bodiless
            && !body.is_end_stream()
            && let Poll::Ready(Some(frame)) = frame_now(&mut body)
        {
            (early, trailers) = split(frame.map_err(|error| lost(&error, progress))?);
        }
        let allowed = match ready_now(send) {
            Poll::Ready(Err(_)) => return Err(Broken::Gone),
            Poll::Ready(Ok(allowed)) => allowed,
            Poll::Pending => 0,
        };
        let over = bodiless || body.is_end_stream() && trailers.is_none();
        let rides = early.len() <= allowed.min(self.shared.config.inline_body_bytes);
        let head = HttpResponseHead {
            status: parts.status.as_u16(),
        }
        .encode(
            parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
                .filter(|(name, _)| !is_hop_by_hop(name)),
            if rides { &early } else { b"" },
        )
        .map_err(|error| Broken::aborted(error.to_string()))?;
        send.answer(head, over && rides)?;
        if over && rides {
            return Ok(());
        }
        if !rides {
            send.send_all(early, false).await?;
        }
        while trailers.is_none() {
            // Credit before the frame: what is not taken stays within the stream's window.
            send.ready().await?;
            let frame = tokio::select! {
                biased;
                frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
                () = gone(send) => return Err(Broken::Gone),
            };
            let Some(frame) = frame else {
                // hyper gives a stream that was reset with NO_ERROR as an end. After a whole answer it is one, to stop
                // the upload (RFC 9113, 8.1); otherwise the answer has been cut off.
                if !body.is_end_stream() {
                    return Err(Broken::aborted(
                        "the service broke off before the end of its answer: stream reset",
                    ));
                }
                send.finish()?;
                return Ok(());
            };
            let data;
            (data, trailers) = split(frame.map_err(|error| lost(&error, progress))?);
            let ends = body.is_end_stream() && trailers.is_none();
            send.send_all(data, ends).await?;
            if ends {
                return Ok(());
            }
        }
        let trailers = trailers.unwrap_or_default();
        let trailers: HeaderBlock = trailers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .filter(|(name, _)| !is_barred_from_trailers(name))
            .collect();
        send.finish_with(trailers)?;
        Ok(())
    }
}

/// One running request of the count.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection of the count.
struct Connected(Arc<AtomicUsize>);

impl Connected {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn frame_now(body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
}

fn ready_now(send: &SendHalf) -> Poll<Result<usize, adit_link::Failure>> {
    send.poll_ready(&mut Context::from_waker(std::task::Waker::noop()))
}

fn split(frame: Frame<Bytes>) -> (Bytes, Option<HeaderMap>) {
    match frame.into_data() {
        Ok(data) => (data, None),
        Err(frame) => (Bytes::new(), frame.into_trailers().ok()),
    }
}

fn lost(error: &hyper::Error, progress: &Progress) -> Broken {
    progress.fault().unwrap_or_else(|| {
        Broken::aborted(format!(
            "the service broke off before the end of its answer: {}",
            explain(error)
        ))
    })
}

/// An error with its causes: hyper's own text names the layer only.
fn explain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

fn request(
    head: &HttpRequest,
    service: &Service,
    recv: RecvHalf,
    progress: Arc<Progress>,
) -> Result<Request<Upload>, Broken> {
    let bad = |what: &'static str| Broken::Reset(ResetCode::ProtocolError, Cow::Borrowed(what));
    let authority = match &service.host_rewrite {
        Some(host) => host.as_bytes(),
        None if head.authority.is_empty() => head.headers.first(b"host").unwrap_or(b""),
        None => &head.authority,
    };
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(&head.path[..])
        .build()
        .map_err(|_| bad("host and path cannot be sent over HTTP/2"))?;
    let mut length = None;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    let options: Vec<&[u8]> = head
        .headers
        .lines()
        .filter(|(name, _)| *name == b"connection")
        .flat_map(|(_, value)| elements(value))
        .collect();
    for (name, value) in head.headers.lines() {
        if name == b"te" && allows_trailers(value) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let stays = name == b"host"
            || is_hop_by_hop(name)
            || service.replaces(name)
            || options
                .iter()
                .any(|option| option.eq_ignore_ascii_case(name));
        if stays {
            continue;
        }
        if name == b"content-length" {
            let value = content_length(value).ok_or_else(|| bad("bad content-length"))?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(bad("two content-lengths"));
            }
            headers.insert(header::CONTENT_LENGTH, value.into());
            continue;
        }
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
            }
            _ => return Err(bad("a header cannot be sent over HTTP/2")),
        }
    }
    for (name, value) in &service.custom {
        headers.append(name, value.clone());
    }
    let mut request = Request::new(Upload::new(recv, length, progress));
    *request.method_mut() =
        http::Method::from_bytes(&head.method).map_err(|_| bad("the method cannot be sent"))?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}
