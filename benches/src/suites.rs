//! One module for each core: its contenders, operations and sizes.

use crate::case::Suite;

pub mod announce;
pub mod balance;
pub mod codec;
pub mod flow;
pub mod path;
pub mod pending;
pub mod reconnect;

/// All suites.
pub const ALL: [Suite; 7] = [
    codec::SUITE,
    pending::SUITE,
    flow::SUITE,
    balance::SUITE,
    reconnect::SUITE,
    path::SUITE,
    announce::SUITE,
];
