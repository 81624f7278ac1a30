//! One attempt to forward a request: on one client, up to the head of its response.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use adit_codec::{ProtocolType, ResetCode};
use adit_link::{Exchange, Failure, compress::is_compressible};
use bytes::Bytes;

use crate::{
    config::HttpConfig,
    forward::{
        context::HttpContext,
        demand::Demand,
        director::Destination,
        layer::Held,
        limits::limit_exchange,
        options::ForwardOptions,
        receive::{RequestSend, UpstreamResponse, receive},
        record::RequestRecord,
        request_body::RequestBody,
        request_head::{Head, lines_of},
        retry::inline_bytes,
        streaming::Streaming,
    },
};

/// Values of the layers that a request holds while it runs. Shared by its exchange and by the retry loop, so that they
/// outlive an attempt that fails and is followed by another.
pub(super) type Holds = Arc<Mutex<Vec<Held>>>;

/// An exchange with a client: the message with the head of the request is queued.
pub(super) struct Opened {
    exchange: Exchange,
    /// A part of the body is in the message of the head.
    rode: bool,
    /// The request ends with that message.
    end: bool,
    offers_upgrade: bool,
}

/// Opens an exchange with the client of `destination`. The part of `body` that has arrived and fits is sent with the
/// head.
///
/// # Errors
/// The failure of this attempt.
pub(super) fn open(
    context: &HttpContext,
    record: &mut RequestRecord,
    destination: Destination,
    holds: &Option<Holds>,
    body: &RequestBody,
    options: ForwardOptions<'_>,
) -> Result<Opened, Failure> {
    let lane = destination.lane;
    let riding = body.inlined(inline_bytes(&lane));
    // Whether the request ends with that message.
    let end = match body {
        RequestBody::None => record.request.protocol != ProtocolType::WebSocket,
        RequestBody::Inline(body, trailers) => body.len() == riding.len() && trailers.is_none(),
        RequestBody::Incomplete(..) | RequestBody::Streamed { .. } => false,
    };
    // An upgrade is offered only with the whole body in that message: bytes after it belong to the other protocol
    // (P-3.7).
    let offers_upgrade = !record.request.upgrade.is_empty() && lane.may_upgrade() && {
        let is_whole = |body: &Bytes| body.len() == riding.len();
        match body {
            RequestBody::None => true,
            RequestBody::Inline(body, None) => is_whole(body),
            _ => false,
        }
    };
    record.may_switch = offers_upgrade;
    let end = end && !offers_upgrade;
    let trace = record.phases.transit(&**context.admission.observer());
    let head = Head {
        request: &record.request,
        offers_upgrade,
        tunnel: &destination.tunnel,
        revision: destination.revision,
        deadline: options.deadline,
    };
    let head = head.encode(trace, riding)?;
    let rode = !riding.is_empty();
    // A streamed body may take any time, so the lane cannot know when the response is due.
    let due = match body {
        RequestBody::Streamed { .. } => None,
        _ => options
            .response_timeout
            .map(|within| Instant::now() + within),
    };
    record.on_route(destination.grant, lane.mux().side());
    let mut exchange = lane.open(head, end, due)?;
    if let Some(limits) = &destination.limits {
        limit_exchange(&mut exchange, &**limits, riding.len());
    }
    record.phases.watch(&exchange);
    exchange.hold((
        destination.hold,
        destination.permit,
        holds.clone(),
        record.begin_buffering(),
    ));
    let compression = destination.compression;
    let compression = compression.filter(|_| is_compressible(lines_of(&record.request)));
    exchange.send.set_compression(compression);
    if record.request.protocol == ProtocolType::WebSocket {
        exchange.set_stall(context.config.session_stall);
    }
    Ok(Opened {
        exchange,
        rode,
        end,
        offers_upgrade,
    })
}

/// Sends the rest of the request, and receives the head of the response. `demand` is for a streamed body.
///
/// # Errors
/// The failure of this attempt, or of `opened`. [`RequestBody::can_start_over`] of `body` returns whether another
/// attempt can send it.
pub(super) async fn complete(
    config: &HttpConfig,
    record: &mut RequestRecord,
    opened: Result<Opened, Failure>,
    demand: &Demand,
    body: &mut RequestBody,
    options: ForwardOptions<'_>,
) -> Result<UpstreamResponse, Failure> {
    let Opened {
        exchange: Exchange { send, recv },
        rode,
        end,
        offers_upgrade,
    } = opened?;
    match body {
        RequestBody::None | RequestBody::Inline(..) if offers_upgrade => {
            let mut response = receive(record, options, recv).await?;
            if response.head.status == 101 {
                response.request = RequestSend::Open(send);
            } else {
                // This fails only when the exchange is over.
                let _ = send.finish();
            }
            Ok(response)
        }
        RequestBody::None if end => receive(record, options, recv).await,
        RequestBody::None => {
            // The visitor of a WebSocket sends frames when it has the response.
            let mut response = receive(record, options, recv).await?;
            response.request = RequestSend::Open(send);
            Ok(response)
        }
        RequestBody::Inline(body, trailers) => {
            if !end {
                // If this fails, the response contains the reason, or has arrived already.
                let sent = if rode {
                    Ok(())
                } else {
                    send.send_all(body.clone(), trailers.is_none()).await
                };
                if let (Ok(()), Some(trailers)) = (sent, trailers) {
                    let _ = send.finish_with(record.request.reserved.block_of(trailers));
                }
            }
            receive(record, options, recv).await
        }
        RequestBody::Incomplete(first, failure) => {
            if !rode {
                // This fails only when the exchange is over.
                let _ = send.send_all(first.clone(), false).await;
            }
            send.abort(ResetCode::Cancelled, &failure.detail);
            Err(failure.clone())
        }
        RequestBody::Streamed { first, body } => {
            let streaming = Streaming {
                config,
                options,
                send: Some(send),
                pump: None,
                demand,
                first: if rode { Bytes::new() } else { first.clone() },
                body,
                record,
            };
            // This future is boxed: otherwise the future of every request would have room for a streamed body.
            Box::pin(streaming.run(recv)).await
        }
    }
}
