//! The records of requests, and the trace contexts that cross the link.

mod contexts;
mod failures;
mod grpc;
mod http;
mod tcp;
mod udp;
mod websocket;

use std::sync::Arc;

use adit_ingress::HttpConfig;
use adit_link::LaneConfig;
use adit_testlink::{
    HttpEntry, Incoming, Link, Recorded, Recorder, Records, Route, ends, http_config,
};

/// An entry with an observer and a client whose part the test takes.
struct Observed {
    entry: HttpEntry,
    incoming: Incoming,
    recorder: Arc<Recorder>,
    records: Records,
}

impl Observed {
    /// Every request is traced.
    fn new() -> Self {
        Self::with(http_config(), 1.0)
    }

    fn with(config: HttpConfig, ratio: f64) -> Self {
        Self::on(ends(), config, ratio)
    }

    fn on(ends: [LaneConfig; 2], config: HttpConfig, ratio: f64) -> Self {
        let (dispatch, incoming) = Incoming::channel();
        let link = Link::with(ends, dispatch);
        let (recorder, records) = Recorder::new(ratio);
        let entry = Route::to(&link).observer(recorder.clone()).http(config);
        Self {
            entry,
            incoming,
            recorder,
            records,
        }
    }

    async fn record(&mut self) -> Recorded {
        self.records.next().await
    }

    /// Waits until no request is open, and checks that the test has received all records.
    async fn settled(&mut self) {
        self.entry.settled().await;
        self.records.expect_none();
    }
}
