//! The committed code of the tests' service is what its proto file generates today.

use std::{fs, path::Path};

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = root.join("python");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out.path())
        .compile_fds(protox::compile([protos.join("echo.proto")], [protos]).unwrap())
        .unwrap();
    let fresh = fs::read_to_string(out.path().join("adit.e2e.v1.rs")).unwrap();
    let committed = root.join("tests/it/grpc_tonic/echo.rs");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&committed, &fresh).unwrap();
    }
    assert!(
        fresh == fs::read_to_string(&committed).unwrap_or_default(),
        "stale: run `UPDATE=1 cargo test -p adit-e2e generated_code_is_up_to_date`"
    );
}
