//! Promises of a context: a written context is read again, and any text is read correctly or rejected without a panic.
#![allow(missing_docs, clippy::unwrap_used)]

use adit_trace::{SpanId, TraceContext, TraceId};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_written_context_is_read_again(trace: u128, span: u64, sampled: bool) {
        let context = TraceContext {
            trace_id: TraceId::from_random(trace),
            span_id: SpanId::from_random(span),
            sampled,
        };
        prop_assert_eq!(context.to_string().parse(), Ok(context));
    }

    #[test]
    fn any_text_is_read_or_rejected(text in "[0-9a-f-]{0,60}|\\PC{0,60}") {
        if let Ok(context) = text.parse::<TraceContext>() {
            prop_assert_eq!(&context.to_string()[3..52], &text[3..52]);
        }
    }
}
