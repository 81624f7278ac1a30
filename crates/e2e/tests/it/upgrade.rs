//! An upgrade and the interim response before it, through both binaries. P-1.2, P-3.1, P-3.7.

use adit_e2e::{End, Scripted, World};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A service that behaves as the Docker daemon for `docker exec`: it changes the protocol, echoes in upper case, and
/// sends `bye` at the end.
async fn exec() -> Scripted {
    Scripted::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("\r\nupgrade: tcp\r\n"), "{head}");
        let mut body = [0; 2];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"{}");
        stream
            .write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                  HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n$ ",
            )
            .await
            .unwrap();
        let mut piece = [0; 1024];
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            let text = piece[..count].to_ascii_uppercase();
            stream.write_all(&text).await.unwrap();
        }
        stream.write_all(b"bye").await.unwrap();
    })
    .await
}

#[tokio::test]
async fn p_3_7_docker_exec_crosses_both_programs() {
    let service = exec().await;
    let world = World::before(service.addr).await;
    let mut visitor = world.raw().await;
    visitor
        .send(
            "POST /exec/1/start HTTP/1.1\r\nHost: web.localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Length: 2\r\n\r\n{}",
        )
        .await;
    let head = visitor.read_text("$ ").await;
    let text = head.text();
    assert!(
        text.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 101 "),
        "{text}"
    );
    assert!(text.contains("upgrade: tcp\r\n"), "{text}");
    visitor.send("hello").await;
    assert!(visitor.read_text("HELLO").await.text().ends_with("HELLO"));
    visitor.stream.shutdown().await.unwrap();
    let rest = visitor.read_to_end().await;
    assert_eq!((rest.text().as_str(), rest.end), ("bye", End::Closed));
}
