//! Header lines: how many are forwarded, in which order, and `Date` (P-2.10, P-3.8).

use adit_testlink::{
    HttpEntry,
    exchanges::{hello, respond},
    http_config, http2, within,
};
use http::Request;
use http_body_util::Empty;

fn names(request: &adit_codec::HttpRequest) -> Vec<String> {
    let names = request.headers.lines().map(|(name, _)| name.to_vec());
    names.map(|name| String::from_utf8(name).unwrap()).collect()
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn p_2_10_lines_of_a_request_keep_their_order() {
    let entry = HttpEntry::serving(http_config(), hello);
    for connection in ["", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\n{connection}B: 2\r\nA: 3\r\nKeep-Alive: 1\r\nC: 4\r\n\
             D: 5\r\nE: 6\r\nConnection: close\r\n\r\n"
        );
        entry.raw(&request).await.unwrap();
        let seen = entry.seen().pop_front().unwrap();
        assert_eq!(names(&seen)[..6], ["a", "a", "b", "c", "d", "e"]);
    }
}

#[tokio::test(start_paused = true)]
async fn p_2_10_lines_of_a_response_keep_their_order() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        let lines = [
            ("transfer-encoding", "chunked"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-a", "1"),
            ("upgrade", "foo"),
            ("x-b", "2"),
            ("x-c", "3"),
        ];
        respond(&exchange, 200, &lines, b"");
    });
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = entry.raw(request).await.unwrap();
    let kept = "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n";
    assert!(response.starts_with(kept), "{response}");
}

#[tokio::test(start_paused = true)]
async fn p_2_10_both_versions_take_256_lines_and_no_more() {
    let entry = HttpEntry::serving(http_config(), hello);
    for (lines, expected) in [(256, "200"), (257, "431")] {
        // `Host` and `Connection` count as lines as well.
        let many = "x: y\r\n".repeat(lines - 2);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n");
        let response = entry.raw(&request).await.unwrap();
        assert_eq!(status(&response), expected, "{lines} lines: {response}");

        let mut request = Request::get("http://a/").body(Empty::new()).unwrap();
        for number in 0..lines {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            let value = http::HeaderValue::from_static("y");
            request.headers_mut().append(name, value);
        }
        let sent = http2::connect(entry.connect().await)
            .await
            .send_request(request);
        let response = within(sent).await.unwrap();
        assert_eq!(response.status().as_str(), expected, "{lines} lines");
        if expected == "431" {
            assert_eq!(response.headers()["adit-reason"], "header_too_large");
        }
    }
    let seen = entry.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.headers.len() >= 254));
}

#[tokio::test(start_paused = true)]
async fn p_3_8_every_response_has_a_date() {
    const OWN: &str = "Thu, 01 Jan 1970 00:00:00 GMT";
    let entry = HttpEntry::serving(http_config(), |request, exchange| async move {
        let lines: &[_] = if &request.path[..] == b"/dated" {
            &[("date", OWN)]
        } else {
            &[]
        };
        respond(&exchange, 200, lines, b"ok");
    });
    let dates = |response: &str| {
        let lines = response
            .lines()
            .filter_map(|line| line.strip_prefix("date: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // Responses with a date of the service, without one, of adit itself, and of the HTTP library.
    for (request, expected) in [
        (
            "GET /dated HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
    ] {
        let response = entry.raw(&request).await.unwrap();
        assert_eq!(status(&response), expected, "{response}");
        let dates = dates(&response);
        assert_eq!(dates.len(), 1, "{response}");
        assert_eq!(dates[0] == OWN, request.contains("/dated"), "{response}");
        assert!(dates[0].ends_with(" GMT"), "{response}");
    }
    let mut visitor = http2::connect(entry.connect().await).await;
    for (path, own) in [("dated", true), ("", false)] {
        let request = Request::get(format!("http://a/{path}"));
        let sent = visitor.send_request(request.body(Empty::new()).unwrap());
        let response = within(sent).await.unwrap();
        assert_eq!(response.headers()["date"] == OWN, own);
    }
}
