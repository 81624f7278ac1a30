//! The example files in the documents can be loaded as they are.

use std::{fs, iter, path::Path};

use adit_config::{ClientOverrides, ServerOverrides, load_client, load_server};

/// The YAML blocks of a document that are complete files.
fn files(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(document);
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("server:") || block.starts_with("client:"))
        .map(String::from)
        .collect()
}

#[test]
fn files_of_the_documents_load() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "a token of the documents\n").unwrap();
    fs::create_dir(dir.path().join("pages")).unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, text) in [
        ("ca.crt", &certificate),
        ("clients-ca.crt", &certificate),
        ("server.crt", &certificate),
        ("server.key", &key),
        ("office-1.crt", &certificate),
        ("office-1.key", &key),
        ("wildcard.crt", &certificate),
        ("wildcard.key", &key),
        ("shop.crt", &certificate),
        ("shop.key", &key),
        ("pages/offline.html", &certificate),
        ("pages/sorry.html", &certificate),
        ("pages/sorry.json", &certificate),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let file = dir.path().join("file.yaml");
    for document in ["README.md", "docs/configuration.md", "docs/tracing.md"] {
        let blocks = files(document);
        assert!(!blocks.is_empty(), "{document} shows no file");
        for block in blocks {
            let mut text = block.clone();
            for path in ["/etc/adit/token", "/etc/adit/alice.token"] {
                text = text.replace(path, token.to_str().unwrap());
            }
            let result = if block.starts_with("server:") {
                fs::write(&file, &text).unwrap();
                load_server(Some(&file), iter::empty(), &ServerOverrides::default()).map(drop)
            } else {
                if !text.contains("auth_token") {
                    text.push_str("  auth_token: a token of the documents\n");
                }
                if !text.contains("server_addr") {
                    text.push_str("  server_addr: 127.0.0.1\n");
                }
                fs::write(&file, &text).unwrap();
                load_client(Some(&file), iter::empty(), &ClientOverrides::default()).map(drop)
            };
            if let Err(error) = result {
                panic!("{document}: {error}\n{block}");
            }
        }
    }
}
