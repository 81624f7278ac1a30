//! What a connection of HTTP/1.1 carries after it has changed to another protocol (P-3.7): bytes in both directions, as a
//! TCP connection does.

use adit_codec::{HttpRequest, ResetCode};
use adit_link::Failure;
use adit_splice::tcp::{BufferPools, Progress, Socket, Splice, SpliceError};
use bytes::Bytes;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    request::{account::Account, job::Job},
    resources::Resources,
};

/// Carries both directions to their ends. `early` has come from the service behind its answer.
pub(crate) async fn carry(socket: TcpStream, job: Job, early: Bytes, shared: &Resources) {
    let Job {
        mut account,
        exchange,
    } = job;
    let socket = Socket::new(socket);
    if let Some(silence) = shared.config.tcp_keepalive {
        socket.set_keepalive(silence);
    }
    exchange.set_stall(shared.config.tcp_stall_timeout);
    let length = early.len() as u64;
    // Fails for a visitor who has left: its bytes reach the service all the same.
    if exchange.send.send_all(early, false).await.is_ok() {
        account.moved.send(length);
    }
    let patience = shared.config.tcp_stall_timeout;
    let buffers = BufferPools {
        small: shared.small.clone(),
        large: shared.large.clone(),
    };
    let mut splice = Splice::new(&socket, exchange, &buffers, Bytes::new(), patience);
    let on_moved = |now: Progress| {
        account.moved.receive(now.written);
        account.moved.send(now.read);
    };
    match splice.run(on_moved).await {
        Ok(()) => {
            account.course.on_complete();
            drop(splice);
            socket.close();
        }
        Err(SpliceError::Exchange(failure)) => {
            on_failure(&mut account, &failure);
            if splice.is_aborted() {
                drop(splice);
                socket.reset_after_delivery(patience).await;
            }
        }
        Err(SpliceError::Socket(error)) => {
            let why = format!("the service broke off: {error}");
            if let Some(send) = splice.into_send() {
                account.give_up(send, ResetCode::ServiceAborted, &why);
            }
        }
    }
}

fn on_failure(account: &mut Account<Box<HttpRequest>>, failure: &Failure) {
    account.course.on_failure(failure);
    tracing::debug!(
        target: "adit::egress",
        request_id = %Uuid::from_bytes(account.head.open.request_uuid),
        %failure,
        "connection of an upgraded request reset"
    );
}
