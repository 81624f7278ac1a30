//! The store of the credentials of clients.
//!
//! [`RecordFile`] holds users, credentials and enrolments as JSON in the state directory of a server. The command line
//! changes it, also while no server runs; the server finds a change at its next look.
//!
//! Promises:
//! - a change is on the disk when it returns, and either whole or not at all;
//! - two changes at a time, of any processes, are made one after the other;
//! - a file that is damaged, or that another user could have written, is an error and never an empty set.
//!
//! Leaves to the caller: decisions about credentials (`adit-auth`), and the thread, which waits for the disk.
//!
//! Cost: a look is one `stat`; a change reads, writes and syncs the file.

mod record_file;

pub use record_file::{ChangeError, RecordFile};
