//! One module for each core: its contenders, operations and sizes.

use crate::case::Room;

pub mod announce;
pub mod balance;
pub mod codec;
pub mod flow;
pub mod path;
pub mod pending;
pub mod reconnect;

/// All of them.
pub const ALL: [Room; 7] = [
    codec::ROOM,
    pending::ROOM,
    flow::ROOM,
    balance::ROOM,
    reconnect::ROOM,
    path::ROOM,
    announce::ROOM,
];
