//! The shipped binaries, driven from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod balance;
mod compression;
mod cores;
mod demo;
mod edge;
mod entries;
mod entry_records;
mod everything;
mod faults;
mod flapping;
mod full;
mod grpc;
mod grpc_generated;
mod grpc_tonic;
mod http;
mod interim;
mod isolation;
mod leaks;
mod live_tunnels;
mod living_programs;
mod owners;
mod programs;
mod python;
mod readme;
mod recovery;
mod reload;
mod reports;
mod sessions;
mod slow_stderr;
mod streams;
mod telemetry_end;
mod traces;
mod two_processes;
mod upgrade;
mod websocket;
