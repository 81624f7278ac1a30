//! With a library of gRPC on both sides, the results are the same as without a tunnel.

use std::time::Duration;

use adit_testlink::{http_config, within};
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Code, Request, metadata::MetadataValue};

use crate::grpc::{
    service::{self, Client, detailed},
    to_service,
};

/// Bytes that differ at every offset.
fn pattern(length: usize, seed: u32) -> Bytes {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn p_8_1_calls_of_every_kind_arrive_whole() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut client = Client::connect(entry.addr).await;
    for length in [0, 1, 5, 8_000, 40_000, 300_000] {
        let message = pattern(length, 1);
        let response = within(client.unary("Unary", message.clone())).await;
        assert!(response.unwrap().into_inner() == message, "{length}");
    }
    let messages: Vec<_> = (0..50).map(|n| pattern(n * 700, 2)).collect();
    let response = within(client.collect(messages.clone())).await.unwrap();
    assert!(response.into_inner() == messages.concat());
    let none = within(client.collect(Vec::new())).await.unwrap();
    assert_eq!(none.into_inner(), "");
    let message = [&[100][..], &pattern(30_000, 3)].concat();
    let message = Bytes::from(message);
    let response = within(client.repeat("Repeat", message.clone())).await;
    let mut responses = response.unwrap().into_inner();
    for _ in 0..100 {
        let response = within(responses.message()).await.unwrap();
        assert!(response.unwrap() == message);
    }
    assert!(within(responses.message()).await.unwrap().is_none());
    let (messages, receiver) = mpsc::channel(1);
    let mut responses = within(client.chat("Chat", receiver))
        .await
        .unwrap()
        .into_inner();
    for length in (0..100).map(|n| n * n * 20) {
        let message = pattern(length, 4);
        messages.send(message.clone()).await.unwrap();
        let response = within(responses.message()).await.unwrap();
        assert!(response.unwrap() == message, "{length}");
    }
    drop(messages);
    assert!(within(responses.message()).await.unwrap().is_none());
    drop((client, responses));
    entry.settled().await;
    let stats = entry.stats();
    assert_eq!(stats.failures.total(), 0);
    let pending = entry.links[0].near.stats().pending;
    assert_eq!(pending.completed, stats.requests);
}

#[tokio::test]
async fn p_8_2_metadata_repeated_and_binary_cross_both_ways() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut client = Client::connect(entry.addr).await;
    let mut request = Request::new(Bytes::from_static(b"hello"));
    let metadata = request.metadata_mut();
    let blobs: [&[u8]; 3] = [&[0, 255, 13, 10], b"", &[b','; 300]];
    for blob in blobs {
        metadata.append_bin("x-blob-bin", MetadataValue::from_bytes(blob));
    }
    for text in ["one", "two, three", "one"] {
        metadata.append("x-plain", text.parse().unwrap());
    }
    request.set_timeout(Duration::from_secs(100));
    let response = within(client.unary("Unary", request)).await.unwrap();
    let metadata = response.metadata();
    let texts: Vec<_> = metadata.get_all("x-plain").iter().collect();
    assert_eq!(texts, ["one", "two, three", "one"]);
    let back = metadata.get_all_bin("x-blob-bin").iter();
    let back: Vec<_> = back.map(|blob| blob.to_bytes().unwrap()).collect();
    assert_eq!(back, blobs);
    // The rest of the timeout in the finest unit that fits: microseconds up to 99.999999 seconds.
    let timeout = metadata.get("x-timeout").unwrap().to_str().unwrap();
    let micros: u64 = timeout.strip_suffix('u').unwrap().parse().unwrap();
    assert!((80_000_000..100_000_000).contains(&micros), "{timeout}");
}

#[tokio::test]
async fn p_8_1_a_status_arrives_with_everything_it_has() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut client = Client::connect(entry.addr).await;
    let check = |status: &tonic::Status| {
        let wanted = detailed();
        assert_eq!(status.code(), wanted.code());
        assert_eq!(status.message(), wanted.message());
        assert_eq!(status.details(), wanted.details());
        let texts: Vec<_> = status.metadata().get_all("x-plain").iter().collect();
        assert_eq!(texts, ["first", "second"]);
        let blob = status.metadata().get_bin("x-blob-bin").unwrap();
        assert_eq!(blob.to_bytes().unwrap()[..], [0, 255, 10]);
    };
    // A response with trailers only.
    check(
        &within(client.unary("Fail", Bytes::new()))
            .await
            .unwrap_err(),
    );
    // A status after a message.
    let response = within(client.repeat("FailMidway", Bytes::new())).await;
    let mut responses = response.unwrap().into_inner();
    let first = within(responses.message()).await.unwrap();
    assert_eq!(first.unwrap(), "one");
    check(&within(responses.message()).await.unwrap_err());
    let status = within(client.unary("Unknown", Bytes::new())).await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    // Every status is a complete response.
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

/// Waiting payload is bounded by the windows (P-4.6), 4 MiB, not by the length of a message.
#[tokio::test]
async fn p_8_1_a_message_of_64_mib_is_streamed_and_not_gathered() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut client = Client::connect(entry.addr).await;
    let message = pattern(64 << 20, 5);
    let sent = message.clone();
    let mut calling = tokio::spawn(async move {
        let response = client.unary("Unary", sent).await;
        response.unwrap().into_inner()
    });
    let link = &entry.links[0];
    let mut most = 0;
    let response = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            tokio::select! {
                response = &mut calling => break response.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            for lane in [&link.near, &link.far] {
                let stats = lane.stats();
                most = most.max(stats.waiting_bytes + stats.mux.queued);
            }
        }
    });
    assert!(response.await.expect("it hangs") == message);
    assert!(most < 6 << 20, "{most} bytes waited");
    entry.settled().await;
}

#[tokio::test]
async fn p_8_3_a_visitor_that_cancels_cancels_the_call_of_the_service() {
    let (port, mut events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut client = Client::connect(entry.addr).await;
    // The client leaves before any response.
    let mut calling = client.clone();
    let call = tokio::spawn(async move { calling.unary("Never", Bytes::new()).await });
    assert_eq!(within(events.recv()).await, Some("called"));
    call.abort();
    assert_eq!(within(events.recv()).await, Some("dropped"));
    // The client leaves while responses arrive, and while none arrives.
    for method in ["Endless", "Quiet"] {
        let response = within(client.repeat(method, Bytes::new())).await;
        let mut responses = response.unwrap().into_inner();
        assert!(within(responses.message()).await.unwrap().is_some());
        drop(responses);
        assert_eq!(within(events.recv()).await, Some("dropped"), "{method}");
    }
    // The client leaves in the middle of its own messages.
    let (messages, receiver) = mpsc::channel(1);
    let responses = within(client.chat("Unread", receiver)).await.unwrap();
    messages.send(Bytes::from(vec![1; 200_000])).await.unwrap();
    drop((responses, messages));
    assert_eq!(within(events.recv()).await, Some("dropped"));
    // The connection remains usable.
    let response = within(client.unary("Unary", Bytes::from_static(b"on"))).await;
    assert_eq!(response.unwrap().into_inner(), "on");
    entry.settled().await;
}
