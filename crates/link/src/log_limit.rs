//! Log lines about events that peers can cause at will: a few per second for each kind, with the number of events.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

/// The period for which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Logs the events of one kind. The first ones of a second have a line each; the other events of that second have one
/// line together, with their number, when the second is over.
pub struct LogLimit<T> {
    per_sec: u32,
    state: Mutex<State<T>>,
    write: fn(&T, u64),
}

struct State<T> {
    /// The end of the second in which the last lines were written.
    until: Option<Instant>,
    /// Lines of that second.
    written: u32,
    /// The last event without a line yet, and the number of such events. A task writes them when it is time.
    waiting: Option<(T, u64)>,
}

impl<T: Send + 'static> LogLimit<T> {
    /// A limit of one line per second. `write` receives the last event that the line represents, and the number of
    /// events.
    pub fn new(write: fn(&T, u64)) -> Arc<Self> {
        Self::per_sec(1, write)
    }

    /// [`LogLimit::new`] with this many lines per second, and one more for all others.
    pub fn per_sec(lines: u32, write: fn(&T, u64)) -> Arc<Self> {
        Arc::new(Self {
            per_sec: lines,
            state: Mutex::new(State {
                until: None,
                written: 0,
                waiting: None,
            }),
            write,
        })
    }

    /// Counts an event. Outside of a runtime, events beyond the limit wait for the next event after their second.
    pub fn note(self: &Arc<Self>, event: T) {
        let now = Instant::now();
        let mut state = self.lock();
        let until = match state.until {
            Some(until) if now < until => until,
            _ => now + WINDOW,
        };
        if state.until != Some(until) {
            state.until = Some(until);
            state.written = 0;
        }
        if state.written < self.per_sec {
            state.written += 1;
            let earlier = state.waiting.take().map_or(0, |(_, count)| count);
            drop(state);
            (self.write)(&event, earlier + 1);
            return;
        }
        if let Some((last, count)) = &mut state.waiting {
            *last = event;
            *count += 1;
            return;
        }
        state.waiting = Some((event, 1));
        drop(state);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self.clone().write_after(until));
        }
    }

    /// Writes the waiting events when the second is over, unless a later event has written them before.
    async fn write_after(self: Arc<Self>, until: Instant) {
        sleep_until(until).await;
        let mut state = self.lock();
        if state.until != Some(until) {
            // A newer second has begun, and its first line included the waiting events.
            return;
        }
        let waiting = state.waiting.take();
        state.until = Some(Instant::now() + WINDOW);
        state.written = 1;
        drop(state);
        if let Some((event, count)) = waiting {
            (self.write)(&event, count);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for LogLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLimit")
            .field("per_sec", &self.per_sec)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static LINES: RefCell<Vec<(u32, u64)>> = const { RefCell::new(Vec::new()) };
    }

    fn write(event: &u32, count: u64) {
        LINES.with_borrow_mut(|lines| lines.push((*event, count)));
    }

    fn lines() -> Vec<(u32, u64)> {
        LINES.with_borrow_mut(std::mem::take)
    }

    async fn pass(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_a_second_with_its_number() {
        let limit = LogLimit::new(write);
        for event in 0..10_000 {
            limit.note(event);
        }
        assert_eq!(lines(), [(0, 1)]);
        pass(1_001).await;
        assert_eq!(lines(), [(9_999, 9_999)]);
        for event in 0..5 {
            limit.note(event);
        }
        pass(1_000).await;
        assert_eq!(lines(), [(4, 5)]);
        // No more events: nothing is written, and an event after a silence is written at once.
        pass(10_000).await;
        assert_eq!(lines(), []);
        limit.note(7);
        assert_eq!(lines(), [(7, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn first_events_of_a_second_have_lines_of_their_own() {
        let limit = LogLimit::per_sec(3, write);
        for event in 0..100 {
            limit.note(event);
        }
        assert_eq!(lines(), [(0, 1), (1, 1), (2, 1)]);
        pass(1_001).await;
        assert_eq!(lines(), [(99, 97)]);
        // The line for the other events counts in the second in which it is written.
        for event in 0..4 {
            limit.note(event);
        }
        assert_eq!(lines(), [(0, 1), (1, 1)]);
        pass(1_001).await;
        assert_eq!(lines(), [(3, 2)]);
    }

    #[test]
    fn events_outside_a_runtime_wait_for_the_next_event() {
        let limit = LogLimit::new(write);
        (0..3).for_each(|event| limit.note(event));
        assert_eq!(lines(), [(0, 1)]);
        limit.lock().until = Some(Instant::now());
        limit.note(3);
        assert_eq!(lines(), [(3, 3)]);
    }
}
