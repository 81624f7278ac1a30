//! Third-party programs through TCP and UDP tunnels: PostgreSQL, Redis, OpenSSH, iperf3, DNS. F06, F07, P-10.1, P-10.2,
//! P-11.1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::{fs, net::SocketAddr};

use adit_e2e::{
    Client, ClientOptions, Server,
    programs::{Program, program, ran},
};
use serde_json::Value;

/// A tunnel of each kind to a service, all with the same public port.
async fn tunnels(kinds: &[&str], service: SocketAddr) -> (Server, Client, SocketAddr) {
    let server = Server::plain().await;
    let mut config = String::from("client:\n  tunnels:\n");
    for kind in kinds {
        config += &format!(
            "    - {{ name: {kind}, type: {kind}, local_addr: {}, local_port: {}, remote_port: 4000 }}\n",
            service.ip(),
            service.port(),
        );
    }
    let client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
    let public = SocketAddr::new(server.tunnel.ip(), 4000);
    let status = client.status().await;
    for (index, kind) in kinds.iter().enumerate() {
        let url = &status["tunnels"][index]["public_url"];
        assert_eq!(url, &format!("{kind}://{public}"), "{status}");
    }
    (server, client, public)
}

fn text(addr: SocketAddr) -> (String, String) {
    (addr.ip().to_string(), addr.port().to_string())
}

#[tokio::test]
async fn postgres_runs_its_own_benchmark_and_copies_whole() {
    let service = Program::postgres().await;
    let (_server, _client, public) = tunnels(&["tcp"], service.addr).await;
    let (host, port) = text(public);
    let dir = service.dir.path();
    let at = ["-h", &host, "-p", &port, "-U", "postgres"];
    let with =
        |more: &[&str]| -> Vec<String> { at.iter().chain(more).map(ToString::to_string).collect() };
    let run = async |name: &str, more: &[&str]| {
        let args = with(more);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        ran(name, &args, &[("PGDATABASE", "postgres")], dir)
            .await
            .stdout
    };
    run("pgbench", &["-i", "-q", "-s", "1"]).await;
    // Eight connections at once, each with its own transactions.
    let output = run("pgbench", &["-c", "8", "-j", "2", "-t", "50"]).await;
    assert!(
        output.contains("number of transactions actually processed: 400/400"),
        "{output}"
    );
    let balance = "select count(*) = 400 and sum(delta) = (select sum(abalance) from pgbench_accounts) \
                   from pgbench_history";
    assert_eq!(run("psql", &["-At", "-c", balance]).await.trim(), "t");
    // Some ten megabytes are exported and imported again, and must be unchanged.
    let file = dir.join("copied").display().to_string();
    let out =
        format!("\\copy (select i, md5(i::text) from generate_series(1, 200000) i) to '{file}'");
    run("psql", &["-c", &out]).await;
    let back = format!("\\copy copied from '{file}'");
    let sum = "select count(*), md5(string_agg(h, '' order by i)) = \
               (select md5(string_agg(md5(i::text), '' order by i)) from generate_series(1, 200000) i) from copied";
    run("psql", &["-c", "create table copied (i int, h text)"]).await;
    run("psql", &["-c", &back]).await;
    assert_eq!(run("psql", &["-At", "-c", sum]).await.trim(), "200000|t");
}

#[tokio::test]
async fn redis_runs_its_benchmark_and_keeps_its_data() {
    let service = Program::redis().await;
    let (_server, _client, public) = tunnels(&["tcp"], service.addr).await;
    let (host, port) = text(public);
    let dir = service.dir.path();
    let bench = [
        "-h",
        &host,
        "-p",
        &port,
        "-n",
        "5000",
        "-c",
        "50",
        "-P",
        "4",
        "-t",
        "set,get,lrange_100",
        "--csv",
    ];
    let output = ran("redis-benchmark", &bench, &[], dir).await.stdout;
    for test in ["SET", "GET", "LRANGE_100"] {
        assert!(output.contains(&format!("\"{test}")), "{output}");
    }
    // A megabyte, written through the tunnel and compared without it.
    let value = "0123456789abcdef".repeat(1 << 12);
    let set = ["-h", &host, "-p", &port, "set", "key", &value];
    assert_eq!(ran("redis-cli", &set, &[], dir).await.stdout.trim(), "OK");
    let (host, port) = text(service.addr);
    let direct = ["-h", &host, "-p", &port, "get", "key"];
    assert_eq!(
        ran("redis-cli", &direct, &[], dir).await.stdout.trim(),
        value
    );
}

#[tokio::test]
async fn ssh_gives_a_shell_and_scp_copies_both_ways() {
    let service = Program::sshd().await;
    let (_server, _client, public) = tunnels(&["tcp"], service.addr).await;
    let (host, port) = text(public);
    let dir = service.dir.path();
    let key = dir.join("key").display().to_string();
    let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
    let options = [
        "-F",
        "/dev/null",
        "-i",
        &key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-q",
    ];
    let at = format!("{user}@{host}");
    let mut shell = options.to_vec();
    // The end of the program's input is a half-close (P-10.2), and its exit code arrives after it.
    shell.extend([
        "-p",
        &port,
        &at,
        "wc -c < /dev/null; echo word | tr a-z A-Z",
    ]);
    let output = ran("ssh", &shell, &[], dir).await.stdout;
    assert_eq!(output, "0\nWORD\n");
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|at| (at ^ at >> 9) as u8).collect();
    let (from, there, back) = (dir.join("from"), dir.join("there"), dir.join("back"));
    fs::write(&from, &bytes).unwrap();
    let text = |path: &std::path::Path| path.display().to_string();
    let mut up = options.to_vec();
    let (from, remote) = (text(&from), format!("{at}:{}", text(&there)));
    up.extend(["-P", &port, &from, &remote]);
    ran("scp", &up, &[], dir).await;
    assert!(fs::read(&there).unwrap() == bytes, "the copy there differs");
    let mut down = options.to_vec();
    let to = text(&back);
    down.extend(["-P", &port, &remote, &to]);
    ran("scp", &down, &[], dir).await;
    assert!(fs::read(&back).unwrap() == bytes, "the copy back differs");
}

#[tokio::test]
async fn iperf3_measures_tcp_in_both_directions() {
    let service = Program::iperf3().await;
    let (_server, _client, public) = tunnels(&["tcp"], service.addr).await;
    let (host, port) = text(public);
    let dir = service.dir.path();
    for direction in ["--get-server-output", "-R"] {
        let args = [
            "-c", &host, "-p", &port, "-n", "32M", "-P", "4", "-J", direction,
        ];
        let output = ran("iperf3", &args, &[], dir).await.stdout;
        let output: Value = serde_json::from_str(&output).unwrap();
        let received = output["end"]["sum_received"]["bytes"].as_u64().unwrap();
        // When the client sends, the server stops counting when the client is done, although bytes are still in
        // transit.
        let least = if direction == "-R" { 32 } else { 4 } << 20;
        assert!(
            received >= least,
            "{received} in {direction}: {}",
            output["error"]
        );
    }
}

#[tokio::test]
async fn iperf3_sends_datagrams_that_all_arrive() {
    let service = Program::iperf3().await;
    // iperf3 sets up a test over TCP, on the same port.
    let (_server, _client, public) = tunnels(&["tcp", "udp"], service.addr).await;
    let (host, port) = text(public);
    for length in ["1200", "16000"] {
        let args = [
            "-c", &host, "-p", &port, "-u", "-b", "20M", "-t", "1", "-l", length, "-J",
        ];
        let output = ran("iperf3", &args, &[], service.dir.path()).await.stdout;
        let output: Value = serde_json::from_str(&output).unwrap();
        let sum = &output["end"]["sum"];
        assert!(sum["packets"].as_u64().unwrap() > 50, "{sum}");
        assert_eq!(sum["lost_packets"], 0, "{sum}");
    }
}

#[tokio::test]
async fn a_resolver_responses_dnsperf() {
    let service = Program::resolver().await;
    let (_server, _client, public) = tunnels(&["udp"], service.addr).await;
    let (host, port) = text(public);
    let dir = service.dir.path();
    let names: String = (0..100).map(|n| format!("host-{n}.test A\n")).collect();
    let file = dir.join("names");
    fs::write(&file, names).unwrap();
    let file = file.display().to_string();
    let args = [
        "-s", &host, "-p", &port, "-d", &file, "-n", "30", "-c", "8", "-q", "50",
    ];
    let output = ran("dnsperf", &args, &[], dir).await.stdout;
    let count = |line: &str| -> u64 {
        let line = output
            .lines()
            .find(|output| output.contains(line))
            .unwrap_or_default();
        let number = line
            .split(':')
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{output}"))
    };
    assert_eq!(count("Queries completed"), 3000);
    assert_eq!(count("Queries lost"), 0);
    assert!(output.contains("NOERROR 3000"), "{output}");
    assert!(program("dnsmasq").is_file());
}
