//! What becomes of one request, told when it is over.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::ResetCode;
use adit_link::SendHalf;
use adit_trace::TraceContext;

use super::{asked::Told, course::Course, moved::Moved, reset::give_up};
use crate::service::Service;

/// The account of one request: whoever serves it holds it, and when it is dropped the observer is told. Until something
/// else is said, the visitor left.
pub(crate) struct Account<H: Told> {
    pub(crate) head: H,
    pub(crate) service: Arc<Service>,
    pub(crate) course: Course,
    pub(crate) moved: Moved,
}

impl<H: Told> Account<H> {
    pub(crate) fn new(head: H, service: Arc<Service>, course: Course) -> Self {
        service.running.fetch_add(1, Ordering::Relaxed);
        Self {
            head,
            service,
            course,
            moved: Moved::default(),
        }
    }

    /// What the service gets as `traceparent` in place of the visitor's line: our own context, or, where nothing is traced
    /// here, the one that the other side has sent. `None`: there is none, or the tunnel's settings add a header of this
    /// name.
    pub(crate) fn traceparent(&self) -> Option<String> {
        if self.service.replaces(TRACEPARENT) {
            return None;
        }
        match self.course.context() {
            Some(context) => Some(context.to_string()),
            None => {
                let sent: &str = &self.head.asked().open.traceparent;
                let is_one = !sent.is_empty() && sent.parse::<TraceContext>().is_ok();
                is_one.then(|| sent.to_owned())
            }
        }
    }

    /// Gives the request up, saying why. What ended it before stands.
    pub(crate) fn give_up(&mut self, send: SendHalf, code: ResetCode, why: &str) {
        self.course.on_reset(code);
        self.course.on_gone(&send);
        give_up(send, self.head.asked().open, code, why);
    }
}

/// The name of the line that carries a trace's context.
pub(crate) const TRACEPARENT: &[u8] = b"traceparent";

impl<H: Told> Drop for Account<H> {
    fn drop(&mut self) {
        let Self {
            head,
            service,
            course,
            moved,
        } = self;
        service.running.fetch_sub(1, Ordering::Relaxed);
        course.tell(&*service.observer, &head.asked(), &service.endpoint, moved);
    }
}
