//! The committed code is what the proto file generates today.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use prost_types::FileDescriptorSet;

fn descriptors(root: &Path) -> FileDescriptorSet {
    let mut set = protox::compile(
        [root.join("proto/adit/tunnel/v1/tunnel.proto")],
        [root.join("proto")],
    )
    .expect("the proto file compiles");
    for file in &mut set.file {
        for service in &mut file.service {
            service.method.retain(|method| method.name() != "Proxy");
        }
    }
    set
}

#[test]
fn generated_code_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_dir.join("../..");
    let out = std::env::temp_dir().join(format!("adit-proto-{}", std::process::id()));
    fs::create_dir_all(&out).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        // Their `Debug` is in `src/hidden.rs`.
        .skip_debug(adit_proto::SECRET_MESSAGES)
        .out_dir(&out)
        .compile_fds(descriptors(&root))
        .unwrap();
    let fresh = fs::read_to_string(out.join("adit.tunnel.v1.rs")).unwrap();
    fs::remove_dir_all(&out).unwrap();
    let committed_path = crate_dir.join("src/generated/adit.tunnel.v1.rs");
    let mut committed = fs::read_to_string(&committed_path).unwrap_or_default();
    // A file that is written again, even an equal one, makes cargo build every crate above.
    if std::env::var_os("UPDATE").is_some() && fresh != committed {
        fs::write(&committed_path, &fresh).unwrap();
        committed.clone_from(&fresh);
    }
    assert!(
        fresh == committed,
        "crates/proto/src/generated is stale: run `UPDATE=1 cargo test -p adit-proto`"
    );
}
