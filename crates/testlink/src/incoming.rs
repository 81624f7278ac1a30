//! The requests that reach the far end of a link, for a test that takes its part.

use std::sync::Arc;

use adit_codec::{GrpcRequest, HttpRequest, RequestHead, TcpOpen, UdpOpen, WebSocketRequest};
use adit_link::{Dispatch, Exchange, IncomingRequest};
use tokio::sync::mpsc;

use crate::within;

/// The requests of one or more links, in the order in which they arrive.
pub struct Incoming(pub(crate) mpsc::UnboundedReceiver<IncomingRequest>);

struct Forward(mpsc::UnboundedSender<IncomingRequest>);

impl Dispatch for Forward {
    fn dispatch(&self, opened: IncomingRequest) {
        // The test may have ended.
        let _ = self.0.send(opened);
    }
}

macro_rules! next_of {
    ($($name:ident: $kind:ident($head:ty);)*) => {$(
        pub async fn $name(&mut self) -> ($head, Exchange) {
            let IncomingRequest { head, exchange } = self.next().await;
            match head {
                RequestHead::$kind(head) => (*head, exchange),
                other => panic!("expected {}, got {other:?}", stringify!($kind)),
            }
        }
    )*};
}

impl Incoming {
    /// A dispatch, and the requests that it receives; several far ends may share it.
    pub fn channel() -> (Arc<dyn Dispatch>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Forward(sender)), Self(receiver))
    }

    /// The next request of any protocol.
    pub async fn next(&mut self) -> IncomingRequest {
        within(self.0.recv()).await.expect("the links are gone")
    }

    /// The next request, if it has arrived.
    pub fn try_next(&mut self) -> Option<IncomingRequest> {
        self.0.try_recv().ok()
    }

    next_of! {
        http: Http(HttpRequest);
        grpc: Grpc(GrpcRequest);
        websocket: WebSocket(WebSocketRequest);
        tcp: Tcp(TcpOpen);
        udp: Udp(UdpOpen);
    }
}
