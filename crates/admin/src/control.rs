//! Operations on a running process, over HTTP on a unix socket. The socket belongs to the user of the process, and the
//! file system denies it to other users.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use adit_net::Stream;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use serde::Deserialize;
use serde_json::json;
use tokio::net::UnixListener;

use crate::listener::Accepting;

/// Performs the operations.
pub trait Operator: Send + Sync + 'static {
    /// Releases a name of a kind from its owner. Returns the number of released names.
    ///
    /// # Errors
    /// [`ControlError`].
    fn release(
        &self,
        kind: String,
        name: String,
    ) -> Pin<Box<dyn Future<Output = Result<usize, ControlError>> + Send + '_>>;

    /// The banned addresses, as JSON.
    fn bans(&self) -> serde_json::Value;

    /// Ends the bans of an address, or all bans. Returns how many.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] for a text that is not an address.
    fn clear_bans(&self, address: Option<String>) -> Result<usize, ControlError>;

    /// Reads the stored credentials of clients. When it returns, they are in force.
    fn read_identities(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Why an operation was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    /// The request is invalid.
    Invalid(String),
    /// The request is valid, but not possible in the current state.
    Conflict(String),
}

/// A bound socket. Its file is removed when it is dropped, unless another process has replaced it.
#[derive(Debug)]
pub struct Control {
    accepting: Accepting,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
    owner: u32,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Control {
    /// Binds a socket in an existing directory. Replaces the file of a dead process.
    ///
    /// # Errors
    /// Errors of the system, also for a path of more than some 100 bytes.
    pub fn bind(path: &Path) -> io::Result<Self> {
        // The socket is bound under another name first, so that the file has its permissions when it appears under the
        // final name.
        let aside = path.with_extension(format!("new.{}", std::process::id()));
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        let placed = fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&aside))
            .and_then(|found| fs::rename(&aside, path).map(|()| found));
        match placed {
            Ok(found) => Ok(Self {
                accepting: Accepting::new(listener.into(), "the control socket"),
                file: SocketFile {
                    path: path.to_owned(),
                    inode: found.ino(),
                    owner: found.uid(),
                },
            }),
            Err(error) => {
                let _ = fs::remove_file(&aside);
                Err(error)
            }
        }
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// Errors of the listening socket.
    pub async fn serve(self, operator: Arc<dyn Operator>) -> io::Result<()> {
        let routes = Router::new()
            .route("/api/names/release", post(release))
            .route("/api/bans", get(bans))
            .route("/api/bans/clear", post(clear_bans))
            .route("/api/identities/read", post(read_identities))
            .with_state(operator);
        axum::serve(self, routes).await
    }

    /// Whether the peer is the user of this process, or root. The permissions of the file forbid others as well; some
    /// systems ignore those of a socket.
    fn trusts(&self, stream: &Stream) -> bool {
        stream
            .peer_uid()
            .is_some_and(|uid| uid == self.file.owner || uid == 0)
    }
}

impl Listener for Control {
    type Io = Stream;
    type Addr = ();

    async fn accept(&mut self) -> (Stream, ()) {
        loop {
            let (stream, _) = self.accepting.next().await;
            if self.trusts(&stream) {
                return (stream, ());
            }
            tracing::warn!("a connection of another user to the control socket was closed");
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    kind: String,
    name: String,
}

async fn release(
    State(operator): State<Arc<dyn Operator>>,
    Json(request): Json<Release>,
) -> Response {
    match operator.release(request.kind, request.name).await {
        Ok(released) => Json(json!({ "released": released })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn bans(State(operator): State<Arc<dyn Operator>>) -> Response {
    Json(json!({ "bans": operator.bans() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClearBans {
    address: Option<String>,
}

async fn clear_bans(
    State(operator): State<Arc<dyn Operator>>,
    Json(request): Json<ClearBans>,
) -> Response {
    match operator.clear_bans(request.address) {
        Ok(cleared) => Json(json!({ "cleared": cleared })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn read_identities(State(operator): State<Arc<dyn Operator>>) -> Response {
    operator.read_identities().await;
    Json(json!({ "read": true })).into_response()
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let (code, error) = match self {
            Self::Invalid(error) => (StatusCode::BAD_REQUEST, error),
            Self::Conflict(error) => (StatusCode::CONFLICT, error),
        };
        (code, Json(json!({ "error": error }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    struct Fixed;

    impl Operator for Fixed {
        fn release(
            &self,
            kind: String,
            name: String,
        ) -> Pin<Box<dyn Future<Output = Result<usize, ControlError>> + Send + '_>> {
            Box::pin(async move {
                match (&*kind, &*name) {
                    ("host", "a.test") => Ok(1),
                    ("host", _) => Err(ControlError::Conflict("in use".into())),
                    _ => Err(ControlError::Invalid("no such kind".into())),
                }
            })
        }

        fn bans(&self) -> serde_json::Value {
            json!([{ "network": "192.0.2.1" }])
        }

        fn clear_bans(&self, address: Option<String>) -> Result<usize, ControlError> {
            match address.as_deref() {
                None => Ok(2),
                Some("192.0.2.1") => Ok(1),
                Some(_) => Err(ControlError::Invalid("not an address".into())),
            }
        }

        fn read_identities(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(async {})
        }
    }

    async fn send(path: &Path, target: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn the_socket_is_private_and_is_removed_at_the_end() {
        let dir = std::env::temp_dir().join(format!("adit-control-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("admin.sock");
        // This is the file of a process that has ended.
        fs::write(&path, "").unwrap();
        let control = Control::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let serving = tokio::spawn(control.serve(Arc::new(Fixed)));
        let (release, clear) = ("/api/names/release", "/api/bans/clear");
        for (target, body, status, content) in [
            (clear, "{}", "200", r#"{"cleared":2}"#),
            ("/api/identities/read", "{}", "200", r#"{"read":true}"#),
            (
                clear,
                r#"{"address":"192.0.2.1"}"#,
                "200",
                r#"{"cleared":1}"#,
            ),
            (
                clear,
                r#"{"address":"x"}"#,
                "400",
                r#"{"error":"not an address"}"#,
            ),
            (
                release,
                r#"{"kind":"host","name":"a.test"}"#,
                "200",
                r#"{"released":1}"#,
            ),
            (
                release,
                r#"{"kind":"host","name":"b"}"#,
                "409",
                r#"{"error":"in use"}"#,
            ),
            (
                release,
                r#"{"kind":"x","name":"b"}"#,
                "400",
                r#"{"error":"no such kind"}"#,
            ),
        ] {
            let response = send(&path, target, body).await;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")),
                "{response}"
            );
            assert!(response.ends_with(content), "{response}");
        }
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }
}
