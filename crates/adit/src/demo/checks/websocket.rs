//! A WebSocket, with tungstenite as the visitor.

use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::super::visitor::Site;
use crate::demo::table::Measured;

/// The size of a message that is longer than a window.
const LARGE: usize = 8 << 20;

/// Messages of all sizes are echoed, a ping gets its pong, and the close code is returned.
pub(in crate::demo) async fn echo(site: &Site) -> Result<Measured, String> {
    let stream = TcpStream::connect(site.addr)
        .await
        .map_err(|error| error.to_string())?;
    let url = format!("ws://{}/socket", site.host());
    let (socket, _) = client_async(url, stream)
        .await
        .map_err(|error| format!("handshake: {error}"))?;
    let (mut sink, mut stream) = socket.split();
    let started = Instant::now();
    let sizes = [0, 1, 125, 126, 65_535, 65_536, LARGE];
    for size in sizes {
        let message = Message::binary(vec![b'x'; size]);
        // The echo begins before the message has ended: to send without reading would block forever.
        let (sent, received) = tokio::join!(sink.send(message.clone()), stream.next());
        sent.map_err(|error| format!("{size} bytes: {error}"))?;
        match received {
            Some(Ok(back)) if back == message => {}
            Some(Ok(_)) => return Err(format!("{size} bytes: the received message differs")),
            Some(Err(error)) => return Err(format!("{size} bytes: {error}")),
            None => return Err(format!("{size} bytes: the connection ended")),
        }
    }
    let took = started.elapsed();
    let ping = Message::Ping("there?".into());
    sink.send(ping).await.map_err(|error| error.to_string())?;
    match stream.next().await {
        Some(Ok(Message::Pong(payload))) if payload == "there?" => {}
        other => return Err(format!("unexpected response to a ping: {other:?}")),
    }
    let close = CloseFrame {
        code: CloseCode::Library(4000),
        reason: "enough".into(),
    };
    let closed = sink.send(Message::Close(Some(close.clone()))).await;
    closed.map_err(|error| error.to_string())?;
    match stream.next().await {
        Some(Ok(Message::Close(Some(back)))) if back.code == close.code => {}
        other => return Err(format!("unexpected response to a close: {other:?}")),
    }
    Ok(Measured::moved(
        2 * sizes.iter().sum::<usize>() as u64,
        took,
    ))
}
