//! Lines about what peers can cause at will: one a second for each kind, with the number of events.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How often a kind of event is logged at most.
const EVERY: Duration = Duration::from_secs(1);

/// Logs the events of one kind: the first at once, those of the next second in one line with their number.
pub struct LogLimit<T> {
    state: Mutex<State<T>>,
    write: fn(&T, u64),
}

struct State<T> {
    /// No line is written before this.
    next: Option<Instant>,
    /// The last event that is not in a line yet, and how many such there are. A task writes them when it is time.
    waiting: Option<(T, u64)>,
}

impl<T: Send + 'static> LogLimit<T> {
    /// `write` gets an event, the last of its second, and how many there were.
    pub fn new(write: fn(&T, u64)) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                next: None,
                waiting: None,
            }),
            write,
        })
    }

    /// Takes note of an event. To be called within a runtime.
    pub fn note(self: &Arc<Self>, event: T) {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some((last, count)) = &mut state.waiting {
            *last = event;
            *count += 1;
            return;
        }
        match state.next {
            Some(next) if now < next => {
                state.waiting = Some((event, 1));
                drop(state);
                let limit = self.clone();
                tokio::spawn(async move {
                    sleep_until(next).await;
                    limit.write_waiting();
                });
            }
            _ => {
                state.next = Some(now + EVERY);
                drop(state);
                (self.write)(&event, 1);
            }
        }
    }

    fn write_waiting(&self) {
        let mut state = self.lock();
        let waiting = state.waiting.take();
        state.next = Some(Instant::now() + EVERY);
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
        f.debug_struct("LogLimit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static LINES: RefCell<Vec<(u32, u64)>> = const { RefCell::new(Vec::new()) };
    }

    fn lines() -> Vec<(u32, u64)> {
        LINES.with_borrow_mut(std::mem::take)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_a_second_with_its_number() {
        let limit = LogLimit::new(|event: &u32, count| {
            LINES.with_borrow_mut(|lines| lines.push((*event, count)));
        });
        for event in 0..10_000 {
            limit.note(event);
        }
        assert_eq!(lines(), [(0, 1)]);
        tokio::time::sleep(EVERY + Duration::from_millis(1)).await;
        assert_eq!(lines(), [(9_999, 9_999)]);
        for event in 0..5 {
            limit.note(event);
        }
        tokio::time::sleep(EVERY).await;
        assert_eq!(lines(), [(4, 5)]);
        // Nothing more has come: nothing is written, and what comes after a silence is written at once.
        tokio::time::sleep(10 * EVERY).await;
        assert_eq!(lines(), []);
        limit.note(7);
        assert_eq!(lines(), [(7, 1)]);
    }
}
