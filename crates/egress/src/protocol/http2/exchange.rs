//! One request over HTTP/2: a stream is opened, the request sent and the response forwarded at the same time, and the
//! request's record is finished.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use adit_codec::ResetCode;
use adit_link::{Exchange, RecvHalf, SendHalf, header_lines, until};
use adit_trace::Phase;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::Response;

use super::{
    error::{ExchangeError, describe},
    grpc,
    pool::{Pool, RequestKind, StreamPermit},
    request::{Http2Head, Http2Record},
    request_head::encode,
    request_writer::{Piece, RequestWriter, has_no_body},
    response_reader::ResponseReader,
};
use crate::{
    forward::{error::ForwardError, record::Outcome, resources::Resources},
    protocol::interim::InterimResponses,
};

/// Connections that may be found closed before the request fails. It has been sent on none of them.
const MAX_TRIES: usize = 3;

/// Serves a request and finishes its record.
pub(super) async fn serve(
    pool: &Arc<Pool>,
    resources: &Resources,
    mut record: Http2Record,
    exchange: Exchange,
) {
    let Exchange { send, recv } = exchange;
    let mut has_responded = false;
    let result = forward(
        pool,
        resources,
        &mut record,
        &send,
        recv,
        &mut has_responded,
    )
    .await;
    let is_grpc = record.head.is_grpc();
    let (code, reason) = match result {
        Ok(()) => return record.finish(Outcome::Completed),
        Err(ExchangeError::Forward(ForwardError::Abandoned)) => {
            return record.finish(Outcome::of_abandoned(&send));
        }
        Err(ExchangeError::NotProcessed(reason)) if !has_responded => {
            (ResetCode::Refused, reason.into())
        }
        Err(ExchangeError::StreamReset(code, reason)) if is_grpc => {
            let status = grpc::status_of_reset(code);
            return grpc::end_with_status(&send, record, status, &reason, has_responded);
        }
        Err(ExchangeError::HeadersTooLarge(reason)) if is_grpc => {
            let status = grpc::RESOURCE_EXHAUSTED;
            return grpc::end_with_status(&send, record, status, &reason, has_responded);
        }
        Err(ExchangeError::Forward(ForwardError::Reset(code, reason))) => (code, reason),
        Err(
            ExchangeError::NotProcessed(reason)
            | ExchangeError::StreamReset(_, reason)
            | ExchangeError::HeadersTooLarge(reason)
            | ExchangeError::Forward(ForwardError::ConnectionLost(reason)),
        ) => (ResetCode::ServiceAborted, reason.into()),
    };
    record.reset(send, code, &reason);
}

/// Forwards the request and its response. `has_responded` is set when the head of the response has been forwarded.
async fn forward(
    pool: &Arc<Pool>,
    resources: &Resources,
    record: &mut Http2Record,
    send: &SendHalf,
    recv: RecvHalf,
    has_responded: &mut bool,
) -> Result<(), ExchangeError> {
    // The permit is held as long as the request has its stream.
    let (response, stream, _permit) = open_stream(pool, resources, record, send, &recv).await?;
    let config = &resources.config;
    let Http2Record {
        head,
        service,
        timeline,
        payload,
        ..
    } = record;
    let (stream, length) = stream;
    let mut writer = RequestWriter::new(recv, stream, length, payload);
    let mut interim = head.interim();
    let mut response = pin!(final_response(response, interim.as_mut(), send));
    let response = loop {
        let due = match head {
            Http2Head::Http(_) => writer.ended_at().map(|at| at + config.response_timeout),
            // A call of gRPC may be silent for as long as its visitor waits (P-8.3).
            Http2Head::Grpc(_) => None,
        };
        tokio::select! {
            biased;
            response = response.as_mut() => break response,
            sent = writer.run(), if writer.ended_at().is_none() => sent.map_err(invalid_body)?,
            // Only after the end of the visitor's direction: the bytes before an abort are delivered.
            () = send.closed(), if writer.ended_at().is_some() => {
                return Err(ForwardError::Abandoned.into());
            }
            () = until(due) => {
                let wait = config.response_timeout;
                let reason = format!("the service did not respond within {wait:?}");
                let error = ForwardError::Reset(ResetCode::ServiceTimeout, reason.into());
                return Err(error.into());
            }
        }
    };
    let response = response?;
    service.select_compression(send, header_lines(response.headers()));
    let status = response.status().as_u16();
    let reader = ResponseReader::begin(response, head, send, payload, config)?;
    *has_responded = true;
    timeline.on_response(status, reader.is_done() && writer.ended_at().is_some());
    timeline.on_grpc_status(reader.grpc_status());
    let mut reading = pin!(reader.run());
    let read = loop {
        tokio::select! {
            biased;
            read = reading.as_mut() => break read,
            sent = writer.run(), if writer.ended_at().is_none() => sent.map_err(invalid_body)?,
            () = send.closed(), if writer.ended_at().is_some() => {
                return Err(ForwardError::Abandoned.into());
            }
        }
    };
    if matches!(read, Err(ExchangeError::Forward(ForwardError::Abandoned))) {
        writer.run().await.map_err(invalid_body)?;
    }
    timeline.on_grpc_status(read?);
    // A call of gRPC ends with its response. For an HTTP request the service may continue to read (RFC 9113, 8.1).
    if let Http2Head::Http(_) = head {
        writer.run_out(config.early_response_timeout).await;
    }
    Ok(())
}

/// The stream of a request, with the length of its body if the head states it.
type RequestStream = (SendStream<Piece>, Option<u64>);

/// Opens a stream with the request's head.
async fn open_stream(
    pool: &Arc<Pool>,
    resources: &Resources,
    record: &mut Http2Record,
    send: &SendHalf,
    recv: &RecvHalf,
) -> Result<(ResponseFuture, RequestStream, StreamPermit), ExchangeError> {
    let (request, length) = encode(record)?;
    let timeline = &mut record.timeline;
    let kind = if recv.is_complete() {
        RequestKind::Whole
    } else {
        RequestKind::Streamed
    };
    let mut tries = 1;
    let mut permit = loop {
        timeline.begin(Phase::Queue);
        let permit = tokio::select! {
            biased;
            permit = pool.acquire(kind) => permit,
            () = send.abandoned() => return Err(ForwardError::Abandoned.into()),
        };
        timeline.end(Phase::Queue);
        let mut permit = match permit {
            Ok(permit) => permit,
            Err(error) => {
                // The request has waited for a connection to be opened.
                timeline.on_dialled(None);
                return Err(error.into());
            }
        };
        if let Some(dial) = permit.dial.take() {
            timeline.on_dialled(Some(dial));
        }
        // Nothing has been sent yet: another connection can serve the request.
        match poll_fn(|cx| permit.sender.poll_ready(cx)).await {
            Ok(()) => break permit,
            Err(_) if tries < MAX_TRIES => {
                resources.counters.retried.fetch_add(1, Ordering::Relaxed);
                permit.remove_connection();
                tries += 1;
            }
            Err(error) => {
                let reason = describe("the connection ended", &error);
                return Err(ExchangeError::NotProcessed(reason));
            }
        }
    };
    let ends = has_no_body(recv, length);
    let (response, stream) = permit.sender.send_request(request, ends).map_err(|error| {
        if error.is_io() || error.is_go_away() {
            ExchangeError::NotProcessed(describe("the connection ended", &error))
        } else {
            ForwardError::service_aborted(describe("the request cannot be sent", &error)).into()
        }
    })?;
    timeline.on_head_written();
    Ok((response, (stream, length), permit))
}

/// The final response. Interim responses are forwarded as they arrive.
async fn final_response(
    mut response: ResponseFuture,
    mut interim: Option<&mut InterimResponses>,
    send: &SendHalf,
) -> Result<Response<RecvStream>, ExchangeError> {
    let failed = |error: h2::Error| ExchangeError::of(&error, "the service did not respond");
    poll_fn(|cx| {
        // Interim responses are taken even if they are not forwarded: h2 buffers them until then.
        while let Poll::Ready(Some(head)) = response.poll_informational(cx) {
            let head = head.map_err(failed)?;
            let Some(interim) = &mut interim else {
                continue;
            };
            let lines = header_lines(head.headers());
            interim.forward(head.status().as_u16(), lines, send)?;
        }
        Pin::new(&mut response).poll(cx).map_err(failed)
    })
    .await
}

/// The visitor's body violates the protocol.
fn invalid_body(reason: &'static str) -> ExchangeError {
    ForwardError::Reset(ResetCode::ProtocolError, reason.into()).into()
}
