//! The processor time of exporting spans: requests at a steady rate, without a tunnel.
//!
//!     export_cost sink                            prints the endpoint of a collector that discards everything
//!     export_cost run ENDPOINT RATE SECONDS       records requests, prints the cost as JSON
//!
//! `ENDPOINT` of gRPC has no path; with one it is OTLP over HTTP. `off` measures the loop alone, without traces.
//! `loadtest/export-cost` runs these and compares programs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::{
    convert::Infallible,
    env, thread,
    time::{Duration, Instant},
};

use adit_otlp::{Traces, TracesSettings};
use adit_trace::{Edge, Phase, Record};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["sink"] => sink(),
        ["run", endpoint, rate, seconds] => {
            run(endpoint, rate.parse().unwrap(), seconds.parse().unwrap());
        }
        _ => println!("export_cost sink | run ENDPOINT RATE SECONDS"),
    }
}

fn seconds_of(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A request of the visitors' side with six spans.
fn record(traces: &Traces, now: Instant) {
    let Some(mut timeline) = traces.begin("") else {
        return;
    };
    let at = |micros| now + Duration::from_micros(micros);
    timeline.add(Phase::Accept, at(0), at(10));
    timeline.add(Phase::Queue, at(10), at(11));
    timeline.add(Phase::Route, at(11), at(15));
    timeline.begin_onward(Phase::Transit, at(15), 7);
    timeline.end(Phase::Transit, at(400));
    timeline.add(Phase::End, at(400), at(420));
    traces.on_end(&Record {
        edge: Edge::Ingress,
        protocol: "http",
        opener: "server",
        request_uuid: [0x5a; 16],
        user: "alice",
        group: "office",
        client: "office-1",
        tunnel: "web",
        revision: 7,
        visitor: "203.0.113.9:40001",
        scheme: "http",
        method: "GET",
        host: "web.example.com",
        port: 80,
        path: "/api/orders/4711",
        version: "HTTP/1.1",
        status: 200,
        grpc_status: None,
        service: "",
        reason: None,
        received_bytes: 0,
        sent_bytes: 512,
        retries: 0,
        started: now,
        responded: Some(at(400)),
        ended: at(420),
        timeline: Some(&timeline),
    });
}

fn settings(endpoint: &str) -> TracesSettings {
    let mut settings = TracesSettings::new(endpoint, "export-cost");
    if endpoint.matches('/').count() > 2 {
        settings.protocol = adit_otlp::TracesProtocol::HttpProtobuf;
    }
    settings
}

/// Records `rate` requests a second, in steps of a millisecond.
fn run(endpoint: &str, rate: u64, seconds: u64) {
    let traces = (endpoint != "off").then(|| Traces::start(settings(endpoint)).unwrap());
    // The first call connects.
    traces
        .iter()
        .for_each(|traces| record(traces, Instant::now()));
    thread::sleep(Duration::from_millis(1_500));
    let process = seconds_of(ClockId::ProcessCPUTime);
    let data = seconds_of(ClockId::ThreadCPUTime);
    let begun = Instant::now();
    let total = rate * seconds;
    let mut done = 0;
    while done < total {
        let due = total.min(begun.elapsed().as_millis() as u64 * rate / 1_000);
        while done < due {
            traces
                .iter()
                .for_each(|traces| record(traces, Instant::now()));
            done += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let data = seconds_of(ClockId::ThreadCPUTime) - data;
    let stats = traces.map(|traces| traces.shutdown(Duration::from_secs(30)));
    let stats = stats.unwrap_or_default();
    let process = seconds_of(ClockId::ProcessCPUTime) - process;
    println!(
        r#"{{"cpu_us_per_request": {:.3}, "data_thread_us_per_request": {:.3}, "exported": {}, "dropped": {}, "failed": {}}}"#,
        process * 1e6 / total as f64,
        data * 1e6 / total as f64,
        stats.exported,
        stats.dropped,
        stats.failed,
    );
}

/// Reads every request and responds as a collector that accepts it.
#[tokio::main(flavor = "current_thread")]
async fn sink() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        // As collectors do: with Nagle's algorithm, delayed acknowledgements would add 40 ms to an export.
        socket.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let served = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service_fn(accept))
                .await;
            drop(served);
        });
    }
}

async fn accept(request: Request<Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
    let is_grpc = request.version() == hyper::Version::HTTP_2;
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let response = Response::builder();
    if !is_grpc {
        let empty = Full::new(Bytes::new()).map_err(|never| match never {});
        return Ok(response.body(tonic::body::Body::new(empty)).unwrap());
    }
    // The response has an empty message and the status 0.
    let message = Full::new(Bytes::from_static(&[0; 5]));
    let message = message.with_trailers(async {
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        Some(Ok(trailers))
    });
    let message = message.map_err(|never| match never {});
    let response = response.header("content-type", "application/grpc");
    Ok(response.body(tonic::body::Body::new(message)).unwrap())
}
