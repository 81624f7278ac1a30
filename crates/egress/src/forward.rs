//! The parts with which every protocol forwards a request to its service: the service, the request's record, the error
//! that ends it early, and the reset that reports such an end.

pub(crate) mod error;
pub(crate) mod gauge;
pub(crate) mod origin;
pub(crate) mod payload_counts;
pub(crate) mod record;
pub(crate) mod request_info;
pub(crate) mod reset;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod timeline;
