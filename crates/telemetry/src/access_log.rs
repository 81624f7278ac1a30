//! The access log: one line of JSON for each finished request.
//!
//! Both sides write one. Their lines have the same `request_id`, and the `trace_id` and `span_id` of the trace;
//! `docs/logs.md` lists the fields. Unknown values are left out.
//!
//! Promises: a line is one object, whatever the request contains, and has no character that a terminal acts on; a data
//! thread never waits for the disk; long texts are cut, so that the number of queued lines is bounded too.

use std::{borrow::Cow, io, time::Instant};

use adit_trace::{Record, is_active};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};
use uuid::Uuid;

use crate::logs::{AccessLogSettings, Lines, LogCounters, LogGuard, LogStartError, start};

/// Longer texts are cut and end in `…`: a visitor chooses the host and the path, which may be as long as a head.
const LONGEST_TEXT_BYTES: usize = 2_048;

/// Writes a line for each request.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: Lines,
}

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    edge: &'static str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    opener: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    client: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    tunnel: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    revision: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    visitor: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    scheme: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    port: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    received_bytes: u64,
    sent_bytes: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    retries: u32,
}

// The signature is that of `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// JSON without spaces that escapes every active character as `\uXXXX`; JSON itself requires that for C0 only.
struct Inert;

impl Formatter for Inert {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        mut fragment: &str,
    ) -> io::Result<()> {
        while let Some((at, c)) = fragment.char_indices().find(|(_, c)| is_active(*c)) {
            writer.write_all(&fragment.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            fragment = &fragment[at + c.len_utf8()..];
        }
        writer.write_all(fragment.as_bytes())
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_TEXT_BYTES {
        return text.into();
    }
    let kept = &text[..text.floor_char_boundary(LONGEST_TEXT_BYTES)];
    format!("{kept}…").into()
}

/// Milliseconds, in whole microseconds.
#[allow(clippy::cast_precision_loss)] // 285 years are exact
fn millis(from: Instant, until: Instant) -> f64 {
    until.saturating_duration_since(from).as_micros() as f64 / 1e3
}

impl<'a> Line<'a> {
    fn new(record: &Record<'a>, time: Timestamp) -> Self {
        let context = record.timeline.map(|timeline| timeline.context());
        let request_id = Uuid::from_bytes(record.request_uuid);
        Self {
            time,
            edge: record.edge.as_str(),
            protocol: record.protocol,
            opener: record.opener,
            request_id: (!request_id.is_nil()).then(|| request_id.to_string()),
            trace_id: context.map(|context| context.trace_id.to_string()),
            span_id: context.map(|context| context.span_id.to_string()),
            user: cut(record.user),
            group: cut(record.group),
            client: cut(record.client),
            tunnel: cut(record.tunnel),
            revision: record.revision,
            visitor: cut(record.visitor),
            scheme: record.scheme,
            method: cut(record.method),
            host: cut(record.host),
            port: record.port,
            path: cut(record.path),
            version: record.version,
            status: record.status,
            grpc_status: record.grpc_status,
            service: cut(record.service),
            reason: record.reason,
            received_bytes: record.received_bytes,
            sent_bytes: record.sent_bytes,
            duration_ms: millis(record.started, record.ended),
            first_byte_ms: record
                .responded
                .map(|responded| millis(record.started, responded)),
            retries: record.retries,
        }
    }
}

impl AccessLog {
    /// Opens the target and starts the thread that writes the lines.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(settings: &AccessLogSettings) -> Result<(Self, LogGuard), LogStartError> {
        let (lines, guard) = start("access", &settings.target)?;
        Ok((Self { lines }, guard))
    }

    /// Writes the line of a finished request. When the queue is full, the line is dropped and counted.
    pub fn on_end(&self, record: &Record<'_>) {
        let mut line = Vec::with_capacity(512);
        let mut serializer = Serializer::with_formatter(&mut line, Inert);
        // Texts and numbers are written to memory, which cannot fail.
        if Line::new(record, Timestamp::now())
            .serialize(&mut serializer)
            .is_ok()
        {
            line.push(b'\n');
            self.lines.push(&line);
        }
    }

    /// Counters of written and lost lines.
    pub fn counters(&self) -> LogCounters {
        self.lines.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(LONGEST_TEXT_BYTES);
        let text = cut(&long);
        assert!(text.len() <= LONGEST_TEXT_BYTES + "…".len());
        assert!(text.ends_with("é…"));
    }
}
