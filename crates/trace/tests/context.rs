//! Promises of a context: what was written is read again; no text is misread, and none panics.
#![allow(missing_docs, clippy::unwrap_used)]

use adit_trace::{SpanId, TraceContext, TraceId};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_was_written_is_read(trace: u128, span: u64, sampled: bool) {
        let context = TraceContext {
            trace_id: TraceId::from_random(trace),
            span_id: SpanId::from_random(span),
            sampled,
        };
        prop_assert_eq!(context.to_string().parse(), Ok(context));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-f-]{0,60}|\\PC{0,60}") {
        if let Ok(context) = text.parse::<TraceContext>() {
            prop_assert_eq!(&context.to_string()[3..52], &text[3..52]);
        }
    }
}
