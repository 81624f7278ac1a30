//! A service or server that handles each connection by a script, byte by byte.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Listens on loopback and runs a script for each connection. Dropping it ends the listener and all connections.
#[derive(Debug)]
pub struct Scripted {
    /// The address of the service.
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Starts a service with this script.
    ///
    /// # Panics
    /// Panics when all ports are in use.
    pub async fn start<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(script(stream));
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
