//! The binaries use the cores: the counter of an unused core would stay 0. F01, F11, F15, F18, F23, F25, F33.

use std::time::Duration;

use adit_e2e::{World, count, eventually, pattern};

const SOON: Duration = Duration::from_secs(10);

/// Every counter changes by the number that the requests require.
#[tokio::test]
async fn traffic_passes_through_every_core() {
    const REQUESTS: u64 = 50;
    let world = World::site().await;
    let before = world.server.status().await;
    let client_before = world.client.status().await;
    assert_eq!(count(&before, "/cores/auth_accepted"), 1);
    assert!(count(&before, "/cores/router_revision") >= 1);
    assert_eq!(count(&client_before, "/cores/reconnect_dials"), 1);
    assert_eq!(count(&before, "/cores/balance_choices"), 0);

    let mut visitor = world.http1().await;
    for _ in 0..REQUESTS {
        assert_eq!(visitor.get("/who").await.text(), "site");
    }
    let settled = eventually("all requests settled", SOON, async || {
        let status = world.server.status().await;
        (count(&status, "/process/pending") == 0
            && count(&status, "/cores/pending_settled") >= REQUESTS)
            .then_some(status)
    })
    .await;
    assert_eq!(count(&settled, "/cores/balance_choices"), REQUESTS);
    assert_eq!(count(&settled, "/cores/pending_settled"), REQUESTS);
    assert_eq!(count(&settled, "/clients/0/opened"), REQUESTS);
    assert_eq!(count(&settled, "/visitors/requests"), REQUESTS);
    // At least one message for the request and one for the response.
    let messages =
        count(&settled, "/cores/codec_messages") - count(&before, "/cores/codec_messages");
    assert!(messages >= 2 * REQUESTS, "{messages}");
    assert!(count(&settled, "/cores/mux_batches") > count(&before, "/cores/mux_batches"));

    let client = eventually("all requests settled at the client", SOON, async || {
        let status = world.client.status().await;
        (count(&status, "/pending") == 0 && count(&status, "/cores/pending_settled") >= REQUESTS)
            .then_some(status)
    })
    .await;
    assert_eq!(count(&client, "/cores/pending_settled"), REQUESTS);
    assert!(count(&client, "/cores/codec_messages") >= 2 * REQUESTS);
    assert!(count(&client, "/cores/mux_batches") > count(&client_before, "/cores/mux_batches"));
    assert_eq!(count(&client, "/cores/reconnect_dials"), 1);

    // P-4.6: for bodies longer than a window, both sides grant credit.
    let granted = count(&settled, "/cores/flow_windows");
    let client_granted = count(&client, "/cores/flow_windows");
    assert_eq!(visitor.get("/bytes/1000000").await.body.len(), 1_000_000);
    let uploaded = visitor.post("/sum", pattern(1_000_000, true)).await;
    assert_eq!(uploaded.text(), "1000000 bytes, as sent");
    assert!(count(&world.server.status().await, "/cores/flow_windows") > granted);
    assert!(count(&world.client.status().await, "/cores/flow_windows") > client_granted);
}

/// F18: each dial of the reconnect machine is counted; P-1.4: each registration.
#[tokio::test]
async fn a_lost_server_is_dialled_again_by_the_reconnect_core() {
    let mut world = World::site().await;
    let dials = count(&world.client.status().await, "/cores/reconnect_dials");
    world.server.kill();
    world.server.restart().await;
    world.server.wait_for_clients(1).await;
    assert!(count(&world.client.status().await, "/cores/reconnect_dials") > dials);
    assert_eq!(
        count(&world.server.status().await, "/cores/auth_accepted"),
        1
    );
}
