//! The trace of a request, and the context that crosses the link.

use adit_codec::HttpRequest;
use adit_testlink::{
    Recorded, SAMPLED,
    exchanges::respond,
    http_config,
    http1::{read_to_end, send},
};

use crate::observer::Observed;

/// Sends a request with these header lines; returns the request that reached the client, and the record.
async fn request(observed: &mut Observed, lines: &str) -> (HttpRequest, Recorded) {
    let mut visitor = observed.entry.connect().await;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
    send(&mut visitor, &request).await;
    let (head, exchange) = observed.incoming.http().await;
    respond(&exchange, 200, &[], b"");
    read_to_end(&mut visitor).await.unwrap();
    (head, observed.record().await)
}

fn line(head: &HttpRequest, name: &str) -> Option<String> {
    let value = head.headers.first(name.as_bytes());
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_sampled_request_crosses_with_our_context() {
    // No trace begins here; the traces of visitors are continued.
    let mut observed = Observed::with(http_config(), 0.0);
    let lines = format!("traceparent: {SAMPLED}\r\nbaggage: user=1\r\n");
    let (head, record) = request(&mut observed, &lines).await;
    assert_eq!(*observed.recorder.parents.lock().unwrap(), [SAMPLED]);
    record.expect_context(0, &head.open.traceparent);
    let timeline = record.timeline.unwrap();
    let (here, parent) = (timeline.context(), timeline.parent().unwrap());
    assert_eq!(here.trace_id.to_string(), SAMPLED[3..35]);
    assert_eq!(parent.to_string(), SAMPLED[36..52]);
    // The other end writes its own line; this one is from the visitor.
    assert_eq!(line(&head, "traceparent").unwrap(), SAMPLED);
    assert_eq!(&*head.open.baggage, "user=1");
    assert_eq!(line(&head, "baggage").unwrap(), "user=1");
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_not_sampled_passes_unchanged() {
    for (ratio, context) in [
        // A context that is not sampled.
        (1.0, SAMPLED.replace("-01", "-00")),
        // A context with unknown flags.
        (1.0, SAMPLED.replace("-01", "-02")),
        // A context of a later version.
        (
            1.0,
            format!("cc-{}", SAMPLED[3..].replace("-01", "-00-more")),
        ),
    ] {
        let mut observed = Observed::with(http_config(), ratio);
        let lines = format!("traceparent: {context}\r\nbaggage: user=1\r\n");
        let (head, record) = request(&mut observed, &lines).await;
        assert_eq!(*observed.recorder.parents.lock().unwrap(), [&context[..]]);
        assert!(record.timeline.is_none());
        assert_eq!(&*head.open.traceparent, context);
        assert_eq!(&*head.open.baggage, "user=1");
        assert_eq!(line(&head, "traceparent").unwrap(), context);
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_context_is_not_forwarded() {
    let twice = format!("traceparent: {SAMPLED}\r\ntraceparent: {SAMPLED}\r\n");
    for (lines, parent_header) in [
        (String::new(), ""),
        ("traceparent: mine\r\n".into(), "mine"),
        (
            format!("traceparent: {SAMPLED}-more\r\n"),
            &format!("{SAMPLED}-more")[..],
        ),
        ("traceparent: \u{e9}\r\n".into(), ""),
        (twice, ""),
    ] {
        let lines = format!("{lines}baggage: user=1\r\n");
        let mut observed = Observed::with(http_config(), 0.0);
        let (head, record) = request(&mut observed, &lines).await;
        assert_eq!(*observed.recorder.parents.lock().unwrap(), [parent_header]);
        assert!(record.timeline.is_none());
        assert_eq!(&*head.open.traceparent, "", "{lines}");
        assert_eq!(&*head.open.baggage, "user=1");
        // In this case a trace may begin here.
        let mut observed = Observed::new();
        let (head, record) = request(&mut observed, &lines).await;
        record.expect_context(0, &head.open.traceparent);
        assert_eq!(record.timeline.unwrap().parent(), None);
    }
}
