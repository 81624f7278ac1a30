//! The names of the metrics of requests.

use adit_trace::Edge;

/// The labels of all metrics of requests, in the order of the exposition.
pub(super) const LABELS: [&str; 5] = ["protocol", "opener", "tunnel", "group", "user"];

/// A name of a metric with its labels besides [`LABELS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFamily {
    /// `adit_ingress_...` or `adit_egress_...`.
    pub name: &'static str,
    /// `counter` or `histogram`.
    pub kind: &'static str,
    /// The labels besides protocol, opener, tunnel, group and user.
    pub labels: &'static [&'static str],
    /// The help text: one line.
    pub help: &'static str,
}

/// The families of one edge.
pub(super) struct Names {
    pub(super) requests: RequestFamily,
    pub(super) failures: RequestFamily,
    pub(super) grpc: RequestFamily,
    /// The counter of retries, which happen only on the visitors' side.
    pub(super) retries: Option<RequestFamily>,
    pub(super) received: RequestFamily,
    pub(super) sent: RequestFamily,
    pub(super) duration: RequestFamily,
    pub(super) first_byte: RequestFamily,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> RequestFamily {
    RequestFamily {
        name,
        kind: "counter",
        labels,
        help,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> RequestFamily {
    RequestFamily {
        name,
        kind: "histogram",
        labels: &[],
        help,
    }
}

static INGRESS: Names = Names {
    requests: counter(
        "adit_ingress_requests_total",
        &["outcome", "status"],
        "Requests of visitors that have ended.",
    ),
    failures: counter(
        "adit_ingress_failures_total",
        &["reason"],
        "Requests of visitors that failed or were cancelled, by the reason code of the protocol.",
    ),
    grpc: counter(
        "adit_ingress_grpc_requests_total",
        &["grpc_status"],
        "gRPC calls of visitors by the status that they ended with.",
    ),
    retries: Some(counter(
        "adit_ingress_retries_total",
        &[],
        "Attempts on other clients after the first.",
    )),
    received: counter(
        "adit_ingress_received_bytes_total",
        &[],
        "Payload from visitors, counted when the request is over.",
    ),
    sent: counter(
        "adit_ingress_sent_bytes_total",
        &[],
        "Payload to visitors, counted when the request is over.",
    ),
    duration: histogram(
        "adit_ingress_request_duration_seconds",
        "From the beginning of a visitor's request to its end.",
    ),
    first_byte: histogram(
        "adit_ingress_first_byte_seconds",
        "From the beginning of a visitor's request to the beginning of the response.",
    ),
};

static EGRESS: Names = Names {
    requests: counter(
        "adit_egress_requests_total",
        &["outcome", "status"],
        "Requests to services that have ended.",
    ),
    failures: counter(
        "adit_egress_failures_total",
        &["reason"],
        "Requests to services that failed or were cancelled, by the reason code of the protocol, including dial_failed.",
    ),
    grpc: counter(
        "adit_egress_grpc_requests_total",
        &["grpc_status"],
        "gRPC calls to services by the status that they ended with.",
    ),
    retries: None,
    received: counter(
        "adit_egress_received_bytes_total",
        &[],
        "Payload towards services, counted when the request is over.",
    ),
    sent: counter(
        "adit_egress_sent_bytes_total",
        &[],
        "Payload from services, counted when the request is over.",
    ),
    duration: histogram(
        "adit_egress_request_duration_seconds",
        "From the arrival of a request at the services' side to its end.",
    ),
    first_byte: histogram(
        "adit_egress_first_byte_seconds",
        "From the arrival of a request at the services' side to the beginning of the service's response.",
    ),
};

pub(super) const fn of(edge: Edge) -> &'static Names {
    match edge {
        Edge::Ingress => &INGRESS,
        Edge::Egress => &EGRESS,
    }
}

/// The metrics of requests of one edge.
pub fn request_families(edge: Edge) -> Vec<RequestFamily> {
    let names = of(edge);
    let mut families = vec![names.requests, names.failures, names.grpc];
    families.extend(names.retries);
    families.extend([names.received, names.sent, names.duration, names.first_byte]);
    families
}
