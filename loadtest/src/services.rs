//! The private services behind the tunnels, whose responses the drivers check: one service for each protocol, each on
//! its own port.
//!
//! They run on a thread of this process ([`Running`]), or as a separate process (`adit-loadtest serve`): next to a
//! client in the compose stack, or behind any other tunnel.

pub(crate) mod grpc;
pub(crate) mod http;
mod process;
mod tcp;
pub(crate) mod udp;
mod websocket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

pub(crate) use self::process::Hosted;

/// The ports on which the services listen; port 0 means a free port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) ip: IpAddr,
    pub(crate) http: u16,
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
    pub(crate) websocket: u16,
    pub(crate) grpc: u16,
}

impl Ports {
    /// Free ports on loopback.
    pub(crate) const FREE: Self = Self {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        http: 0,
        tcp: 0,
        udp: 0,
        websocket: 0,
        grpc: 0,
    };
}

/// The address of each protocol's service. As JSON it is the output line for another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// All services; they listen but are not yet served.
pub(crate) struct Services {
    http: TcpListener,
    tcp: TcpListener,
    udp: UdpSocket,
    websocket: TcpListener,
    grpc: TcpListener,
}

impl Services {
    /// Binds the ports.
    ///
    /// # Errors
    /// Returns an error that names the port when a port cannot be bound.
    pub(crate) async fn bind(ports: &Ports) -> io::Result<Self> {
        let tcp = async |name: &str, port: u16| {
            let address = SocketAddr::new(ports.ip, port);
            TcpListener::bind(address)
                .await
                .map_err(|error| named(name, address, &error))
        };
        let udp = SocketAddr::new(ports.ip, ports.udp);
        Ok(Self {
            http: tcp("http", ports.http).await?,
            tcp: tcp("tcp", ports.tcp).await?,
            udp: UdpSocket::bind(udp)
                .await
                .map_err(|error| named("udp", udp, &error))?,
            websocket: tcp("websocket", ports.websocket).await?,
            grpc: tcp("grpc", ports.grpc).await?,
        })
    }

    /// The addresses on which the services listen.
    ///
    /// # Errors
    /// Returns an error when the system does not report an address.
    pub(crate) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr()?,
            tcp: self.tcp.local_addr()?,
            udp: self.udp.local_addr()?,
            websocket: self.websocket.local_addr()?,
            grpc: self.grpc.local_addr()?,
        })
    }

    /// Serves until the future is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future closes the ports; connections end with their runtime.
    pub(crate) async fn serve(self) {
        tokio::join!(
            http::serve(self.http),
            accept(self.tcp, tcp::serve),
            accept(self.websocket, websocket::serve),
            accept(self.grpc, grpc::serve),
            udp::serve(self.udp),
        );
    }
}

fn named(name: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen for {name} on {address}: {error}"),
    )
}

/// Serves each connection in its own task.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                tokio::spawn(serve(stream));
            }
            Ok(_) => {}
            // The process has no free file descriptors: wait until connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The services on a thread of this process. Dropping it ends the services.
#[derive(Debug)]
pub(crate) struct Running {
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the services on free ports of loopback, on their own thread, so that their work does not delay the
    /// generator.
    ///
    /// # Errors
    /// Returns an error when a port cannot be bound, or when the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (ready, addresses_ready) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("services".into())
            .spawn(move || {
                runtime.block_on(async {
                    let bound = match Services::bind(&Ports::FREE).await {
                        Ok(services) => services.addresses().map(|at| (at, services)),
                        Err(error) => Err(error),
                    };
                    match bound {
                        Ok((addresses, services)) => {
                            let _ = ready.send(Ok(addresses));
                            tokio::select! {
                                () = services.serve() => {}
                                _ = stopped => {}
                            }
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error));
                        }
                    }
                });
            })?;
        let addresses = addresses_ready
            .recv()
            .map_err(|_| io::Error::other("the thread of the services ended"))??;
        Ok(Self {
            addresses,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The addresses on which the services listen.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_service() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = Ports {
            websocket: taken.local_addr().unwrap().port(),
            ..Ports::FREE
        };
        let Err(error) = Services::bind(&ports).await else {
            panic!("the port is taken");
        };
        let address = taken.local_addr().unwrap();
        assert!(
            error
                .to_string()
                .contains(&format!("websocket on {address}")),
            "{error}"
        );
    }

    #[test]
    fn a_thread_of_services_ends_with_its_handle() {
        let running = Running::start().unwrap();
        let at = running.addresses();
        assert!(std::net::TcpStream::connect(at.http).is_ok());
        drop(running);
        assert!(std::net::TcpStream::connect(at.http).is_err());
    }
}
