//! WebSocket messages that are echoed; a connection ends with close frames of both sides.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{connect, wrong_bytes};
use crate::failure::{Failed, Failure};
use crate::pattern::Pattern;
use crate::pool::Driver;
use crate::scenario::Mix;
use crate::tally::Tally;
use crate::targets::Web;

pub(super) struct Echo {
    web: Web,
    sizes: Mix,
    tally: Arc<Tally>,
}

impl Echo {
    pub(super) fn new(web: &Web, sizes: Mix, tally: Arc<Tally>) -> Self {
        Self {
            web: web.clone(),
            sizes,
            tally,
        }
    }
}

impl Driver for Echo {
    type Session = WebSocketStream<TcpStream>;

    async fn open(&self) -> Result<Self::Session, Failed> {
        let stream = connect(self.web.addr).await?;
        let url = format!("ws://{}/", self.web.host);
        match tokio_tungstenite::client_async(url, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => {
                Err(Failed::new(Failure::Status, response.status().as_u16()))
            }
            Err(error) => Err(Failed::new(Failure::Connect, error)),
        }
    }

    async fn exchange(&self, socket: &mut Self::Session, number: u64) -> Result<bool, Failed> {
        // A close frame between two messages means that the other side is going away: the driver reconnects, as any
        // client would.
        while let Some(between) = socket.next().now_or_never() {
            match between {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Away => {
                    *socket = self.open().await?;
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Failed::new(Failure::Cut, "between two messages"));
                }
                Some(Ok(_)) => return Err(wrong_bytes(&self.web, "an unexpected message")),
                Some(Err(error)) => return Err(Failed::new(Failure::Read, error)),
            }
        }
        let message = Pattern::shared().piece(Pattern::place(number), self.sizes.pick(number));
        socket
            .send(Message::binary(message.to_vec()))
            .await
            .map_err(|error| Failed::new(Failure::Write, error))?;
        loop {
            match socket.next().await {
                Some(Ok(Message::Binary(got))) if got == message => {
                    self.tally.body_bytes.fetch_add(got.len() as u64, Relaxed);
                    return Ok(true);
                }
                Some(Ok(Message::Binary(_) | Message::Text(_))) => {
                    return Err(wrong_bytes(&self.web, "another message"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| frame.code);
                    if code == Some(CloseCode::Away) {
                        return Err(Failure::GoingAway.into());
                    }
                    let code = code.map_or("without a code".to_owned(), |code| code.to_string());
                    return Err(Failed::new(Failure::Cut, format!("close {code}")));
                }
                // Pings and pongs are ignored.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failed::new(Failure::Read, error)),
                None => return Err(Failure::Cut.into()),
            }
        }
    }

    async fn close(&self, mut socket: Self::Session) -> Result<(), Failed> {
        socket
            .close(None)
            .await
            .map_err(|error| Failed::new(Failure::Write, error))?;
        let mut closed = false;
        while let Some(message) = socket.next().await {
            match message {
                // This is the other side's own close frame, if it closed first, or its response.
                Ok(Message::Close(_)) => closed = true,
                Ok(Message::Binary(_) | Message::Text(_)) => {
                    return Err(wrong_bytes(&self.web, "a message after the last one"));
                }
                Ok(_) => {}
                // Either side may end the connection first.
                Err(_) if closed => return Ok(()),
                Err(error) => return Err(Failed::new(Failure::Read, error)),
            }
        }
        if closed {
            Ok(())
        } else {
            Err(Failed::new(Failure::Cut, "without a close frame"))
        }
    }
}
