//! A finished request for the exporting thread: the record with its texts copied into one allocation.

use adit_trace::{Record, Timeline};

use super::clock::Scale;

/// Longer texts are cut: a visitor chooses the path, and the queue holds thousands of requests.
const MAX_TEXT_BYTES: usize = 1_024;

/// Number of texts of a record.
const TEXTS: usize = 9;

/// The maximum encoded size of a hop's attributes other than the record's texts.
const HOP_BYTES: usize = 1_536;

/// The maximum encoded size of one phase without its attributes.
const PHASE_BYTES: usize = 192;

/// The spans of one request, not yet built. They are exported together or dropped together.
#[derive(Debug)]
pub(super) struct Finished {
    /// The record without its texts.
    numbers: Record<'static>,
    texts: String,
    /// The end of each text in `texts`.
    ends: [u16; TEXTS],
    timeline: Timeline,
    scale: Scale,
}

impl Finished {
    /// Copies the record. Two allocations: the texts, and the phases of the timeline.
    pub(super) fn new(record: &Record<'_>, timeline: &Timeline, scale: Scale) -> Self {
        let record = Record {
            path: without_query(record.path),
            ..*record
        };
        let all = record.texts();
        let all = all.map(|text| &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]);
        let mut texts = String::with_capacity(all.iter().map(|text| text.len()).sum());
        let ends = all.map(|text| {
            texts.push_str(text);
            // At most nine texts of 1,024 bytes.
            u16::try_from(texts.len()).unwrap_or(u16::MAX)
        });
        Self {
            numbers: record.with_texts([""; TEXTS], None),
            texts,
            ends,
            timeline: timeline.clone(),
            scale,
        }
    }

    /// The record, with the path without its query and with long texts cut.
    pub(super) fn record(&self) -> Record<'_> {
        let mut start = 0;
        let texts = self.ends.map(|end| {
            let end = usize::from(end);
            let text = self.texts.get(start..end).unwrap_or_default();
            start = end;
            text
        });
        self.numbers.with_texts(texts, None)
    }

    pub(super) const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub(super) const fn scale(&self) -> Scale {
        self.scale
    }

    /// Number of spans.
    pub(super) fn spans(&self) -> u64 {
        count(&self.timeline)
    }

    /// An upper bound of the encoded size of its spans: the hop contains the texts once, and each phase that reaches
    /// the service contains the service's address again.
    pub(super) fn max_encoded_bytes(&self) -> usize {
        let phases = self.timeline.spans().len();
        let phase = PHASE_BYTES + self.record().service.len();
        HOP_BYTES + 2 * self.texts.len() + phases * phase
    }
}

/// Number of spans that a timeline becomes: the hop and its phases.
pub(super) fn count(timeline: &Timeline) -> u64 {
    timeline.spans().len() as u64 + 1
}

/// The path without its query, which may hold secrets. Records do not contain the query; this is a second check.
fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adit_trace::{Edge, TraceId};

    use super::{super::clock::Clock, *};

    fn record(now: Instant) -> Record<'static> {
        Record {
            edge: Edge::Egress,
            protocol: "http",
            opener: "server",
            request_uuid: [7; 16],
            user: "ann",
            group: "",
            client: "office-1",
            tunnel: "shop",
            revision: 7,
            visitor: "203.0.113.9:40001",
            scheme: "https",
            method: "GET",
            host: "shop.example",
            port: 443,
            path: "/cart",
            version: "HTTP/2.0",
            status: 200,
            grpc_status: Some(3),
            service: "127.0.0.1:8080",
            reason: Some("stalled"),
            received_bytes: 11,
            sent_bytes: 222,
            retries: 1,
            started: now,
            responded: Some(now),
            ended: now,
            timeline: None,
        }
    }

    fn finished(record: &Record<'_>) -> Finished {
        let timeline = Timeline::new(None, TraceId::from_random(7), 8);
        Finished::new(record, &timeline, Clock::new().scale(record.ended))
    }

    #[test]
    fn a_record_is_read_as_it_was_copied() {
        let record = record(Instant::now());
        let read = format!("{:?}", finished(&record).record());
        assert_eq!(read, format!("{record:?}"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let odd = format!("x{long}");
        let record = Record {
            path: &long,
            host: &odd,
            ..record(Instant::now())
        };
        let finished = finished(&record);
        let read = finished.record();
        assert_eq!(read.path.len(), MAX_TEXT_BYTES);
        assert_eq!(read.host.len(), MAX_TEXT_BYTES - 1);
        assert_eq!(read.service, "127.0.0.1:8080");
    }

    #[test]
    fn the_query_is_left_out() {
        let record = Record {
            path: "/cart?token=secret",
            ..record(Instant::now())
        };
        let finished = finished(&record);
        assert_eq!(finished.record().path, "/cart");
        assert!(!finished.texts.contains("secret"));
    }
}
