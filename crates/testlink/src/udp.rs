//! UDP: sockets of visitors and services, and the far end of a flow.

use std::net::SocketAddr;

use adit_codec::{ProtocolType, ResponseHead, accepted};
use adit_link::{Exchange, Failure, Part};
use bytes::Bytes;
use tokio::net::UdpSocket;

use crate::{next_part, within};

/// A socket of a visitor or a service.
pub struct Socket(pub UdpSocket);

impl Socket {
    pub async fn bind() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    /// A visitor of the address.
    pub async fn connect(addr: SocketAddr) -> Self {
        let socket = Self::bind().await;
        socket.0.connect(addr).await.unwrap();
        socket
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub async fn send(&self, data: &[u8]) {
        assert_eq!(self.0.send(data).await.unwrap(), data.len());
    }

    pub async fn recv(&self) -> Vec<u8> {
        self.recv_from().await.0
    }

    pub async fn recv_from(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 70_000];
        let (length, from) = within(self.0.recv_from(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }
}

/// The far end accepts the flow.
pub fn accept(exchange: &Exchange) {
    let head = accepted(ProtocolType::Udp);
    exchange.send.respond(head, false).unwrap();
}

/// The response that accepts a TCP connection or a flow has arrived.
pub async fn expect_accepted(exchange: &mut Exchange) -> Result<(), Failure> {
    match next_part(&mut exchange.recv).await {
        Some(Ok(Part::Response(ResponseHead::Accepted))) => Ok(()),
        Some(Err(failure)) => Err(failure),
        other => panic!("expected a response that accepts, got {other:?}"),
    }
}

pub fn send(exchange: &Exchange, data: impl Into<Bytes>) {
    exchange.send.send_datagram(data.into()).unwrap();
}

pub async fn recv(exchange: &mut Exchange) -> Bytes {
    match next_part(&mut exchange.recv).await {
        Some(Ok(Part::Datagram(data))) => data,
        other => panic!("expected a datagram, got {other:?}"),
    }
}

/// The far end echoes every datagram with a suffix.
pub async fn echo(mut exchange: Exchange, mark: u8) {
    accept(&exchange);
    while let Some(Ok(Part::Datagram(data))) = next_part(&mut exchange.recv).await {
        send(&exchange, [&data[..], &[mark]].concat());
    }
}
