//! Paths of gRPC, and its statuses by number and by name (grpc/grpc, doc/statuscodes.md; `docs/protocol.md`).

/// The names in the order of their numbers.
pub(crate) const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a status; `None` for an unknown number.
pub(crate) fn name(status: u16) -> Option<&'static str> {
    STATUSES.get(usize::from(status)).copied()
}

/// Service and method of a path `/package.Service/Method`.
pub(crate) fn method(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let is_name = |text: &str| !text.is_empty() && !text.contains(['/', '?']);
    (is_name(service) && is_name(method)).then_some((service, method))
}
