//! What the compose stack uses of Jaeger: spans over OTLP/gRPC on port 4317, page and query API on port 16686.
//!
//! Collector, page and API are those of `otlp-embedded`, which keeps the latest traces in memory. Sampling, storage and
//! search by tags of the real Jaeger are not here.

use std::{error::Error, net::Ipv4Addr};

use otlp_embedded::{Config, State, TraceServiceImpl, TraceServiceServer, ui_app};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::wrappers::TcpListenerStream;

const COLLECTOR_PORT: u16 = 4317;
const QUERY_PORT: u16 = 16686;

/// Both bounds are far above what a run of `ci/compose` sends, far below what a laptop has.
const MAX_TRACES: u32 = 20_000;
const MAX_BYTES: usize = 256 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = State::new(Config {
        max_length: MAX_TRACES,
        max_memory_usage: MAX_BYTES,
    });
    let collector = TcpListener::bind((Ipv4Addr::UNSPECIFIED, COLLECTOR_PORT)).await?;
    let query = TcpListener::bind((Ipv4Addr::UNSPECIFIED, QUERY_PORT)).await?;
    println!("OTLP/gRPC on port {COLLECTOR_PORT}, page and /api/traces on port {QUERY_PORT}");

    let service = TraceServiceServer::new(TraceServiceImpl::new(state.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // What is kept is in memory only: there is nothing to finish.
    tokio::select! {
        collected = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(collector)) => collected?,
        queries = async { axum::serve(query, ui_app(state, "/")).await } => queries?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
