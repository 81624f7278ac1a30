//! WebSocket messages: binary ones are echoed, and the response to a text `N` is N bytes of the pattern.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::grpc::FLOOD_MESSAGE;
use crate::pattern::Pattern;

pub(super) async fn serve(stream: TcpStream) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(_) => socket.send(message).await.ok()?,
            Message::Text(length) => {
                let wanted: u64 = length.parse().ok()?;
                let mut offset = 0;
                while offset < wanted {
                    let length = (wanted - offset).min(FLOOD_MESSAGE);
                    let piece = Pattern::shared().piece(offset, length);
                    socket.send(Message::binary(piece.to_vec())).await.ok()?;
                    offset += length;
                }
            }
            _ => {}
        }
    }
    Some(())
}
