//! The call by which a collector takes spans (OTLP, `TraceService/Export`).

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// What it answers (`ExportTraceServiceResponse`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// What of a request it did not want.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// A connection to it, which is made when it is needed.
pub(super) struct Collector(Grpc<Channel>);

impl Collector {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self(Grpc::new(endpoint.connect_lazy()))
    }

    /// Sends a whole `ExportTraceServiceRequest`.
    ///
    /// # Errors
    /// What the collector says, and that there is none.
    pub(super) async fn export(&mut self, request: Bytes) -> Result<Answer, Status> {
        let refuse =
            |error| Status::unavailable(format!("no connection to the collector: {error}"));
        self.0.ready().await.map_err(refuse)?;
        let answer = self.0.unary(Request::new(request), EXPORT, Encoded).await?;
        Ok(answer.into_inner())
    }
}

/// Requests are encoded already.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(request.len());
        to.put(request);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let answer = Answer::decode(from.copy_to_bytes(from.remaining()));
        let refuse = |error| Status::internal(format!("the collector's answer is none: {error}"));
        answer.map(Some).map_err(refuse)
    }
}
