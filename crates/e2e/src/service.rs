//! A service that implements HTTP properly, HTTP/1.1 or HTTP/2 in clear text.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header::TRAILER};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{Body, body_of, checked, empty, feed, full, pattern};

/// The result of a handler.
pub type Handled = Result<Response<Body>, io::Error>;

/// The counters of a service.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Requests whose head has arrived.
    pub begun: AtomicUsize,
    /// Responses that have been sent completely.
    pub finished: AtomicUsize,
    /// Requests cancelled before their response had been sent completely.
    pub cancelled: AtomicUsize,
    /// Connections open now.
    pub connections: AtomicUsize,
}

impl ServiceStats {
    /// Requests whose head has arrived.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Responses that have been sent completely.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::SeqCst)
    }

    /// Requests cancelled before their response had been sent completely.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A service on a port of its own. Dropping it ends all of its connections.
#[derive(Debug)]
pub struct Service {
    /// The address of the service.
    pub addr: SocketAddr,
    /// The counters of the service.
    pub stats: Arc<ServiceStats>,
    /// Held responses continue when this is true.
    pub release: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Service {
    /// A service with these paths:
    ///
    /// - `/who`: its name;
    /// - `/echo`: the request's body, as it arrives, with its trailers;
    /// - `/request`: method, target and header lines as JSON;
    /// - `/bytes/N`, `/chunked/N`: N bytes of the pattern, with and without a length;
    /// - `/sum`: reads the body, compares it with the pattern, returns its length;
    /// - `/status/N`: that status, and no body;
    /// - `/held`: nothing until released, then its name;
    /// - `/begun`: a first piece, the second when released;
    /// - `/unread`: a body that is never read, and no response until released.
    pub async fn site(name: &str) -> Self {
        let name = name.to_owned();
        let (release, held) = watch::channel(false);
        let release_again = release.clone();
        let service = Self::start(move |request| {
            let (name, mut held) = (name.clone(), held.clone());
            async move { site(&name, &mut held, request).await }
        })
        .await;
        Self::with_release(service, release_again)
    }

    fn with_release(mut service: Self, release: watch::Sender<bool>) -> Self {
        service.release = release;
        service
    }

    /// A service that handles each request with `handler`.
    ///
    /// # Panics
    /// Panics when all ports are in use.
    pub async fn start<F>(handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Handled> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let stats = Arc::new(ServiceStats::default());
        let handler = Arc::new(handler);
        let counted = stats.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (handler, stats) = (handler.clone(), counted.clone());
                connections.spawn(async move {
                    let _open = OpenConnection::new(stats.clone());
                    let serve = service_fn(move |request| {
                        let guard = Guard::new(stats.clone());
                        let handled = handler(request);
                        async move {
                            handled
                                .await
                                .map(|response| response.map(|body| guard.over(body)))
                        }
                    });
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http1().half_close(false);
                    // A stream that is not read must not use up the window of its connection.
                    server
                        .http2()
                        .initial_stream_window_size(64 * 1024)
                        .initial_connection_window_size(16 << 20);
                    let served = server.serve_connection(TokioIo::new(stream), serve).await;
                    drop(served);
                });
                // Ended connections are removed.
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            stats,
            release: watch::Sender::new(false),
            accepting,
        }
    }

    /// Lets held responses continue.
    pub fn release(&self) {
        self.release.send_replace(true);
    }

    /// The port of the service.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

struct OpenConnection(Arc<ServiceStats>);

impl OpenConnection {
    fn new(stats: Arc<ServiceStats>) -> Self {
        stats.connections.fetch_add(1, Ordering::SeqCst);
        Self(stats)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Records whether a request was completed.
struct Guard {
    stats: Arc<ServiceStats>,
    finished: bool,
}

impl Guard {
    fn new(stats: Arc<ServiceStats>) -> Self {
        stats.begun.fetch_add(1, Ordering::SeqCst);
        Self {
            stats,
            finished: false,
        }
    }

    fn over(mut self, body: Body) -> Body {
        self.finished = body.is_end_stream();
        Body::new(Guarded { body, guard: self })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let counter = if self.finished {
            &self.stats.finished
        } else {
            &self.stats.cancelled
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

struct Guarded {
    body: Body,
    guard: Guard,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.guard.finished |= matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

async fn site(name: &str, held: &mut watch::Receiver<bool>, request: Request<Incoming>) -> Handled {
    let path = request.uri().path().to_owned();
    let number = || {
        path.rsplit('/')
            .next()
            .and_then(|number| number.parse::<u64>().ok())
    };
    let first = path.split('/').nth(1).unwrap_or_default();
    let response = match first {
        "who" => Response::new(full(name.to_owned())),
        "echo" => {
            let trailer = request.headers().get(TRAILER).cloned();
            let mut response = Response::new(body_of(request.into_body()));
            if let Some(trailer) = trailer {
                response.headers_mut().insert(TRAILER, trailer);
            }
            response
        }
        "request" => {
            let headers: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| {
                    [
                        name.as_str().into(),
                        String::from_utf8_lossy(value.as_bytes()),
                    ]
                })
                .collect();
            let received = json!({
                "method": request.method().as_str(),
                "target": request.uri().to_string(),
                "version": format!("{:?}", request.version()),
                "headers": headers,
            });
            Response::new(full(received.to_string()))
        }
        "bytes" => Response::new(pattern(number().unwrap_or_default(), true)),
        "chunked" => Response::new(pattern(number().unwrap_or_default(), false)),
        "sum" => {
            let text = match checked(request.into_body()).await {
                Ok(length) => format!("{length} bytes, as sent"),
                Err(error) => error,
            };
            Response::new(full(text))
        }
        "status" => {
            let mut response = Response::new(empty());
            let status = number().and_then(|number| u16::try_from(number).ok());
            *response.status_mut() =
                StatusCode::from_u16(status.unwrap_or(500)).unwrap_or_default();
            response.headers_mut().insert(
                HeaderName::from_static("x-service"),
                "adit".parse().expect("a value"),
            );
            response
        }
        "held" => {
            let _ = held.wait_for(|released| *released).await;
            Response::new(full(name.to_owned()))
        }
        "begun" => {
            let (feeder, body) = feed();
            let mut held = held.clone();
            tokio::spawn(async move {
                feeder.send("first,").await;
                let released = async { held.wait_for(|released| *released).await.is_ok() };
                tokio::select! {
                    true = released => { feeder.send("second").await; }
                    () = feeder.unwanted() => {}
                }
            });
            Response::new(body)
        }
        "unread" => {
            let _ = held.wait_for(|released| *released).await;
            drop(request);
            Response::new(full(name.to_owned()))
        }
        _ => {
            let mut response = Response::new(full("the service does not know this path"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    Ok(response)
}
