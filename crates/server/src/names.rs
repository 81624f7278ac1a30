//! Names and the users that own them (P-1.9).
//!
//! A group, a client id, a host, a public port and a tunnel that a rule of the server selects belong to the user who
//! first registers them: as long as something uses them, and for `tunnel_retention` after the last use. The owners are
//! kept in the state directory, so that a restart of the server does not give a name to another user.

mod file;
mod ledger;
mod name;

pub use self::{
    file::NamesFile,
    name::{KINDS, Name},
};
pub(crate) use self::{
    file::Record,
    ledger::{Claimant, Entry, Ledger, Released},
};
pub use crate::port::{PortKey, Transport};
