//! The generated service with the bound of messages that each method has.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use adit_proto::{REGISTER_PATH, tunnel_service_server::TunnelServiceServer};
use http::{Request, Response};
use tonic::{body::Body, codegen::Service as HttpService};

use crate::service::Service;

/// Of a registration: names, a credential, an instance secret (P-1.1). Whoever sends it is not known yet.
const REGISTER_BYTES: usize = 4 * 1024;

/// Of a message on the control stream (P-2.1).
const CONTROL_BYTES: usize = adit_codec::MAX_MESSAGE_BYTES;

/// The methods of one connection that are not served by hand.
#[derive(Clone)]
pub(crate) struct Generated {
    register: TunnelServiceServer<Service>,
    others: TunnelServiceServer<Service>,
}

impl Generated {
    pub(crate) fn new(service: &Service) -> Self {
        let server =
            |bytes| TunnelServiceServer::new(service.clone()).max_decoding_message_size(bytes);
        Self {
            register: server(REGISTER_BYTES),
            others: server(CONTROL_BYTES),
        }
    }
}

impl HttpService<Request<Body>> for Generated {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <TunnelServiceServer<Service> as HttpService<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == REGISTER_PATH {
            self.register.call(request)
        } else {
            self.others.call(request)
        }
    }
}
