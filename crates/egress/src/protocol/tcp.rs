//! Services over TCP: one connection for each visitor's (section 10 of the protocol).
//!
//! The service is dialled when the request arrives; bytes that the visitor sends meanwhile wait, bounded by its credit.
//! A service that cannot be reached, or resets its connection, is reported by a reset (P-10.3); a visitor that leaves
//! resets the service's connection.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::{ProtocolType, ResetCode, TcpOpen, accepted};
use adit_link::Exchange;
use adit_trace::Phase;
use bytes::Bytes;

use crate::{
    connect::{dial::dial, proxy_protocol},
    forward::{
        gauge::GaugeGuard,
        record::{Outcome, RequestRecord},
        resources::Resources,
    },
    protocol::carry::{begin, carry},
};

type TcpRecord = RequestRecord<Box<TcpOpen>>;

/// Serves one connection, in a task of its own.
pub(crate) fn dispatch(record: TcpRecord, exchange: Exchange, resources: Arc<Resources>) {
    let limit = resources.config.max_connections;
    let service = record.service.clone();
    resources.counters.tcp.total.fetch_add(1, Ordering::Relaxed);
    let Some(open) = GaugeGuard::below(limit, service, |service| &service.open) else {
        let reason = format!("{limit} connections to {} are open", record.service.address);
        return record.reset(exchange.send, ResetCode::Limit, &reason);
    };
    let (open_here, _) = GaugeGuard::new(resources, |resources| &resources.counters.tcp.open);
    tokio::spawn(async move {
        serve(record, exchange, open_here.owner()).await;
        drop((open, open_here));
    });
}

/// Forwards both directions to their ends and finishes the record.
async fn serve(mut record: TcpRecord, exchange: Exchange, resources: &Resources) {
    let (config, counters) = (&resources.config, &resources.counters);
    let service = record.service.clone();
    record.timeline.begin(Phase::Dial);
    let dialled = tokio::select! {
        biased;
        // An abort does not complete this: the bytes that the visitor sent before it are delivered to the service.
        failure = exchange.recv.failed() => return record.finish(Outcome::of_failure(&failure)),
        dialled = dial(&service.address, config.dial_timeout) => dialled,
    };
    record.timeline.end(Phase::Dial);
    let stream = match dialled {
        Ok(stream) => stream,
        Err(error) => {
            counters.tcp.dials_failed.fetch_add(1, Ordering::Relaxed);
            return record.reset(exchange.send, ResetCode::DialFailed, &error.to_string());
        }
    };
    counters.dialled.fetch_add(1, Ordering::Relaxed);
    let socket = begin(stream, &exchange, config);
    service.select_compression(&exchange.send, []);
    // This fails if the visitor has left; its bytes still reach the service.
    let accepted = exchange.send.respond(accepted(ProtocolType::Tcp), false);
    if accepted.is_ok() {
        record.timeline.on_response(0, false);
    }
    let header = service.proxy_protocol.map_or_else(Bytes::new, |version| {
        proxy_protocol::header(version, &record.head)
    });
    let on_progress = |progress| counters.tcp.on_progress(progress);
    if carry(socket, exchange, record, header, resources, on_progress).await {
        counters.tcp.aborted.fetch_add(1, Ordering::Relaxed);
    }
}
