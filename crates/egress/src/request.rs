//! One request: what it asks for, how it came, what happens to it, and how it is given up.

pub(crate) mod account;
pub(crate) mod arrival;
pub(crate) mod asked;
pub(crate) mod broken;
pub(crate) mod course;
pub(crate) mod job;
pub(crate) mod moved;
pub(crate) mod reset;
