//! The few messages of DNS that validation needs (RFC 1035, 4): questions, answers, and the parts of updates.

use thiserror::Error;

pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const TXT: u16 = 16;
pub(super) const TSIG: u16 = 250;
pub(super) const IN: u16 = 1;

/// The length of a header.
const HEADER: usize = 12;

/// The most records of an answer that are read.
const MOST_RECORDS: usize = 500;

/// The longest name on the wire.
const LONGEST_NAME: usize = 255;

/// The place of the counter of additional records in a header.
const ADDITIONAL: usize = 10;

/// Why an answer, or a name, cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum MessageError {
    /// The answer ends too early, or has an invalid part.
    #[error("an invalid answer")]
    Invalid,
    /// The answer belongs to another question.
    #[error("an answer to another question")]
    OtherQuestion,
    /// The name has characters, or a length, that no name has.
    #[error("not a name of DNS")]
    Name,
}

use MessageError::Invalid;

/// A message with one question, or with the zone of an update in its place.
pub(super) fn request(id: u16, flags: u16, name: &str, kind: u16) -> Result<Vec<u8>, MessageError> {
    let mut message = Vec::with_capacity(512);
    for field in [id, flags, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    put_name(&mut message, name)?;
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    Ok(message)
}

/// Appends a record. The caller counts it in the header.
pub(super) fn put_record(
    message: &mut Vec<u8>,
    name: &str,
    (kind, class, ttl): (u16, u16, u32),
    data: &[u8],
) -> Result<(), MessageError> {
    put_name(message, name)?;
    message.extend(kind.to_be_bytes());
    message.extend(class.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    let length = u16::try_from(data.len()).map_err(|_| Invalid)?;
    message.extend(length.to_be_bytes());
    message.extend(data);
    Ok(())
}

/// Appends a name without compression.
pub(super) fn put_name(message: &mut Vec<u8>, name: &str) -> Result<(), MessageError> {
    let start = message.len();
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        let length = u8::try_from(label.len()).ok();
        let length = length.filter(|length| (1..=63).contains(length));
        let length = length.ok_or(MessageError::Name)?;
        if !label.bytes().all(fits) {
            return Err(MessageError::Name);
        }
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() - start > LONGEST_NAME {
        return Err(MessageError::Name);
    }
    Ok(())
}

/// Sets a counter of a header: the one of updates is the third, the one of additional records the fourth.
pub(super) fn set_count(message: &mut [u8], counter: usize, count: u16) {
    let at = 4 + 2 * counter;
    if let Some(field) = message.get_mut(at..at + 2) {
        field.copy_from_slice(&count.to_be_bytes());
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u16,
    /// The response code, 0 without an error.
    pub(super) code: u8,
    /// The records of all three sections.
    pub(super) records: Vec<AnswerRecord>,
    /// Where the last record begins.
    last_at: usize,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerRecord {
    /// In lower case and without a dot at its end.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) data: Data,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// Of CNAME and NS.
    Name(String),
    /// Of TXT: all parts together.
    Text(Vec<u8>),
    /// Of TSIG.
    Signature(Signature),
    /// Of any other record.
    Other,
}

/// The content of a TSIG record (RFC 8945, 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) algorithm: String,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) original_id: u16,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Cost
    /// Proportional to the length of the message: each name is bounded, and so are the records.
    pub(super) fn read(message: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { message, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        if flags & 0x8000 == 0 {
            return Err(Invalid);
        }
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let [questions, sections @ ..] = counts.map(usize::from);
        if questions > 1 {
            return Err(Invalid);
        }
        for _ in 0..questions {
            reader.name()?;
            reader.take(4)?;
        }
        let count: usize = sections.iter().sum();
        if count > MOST_RECORDS {
            return Err(Invalid);
        }
        let (mut records, mut last_at) = (Vec::new(), message.len());
        for _ in 0..count {
            last_at = reader.at;
            records.push(reader.record()?);
        }
        let code = u8::try_from(flags & 15).unwrap_or(0);
        Ok(Self {
            id,
            code,
            records,
            last_at,
        })
    }

    /// The signature, if the last record is one, with the name of its key and the message as it was before it was signed.
    pub(super) fn signature(&self, message: &[u8]) -> Option<(&str, &Signature, Vec<u8>)> {
        let last = self.records.last()?;
        let Data::Signature(signature) = &last.data else {
            return None;
        };
        let mut unsigned = message.get(..self.last_at)?.to_vec();
        unsigned
            .get_mut(..2)?
            .copy_from_slice(&signature.original_id.to_be_bytes());
        let field = unsigned.get_mut(ADDITIONAL..HEADER)?;
        let count = u16::from_be_bytes([*field.first()?, *field.last()?]).checked_sub(1)?;
        field.copy_from_slice(&count.to_be_bytes());
        Some((&last.name, signature, unsigned))
    }

    /// The names that CNAME or NS records of this name have.
    pub(super) fn names(&self, name: &str, kind: u16) -> Vec<&str> {
        let records = self.records.iter();
        let fitting = records.filter(|record| record.kind == kind && record.name == name);
        let names = fitting.filter_map(|record| match &record.data {
            Data::Name(name) => Some(&**name),
            _ => None,
        });
        names.collect()
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(length).ok_or(Invalid)?;
        let taken = self.message.get(self.at..end).ok_or(Invalid)?;
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.take(1)?.first().copied().ok_or(Invalid)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn u48(&mut self) -> Result<u64, MessageError> {
        let bytes = self.take(6)?.iter();
        Ok(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A name. A pointer leads only to an earlier place, so that none is followed twice.
    fn name(&mut self) -> Result<String, MessageError> {
        let (mut name, mut length) = (String::new(), 0);
        let (mut at, mut end) = (self.at, None);
        loop {
            let size = *self.message.get(at).ok_or(Invalid)?;
            match size {
                0 => break,
                1..64 => {
                    let size = usize::from(size);
                    let label = self.message.get(at + 1..at + 1 + size).ok_or(Invalid)?;
                    length += size + 1;
                    if length > LONGEST_NAME {
                        return Err(Invalid);
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for byte in label {
                        match byte {
                            b'.' | b'\\' => name.extend(['\\', char::from(*byte)]),
                            33..127 => name.push(char::from(byte.to_ascii_lowercase())),
                            _ => name.push_str(&format!("\\{byte:03}")),
                        }
                    }
                    at += 1 + size;
                }
                192.. => {
                    let low = *self.message.get(at + 1).ok_or(Invalid)?;
                    let target = usize::from(size & 63) << 8 | usize::from(low);
                    end.get_or_insert(at + 2);
                    if target >= at {
                        return Err(Invalid);
                    }
                    at = target;
                }
                _ => return Err(Invalid),
            }
        }
        self.at = end.unwrap_or(at + 1);
        Ok(name)
    }

    fn record(&mut self) -> Result<AnswerRecord, MessageError> {
        let name = self.name()?;
        let kind = self.u16()?;
        self.take(6)?;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        if end > self.message.len() {
            return Err(Invalid);
        }
        let data = match kind {
            CNAME | NS => Data::Name(self.name()?),
            TXT => Data::Text(self.text(end)?),
            TSIG => Data::Signature(self.signature()?),
            _ => {
                self.at = end;
                Data::Other
            }
        };
        if self.at != end {
            return Err(Invalid);
        }
        Ok(AnswerRecord { name, kind, data })
    }

    fn text(&mut self, end: usize) -> Result<Vec<u8>, MessageError> {
        let mut text = Vec::new();
        while self.at < end {
            let length = usize::from(self.u8()?);
            text.extend(self.take(length)?);
        }
        Ok(text)
    }

    fn signature(&mut self) -> Result<Signature, MessageError> {
        Ok(Signature {
            algorithm: self.name()?,
            time: self.u48()?,
            fudge: self.u16()?,
            mac: self.sized()?,
            original_id: self.u16()?,
            error: self.u16()?,
            other: self.sized()?,
        })
    }

    fn sized(&mut self) -> Result<Vec<u8>, MessageError> {
        let length = usize::from(self.u16()?);
        Ok(self.take(length)?.to_vec())
    }
}

/// Reads an answer of a name server, for the fuzz target: a name that was read is written again as it was.
#[doc(hidden)]
#[must_use]
pub fn fuzz_answer(message: &[u8]) -> bool {
    let Ok(answer) = Answer::read(message) else {
        return false;
    };
    let _ = answer.signature(message);
    for record in &answer.records {
        let mut written = Vec::new();
        if put_name(&mut written, &record.name).is_ok() {
            let mut reader = Reader {
                message: &written,
                at: 0,
            };
            assert_eq!(reader.name().as_deref(), Ok(&*record.name));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with one CNAME, whose names are compressed, and one TXT of two parts.
    fn answer() -> Vec<u8> {
        let mut message = request(7, 0x8180, "a.example.com", TXT).unwrap();
        set_count(&mut message, 1, 2);
        let pointer = [0xc0, 12];
        message.extend(pointer);
        message.extend([0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'B', 0xc0, 14]);
        message.extend([1, b'b', 0xc0, 14]);
        message.extend([0, 16, 0, 1, 0, 0, 0, 60, 0, 6, 2, b'x', b'y', 2, b'z', b'w']);
        message
    }

    #[test]
    fn an_answer_with_compressed_names_is_read() {
        let read = Answer::read(&answer()).unwrap();
        assert_eq!((read.id, read.code), (7, 0));
        assert_eq!(read.names("a.example.com", CNAME), ["b.example.com"]);
        assert_eq!(read.records[1].name, "b.example.com");
        assert_eq!(read.records[1].data, Data::Text(b"xyzw".to_vec()));
        assert!(read.signature(&answer()).is_none());
    }

    #[test]
    fn every_cut_answer_is_an_error() {
        let whole = answer();
        for length in 0..whole.len() {
            assert_eq!(Answer::read(&whole[..length]), Err(Invalid), "{length}");
        }
    }

    #[test]
    fn pointers_never_lead_in_a_circle() {
        let mut message = request(7, 0x8180, "a.example.com", TXT).unwrap();
        set_count(&mut message, 1, 1);
        let at = u8::try_from(message.len()).unwrap();
        message.extend([0xc0, at, 0, 5, 0, 1, 0, 0, 0, 60, 0, 0]);
        assert_eq!(Answer::read(&message), Err(Invalid));
    }

    #[test]
    fn a_name_that_dns_cannot_have_is_an_error() {
        let long = "a.".repeat(128) + "a";
        for name in ["a..b", "a b", &"a".repeat(64), &long, "a\\b", "."] {
            assert!(put_name(&mut Vec::new(), name).is_err(), "{name}");
        }
        let mut root = Vec::new();
        put_name(&mut root, "").unwrap();
        assert_eq!(root, [0]);
    }
}
