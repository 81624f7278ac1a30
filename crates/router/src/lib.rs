//! Rules: select the tunnel or upstream of a request.
//!
//! Holds: a [`Table`] of [`Rule`]s, each a match on host, path prefix, headers
//! and gRPC service or method, and a target of the caller's own type. A clone of
//! a table shares its rules, and rules can be added and removed one by one: the
//! next table costs what has changed ([`ShardedMap`]).
//!
//! Promises:
//! - the most specific rule that matches is chosen: an exact host before a
//!   wildcard, a longer wildcard before a shorter one, any host pattern before
//!   none; then the longer path prefix; then more headers; then a gRPC method
//!   before a service before none;
//! - the order of the rules never decides: a table in which one request could match two rules of the same rank is
//!   refused when it is built, and so is a rule that would make a table ambiguous;
//! - a table to which rules were added and from which rules were removed routes as a new table with the remaining
//!   rules; its clones do not change;
//! - [`Table::explain`] and [`Table::route`] always agree;
//! - where rules by path or gRPC apply to a host, a request that a service could read as one for another rule selects
//!   none ([`UnclearPath`]): `/a%64min` or `/x/../admin` do not avoid the rule for `/admin`. Paths are compared as the
//!   visitor wrote them otherwise, and case counts.
//!
//! Leaves to the caller: reading requests, and every decision about access.
//!
//! Cost: a route reads the host once, then makes one table look-up for the
//! exact host, one for each of its parent domains that may name a wildcard, and
//! one search for each different prefix length under a host that matched. Where rules by path apply, the path is scanned
//! once more, and read again if a service could read it differently. Rules of
//! one host and path that differ in headers or gRPC are tried one by one. Nothing
//! is allocated when the host is written in lower case; otherwise one string.
//!
//! Proof: `tests/properties.rs` against a scan of all rules, `tests/fuzz.rs`
//! for hosts as visitors send them.

mod explain;
mod grpc;
mod header;
mod host;
mod path;
mod query;
mod reading;
mod rule;
mod sharded;
mod table;

pub use explain::{Considered, Explanation, Verdict};
pub use grpc::{GrpcError, GrpcPattern, is_grpc};
pub use header::{HeaderError, HeaderMatch};
pub use host::{HostError, HostPattern, HostPatternError, normalize_host};
pub use path::{PathError, PathPrefix};
pub use query::Query;
pub use reading::UnclearPath;
pub use rule::{HostRank, Rule};
pub use sharded::ShardedMap;
pub use table::{Match, Table, TableError};
