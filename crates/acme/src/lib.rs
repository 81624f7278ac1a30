//! Obtains and renews certificates from a CA over ACME (RFC 8555), one for each name.
//!
//! - [`Settings`]: the CA ([`Ca`]), how it validates names ([`Validation`]), the numbers of the [`schedule`].
//! - [`Manager`]: the task. [`Manager::want`] replaces the set of names; certificates leave it by a callback ([`Update`]);
//!   [`Manager::status`] and [`Manager::stats`] report.
//! - [`Answers`]: where the answers to running validations are shown. [`Challenges`] are tables that the HTTP port and the
//!   resolver of certificates look up.
//! - [`Store`]: where accounts, certificates and orders are kept. [`FileStore`] is a directory; a database can take its place.
//! - [`schedule`]: when something is ordered, without clock and without input or output.
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use adit_acme::{Ca, CertName, Challenges, FileStore, Manager, Settings, Update, Validation, LETS_ENCRYPT};
//! # fn start(runtime: &tokio::runtime::Handle) -> Result<(), Box<dyn std::error::Error>> {
//! let ca = Ca::new(LETS_ENCRYPT)?.with_email("admin@example.com")?;
//! let settings = Settings::new(ca, Validation::Http01);
//! let store = Arc::new(FileStore::open(Path::new("state/acme"))?);
//! let challenges = Arc::new(Challenges::new());
//! // The HTTP port: `challenges.http01(path)`. The resolver: `challenges.tls_alpn01(&hello)`.
//! let publish = |update: Update| match update {
//!     Update::Available { name, certificate } => drop((name, certificate.certified_key())),
//!     Update::Withdrawn { name } => drop(name),
//! };
//! let manager = Manager::start(settings, store, challenges.clone(), publish, runtime)?;
//! manager.want([CertName::parse("app.example.com")?]);
//! # Ok(())
//! # }
//! ```
//!
//! Promises:
//! - one certificate for each name: a name is never added to the certificate of another;
//! - a certificate is stored before it is published, key and chain in one file that is replaced as a whole; until then the
//!   old one stays published, past its end rather than nothing;
//! - a name of which the store cannot be read is not ordered: the guard against duplicates would be lost;
//! - renewals precede new names, of which each owner and each registered domain has only so many in a period;
//! - an order is recorded before the CA receives it, so that a restart does not forget what counts at the CA;
//! - the promises of the [`schedule`] about retries, limits and renewal windows;
//! - a wildcard name is validated by dns-01 only;
//! - memory, names, orders at a time, answers, responses, outputs of programs, and every wait are bounded;
//! - a key is part of no `Debug`, error or log.
//!
//! Leaves to the caller: which names are wanted (hosts of tunnels that exist), the listeners, and the runtime: a background
//! one, never a data thread.
//!
//! Proof: `tests/schedule.rs` (properties, and bugs of others), `tests/it/pebble.rs` (Pebble, with refused nonces, wrong answers
//! and restarts), `tests/it/double.rs` (a CA with renewal windows and limits), `tests/it/bind.rs` (updates of a name server),
//! `tests/fuzz.rs`.

mod account;
mod certificate;
mod challenge;
mod dns;
mod error;
mod http;
mod manager;
mod name;
mod nonce;
mod order;
mod problem;
pub mod schedule;
mod settings;
mod status;
mod store;

pub use certificate::{Certificate, CertificateError};
pub use challenge::{ACME_TLS_ALPN, AlpnAnswer, Answers, Challenges, HTTP01_PATH};
#[doc(hidden)]
pub use dns::fuzz_answer;
pub use dns::{
    Algorithm, Change, Dns01, DnsCommand, DnsError, DnsProvider, DnsUpdate, Propagation, Record,
    TsigError, TsigKey,
};
pub use manager::{Manager, StartError, Update, Wanted};
pub use name::{CertName, CertNameError};
pub use settings::{
    Ca, CaError, ExternalBinding, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, Settings, Timeouts,
    Validation,
};
pub use status::{NameStatus, State, Stats};
pub use store::{FileStore, Store, StoreError, StoredCertificate, StoredRecord};
