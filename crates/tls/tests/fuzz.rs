//! First messages of visitors: hostile bytes cause no panic, and every byte that was read is left for the next reader.
//!
//! With an engine (`cargo bolero test`) these are fuzz targets; without one they run a bounded number of times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, LazyLock};

use adit_net::Stream;
use adit_tls::{Opening, Trust, client_config};
use rustls::{ClientConnection, pki_types::ServerName, version::TLS13};
use tokio::{
    io::AsyncWriteExt,
    runtime::{Builder, Runtime},
};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

/// A valid first message.
static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let config = client_config(&Trust::Anyone, None, &[&TLS13]).unwrap();
    let name = ServerName::try_from("www.example.com").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
});

fn read(bytes: &[u8]) {
    RUNTIME.block_on(async {
        let addr = ([192, 0, 2, 1], 1).into();
        let (mut near, mut far) = Stream::in_memory(1 << 20, addr, addr);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        if let Ok(Opening::Tls(hello)) = Opening::read(&mut far).await {
            let name = hello.server_name().unwrap_or_default();
            assert!(
                name.len() < 256 && !name.contains(char::is_whitespace),
                "{name}"
            );
        }
        assert!(bytes.starts_with(far.read_ahead()));
        assert!(far.read_ahead().len() <= 32 * 1024);
    });
}

#[test]
fn any_bytes_are_read_or_refused() {
    bolero::check!()
        .with_type::<(bool, Vec<u8>)>()
        .for_each(|(is_record, bytes)| {
            let mut all = Vec::new();
            if *is_record {
                let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                all.extend([0x16, 3, 1]);
                all.extend(length.to_be_bytes());
            }
            all.extend(bytes);
            read(&all);
        });
}

#[test]
fn a_damaged_message_is_read_or_refused() {
    bolero::check!()
        .with_type::<(Vec<(u16, u8)>, u16)>()
        .for_each(|(changes, cut)| {
            let mut hello = HELLO.clone();
            for (at, byte) in changes {
                let at = usize::from(*at) % hello.len();
                hello[at] = *byte;
            }
            hello.truncate(hello.len() - usize::from(*cut) % hello.len());
            read(&hello);
        });
}
