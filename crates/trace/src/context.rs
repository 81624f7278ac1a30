//! The trace context of a `traceparent` header.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
};

/// Identifies a trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub NonZeroU128);

/// Identifies a span within its trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub NonZeroU64);

impl TraceId {
    /// Creates an id from a random number; 0 becomes 1.
    pub fn from_random(random: u128) -> Self {
        Self(NonZeroU128::new(random).unwrap_or(NonZeroU128::MIN))
    }
}

impl SpanId {
    /// Creates an id from a random number; 0 becomes 1.
    pub fn from_random(random: u64) -> Self {
        Self(NonZeroU64::new(random).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in a trace (W3C Trace Context, 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The parent of the next span.
    pub span_id: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// The text is an invalid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseContextError;

impl fmt::Display for ParseContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid trace context, expected VERSION-TRACE_ID-SPAN_ID-FLAGS in lower-case hexadecimal digits")
    }
}

impl std::error::Error for ParseContextError {}

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const LENGTH: usize = 55;

/// The only flag that is used here.
const SAMPLED: u64 = 1;

impl FromStr for TraceContext {
    type Err = ParseContextError;

    /// Reads a `traceparent`. Of later versions the parts of version 00 are read, as the standard requires.
    ///
    /// # Errors
    /// An invalid text: the request then counts as one without a context, and a new trace may begin.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let (known, rest) = bytes.split_at_checked(LENGTH).ok_or(ParseContextError)?;
        let version = digits(&known[..2])?;
        let goes_on = match rest.first() {
            None => true,
            Some(first) => version > 0 && *first == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !goes_on || !dashes {
            return Err(ParseContextError);
        }
        let trace_id =
            u128::from(digits(&known[3..19])?) << 64 | u128::from(digits(&known[19..35])?);
        let trace_id = NonZeroU128::new(trace_id).ok_or(ParseContextError)?;
        let span_id = NonZeroU64::new(digits(&known[36..52])?).ok_or(ParseContextError)?;
        Ok(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            sampled: digits(&known[53..55])? & SAMPLED != 0,
        })
    }
}

/// Parses at most 16 lower-case hexadecimal digits.
fn digits(text: &[u8]) -> Result<u64, ParseContextError> {
    text.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(ParseContextError),
        };
        Ok(value << 4 | u64::from(digit))
    })
}

/// Writes `number` into all of `text`, lower-case, its lowest digits last.
fn write_digits(text: &mut [u8], mut number: u64) {
    for place in text.iter_mut().rev() {
        let digit = number.to_le_bytes()[0] & 0xf;
        *place = if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        };
        number >>= 4;
    }
}

impl fmt::Display for TraceContext {
    /// Encodes the context as a `traceparent` of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text is written in one piece, for each traced request: the formatter's padding costs many times more.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let [high, low] = halves(self.trace_id.0.get());
        write_digits(&mut text[3..19], high);
        write_digits(&mut text[19..35], low);
        write_digits(&mut text[36..52], self.span_id.0.get());
        write_digits(&mut text[53..55], u64::from(self.sampled));
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The higher half first.
#[allow(clippy::cast_possible_truncation)] // both halves are taken
const fn halves(number: u128) -> [u64; 2] {
    [(number >> 64) as u64, number as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_reads_as_it_was_written() {
        let context: TraceContext = TEXT.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), TEXT);
        let few_digits = TraceContext {
            trace_id: TraceId::from_random(0xa),
            span_id: SpanId::from_random(0x1f),
            sampled: false,
        };
        let text = "00-0000000000000000000000000000000a-000000000000001f-00";
        assert_eq!(few_digits.to_string(), text);
        let unsampled = TEXT.replace("-01", "-00");
        assert!(!unsampled.parse::<TraceContext>().unwrap().sampled);
    }

    #[test]
    fn a_later_version_is_read_like_version_00() {
        let later = format!("cc-{}-what-the-future-brings", &TEXT[3..]);
        assert_eq!(later.parse::<TraceContext>(), TEXT.parse());
    }

    #[test]
    fn invalid_contexts_are_rejected() {
        let cut = &TEXT[..54];
        for text in [
            "",
            cut,
            &format!("{TEXT}-more"),
            &format!("cc-{}more", &TEXT[3..]),
            &TEXT.replace("00-", "ff-"),
            &TEXT.to_uppercase(),
            &TEXT.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(
                text.parse::<TraceContext>(),
                Err(ParseContextError),
                "{text}"
            );
        }
    }
}
