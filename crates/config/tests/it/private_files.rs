//! Files beside a configuration that only their owner can read.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

/// Writes a file.
pub(crate) fn write(dir: &TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Writes a certificate for a host, which is its own CA, and its key: `FILE.crt` and `FILE.key`.
pub(crate) fn write_certificate(dir: &TempDir, file: &str, host: &str) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    write(dir, &format!("{file}.crt"), &made.cert.pem());
    write(
        dir,
        &format!("{file}.key"),
        &made.signing_key.serialize_pem(),
    );
}
