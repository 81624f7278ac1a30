//! HTTP: the start of every request, and the service of plain HTTP requests.
//!
//! [`serve`] parses a request and serves it by its protocol. Calls of gRPC ([`super::grpc`]), WebSockets
//! ([`super::websocket`]) and other upgrades ([`upgrade`]) have their own modules.

pub(crate) mod parse;
mod upgrade;

use std::sync::{Arc, atomic::Ordering};

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use http::{Request, Version, header::TRANSFER_ENCODING, request::Parts};
use http_body::Body;
use uuid::Uuid;

use crate::{
    forward::{
        connection::Connection,
        context::HttpContext,
        dispatch::forward,
        error_response::{ErrorContext, error_response, respond_to_rejected},
        inbound::Inbound,
        interim::SendInterim,
        options::ForwardOptions,
        record::{RejectedRequest, RequestRecord, record_rejected},
        request_body::inline_length,
        request_meta::new_uuid,
        response::respond,
        response_body::ResponseBody,
        target::Target,
    },
    protocol::{
        grpc,
        http::{
            parse::{Received, parse, protocol_of},
            upgrade::Upgrade,
        },
        served::Served,
        websocket::{
            self, WebSocket,
            handshake::{HandshakeError, handshake},
        },
    },
};

/// The session after a request that has changed the protocol.
pub(crate) enum Session {
    WebSocket(Box<WebSocket>),
    Upgrade(Box<Upgrade>),
}

/// Serves one request; `interim` sends interim responses to a visitor of HTTP/2.
///
/// # Errors
/// When the visitor has left.
pub(crate) async fn serve(
    context: Arc<HttpContext>,
    connection: Arc<Connection>,
    request: Request<Inbound>,
    interim: Option<&dyn SendInterim>,
) -> Result<Served<Session>, Failure> {
    context.counters.requests.fetch_add(1, Ordering::Relaxed);
    let number = connection.next_request();
    let uuid = new_uuid();
    let started = connection.take_head_began();
    let (mut parts, body) = request.into_parts();
    let mut target = Target::new(&parts.uri, &connection.take_replaced(number));
    if parts.version < Version::HTTP_2
        && parts.headers.contains_key(TRANSFER_ENCODING)
        && !connection.is_only_chunked(number)
    {
        let both = "Content-Length and Transfer-Encoding in one request";
        let failure = Failure::new(Reason::BadRequest, both);
        let rejected = (&parts, target.as_ref(), uuid);
        return Ok(reject(&context, &connection, &failure, None, rejected));
    }
    let handshake = match handshake(&parts, &body) {
        Ok(handshake) => handshake,
        Err(error) => {
            let failure = error.failure();
            let rejected = (&parts, target.as_ref(), uuid);
            return Ok(reject(
                &context,
                &connection,
                &failure,
                Some(&error),
                rejected,
            ));
        }
    };
    let director = context.admission.director();
    let received = Received {
        uuid,
        visitor: connection.visitor.clone(),
        scheme: connection.scheme,
        started,
        needs_host: director.needs_host(connection.visitor.local_port()),
        admitted: &connection.admitted,
    };
    let request = match parse(&mut parts, &mut target, received) {
        Ok(request) => request,
        Err(failure) => {
            let rejected = (&parts, target.as_ref(), uuid);
            return Ok(reject(&context, &connection, &failure, None, rejected));
        }
    };
    let record = RequestRecord::new(context.clone(), connection, request);
    if let Some(handshake) = handshake {
        // Boxed: every connection of HTTP/1 has room for the future that serves its requests.
        let served = Box::pin(websocket::serve(&context, record, body, handshake)).await?;
        return Ok(served.map_session(|websocket| Session::WebSocket(Box::new(websocket))));
    }
    match record.request.protocol {
        ProtocolType::Grpc => {
            let response = Box::pin(grpc::serve(&context, record, body)).await?;
            Ok(Served::Response(response))
        }
        _ => serve_http(&context, record, body, interim).await,
    }
}

async fn serve_http(
    context: &Arc<HttpContext>,
    mut record: Box<RequestRecord>,
    body: Inbound,
    interim: Option<&dyn SendInterim>,
) -> Result<Served<Session>, Failure> {
    let config = &context.config;
    let is_streamed = !body.is_end_stream() && inline_length(config, &body).is_none();
    let options = ForwardOptions {
        response_timeout: Some(config.service_timeout),
        stall_timeout: Some(config.stall_timeout),
        expect_continue: record.request.expects_continue(),
        deadline: None,
        cancel_at_once: false,
        interim,
    };
    if !record.request.upgrade.is_empty() {
        let served = upgrade::serve(context, record, body, options, is_streamed);
        let served = Box::pin(served).await?;
        return Ok(served.map_session(|upgrade| Session::Upgrade(Box::new(upgrade))));
    }
    let response = match forward(context, &mut record, body, options).await {
        Ok(response) => respond(response, record, None),
        Err(rejected) => respond_to_rejected(rejected, record, is_streamed),
    };
    response.map(Served::Response)
}

/// Rejects a request that two parsers could read differently, or a handshake with an error.
fn reject(
    context: &HttpContext,
    connection: &Connection,
    failure: &Failure,
    handshake: Option<&HandshakeError>,
    (parts, target, uuid): (&Parts, Option<&Target>, Uuid),
) -> Served<Session> {
    context.counters.count_failure(failure.reason);
    tracing::debug!(request_id = %uuid, reason = failure.reason.as_str(), "{}", failure.detail);
    let protocol = protocol_of(parts);
    let error_context = ErrorContext {
        uuid,
        protocol,
        method: &parts.method,
        headers: &parts.headers,
        close: true,
        status: None,
        pages: context.admission.error_pages(),
    };
    let response = error_response(failure, &error_context);
    let mut response = response.render(protocol, &parts.method, parts.version);
    if let Some(handshake) = handshake {
        handshake.add_headers(&mut response, parts.version);
    }
    let rejected = RejectedRequest {
        uuid,
        protocol,
        parts,
        target,
        reason: failure.reason,
        response: &response,
    };
    record_rejected(&**context.admission.observer(), connection, &rejected);
    Served::Response(response.map(|body| ResponseBody::local(body, None)))
}
