//! Waiting until the name servers of a zone have a record.
//!
//! The name servers themselves are asked, not a resolver: one that was asked too early remembers for some time that there is
//! no record. A CA asks the name servers as well.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    client::{RECURSION, Server, ask, texts},
    message::{Answer, CNAME, NS},
    record::{DnsError, Record},
};

/// The most name servers of a zone, and addresses of one, that are asked.
const MOST_SERVERS: usize = 8;

/// The most aliases that are followed.
const MOST_ALIASES: usize = 8;

/// How long to wait for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// Before the first question.
    pub delay: Duration,
    /// After so long without the record the order fails; zero: no name server is asked.
    pub timeout: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// How long one question to a name server may take.
    pub exchange_timeout: Duration,
    /// The name servers to ask. Without any, those of the zone are found by the resolvers.
    pub servers: Vec<SocketAddr>,
    /// The resolvers that find the name servers of a zone. Without any, those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
}

impl Default for Propagation {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            timeout: Duration::from_secs(120),
            interval: Duration::from_secs(2),
            exchange_timeout: Duration::from_secs(5),
            servers: Vec::new(),
            resolvers: Vec::new(),
        }
    }
}

impl Propagation {
    /// Waits until every name server that answers, and at least one, has the record.
    ///
    /// # Errors
    /// [`DnsError`]: a name server does not have it after [`timeout`](Self::timeout).
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn wait(&self, record: &Record) -> Result<(), DnsError> {
        sleep(self.delay).await;
        if self.timeout.is_zero() {
            return Ok(());
        }
        let deadline = Instant::now() + self.timeout;
        let mut problem = "they did not all answer in time".to_owned();
        // One round asks many servers, each of which may take its time: a round ends at the deadline as well.
        while let Ok(round) = timeout_at(deadline, self.is_there(record)).await {
            match round {
                Ok(()) => return Ok(()),
                Err(found) => problem = found,
            }
            let next = Instant::now() + self.interval;
            if next > deadline {
                break;
            }
            sleep_until(next).await;
        }
        let waited = self.timeout;
        Err(DnsError(format!(
            "after {waited:?} the record {} is not on all name servers: {problem}",
            record.name
        )))
    }

    async fn is_there(&self, record: &Record) -> Result<(), String> {
        let (name, servers, flags) = if self.servers.is_empty() {
            let (name, hosts) = self.find(&record.name).await?;
            (name, addresses(&hosts).await, 0)
        } else {
            let servers = { self.servers.iter() }.map(|server| vec![*server]);
            (record.name.clone(), servers.collect(), RECURSION)
        };
        let (mut found, mut problem) = (
            false,
            "no name server of the zone has an address".to_owned(),
        );
        for addresses in servers {
            for address in addresses {
                match texts(self.server(address), flags, &name).await {
                    Ok(texts) if texts.iter().any(|text| *text == record.value.as_bytes()) => {
                        found = true;
                    }
                    Ok(texts) => {
                        let number = texts.len();
                        return Err(format!(
                            "{address} has {number} other TXT records of {name}"
                        ));
                    }
                    // The next address, or the next server.
                    Err(error) => {
                        problem = error;
                        continue;
                    }
                }
                break;
            }
        }
        if found { Ok(()) } else { Err(problem) }
    }

    fn server(&self, address: SocketAddr) -> Server {
        Server {
            address,
            timeout: self.exchange_timeout,
        }
    }

    /// The name at the end of the aliases of a record, and the host names of the name servers of its zone.
    ///
    /// # Errors
    /// [`DnsError`]: the resolvers do not answer, or know no zone of the name.
    ///
    /// # Cancel safety
    /// Dropping the future ends the questions.
    pub async fn name_servers(&self, record: &Record) -> Result<(String, Vec<String>), DnsError> {
        self.find(&record.name).await.map_err(DnsError)
    }

    async fn find(&self, name: &str) -> Result<(String, Vec<String>), String> {
        let resolvers = if self.resolvers.is_empty() {
            system_resolvers()?
        } else {
            self.resolvers.clone()
        };
        let mut name = name.to_ascii_lowercase();
        for _ in 0..MOST_ALIASES {
            let answer = self.resolve(&resolvers, &name, CNAME).await?;
            let Some(target) = answer.names(&name, CNAME).first().map(ToString::to_string) else {
                break;
            };
            name = target;
        }
        let mut zone = &*name;
        loop {
            let answer = self.resolve(&resolvers, zone, NS).await?;
            let hosts = answer.names(zone, NS).into_iter().take(MOST_SERVERS);
            let hosts: Vec<_> = hosts.map(str::to_owned).collect();
            if !hosts.is_empty() {
                return Ok((name, hosts));
            }
            let parent = zone.split_once('.');
            zone = parent
                .ok_or_else(|| format!("no zone has the name {name}"))?
                .1;
        }
    }

    async fn resolve(
        &self,
        resolvers: &[SocketAddr],
        name: &str,
        kind: u16,
    ) -> Result<Answer, String> {
        let mut problem = "/etc/resolv.conf names no name server".to_owned();
        for resolver in resolvers {
            match ask(self.server(*resolver), RECURSION, name, kind).await {
                Ok(answer) => return Ok(answer),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

/// The addresses of each name server that has any.
async fn addresses(hosts: &[String]) -> Vec<Vec<SocketAddr>> {
    let mut servers = Vec::new();
    for host in hosts {
        if let Ok(addresses) = lookup_host((&**host, 53)).await {
            servers.push(addresses.take(MOST_SERVERS).collect());
        }
    }
    servers
}

fn system_resolvers() -> Result<Vec<SocketAddr>, String> {
    let path = "/etc/resolv.conf";
    let file = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(parse_resolvers(&file))
}

fn parse_resolvers(file: &str) -> Vec<SocketAddr> {
    let lines = file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|address| address.trim().parse().ok());
    addresses
        .take(MOST_SERVERS)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_propagation_ends_within_a_round() {
        // It accepts connections and never answers.
        let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let propagation = Propagation {
            timeout: Duration::from_secs(12),
            exchange_timeout: Duration::from_secs(5),
            servers: vec![silent.local_addr().unwrap(); 100],
            ..Propagation::default()
        };
        let record = Record {
            name: "_acme-challenge.example.com".to_owned(),
            value: "value".to_owned(),
        };
        let began = Instant::now();
        let error = propagation.wait(&record).await.unwrap_err().to_string();
        assert!(began.elapsed() <= Duration::from_secs(13), "{error}");
        assert!(error.contains("after 12s"), "{error}");
    }

    #[test]
    fn resolvers_are_read_from_the_file_of_the_system() {
        let file = "# nameserver 192.0.2.9\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1\nnameserver fe80::1%eth0\n";
        let found = parse_resolvers(file);
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(found, expected);
    }
}
