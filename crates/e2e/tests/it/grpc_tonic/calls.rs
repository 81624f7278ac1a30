//! Calls from tonic to tonic.

use std::time::Duration;

use adit_e2e::within;
use bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::{Code, Request, metadata::BinaryMetadataValue};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::grpc_tonic::{
    SOON, channel,
    echo::Message,
    message,
    service::{LONG, MAX_MESSAGE_BYTES, Service},
    visitor, world_of,
};

const HOST: &str = "rpc.localhost";

#[tokio::test]
async fn p_8_1_all_four_kinds_of_call_cross() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let mut visitor = visitor(&server, HOST).await;
    let unary = visitor.unary(message("text", 7)).await.unwrap();
    assert_eq!(unary.into_inner(), message("text", 7));
    let sent = (0..100).map(|n| message(&format!("{n},"), n));
    let collected = visitor
        .collect(tokio_stream::iter(sent.clone()))
        .await
        .unwrap();
    let all: String = sent.clone().map(|message| message.text).collect();
    assert_eq!(collected.into_inner(), message(&all, 100));
    let expanded = visitor
        .expand(message("x", 100))
        .await
        .unwrap()
        .into_inner();
    let counts: Vec<u32> = expanded
        .map(|message| message.unwrap().count)
        .collect()
        .await;
    assert_eq!(counts, (0..100).collect::<Vec<u32>>());
    // Each message waits for the response to the previous one: neither side may hold a message back.
    let (say, calls) = tokio::sync::mpsc::channel(1);
    let calls = tokio_stream::wrappers::ReceiverStream::new(calls);
    say.send(message("turn", 0)).await.unwrap();
    let mut replies = visitor.chat(calls).await.unwrap().into_inner();
    for turn in 1..=50 {
        let reply = within("a response", SOON, replies.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply, message("turn", turn));
        say.send(reply).await.unwrap();
    }
    drop(say);
    assert_eq!(replies.message().await.unwrap().unwrap().count, 51);
    assert_eq!(replies.message().await.unwrap(), None);
    let trailers = replies.trailers().await.unwrap().unwrap_or_default();
    assert!(trailers.get("adit-reason").is_none(), "{trailers:?}");
}

#[tokio::test]
async fn p_8_2_repeated_and_binary_metadata_cross_in_their_order() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let mut request = Request::new(message("m", 0));
    let metadata = request.metadata_mut();
    let blobs: [&[u8]; 3] = [&[0, 255, 1], b"", &[7; 300]];
    for text in ["b", "a", "b"] {
        metadata.append("x-many", text.parse().unwrap());
    }
    for blob in blobs {
        metadata.append_bin("x-blob-bin", BinaryMetadataValue::from_bytes(blob));
    }
    let response = visitor(&server, HOST).await.unary(request).await.unwrap();
    let many = response.metadata().get_all("x-many").iter();
    assert!(
        many.map(|value| value.to_str().unwrap())
            .eq(["b", "a", "b"])
    );
    let back = response.metadata().get_all_bin("x-blob-bin").iter();
    let back: Vec<Bytes> = back.map(|value| value.to_bytes().unwrap()).collect();
    assert_eq!(back, blobs.map(Bytes::copy_from_slice));
}

#[tokio::test]
async fn p_8_2_a_failure_of_trailers_only_crosses_with_its_details() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let mut visitor = visitor(&server, HOST).await;
    let details = Bytes::from((0..=255).collect::<Vec<u8>>());
    for code in 1..=16 {
        let sent = Message {
            payload: details.clone(),
            ..message("a reason: Grüße, 100 %\n", code)
        };
        let status = visitor.fail(sent).await.unwrap_err();
        assert_eq!(status.code(), Code::from(i32::try_from(code).unwrap()));
        assert_eq!(status.message(), "a reason: Grüße, 100 %\n");
        assert_eq!(status.details(), details);
        let of = status.metadata();
        assert_eq!(of.get("x-why").unwrap(), "tried");
        assert_eq!(
            of.get_bin("x-why-bin").unwrap().to_bytes().unwrap(),
            &[0, 255, 10][..]
        );
        assert!(of.get("adit-reason").is_none(), "it is the service's own");
    }
}

#[tokio::test]
async fn p_8_3_a_deadline_reaches_the_service_and_ends_the_call() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let mut visitor = visitor(&server, HOST).await;
    let mut request = Request::new(message("m", 0));
    request.set_timeout(LONG);
    visitor.unary(request).await.unwrap();
    let seen = service.seen.borrow().timeout.clone().expect("a timeout");
    let (digits, unit) = seen.split_at(seen.len() - 1);
    let scale = match unit {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "S" => 1_000_000_000,
        "M" => 60_000_000_000,
        "H" => 3_600_000_000_000_u64,
        unit => panic!("no unit: {unit}"),
    };
    let left = Duration::from_nanos(digits.parse::<u64>().unwrap() * scale);
    // The time that has passed has been subtracted, and not much more.
    assert!(
        left <= LONG + Duration::from_secs(1) && left > LONG - SOON,
        "{seen}"
    );
    // tonic itself would end the call; with raw metadata the service and the tunnel must do it.
    let mut request = Request::new(message("m", 0));
    request
        .metadata_mut()
        .insert("grpc-timeout", "200m".parse().unwrap());
    let call = async {
        let mut messages = visitor.hang(request).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok::<(), tonic::Status>(())
    };
    let status = within("the end of the call", SOON, call).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    service
        .until("a service that has let go", |seen| seen.hanging == 0)
        .await;
}

#[tokio::test]
async fn p_8_3_a_cancelled_call_is_cancelled_at_the_service() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let mut visitor = visitor(&server, HOST).await;
    let mut messages = visitor.hang(message("m", 1)).await.unwrap().into_inner();
    assert_eq!(messages.message().await.unwrap(), Some(message("m", 1)));
    service
        .until("a call", |seen| (seen.hanging, seen.cancelled) == (1, 0))
        .await;
    drop(messages);
    service
        .until("the end of the call", |seen| {
            (seen.hanging, seen.cancelled) == (0, 1)
        })
        .await;
    // The connection remains usable.
    visitor.unary(message("m", 2)).await.unwrap();
}

#[tokio::test]
async fn f04_a_message_of_64_mib_crosses_both_ways() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let payload: Vec<u8> = (0..16_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let payload = Bytes::from(payload);
    let mut visitor = visitor(&server, HOST)
        .await
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let sent = Message {
        payload: payload.clone(),
        ..message("large", 0)
    };
    let calls = tokio_stream::iter([sent, message("small", 5)]);
    let mut replies = visitor.chat(calls).await.unwrap().into_inner();
    let limit = 4 * SOON;
    let reply = within("64 MiB", limit, replies.message())
        .await
        .unwrap()
        .unwrap();
    assert!(reply.payload == payload, "{} bytes", reply.payload.len());
    assert_eq!((&reply.text[..], reply.count), ("large", 1));
    assert_eq!(replies.message().await.unwrap(), Some(message("small", 6)));
    assert_eq!(replies.message().await.unwrap(), None);
}

#[tokio::test]
async fn f04_health_and_reflection_cross() {
    let service = Service::start("one").await;
    let (_client, server) = world_of(&service).await;
    let channel = channel(&server, HOST).await;
    let mut health = HealthClient::new(channel.clone());
    let query = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let found = health.check(query("adit.e2e.v1.Echo")).await.unwrap();
    assert_eq!(found.into_inner().status(), ServingStatus::Serving);
    let unknown = health.check(query("unknown.Service")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health
        .watch(query("adit.e2e.v1.Echo"))
        .await
        .unwrap()
        .into_inner();
    let next = watched.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::Serving);
    let not = tonic_health::ServingStatus::NotServing;
    service
        .health
        .set_service_status("adit.e2e.v1.Echo", not)
        .await;
    let next = within("a change", SOON, watched.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let request = tokio_stream::iter([request]);
    let mut found = reflection
        .server_reflection_info(request)
        .await
        .unwrap()
        .into_inner();
    let found = found.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = found.message_response else {
        panic!("no list: {found:?}");
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(names.contains(&"adit.e2e.v1.Echo".to_owned()), "{names:?}");
}
