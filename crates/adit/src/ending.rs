//! The end of a program: running requests finish, and a terminal shows which ones are waited for.

use std::{fmt::Write as _, future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{errln, signals::Signals};

/// A drain that ends sooner is not reported.
const FIRST: Duration = Duration::from_millis(100);
/// Changes are shown this often.
const AGAIN: Duration = Duration::from_secs(3);

/// Waits for `drain`, which takes at most `within`, or for another signal. Meanwhile shows on standard error what
/// `running` reports: requests by tunnel.
pub async fn finish(
    drain: impl Future<Output = ()>,
    within: Duration,
    running: impl Fn() -> Vec<(String, usize)>,
    signals: &mut Signals,
) {
    let begun = Instant::now();
    let mut drain = pin!(drain);
    let mut next = begun + FIRST;
    let mut shown = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = drain.as_mut() => return,
            () = signals.end() => return,
            () = sleep_until(next) => {}
        }
        let running = running();
        if running != shown && !running.is_empty() {
            let left = within.saturating_sub(begun.elapsed());
            errln!("{}", line(&running, left));
        }
        shown = running;
        next = Instant::now() + AGAIN;
    }
}

/// The text of the line: `waiting for 3 requests (ssh 1, web 2), for 30 s at most; press Ctrl-C again to end at once`
fn line(running: &[(String, usize)], left: Duration) -> String {
    let count: usize = running.iter().map(|(_, count)| count).sum();
    let requests = if count == 1 { "request" } else { "requests" };
    let mut line = format!("waiting for {count} {requests} (");
    for (index, (name, count)) in running.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(line, "{comma}{name} {count}");
    }
    let seconds = left.as_secs_f64().ceil();
    let _ = write!(
        line,
        "), for {seconds} s at most; press Ctrl-C again to end at once"
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_names_requests_by_tunnel_time_and_second_signal() {
        let running = [("ssh".to_owned(), 1), ("web".to_owned(), 2)];
        assert_eq!(
            line(&running, Duration::from_millis(29_100)),
            "waiting for 3 requests (ssh 1, web 2), for 30 s at most; press Ctrl-C again to end at once"
        );
        assert!(line(&running[..1], Duration::ZERO).starts_with("waiting for 1 request (ssh 1)"));
    }
}
