//! The bodies that visitor and service send.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::pattern::Pattern;

/// A body of one of three kinds.
#[derive(Debug)]
pub(super) enum Body {
    /// Complete from the start.
    Whole(Option<Bytes>),
    /// The requested number of bytes of the pattern.
    Pattern(Pattern),
    /// Frame by frame, from a [`Sender`].
    Frames(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>),
}

/// Makes the frames of a body.
#[derive(Debug, Clone)]
pub(super) struct Sender(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

/// The reader of the body has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl Body {
    pub(super) const fn empty() -> Self {
        Self::Whole(None)
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Whole(Some(Bytes::from(text.into())))
    }

    /// A body whose frames come from the sender; it ends when the sender is dropped. At most one frame is buffered, so
    /// that frames that are not read are not sent.
    pub(super) fn frames() -> (Sender, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (Sender(sender), Self::Frames(receiver))
    }
}

impl Sender {
    pub(super) async fn data(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.send(Ok(Frame::data(data.into()))).await
    }

    /// Ends the body with trailers.
    pub(super) async fn trailers(self, trailers: HeaderMap) -> Result<(), Gone> {
        self.send(Ok(Frame::trailers(trailers))).await
    }

    /// Aborts the body.
    pub(super) async fn abort(self) -> Result<(), Gone> {
        self.send(Err(io::Error::other("aborted on purpose"))).await
    }

    /// Waits until the reader of the body has been dropped.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    async fn send(&self, frame: Result<Frame<Bytes>, io::Error>) -> Result<(), Gone> {
        self.0.send(frame).await.map_err(|_| Gone)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take().map(|data| Ok(Frame::data(data)))),
            Self::Pattern(pattern) => Poll::Ready(pattern.next().map(|data| Ok(Frame::data(data)))),
            Self::Frames(frames) => frames.poll_recv(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_none(),
            Self::Pattern(pattern) => pattern.left() == 0,
            Self::Frames(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64))
            }
            Self::Pattern(pattern) => SizeHint::with_exact(pattern.left()),
            Self::Frames(_) => SizeHint::default(),
        }
    }
}
