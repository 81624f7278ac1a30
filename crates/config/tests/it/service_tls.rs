//! Services over TLS, of tunnels and of upstreams.

use std::path::Path;

use adit_client::{
    Roots, ServiceProtocol, ServiceSettings, Tls, TlsName, Trust, TunnelKind, TunnelSettings,
};
use adit_config::{
    ClientOverrides, ConfigError, ServerOverrides, TunnelOverrides, load_client, load_server,
};
use adit_server::UpstreamProtocol;
use rcgen::{CertificateParams, KeyPair};

fn variables() -> impl Iterator<Item = (String, String)> {
    [
        ("HOME", "/nonexistent"),
        ("HOSTNAME", "box"),
        ("ADIT__TOKEN", "a-token"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn pem() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem()
}

/// The services of the tunnels in a file that is in one directory with `ca.pem`.
fn tunnels(dir: &Path, tunnels: &str) -> Result<Vec<ServiceSettings>, ConfigError> {
    let file = dir.join("client.yaml");
    std::fs::write(&file, format!("client:\n  tunnels:\n{tunnels}")).unwrap();
    let settings = load_client(Some(&file), variables(), &ClientOverrides::default())?.settings;
    let services = settings.tunnels.into_iter();
    Ok(services.map(|tunnel| tunnel.service).collect())
}

fn tls(trust: Trust, server_name: Option<&str>) -> Option<Tls> {
    let server_name = server_name.map(|name| TlsName::parse(name).unwrap());
    Some(Tls { trust, server_name })
}

#[test]
fn a_tunnel_sets_which_certificates_it_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let pem = pem();
    std::fs::write(dir.path().join("ca.pem"), &pem).unwrap();
    let roots = || Trust::Roots(Roots::from_pem(pem.as_bytes()).unwrap());
    let text = "
    - { name: a, type: grpc, local_port: 1 }
    - { name: b, type: grpc, local_port: 2, local_tls: true }
    - { name: c, type: grpc, local_port: 3, local_tls: false }
    - { name: d, type: grpc, local_port: 4, local_tls: { ca_file: ca.pem, server_name: d.internal } }
    - { name: e, type: grpc, local_port: 5, local_tls: { insecure: true } }
    - { name: f, type: grpc, local_port: 6, local_tls: { insecure: false } }
    - { name: g, local_port: 7, local_protocol: h2 }
    - { name: h, tunnel_type: http, config: { local_port: 8, local_protocol: h2, local_tls: { ca_file: ca.pem } } }
    - name: i
      type: grpc
      local_port: 9
      local_tls:
";
    let services = tunnels(dir.path(), text).unwrap();
    let expected = [
        None,
        tls(Trust::System, None),
        None,
        tls(roots(), Some("d.internal")),
        tls(Trust::Anyone, None),
        tls(Trust::System, None),
        tls(Trust::System, None),
        tls(roots(), None),
        tls(Trust::System, None),
    ];
    for (service, expected) in services.iter().zip(&expected) {
        assert_eq!(&service.tls, expected, "port {}", service.port);
        assert_eq!(service.protocol, ServiceProtocol::Http2);
    }
    assert_eq!(services.len(), expected.len());
}

#[test]
fn a_file_without_ca_is_refused_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("key.pem"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    std::fs::write(dir.path().join("large.pem"), vec![b'-'; (4 << 20) + 1]).unwrap();
    let refused = |name: &str| {
        let text = format!(
            "    - name: a\n      type: grpc\n      local_port: 1\n      local_tls:\n        ca_file: {name}\n"
        );
        tunnels(dir.path(), &text).unwrap_err()
    };
    let error = refused("key.pem");
    assert_eq!(
        (error.line(), error.column()),
        (Some(7), Some(18)),
        "{error}"
    );
    assert_eq!(error.key(), "client.tunnels[0].local_tls.ca_file");
    assert!(error.message().contains("no certificate in PEM"), "{error}");
    let error = refused("large.pem");
    assert!(error.message().contains("larger than 4 MiB"), "{error}");
    let error = refused("missing.pem");
    assert!(error.message().contains("cannot be read"), "{error}");
    assert!(
        error.message().contains(&dir.path().display().to_string()),
        "{error}"
    );
}

#[test]
fn insecure_and_a_ca_file_contradict_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), pem()).unwrap();
    let text = "    - { name: a, type: grpc, local_port: 1, local_tls: { ca_file: ca.pem, insecure: true } }\n";
    let error = tunnels(dir.path(), text).unwrap_err();
    assert_eq!(error.key(), "client.tunnels[0].local_tls.insecure");
    assert!(
        error.message().contains("so that `ca_file` has no effect"),
        "{error}"
    );
}

#[test]
fn flags_set_local_tls_as_a_file_does() {
    let dir = tempfile::tempdir().unwrap();
    let (pem, ca) = (pem(), dir.path().join("ca.pem"));
    std::fs::write(&ca, &pem).unwrap();
    let read = |tunnel: TunnelOverrides| -> TunnelSettings {
        let overrides = ClientOverrides {
            tunnel: Some(tunnel),
            ..ClientOverrides::default()
        };
        load_client(None, variables(), &overrides)
            .unwrap()
            .settings
            .tunnels
            .remove(0)
    };
    let grpc = |service: &str| TunnelOverrides {
        kind: TunnelKind::Grpc,
        service: service.to_owned(),
        ..TunnelOverrides::default()
    };
    let tunnel = read(grpc("https://calls.internal:50051"));
    assert_eq!(
        (&*tunnel.service.host, tunnel.service.port),
        ("calls.internal", 50051)
    );
    assert_eq!(tunnel.service.tls, tls(Trust::System, None));
    assert_eq!(
        read(grpc("https://50051")).service.tls,
        tls(Trust::System, None)
    );
    assert_eq!(read(grpc("50051")).service.tls, None);
    let tunnel = read(TunnelOverrides {
        tls_ca: Some(ca),
        tls_name: Some("calls.internal".to_owned()),
        ..grpc("50051")
    });
    let roots = Trust::Roots(Roots::from_pem(pem.as_bytes()).unwrap());
    assert_eq!(tunnel.service.tls, tls(roots, Some("calls.internal")));
    let tunnel = read(TunnelOverrides {
        tls_insecure: true,
        ..grpc("https://127.0.0.1:50051")
    });
    assert_eq!(tunnel.service.tls, tls(Trust::Anyone, None));
    let http = TunnelOverrides {
        service: "https://127.0.0.1:8443".to_owned(),
        local_protocol: Some("h2".to_owned()),
        ..TunnelOverrides::default()
    };
    assert_eq!(read(http).service.tls, tls(Trust::System, None));
}

#[test]
fn a_service_over_tls_chooses_the_protocol_unless_it_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let text = "
    - { name: a, local_port: 1 }
    - { name: b, local_port: 2, local_tls: true }
    - { name: c, local_port: 3, local_tls: true, local_protocol: http1 }
    - { name: d, local_port: 4, local_tls: true, local_protocol: h2 }
    - { name: e, type: websocket, local_port: 5, local_tls: true }
    - { name: f, type: grpc, local_port: 6, local_tls: true }
";
    let services = tunnels(dir.path(), text).unwrap();
    let protocols: Vec<_> = services.iter().map(|service| service.protocol).collect();
    let expected = [
        ServiceProtocol::Http1,
        ServiceProtocol::Either,
        ServiceProtocol::Http1,
        ServiceProtocol::Http2,
        ServiceProtocol::Http1,
        ServiceProtocol::Http2,
    ];
    assert_eq!(protocols, expected);
}

#[test]
fn upstreams_are_reached_over_tls_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let pem = pem();
    std::fs::write(dir.path().join("ca.pem"), &pem).unwrap();
    let load = |keys: &str| {
        let file = dir.path().join("server.yaml");
        let text = format!(
            "server:\n  upstreams:\n    - {{ name: a, servers: [{{ address: \"127.0.0.1:1\" }}], {keys} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let settings = load_server(Some(&file), variables(), &ServerOverrides::default());
        settings.map(|mut loaded| loaded.settings.upstreams.remove(0))
    };
    let roots = Trust::Roots(Roots::from_pem(pem.as_bytes()).unwrap());
    for (keys, expected) in [
        ("protocol: h2c", None),
        ("protocol: h2", tls(Trust::System, None)),
        ("protocol: h2, tls: { ca_file: ca.pem }", tls(roots, None)),
        (
            "protocol: h2, tls: { insecure: true, server_name: a.internal }",
            tls(Trust::Anyone, Some("a.internal")),
        ),
    ] {
        let upstream = load(keys).unwrap();
        assert_eq!(
            (upstream.protocol, upstream.tls),
            (UpstreamProtocol::Http2, expected),
            "{keys}"
        );
    }
    for (keys, protocol) in [
        ("tls: true", UpstreamProtocol::Either),
        ("protocol: http1, tls: true", UpstreamProtocol::Http1),
    ] {
        let upstream = load(keys).unwrap();
        let expected = (protocol, tls(Trust::System, None));
        assert_eq!((upstream.protocol, upstream.tls), expected, "{keys}");
    }
    for (keys, key) in [
        ("protocol: h2c, tls: true", "tls"),
        ("protocol: tcp, tls: true", "tls"),
        ("protocol: h2, tls: false", "tls"),
        ("protocol: h2, tls: { ca_file: server.yaml }", "tls.ca_file"),
        ("protocol: h2, tls: { ca: ca.pem }", "tls.ca"),
    ] {
        let error = load(keys).unwrap_err();
        assert_eq!(
            error.key(),
            format!("server.upstreams[0].{key}"),
            "{keys}: {error}"
        );
        assert_eq!(error.line(), Some(3));
    }
}
