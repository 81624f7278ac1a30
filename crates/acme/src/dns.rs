//! Records of dns-01: what adds and removes them, and how long to wait for the name servers.

mod client;
mod command;
mod message;
mod propagation;
mod record;
mod tsig;
mod update;

pub use command::DnsCommand;
pub use propagation::Propagation;
pub use record::{Change, DnsError, Record};
pub use tsig::{Algorithm, TsigError, TsigKey};
pub use update::DnsUpdate;

pub use message::fuzz_answer;

/// How records of dns-01 are shown to a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns01 {
    /// What adds and removes the record.
    pub provider: DnsProvider,
    /// How long to wait until the name servers have it.
    pub propagation: Propagation,
}

/// What adds and removes the records of dns-01.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsProvider {
    /// A program.
    Command(DnsCommand),
    /// A name server that accepts dynamic updates (RFC 2136).
    Update(DnsUpdate),
}

impl DnsProvider {
    /// Adds or removes a record. `host` is the host name or wildcard base that is validated.
    ///
    /// # Errors
    /// [`DnsError`]: the program or the name server failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, a program is killed; an update may have been made.
    pub async fn change(
        &self,
        change: Change,
        host: &str,
        record: &Record,
    ) -> Result<(), DnsError> {
        match self {
            Self::Command(command) => command.change(change, host, record).await,
            Self::Update(update) => update.change(change, record).await,
        }
    }
}
