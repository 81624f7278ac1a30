//! Paths and statuses of gRPC.

use adit_trace::GRPC_STATUSES;

/// The name of a status; `None` for an unknown number.
pub(crate) fn name(status: u16) -> Option<&'static str> {
    GRPC_STATUSES.get(usize::from(status)).copied()
}

/// Service and method of a path `/package.Service/Method`.
pub(crate) fn method(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let is_name = |text: &str| !text.is_empty() && !text.contains(['/', '?']);
    (is_name(service) && is_name(method)).then_some((service, method))
}
