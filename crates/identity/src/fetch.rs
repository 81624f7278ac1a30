//! One request for a set of keys.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio_rustls::TlsConnector;

use crate::{jwks_url::JwksUrl, key_source::MAX_KEY_BYTES};

/// Why a set of keys was not received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It took too long.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    /// The server cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The handshake of TLS failed.
    #[error(
        "the TLS handshake failed: {0}; if the certificate is of a CA of your own, set `ca_file`"
    )]
    Tls(io::Error),
    /// The response is not valid HTTP/1.1, or was cut short.
    #[error("invalid response: {0}")]
    Http(String),
    /// The response has another status than 200.
    #[error("the status is {0}, expected 200")]
    Status(StatusCode),
    /// The response points elsewhere.
    #[error("the status is {0}: redirects are not followed, set the final URL")]
    Redirect(StatusCode),
    /// The response is too large.
    #[error("the response has more than {MAX_KEY_BYTES} bytes")]
    TooLarge,
}

/// Requests a set of keys: a connection for one request of HTTP/1.1.
///
/// # Errors
/// [`FetchError`].
///
/// # Cancel safety
/// Dropping it closes the connection.
pub(crate) async fn fetch(
    url: &JwksUrl,
    tls: &Arc<ClientConfig>,
    within: Duration,
) -> Result<Bytes, FetchError> {
    let fetched = tokio::time::timeout(within, request(url, tls)).await;
    fetched.unwrap_or(Err(FetchError::TimedOut(within)))
}

async fn request(url: &JwksUrl, tls: &Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let stream = adit_net::connect(url.address()).await;
    let stream = stream.map_err(FetchError::Connect)?;
    if !url.is_https() {
        return exchange(stream, url).await;
    }
    let name = ServerName::try_from(url.address().host().to_owned());
    let name = name.map_err(|error| FetchError::Tls(io::Error::other(error)))?;
    let connector = TlsConnector::from(tls.clone());
    let stream = connector.connect(name, stream).await;
    exchange(stream.map_err(FetchError::Tls)?, url).await
}

async fn exchange(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    url: &JwksUrl,
) -> Result<Bytes, FetchError> {
    let failed = |error: hyper::Error| FetchError::Http(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = Request::get(url.path())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(
            header::USER_AGENT,
            concat!("adit/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Http(error.to_string()))?;
    let response = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(FetchError::Redirect(status)),
            status => return Err(FetchError::Status(status)),
        }
        let body = Limited::new(response.into_body(), MAX_KEY_BYTES);
        let body = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                FetchError::TooLarge
            } else {
                FetchError::Http(error.to_string())
            }
        })?;
        Ok(body.to_bytes())
    };
    // The end of the connection is also reported by the response.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        response = response => response,
        never = driven => never,
    }
}
