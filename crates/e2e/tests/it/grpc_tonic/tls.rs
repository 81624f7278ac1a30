//! Services over TLS, by the file and by the command line.

use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use adit_e2e::{Client, ClientOptions, Server, eventually, within};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::server::Connected};

use crate::grpc_tonic::{
    SOON, message,
    service::{Service, listen},
    visitor,
};

/// A connection over TLS, in the form that tonic needs.
struct Secure(TlsStream<TcpStream>);

impl Connected for Secure {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A service with a self-signed certificate for this name, and the certificate.
async fn secure(name: &str) -> (Service, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, addr) = listen().await;
    let (tell, accepted) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            tokio::spawn(async move {
                if let Ok(socket) = acceptor.accept(socket).await {
                    let _ = tell.send(Ok(Secure(socket))).await;
                }
            });
        }
    });
    let service = Service::over("secure", addr, ReceiverStream::new(accepted)).await;
    (service, certificate.pem())
}

fn ca(server: &Server, pem: &str) -> PathBuf {
    let file = server.state().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    file
}

/// A client with this command line: `adit grpc SERVICE ARGS`.
async fn start(server: &Server, service: &str, args: &[&str]) -> Client {
    let any = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut options = ClientOptions::http(server, "office", "rpc", any);
    options.args = ["grpc", service, "--name", "rpc"]
        .map(String::from)
        .to_vec();
    options.args.extend(args.iter().map(|&arg| arg.to_owned()));
    Client::start(options).await
}

async fn assert_served(server: &Server) {
    let mut visitor = visitor(server, "rpc.localhost").await;
    let call = visitor.unary(message("text", 1));
    let response = within("a response", SOON, call).await.unwrap();
    assert_eq!(response.metadata().get("x-service").unwrap(), "secure");
    let sent = (0..1_000).map(|n| message("a longer text than one letter", n));
    let mut heard = visitor
        .chat(tokio_stream::iter(sent))
        .await
        .unwrap()
        .into_inner();
    let mut count = 0;
    while let Some(message) = within("a message", SOON, heard.message()).await.unwrap() {
        count += 1;
        assert_eq!(message.count, count);
    }
    assert_eq!(count, 1_000);
}

#[tokio::test]
async fn a_service_over_tls_is_reached_by_the_file() {
    let (service, pem) = secure("calls.internal").await;
    let server = Server::plain().await;
    ca(&server, &pem);
    let config = format!(
        "client:
  tunnels:
    - name: rpc
      type: grpc
      local_port: {}
      local_tls: {{ ca_file: ca.pem, server_name: calls.internal }}
",
        service.addr.port()
    );
    let _client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    assert_served(&server).await;
}

#[tokio::test]
async fn f04_flags_set_how_a_service_over_tls_is_reached() {
    let (service, pem) = secure("127.0.0.1").await;
    let server = Server::plain().await;
    let file = ca(&server, &pem).display().to_string();
    let url = format!("https://{}", service.addr);
    let _client = start(&server, &url, &["--tls-ca", &file]).await;
    assert_served(&server).await;
}

#[tokio::test]
async fn f04_insecure_tls_accepts_any_certificate_with_a_warning() {
    let (service, _) = secure("elsewhere.example").await;
    let server = Server::plain().await;
    let url = format!("https://{}", service.addr);
    let mut client = start(&server, &url, &["--tls-insecure"]).await;
    assert_served(&server).await;
    let log = client.process().stderr();
    assert_eq!(log.matches("local_tls.insecure").count(), 1, "{log}");
}

#[tokio::test]
async fn p_8_4_an_untrusted_certificate_is_unavailable_with_its_cause() {
    let (service, pem) = secure("calls.internal").await;
    let server = Server::plain().await;
    let file = ca(&server, &pem).display().to_string();
    let url = format!("https://{}", service.addr);
    let mut client = start(&server, &url, &["--tls-ca", &file]).await;
    let mut visitor = visitor(&server, "rpc.localhost").await;
    let call = visitor.unary(message("text", 1));
    let status = within("a response", SOON, call).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("adit-reason").unwrap(), "dial_failed");
    // The advice is in the client's log: visitors receive no details of the service.
    assert_eq!(status.message(), "dial_failed");
    let logged = eventually("the advice", SOON, async || {
        let log = client.process().stderr();
        log.contains("`server_name`").then_some(())
    });
    logged.await;
}
