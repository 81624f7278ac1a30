//! Each request leaves one line, whatever became of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    io,
    sync::{Arc, Mutex},
};

use adit_codec::ResetCode;
use adit_ingress::Direction;
use adit_link::{Failure, Reason};

mod world;

use world::{World, answer, config, director, head, standard_layers};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_says_who_asked_for_what_and_what_came_of_it() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new(|request, exchange| async move {
        match &request.path[..] {
            b"/broken" => {
                exchange.send.answer(head(200, &[], b"abc"), false).unwrap();
                // The visitor has the first part by then.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                exchange.send.reset(ResetCode::ServiceAborted, "broke");
            }
            _ => answer(&exchange, 201, &[], b"hello"),
        }
    })
    .await;
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: Web.Localhost:80\r\nConnection: close\r\n\r\n")
    };
    world.raw(get("/a?secret=1").as_bytes()).await.unwrap();
    world.raw(get("/broken").as_bytes()).await.unwrap_err();
    world.settle().await;
    let nowhere =
        director(|_, _| Direction::Fail(Failure::new(Reason::NoTunnel, "no rule matches")));
    let nowhere = World::assemble(config(), standard_layers(), nowhere).await;
    nowhere.raw(get("/").as_bytes()).await.unwrap();
    nowhere.settle().await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter(|l| l.contains("adit::access"))
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let expected = [
        "opener=\"server\" user=\"alice\" client=\"office\" tunnel=\"web\" revision=7",
        "method=GET host=\"Web.Localhost\" path=\"/a\" status=201 reason=\"\" bytes=5 duration=",
    ];
    for part in expected {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(lines[0].contains("request_id=0") && lines[0].contains("visitor=127.0.0.1:"));
    let broken = "path=\"/broken\" status=200 reason=\"service_aborted\" bytes=3";
    assert!(lines[1].contains(broken), "{}", lines[1]);
    let unknown = "opener=\"\" user=\"\" client=\"\" tunnel=\"\" revision=0";
    assert!(lines[2].contains(unknown), "{}", lines[2]);
    assert!(
        lines[2].contains("status=404 reason=\"no_tunnel\""),
        "{}",
        lines[2]
    );
}
