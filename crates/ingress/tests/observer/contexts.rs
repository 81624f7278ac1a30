//! Which trace a request belongs to, and what crosses the link of it.

use adit_codec::HttpRequest;
use tokio::io::AsyncWriteExt;

use crate::{
    rig::{PARENT, Rig, Told, crossed},
    world::{answer, config, read_to_end},
};

/// A request with these header lines: what reached the client, and what was told.
async fn asked(rig: &mut Rig, lines: &str) -> (HttpRequest, Told) {
    let mut visitor = rig.world.connect().await;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
    visitor.write_all(request.as_bytes()).await.unwrap();
    let (head, exchange) = rig.http().await;
    answer(&exchange, 200, &[], b"");
    read_to_end(&mut visitor).await.unwrap();
    (head, rig.told().await)
}

fn line(head: &HttpRequest, name: &str) -> Option<String> {
    let value = head.headers.first(name.as_bytes());
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_that_is_traced_here_crosses_with_our_context() {
    // Nothing begins here; what has begun is followed.
    let mut rig = Rig::with(config(), 0.0).await;
    let lines = format!("traceparent: {PARENT}\r\nbaggage: user=1\r\n");
    let (head, told) = asked(&mut rig, &lines).await;
    assert_eq!(rig.recorder.came_with(), [PARENT]);
    crossed(&told, 0, &head.open.traceparent);
    let timeline = told.timeline.unwrap();
    let (here, parent) = (timeline.context(), timeline.parent().unwrap());
    assert_eq!(here.trace_id.to_string(), PARENT[3..35]);
    assert_eq!(parent.to_string(), PARENT[36..52]);
    // The other end writes its own line; this one is the visitor's.
    assert_eq!(line(&head, "traceparent").unwrap(), PARENT);
    assert_eq!(&*head.open.baggage, "user=1");
    assert_eq!(line(&head, "baggage").unwrap(), "user=1");
}

#[tokio::test]
async fn a_context_that_is_not_traced_here_passes_as_it_is() {
    for (ratio, context) in [
        // Whoever began it does not want it recorded.
        (1.0, PARENT.replace("-01", "-00")),
        // Flags that mean nothing to us.
        (1.0, PARENT.replace("-01", "-02")),
        // Of a version to come.
        (
            1.0,
            format!("cc-{}", PARENT[3..].replace("-01", "-00-more")),
        ),
    ] {
        let mut rig = Rig::with(config(), ratio).await;
        let lines = format!("traceparent: {context}\r\nbaggage: user=1\r\n");
        let (head, told) = asked(&mut rig, &lines).await;
        assert_eq!(rig.recorder.came_with(), [&context[..]]);
        assert!(told.timeline.is_none());
        assert_eq!(&*head.open.traceparent, context);
        assert_eq!(&*head.open.baggage, "user=1");
        assert_eq!(line(&head, "traceparent").unwrap(), context);
    }
}

#[tokio::test]
async fn what_is_no_context_does_not_pass_for_one() {
    let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
    for (lines, came_with) in [
        (String::new(), ""),
        ("traceparent: mine\r\n".into(), "mine"),
        (
            format!("traceparent: {PARENT}-more\r\n"),
            &format!("{PARENT}-more")[..],
        ),
        ("traceparent: \u{e9}\r\n".into(), ""),
        (twice, ""),
    ] {
        let lines = format!("{lines}baggage: user=1\r\n");
        let mut rig = Rig::with(config(), 0.0).await;
        let (head, told) = asked(&mut rig, &lines).await;
        assert_eq!(rig.recorder.came_with(), [came_with]);
        assert!(told.timeline.is_none());
        assert_eq!(&*head.open.traceparent, "", "{lines}");
        assert_eq!(&*head.open.baggage, "user=1");
        // A trace may begin here instead.
        let mut rig = Rig::new().await;
        let (head, told) = asked(&mut rig, &lines).await;
        crossed(&told, 0, &head.open.traceparent);
        assert_eq!(told.timeline.unwrap().parent(), None);
    }
}
