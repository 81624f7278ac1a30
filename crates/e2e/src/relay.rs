//! A relay between a client and its server that can break connections, and streams on them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// The client's connection preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const RST_STREAM: u8 = 3;
const CANCEL: u32 = 8;

/// The faults of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fault {
    /// Whether the connection is reset, in both directions.
    is_cut: bool,
    /// The HTTP/2 stream that both ends receive a reset for.
    reset: Option<u32>,
}

/// Relays TCP connections that carry HTTP/2, frame by frame. They end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// The address for the client.
    pub addr: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<Fault>>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// A relay to `server`.
    ///
    /// # Panics
    /// Panics when all ports are in use.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepted = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (fault, faults) = watch::channel(Fault::default());
                accepted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(fault);
                relays.spawn(relay(client, server, faults));
            }
        });
        Self {
            addr,
            connections,
            accepting,
        }
    }

    /// Number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().len()
    }

    /// Resets a connection, by its number from 0.
    ///
    /// # Panics
    /// Panics when there was no such connection.
    pub fn cut(&self, connection: usize) {
        self.fault(connection, |fault| fault.is_cut = true);
    }

    /// Resets one HTTP/2 stream of a connection. Frames of the stream in transit are lost.
    ///
    /// # Panics
    /// Panics when there was no such connection.
    pub fn reset_stream(&self, connection: usize, stream: u32) {
        self.fault(connection, |fault| fault.reset = Some(stream));
    }

    fn fault(&self, connection: usize, change: impl FnOnce(&mut Fault)) {
        let connections = self.lock();
        connections
            .get(connection)
            .expect("a connection of this number")
            .send_modify(change);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<watch::Sender<Fault>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn relay(client: TcpStream, server: SocketAddr, mut faults: watch::Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        // Connections that have not ended are reset when dropped.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = forward(from_client, to_server, PREFACE_BYTES, faults.clone());
    let down = forward(from_server, to_client, 0, faults.clone());
    tokio::select! {
        _ = async { tokio::try_join!(up, down) } => {}
        () = is_cut(&mut faults) => {}
    }
}

/// Forwards complete frames, so that a frame of the relay can be inserted between two frames.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    preface_bytes: usize,
    mut faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut frame = vec![0; preface_bytes];
    from.read_exact(&mut frame).await?;
    to.write_all(&frame).await?;
    let mut reset = None;
    loop {
        let mut head = [0; HEAD_BYTES];
        tokio::select! {
            // Only the first byte is read here: a read that is dropped must not lose any bytes.
            read = from.read(&mut head[..1]) => {
                if read? == 0 {
                    return to.shutdown().await;
                }
            }
            changed = changed_reset(&mut faults, reset) => {
                reset = changed;
                if let Some(stream) = reset {
                    to.write_all(&reset_frame(stream)).await?;
                }
                continue;
            }
        }
        from.read_exact(&mut head[1..]).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & !(1 << 31);
        frame.resize(length as usize, 0);
        from.read_exact(&mut frame).await?;
        if reset != Some(stream) {
            to.write_all(&head).await?;
            to.write_all(&frame).await?;
        }
    }
}

async fn is_cut(faults: &mut watch::Receiver<Fault>) {
    let is_over = faults.wait_for(|fault| fault.is_cut).await.is_err();
    if is_over {
        std::future::pending::<()>().await;
    }
}

/// Waits for another stream to reset.
async fn changed_reset(faults: &mut watch::Receiver<Fault>, known: Option<u32>) -> Option<u32> {
    let changed = faults.wait_for(|fault| fault.reset != known).await;
    let changed = changed.map(|fault| fault.reset);
    match changed {
        Ok(reset) => reset,
        Err(_) => std::future::pending().await,
    }
}

fn reset_frame(stream: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 4, RST_STREAM, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(CANCEL.to_be_bytes());
    frame
}
