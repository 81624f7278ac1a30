//! gRPC calls on HTTP/2 in clear text: `/load/Send/N` responds with N bytes, every other method echoes its messages.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::pattern::Pattern;

/// The length of the payload of one message of a flood.
pub(crate) const FLOOD_MESSAGE: u64 = 16 * 1024;

/// HTTP/2 windows that never limit, because the tunnel is measured.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;

pub(super) async fn serve(stream: TcpStream) -> Option<()> {
    let calls = service_fn(async |request: Request<Incoming>| {
        let wanted = request.uri().path().strip_prefix("/load/Send/");
        let wanted = wanted.and_then(|length| length.parse().ok());
        let body = match wanted {
            Some(wanted) => ResponseBody::Send { wanted, offset: 0 },
            None => ResponseBody::Echo(request.into_body()),
        };
        let mut response = Response::new(body);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        Ok::<_, Infallible>(response)
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(10_000)
        .serve_connection(TokioIo::new(stream), calls)
        .await
        .ok()
}

/// Encodes one gRPC message: no compression, its length, its bytes.
pub(crate) fn grpc_message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}

/// The body of a gRPC response.
enum ResponseBody {
    /// The received messages are echoed.
    Echo(Incoming),
    /// Messages that contain the pattern.
    Send { wanted: u64, offset: u64 },
    /// The trailers have been sent.
    Ended,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = match &mut *self {
            Self::Ended => return Poll::Ready(None),
            Self::Echo(request) => loop {
                match ready!(Pin::new(&mut *request).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break Some(data);
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => break None,
                }
            },
            Self::Send { wanted, offset } if *offset < *wanted => {
                let piece =
                    Pattern::shared().piece(*offset, (*wanted - *offset).min(FLOOD_MESSAGE));
                *offset += piece.len() as u64;
                Some(grpc_message(piece))
            }
            Self::Send { .. } => None,
        };
        Poll::Ready(Some(Ok(match next {
            Some(data) => Frame::data(data),
            None => {
                *self = Self::Ended;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
        })))
    }
}
