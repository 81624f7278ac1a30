//! The command lines: help, accepted arguments, and the values that they pass to the configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write as _;

use adit::cli::{Adit, Command, Route, Server, completion};
use adit_client::TunnelKind;
use adit_config::{ClientOverrides, FLAG_VARIABLES, ServerOverrides, TunnelOverrides, load_client};
use clap::{Command as Clap, CommandFactory, Parser};

fn adit(args: &str) -> Adit {
    Adit::try_parse_from(args.split_whitespace()).unwrap_or_else(|error| panic!("{error}"))
}

fn helps(command: Clap) -> String {
    fn write(command: &mut Clap, path: &str, out: &mut String) {
        let help = command.clone().bin_name(path).render_long_help();
        writeln!(out, "$ {path} --help\n{help}\n").unwrap();
        for sub in command
            .get_subcommands_mut()
            .filter(|sub| sub.get_name() != "help")
        {
            let path = format!("{path} {}", sub.get_name());
            write(sub, &path, out);
        }
    }
    let name = command.get_name().to_owned();
    let mut out = String::new();
    let mut command = command.term_width(120);
    command.build();
    write(&mut command, &name, &mut out);
    // The version is replaced, so that a snapshot is valid for later versions.
    out.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn help_of_the_server() {
    insta::assert_snapshot!(helps(Server::command()));
}

#[test]
fn help_of_the_client() {
    insta::assert_snapshot!(helps(Adit::command()));
}

#[test]
fn definitions_are_consistent() {
    Server::command().debug_assert();
    Adit::command().debug_assert();
}

/// Every flag, with the names of the commands before it.
fn flags(command: &Clap, path: &[&str]) -> Vec<(Vec<String>, clap::Arg)> {
    let own = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some());
    let owner: Vec<_> = path.iter().map(ToString::to_string).collect();
    let mut all: Vec<_> = own.map(|arg| (owner.clone(), arg.clone())).collect();
    for sub in command.get_subcommands() {
        let path = [path, &[sub.get_name()]].concat();
        all.extend(flags(sub, &path));
    }
    all
}

/// The variable of a flag by the rule of `adit::cli`.
fn variable(commands: &[String], long: &str) -> String {
    let owner = match commands.first().map(String::as_str) {
        None => String::new(),
        Some("http" | "grpc" | "tcp" | "udp") => "TUNNEL__".to_owned(),
        Some(command) => format!("{}__", command.to_uppercase()),
    };
    format!("ADIT__{owner}{}", long.to_uppercase().replace('-', "_"))
}

#[test]
fn every_flag_has_a_variable_by_one_rule() {
    let mut seen = 0;
    let mut used = std::collections::BTreeSet::from(
        ["ADIT__JOIN", "ADIT__LOG", "ADIT__STATE_DIR", "ADIT__TOKEN"].map(String::from),
    );
    let of_server = flags(&Server::command(), &[]).into_iter();
    let of_server =
        of_server.filter(|(commands, _)| commands.first().is_none_or(|one| one != "join"));
    let changes_credentials = |commands: &[String]| {
        let first = commands.first().map(String::as_str);
        matches!(first, Some("user" | "token" | "key" | "ca"))
    };
    let all = of_server.chain(flags(&Adit::command(), &[]));
    for (commands, arg) in all.filter(|(commands, _)| !changes_credentials(commands)) {
        let long = arg.get_long().unwrap();
        seen += 1;
        if let Some(name) = arg.get_env() {
            let name = name.to_str().unwrap();
            assert_eq!(name, variable(&commands, long), "--{long}");
            assert!(FLAG_VARIABLES.contains(&name), "--{long}: {name}");
            used.insert(name.to_owned());
        } else {
            let help = arg.get_help().unwrap().to_string();
            assert!(help.contains("[env: ADIT__"), "--{long}: {help}");
        }
        assert!(
            !matches!(long, "token" | "secret" | "password"),
            "--{long} would put a secret into argv"
        );
    }
    assert!(seen > 25, "{seen} flags");
    assert!(FLAG_VARIABLES.iter().eq(used.iter()), "{used:?}");
}

#[test]
fn flags_of_the_server_reach_the_configuration() {
    let args = "adit-server --config s.yaml --bind-addr 0.0.0.0 --bind-port 0 --http-port 80 --https-port 443 --acme-email a@t.example --admin off \
                --state-dir /s --threads 3 --domain t.example --log-format json --check -vv";
    let server = Server::try_parse_from(args.split_whitespace()).unwrap();
    assert_eq!(
        server.overrides(),
        ServerOverrides {
            bind_addr: Some("0.0.0.0".parse().unwrap()),
            bind_port: Some(0),
            http_port: Some(80),
            https_port: Some(443),
            acme_email: Some("a@t.example".to_owned()),
            admin: Some("off".to_owned()),
            state_dir: Some("/s".into()),
            threads: Some(3),
            domain: Some("t.example".to_owned()),
        }
    );
    assert_eq!(server.config.as_deref(), Some("s.yaml".as_ref()));
    assert_eq!(server.log_format, adit_telemetry::Format::Json);
    assert!(server.check);
    assert_eq!(server.log_filter(), Some("debug,adit=trace"));

    let server = Server::try_parse_from(["adit-server"]).unwrap();
    assert_eq!(server.overrides(), ServerOverrides::default());
    assert_eq!(server.log_format, adit_telemetry::Format::Text);
    assert_eq!(server.log_filter(), None);
    assert!(!server.check);
}

#[test]
fn flags_of_a_tunnel_reach_the_configuration() {
    let args = "adit http 10.0.0.1:8080 --server h:7 --domain a.example --domain b.example --name web --group g \
                --client-id c --token-file t --weight 2 --load-balance ip_hash --lanes 3 --host-rewrite r.example \
                --local-protocol h2c --remote-port 8081 --state-dir /s -v";
    let adit = adit(args);
    assert_eq!(adit.log_filter(), Some("info,adit=debug"));
    assert_eq!(
        adit.overrides(),
        ClientOverrides {
            state_dir: Some("/s".into()),
            server: Some("h:7".to_owned()),
            client_id: Some("c".to_owned()),
            group_id: Some("g".to_owned()),
            token_file: Some("t".into()),
            lanes: Some(3),
            tunnel: Some(TunnelOverrides {
                service: "10.0.0.1:8080".to_owned(),
                name: Some("web".to_owned()),
                domains: vec!["a.example".to_owned(), "b.example".to_owned()],
                weight: Some(2),
                load_balance: Some("ip_hash".to_owned()),
                host_rewrite: Some("r.example".to_owned()),
                local_protocol: Some("h2c".to_owned()),
                remote_port: Some(8081),
                ..TunnelOverrides::default()
            }),
        }
    );
}

#[test]
fn flags_of_every_type_of_tunnel_reach_the_configuration() {
    let tunnel = |args: &str| adit(args).overrides().tunnel.unwrap();
    assert_eq!(
        tunnel(
            "adit tcp 22 --remote-port 2222 --name ssh --weight 2 --load-balance ip_hash --proxy-protocol v2"
        ),
        TunnelOverrides {
            kind: TunnelKind::Tcp,
            service: "22".to_owned(),
            remote_port: Some(2222),
            name: Some("ssh".to_owned()),
            weight: Some(2),
            load_balance: Some("ip_hash".to_owned()),
            proxy_protocol: Some("v2".to_owned()),
            ..TunnelOverrides::default()
        }
    );
    assert_eq!(
        tunnel(
            "adit udp 10.0.0.1:53 --remote-port 5353 --session-timeout 30s --name dns --weight 3"
        ),
        TunnelOverrides {
            kind: TunnelKind::Udp,
            service: "10.0.0.1:53".to_owned(),
            remote_port: Some(5353),
            name: Some("dns".to_owned()),
            weight: Some(3),
            session_timeout: Some("30s".to_owned()),
            ..TunnelOverrides::default()
        }
    );
    assert_eq!(
        tunnel(
            "adit grpc 50051 --domain a.example --host-rewrite b --remote-port 50051 --name calls"
        ),
        TunnelOverrides {
            kind: TunnelKind::Grpc,
            service: "50051".to_owned(),
            remote_port: Some(50051),
            name: Some("calls".to_owned()),
            domains: vec!["a.example".to_owned()],
            host_rewrite: Some("b".to_owned()),
            ..TunnelOverrides::default()
        }
    );
    assert_eq!(
        tunnel("adit http 8080 --domain a.example --ssl-cert auto"),
        TunnelOverrides {
            service: "8080".to_owned(),
            domains: vec!["a.example".to_owned()],
            ssl_cert: Some("auto".to_owned()),
            ..TunnelOverrides::default()
        }
    );
    assert!(Adit::try_parse_from("adit http 1 --ssl-cert a.pem".split_whitespace()).is_err());
    assert_eq!(
        tunnel("adit grpc https://a:1 --tls-ca ca.pem --tls-name b"),
        TunnelOverrides {
            kind: TunnelKind::Grpc,
            service: "https://a:1".to_owned(),
            tls_ca: Some("ca.pem".into()),
            tls_name: Some("b".to_owned()),
            ..TunnelOverrides::default()
        }
    );
    assert!(tunnel("adit grpc https://a:1 --tls-insecure").tls_insecure);
    assert!(
        Adit::try_parse_from("adit grpc 1 --tls-insecure --tls-ca a".split_whitespace()).is_err()
    );
    let link = adit("adit tcp 22 --server h:7 --group g").overrides();
    assert_eq!(link.server.as_deref(), Some("h:7"));
    assert_eq!(link.group_id.as_deref(), Some("g"));
}

#[test]
fn other_commands_override_little() {
    let start = adit("adit start --group g --config c.yaml --json");
    assert!(start.json);
    assert_eq!(start.config.as_deref(), Some("c.yaml".as_ref()));
    assert_eq!(
        start.overrides(),
        ClientOverrides {
            group_id: Some("g".to_owned()),
            ..ClientOverrides::default()
        }
    );
    for check in [
        "adit --config c.yaml --check",
        "adit start --config c.yaml --check",
    ] {
        assert!(adit(check).check, "{check}");
    }
    let status = adit("adit --json status");
    assert!(status.json);
    assert_eq!(status.command, Some(Command::Status));
    assert_eq!(status.overrides(), ClientOverrides::default());
    assert!(matches!(adit("adit demo --once").command, Some(Command::Demo(demo)) if demo.once));
    assert!(matches!(adit("adit demo").command, Some(Command::Demo(demo)) if !demo.once));
    let Some(Command::Route(Route::Test(test))) =
        adit("adit route test http://a.example/b --admin 127.0.0.1:1").command
    else {
        panic!("route test")
    };
    assert_eq!(test.url, "http://a.example/b");
    assert_eq!(test.admin, Some("127.0.0.1:1".parse().unwrap()));
}

#[test]
fn invalid_command_lines_are_rejected() {
    for args in [
        "adit websocket 80",
        "adit tcp",
        "adit tcp 22 --domain a.example",
        "adit tcp 22 --proxy-protocol v3",
        "adit tcp 22 --remote-port 70000",
        "adit udp 53 --proxy-protocol v2",
        "adit grpc 80 --local-protocol http1",
        "adit http",
        "adit",
        "adit http 80 --token x",
    ] {
        let error = Adit::try_parse_from(args.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args}");
    }
    assert!(Server::try_parse_from(["adit-server", "--token", "x"]).is_err());
    assert!(Server::try_parse_from(["adit-server", "--log-format", "xml"]).is_err());
}

/// The help lists the values of these flags; the configuration must accept all of them.
#[test]
fn every_value_in_the_help_is_accepted() {
    let command = Adit::command();
    let mut tried = 0;
    for name in ["http", "grpc", "tcp", "udp"] {
        for arg in command.find_subcommand(name).unwrap().get_arguments() {
            let Some(flag @ ("load-balance" | "local-protocol" | "proxy-protocol")) =
                arg.get_long()
            else {
                continue;
            };
            for value in arg.get_possible_values() {
                let args = format!("adit {name} 80 --{flag} {}", value.get_name());
                let token = ("ADIT__TOKEN".to_owned(), "t".to_owned());
                load_client(None, [token].into_iter(), &adit(&args).overrides()).unwrap();
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 4 * 6 + 3 + 2);
}

#[test]
fn completions_name_the_commands() {
    for shell in [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
    ] {
        let script = String::from_utf8(completion(shell)).unwrap();
        for word in [
            "http",
            "grpc",
            "tcp",
            "udp",
            "route",
            "host-rewrite",
            "least_connections",
            "proxy-protocol",
            "session-timeout",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
