//! The two binaries of adit: each parses the command line, builds its side, runs it and drains it.
//!
//! The work is done by the other crates. This one has the command lines ([`cli`]), the files through which processes of
//! one machine find each other ([`state`]), and one module for each command.

mod admin_request;
pub mod ban;
pub mod ca;
pub mod cli;
mod control_request;
pub mod credentials;
pub mod demo;
pub mod ending;
pub mod file_source;
pub mod file_watch;
pub mod hash_password;
mod hidden_line;
pub mod invite;
pub mod join;
pub mod load;
pub mod output;
pub mod release;
pub mod reload;
pub mod report;
pub mod route;
pub mod runtime;
pub mod serve;
pub mod signals;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod tunnel;
pub mod version;
