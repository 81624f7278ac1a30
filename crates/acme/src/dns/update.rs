//! Records by dynamic update (RFC 2136), signed with TSIG.

use std::time::{Duration, SystemTime};

use tokio::net::lookup_host;

use super::{
    client::{Server, ask, code_text, exchange},
    message::{Answer, CNAME, IN, MessageError, SOA, TXT, put_record, request, set_count},
    record::{Change, DnsError, Record},
    tsig::TsigKey,
};

/// The flags of an update (RFC 2136, 2.2).
const UPDATE: u16 = 5 << 11;

/// The class by which a record with exactly this value is removed.
const NONE: u16 = 254;

/// The most aliases that are followed.
const MOST_ALIASES: usize = 8;

/// A name server that accepts updates of the zone, and the key to sign them with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsUpdate {
    /// The primary name server of the zone, as `host:port`.
    pub server: String,
    /// The zone; if it is not set, the server is asked.
    pub zone: Option<String>,
    /// The key.
    pub key: TsigKey,
    /// For how long others may cache the record.
    pub ttl: Duration,
    /// How long one exchange with the name server may take.
    pub timeout: Duration,
}

impl DnsUpdate {
    /// Adds or removes a record at the end of its aliases.
    pub(super) async fn change(&self, change: Change, record: &Record) -> Result<(), DnsError> {
        self.try_change(change, record).await.map_err(|problem| {
            let action = match change {
                Change::Add => "added",
                Change::Remove => "removed",
            };
            DnsError(format!(
                "the record {} cannot be {action} by an update: {problem}",
                record.name
            ))
        })
    }

    async fn try_change(&self, change: Change, record: &Record) -> Result<(), String> {
        let unresolved = |problem| format!("the name server {:?} {problem}", self.server);
        let mut addresses = lookup_host(&self.server)
            .await
            .map_err(|error| unresolved(format!("cannot be found: {error}; expected host:port")))?;
        let address = addresses.next();
        let server = address.ok_or_else(|| unresolved("has no address".to_owned()))?;
        let at = Server {
            address: server,
            timeout: self.timeout,
        };
        let (name, found) = self.locate(at, &record.name).await?;
        let zone = self.zone.clone().or(found).ok_or_else(|| {
            format!("the name server {server} has no zone for {name}; set the zone")
        })?;
        let invalid = |error: MessageError| format!("{name:?} in the zone {zone:?}: {error}");
        let id = rand::random();
        let mut message = self
            .update(id, change, &zone, &name, &record.value)
            .map_err(invalid)?;
        let mac = self
            .key
            .sign(&mut message, SystemTime::now())
            .map_err(invalid)?;
        let bytes = exchange(at, &message).await?;
        let answer = Answer::read(&bytes).map_err(invalid)?;
        let of_server = |problem: String| format!("the name server {server}: {problem}");
        let verified = self.key.verify(&bytes, &answer, &mac, SystemTime::now());
        match (verified, answer.code) {
            (Ok(()), 0) if answer.id == id => Ok(()),
            (Ok(()), 0) => Err(invalid(MessageError::OtherQuestion)),
            (Ok(()), code) => Err(format!("the name server {server} {}", code_text(code))),
            // An error without a signature is not proved, but it is what the server reports.
            (Err(_), code) if code != 0 && answer.signature(&bytes).is_none() => {
                Err(format!("the name server {server} {}", code_text(code)))
            }
            (Err(problem), _) => Err(of_server(problem)),
        }
    }

    fn update(
        &self,
        id: u16,
        change: Change,
        zone: &str,
        name: &str,
        value: &str,
    ) -> Result<Vec<u8>, MessageError> {
        let mut message = request(id, UPDATE, zone, SOA)?;
        let length = u8::try_from(value.len()).map_err(|_| MessageError::Invalid)?;
        let text = [&[length], value.as_bytes()].concat();
        let ttl = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        let head = match change {
            Change::Add => (TXT, IN, ttl),
            Change::Remove => (TXT, NONE, 0),
        };
        put_record(&mut message, name, head, &text)?;
        set_count(&mut message, 2, 1);
        Ok(message)
    }

    /// The name at the end of the aliases, and its zone as the server names it.
    async fn locate(&self, server: Server, name: &str) -> Result<(String, Option<String>), String> {
        let mut name = name.to_ascii_lowercase();
        for _ in 0..MOST_ALIASES {
            let answer = ask(server, 0, &name, SOA).await?;
            if let Some(target) = answer.names(&name, CNAME).first().map(ToString::to_string) {
                name = target;
                continue;
            }
            let zone = answer.records.into_iter().find(|record| record.kind == SOA);
            return Ok((name, zone.map(|zone| zone.name)));
        }
        Err(format!(
            "{name} is an alias of an alias, more than {MOST_ALIASES} times"
        ))
    }
}
