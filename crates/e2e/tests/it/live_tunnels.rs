//! Tunnels and entries of a client's file that are added and removed while the client runs. F08, F26, F27, P-1.15.

use std::{fmt::Write as _, fs, net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, FullResponse, Load, Server, Service, count, eventually, get, within,
};
use http::StatusCode;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};

const SOON: Duration = Duration::from_secs(30);
const ID: &str = "office";

/// A server and a client that runs from a file.
struct Office {
    client: Client,
    server: Server,
}

impl Office {
    async fn start(server: &str, client: &str) -> Self {
        let server = Server::with(server).await;
        let client = Client::start(ClientOptions::file(&server, ID, client)).await;
        Self { client, server }
    }

    /// Replaces the client's file by `config`, as an editor does.
    fn replace(&self, config: &str) {
        let file = self.server.state().join(format!("{ID}.yaml"));
        let aside = file.with_extension("new");
        fs::write(&aside, config).unwrap();
        fs::rename(&aside, &file).unwrap();
    }

    /// Replaces the file, and sends SIGHUP.
    fn change(&mut self, config: &str) {
        self.replace(config);
        self.client.process().signal("HUP");
    }

    async fn tunnels(&self) -> Vec<String> {
        let status = self.client.status().await;
        let tunnels = status["tunnels"].as_array().unwrap().iter();
        let name = |tunnel: &Value| tunnel["name"].as_str().unwrap().to_owned();
        tunnels.map(name).collect()
    }

    async fn serves(&self, tunnels: &[&str]) {
        eventually("the tunnels of the file", SOON, async || {
            (self.tunnels().await == tunnels).then_some(())
        })
        .await;
    }

    /// The body of `/who` of a tunnel, or the status of the response if it is not 200.
    async fn who(&self, tunnel: &str) -> Result<String, StatusCode> {
        let host = format!("{tunnel}.localhost");
        let response = get(self.server.http, &host, "/who").await;
        match response.status {
            StatusCode::OK => Ok(response.text()),
            status => Err(status),
        }
    }

    async fn epoch(&self) -> u64 {
        count(&self.client.status().await, "/epoch")
    }

    async fn logs(&mut self, text: &str) {
        let process = self.client.process();
        eventually(text, SOON, async || {
            let log = process.stderr() + &process.stdout();
            log.contains(text).then_some(())
        })
        .await;
    }
}

/// The file of a client with these HTTP tunnels, by name and service.
fn file(tunnels: &[(&str, &Service)]) -> String {
    let mut file = "client:\n  tunnels:\n".to_owned();
    for (name, service) in tunnels {
        writeln!(
            file,
            "    - {{ name: {name}, local_port: {} }}",
            service.port()
        )
        .unwrap();
    }
    file
}

/// A request that the service holds until it is released.
fn hold(addr: SocketAddr, host: &'static str) -> JoinHandle<FullResponse> {
    tokio::spawn(async move { get(addr, host, "/held").await })
}

#[tokio::test]
async fn p_1_15_tunnels_come_and_go_without_a_new_link() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let mut office = Office::start("", &file(&[("stays", &one), ("goes", &two)])).await;
    office.serves(&["stays", "goes"]).await;
    let epoch = office.epoch().await;
    let load = Load::start(office.server.http, "stays.localhost", "one").await;
    let held = hold(office.server.http, "goes.localhost");
    eventually("a running request", SOON, async || {
        (two.stats.begun() == 1).then_some(())
    })
    .await;

    office.change(&file(&[("stays", &one), ("comes", &two)]));
    office.serves(&["stays", "comes"]).await;
    assert_eq!(office.who("comes").await, Ok("two".into()));
    assert_eq!(office.who("goes").await, Err(StatusCode::NOT_FOUND));
    two.release();
    let response = within("the running request", SOON, held).await.unwrap();
    assert_eq!(
        (response.status, response.text()),
        (StatusCode::OK, "two".into())
    );

    office.change(&file(&[("stays", &one), ("goes", &one)]));
    office.serves(&["stays", "goes"]).await;
    assert_eq!(office.who("goes").await, Ok("one".into()));
    assert_eq!(office.who("comes").await, Err(StatusCode::NOT_FOUND));
    load.stop().await;
    assert_eq!(office.epoch().await, epoch, "the same session");
    assert_eq!(
        count(&office.client.status().await, "/cores/reconnect_dials"),
        1
    );
}

#[tokio::test]
async fn p_1_15_a_changed_tunnel_has_its_new_service_and_hosts() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let other = Service::site("other").await;
    let mut office = Office::start("", &file(&[("web", &one), ("stays", &other)])).await;
    office.serves(&["web", "stays"]).await;
    let load = Load::start(office.server.http, "stays.localhost", "other").await;
    let held = hold(office.server.http, "web.localhost");
    eventually("a running request", SOON, async || {
        (one.stats.begun() == 1).then_some(())
    })
    .await;

    office.change(&file(&[("web", &two), ("stays", &other)]));
    eventually("the new service", SOON, async || {
        (office.who("web").await == Ok("two".into())).then_some(())
    })
    .await;
    let other_host = file(&[("stays", &other)])
        + &format!(
            "    - {{ name: web, local_port: {}, domain: other.localhost }}\n",
            two.port()
        );
    office.change(&other_host);
    eventually("the new host", SOON, async || {
        (office.who("other").await == Ok("two".into())).then_some(())
    })
    .await;
    assert_eq!(office.who("web").await, Err(StatusCode::NOT_FOUND));
    one.release();
    let response = within("the running request", SOON, held).await.unwrap();
    assert_eq!(
        (response.status, response.text()),
        (StatusCode::OK, "one".into())
    );
    load.stop().await;
    assert_eq!(
        count(&office.client.status().await, "/cores/reconnect_dials"),
        1
    );
}

#[tokio::test]
async fn p_1_15_a_held_host_is_refused_and_the_old_tunnel_stands() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let mut office = Office::start("", &file(&[("web", &one)])).await;
    let options = ClientOptions::http(&office.server, "other", "shop", two.addr);
    let _other = Client::start(options.arg("--domain", "taken.localhost")).await;
    office.change(&format!(
        "client:\n  tunnels:\n    - {{ name: web, local_port: {}, domain: taken.localhost }}\n",
        one.port()
    ));
    office.logs("taken.localhost").await;
    assert_eq!(office.who("web").await, Ok("one".into()));
    assert_eq!(office.who("taken").await, Ok("two".into()));
    office.change(&file(&[("web", &two)]));
    eventually("the next change", SOON, async || {
        (office.who("web").await == Ok("two".into())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn entries_start_and_stop_with_the_file() {
    let service = Service::site("one").await;
    let server = format!(
        "server:\n  upstreams:\n    - {{ name: erp, protocol: http1, servers: [{{ address: \"{}\" }}] }}\n",
        service.addr
    );
    let entry = |name: &str| {
        format!("    - {{ name: {name}, type: http, listen: \"127.0.0.1:0\", upstream: erp }}\n")
    };
    let head = "client:\n  entries:\n".to_owned();
    let mut office = Office::start(&server, &(head.clone() + &entry("first"))).await;
    let first = entries(&office.client).await[0].1;
    let load = Load::start(first, "erp.internal", "one").await;

    office.change(&(head.clone() + &entry("first") + &entry("second")));
    let second = eventually("the second entry", SOON, async || {
        let entries = entries(&office.client).await;
        entries.iter().find(|(name, _)| name == "second").cloned()
    })
    .await;
    assert_eq!(get(second.1, "erp.internal", "/who").await.text(), "one");
    let held = hold(second.1, "erp.internal");
    eventually("a running request", SOON, async || {
        (count(&office.client.status().await, "/entries/1/requests_open") == 1).then_some(())
    })
    .await;

    office.change(&(head + &entry("first")));
    eventually("a closed listener", SOON, async || {
        TcpStream::connect(second.1).await.err().map(drop)
    })
    .await;
    service.release();
    let response = within("the running request", SOON, held).await.unwrap();
    assert_eq!(
        (response.status, response.text()),
        (StatusCode::OK, "one".into())
    );
    load.stop().await;
    assert_eq!(entries(&office.client).await, [("first".into(), first)]);
}

async fn entries(client: &Client) -> Vec<(String, SocketAddr)> {
    let status = client.status().await;
    let entries = status["entries"].as_array().unwrap().iter();
    let text = |entry: &Value, key| entry[key].as_str().unwrap().to_owned();
    entries
        .map(|entry| (text(entry, "name"), text(entry, "listen").parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_invalid_file_changes_nothing() {
    let one = Service::site("one").await;
    let mut office = Office::start("", &file(&[("web", &one)])).await;
    office.serves(&["web"]).await;
    office.change("client:\n  tunnels:\n    - { name: web, local_port: many }\n");
    office.logs("nothing has changed").await;
    office.logs("office.yaml:3:").await;
    let taken = TcpStream::connect(office.server.http).await.unwrap();
    let taken = taken.peer_addr().unwrap();
    office.change(&format!(
        "client:\n  entries:\n    - {{ name: e, listen: \"{taken}\", upstream: erp }}\n"
    ));
    office.logs("is in use").await;
    office.change("client:\n  tunnels: []\n");
    office.logs("no tunnel and no entry is configured").await;
    assert_eq!(office.tunnels().await, ["web"]);
    assert_eq!(office.who("web").await, Ok("one".into()));
    let config = &office.client.status().await["config"];
    assert_eq!(
        (count(config, "/revision"), count(config, "/applied")),
        (1, 0)
    );
    assert!(count(config, "/rejected") >= 3, "{config}");
    assert!(config["last_error"].is_string(), "{config}");
}

#[tokio::test]
async fn a_replaced_file_applies_without_a_signal() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let office = Office::start("", &file(&[("web", &one)])).await;
    office.serves(&["web"]).await;
    office.replace(&file(&[("web", &two), ("api", &one)]));
    office.serves(&["web", "api"]).await;
    assert_eq!(office.who("web").await, Ok("two".into()));
    assert_eq!(office.who("api").await, Ok("one".into()));
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named() {
    let one = Service::site("one").await;
    let mut office = Office::start("", &file(&[("web", &one)])).await;
    let changed = file(&[("api", &one)]) + "  lanes: 2\n  group_id: others\n";
    office.change(&changed);
    office.logs("client.group_id, client.lanes").await;
    office.serves(&["api"]).await;
    let status = office.client.status().await;
    assert_eq!(status["group_id"], ID);
    let keys = serde_json::json!(["client.group_id", "client.lanes"]);
    assert_eq!(status["config"]["needs_restart"], keys);
}
