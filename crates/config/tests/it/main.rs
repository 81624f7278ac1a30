//! Files, variables and flags of both programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod client_certificates;
mod documents;
mod entries;
mod errors;
mod https;
mod issuers;
mod joined;
mod layers;
mod private_files;
mod properties;
mod service_tls;
mod settings;
mod telemetry;
mod tokens;
mod tunnel_tls;
