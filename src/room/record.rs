//! Records: one JSON object a line, as it stands in `room.log` and travels to the clients.
//!
//! RECV encodes into a [`Batch`], whose memory is allocated once and never grows; clients and
//! the administration parse with [`Record::parse`], to which every line is hostile: torn by a
//! killed writer, edited by hand, or not text at all. Pure.

use std::fmt;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::Offset as ZoneOffset;
use serde::Deserialize;

use crate::token::Name;

/// Where the time stamp begins in an encoded record: behind `{"ts":"`.
pub const STAMP_AT: usize = 7;
/// Length of the time stamp, `2026-11-22T22:23:01.123Z`.
pub const STAMP_LEN: usize = 24;
/// The longest line that can be a record, line end included. Longer lines are foreign.
pub const MAX_LINE: usize = max_len(65_536);
/// What a writer puts behind the torn record of a killed one, so that it can neither be taken
/// for a record nor run into the next. A line end alone would not do: a record that was torn
/// right before its line end, and so was never acknowledged, would come to life.
pub const TORN_MARK: &[u8] = b"#torn\n";

const STAMP_BLANK: &[u8] = b"{\"ts\":\"0000-00-00T00:00:00.000Z\"";

/// The longest line that a message of `message_bytes` can become: each byte may need six
/// (`\u0001`), and the rest (stamp, id, name, kind) has less than 256.
pub const fn max_len(message_bytes: usize) -> usize {
    6 * message_bytes + 256
}

/// One parsed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was stored.
    pub ts: Timestamp,
    /// The id that the client chose; messages and notices have one.
    pub id: Option<String>,
    /// The name of the token it was written with.
    pub from: String,
    /// What it is.
    pub kind: Kind,
    /// What was said; messages and notices have one.
    pub text: Option<String>,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Said by someone.
    Message,
    /// Said by an operator to everyone.
    Notice,
    /// Someone came.
    Join,
    /// Someone left.
    Leave,
    /// An administrator removed the log's beginning; the text says up to where.
    Pruned,
    /// Written by a newer version.
    Other(String),
}

/// Why a line is not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It begins as a record, and ends too early: its writer was killed or ran out of space.
    Torn,
    /// It is longer than [`MAX_LINE`].
    TooLong,
    /// It is not UTF-8.
    NotUtf8,
    /// It is not a JSON object of the right shape; the text says where.
    NotJson(String),
    /// Its time stamp is not one.
    Stamp,
    /// It lacks this key, which its kind must have.
    Missing(&'static str),
}

/// The batch has no room for this record; it is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Deserialize)]
struct Line {
    ts: String,
    id: Option<String>,
    from: String,
    kind: Option<String>,
    text: Option<String>,
}

impl Record {
    /// Parses one line, with or without its line end.
    ///
    /// # Errors
    /// [`RecordError`]; a line is a record entirely or not at all. Unknown keys are ignored.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() >= MAX_LINE {
            return Err(RecordError::TooLong);
        }
        if has_torn_mark(line) {
            return Err(RecordError::Torn);
        }
        let text = std::str::from_utf8(line).map_err(|e| match e.error_len() {
            None if line.starts_with(b"{") => RecordError::Torn,
            _ => RecordError::NotUtf8,
        })?;
        let line: Line = serde_json::from_str(text).map_err(|e| {
            if e.is_eof() && text.starts_with('{') {
                RecordError::Torn
            } else {
                // serde's message may quote a value of any length.
                RecordError::NotJson(e.to_string().chars().take(120).collect())
            }
        })?;
        let ts = line.ts.parse().map_err(|_| RecordError::Stamp)?;
        let kind = Kind::named(line.kind);
        if line.from.is_empty() {
            return Err(RecordError::Missing("from"));
        }
        if matches!(kind, Kind::Message | Kind::Notice) {
            line.id.as_ref().ok_or(RecordError::Missing("id"))?;
            line.text.as_ref().ok_or(RecordError::Missing("text"))?;
        }
        Ok(Self { ts, id: line.id, from: line.from, kind, text: line.text })
    }

    /// Whether someone said something: what `history N` and `--count N` count.
    pub fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message | Kind::Notice)
    }
}

/// The time stamp of a line that begins as a record does, whatever follows; for searching.
pub fn stamp_of(line: &[u8]) -> Option<Timestamp> {
    let stamp = line.strip_prefix(b"{\"ts\":\"")?.get(..=STAMP_LEN)?;
    let (stamp, quote) = stamp.split_at(STAMP_LEN);
    if quote != b"\"" {
        return None;
    }
    std::str::from_utf8(stamp).ok()?.parse().ok()
}

/// A mark inside a string is text that someone wrote; only the mark at the very end, behind what
/// is not a whole record, counts. A whole record ends with `}`.
fn has_torn_mark(line: &[u8]) -> bool {
    line.ends_with(&TORN_MARK[..TORN_MARK.len() - 1])
}

impl Kind {
    /// The value of the key `kind`; a message has none.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Message => None,
            Self::Notice => Some("notice"),
            Self::Join => Some("join"),
            Self::Leave => Some("leave"),
            Self::Pruned => Some("pruned"),
            Self::Other(kind) => Some(kind),
        }
    }

    fn named(kind: Option<String>) -> Self {
        match kind.as_deref() {
            None => Self::Message,
            Some("notice") => Self::Notice,
            Some("join") => Self::Join,
            Some("leave") => Self::Leave,
            Some("pruned") => Self::Pruned,
            Some(_) => Self::Other(kind.unwrap_or_default()),
        }
    }
}

/// Encoded records that are to be appended together, in one buffer that is allocated once.
///
/// Their time stamps stay blank until [`Batch::stamp`] sets them, under the log's lock: so the
/// stamps in the log are in the order of the records.
#[derive(Debug)]
pub struct Batch {
    /// The torn mark, then the records: if the last writer was torn, both go out in one write.
    buffer: Vec<u8>,
    capacity: usize,
    records: usize,
}

impl Batch {
    /// An empty batch with room for `bytes` bytes of encoded records ([`max_len`] for each
    /// record that must fit).
    pub fn with_capacity(bytes: usize) -> Self {
        let capacity = TORN_MARK.len() + bytes;
        // Its memory is touched when there is something to say: many clients never say anything.
        Self { buffer: Vec::with_capacity(capacity), capacity, records: 0 }
    }

    /// Adds one record.
    ///
    /// # Errors
    /// [`Full`]: append the batch and clear it first.
    pub fn push(
        &mut self,
        id: Option<&str>,
        from: &Name,
        kind: Kind,
        text: Option<&str>,
    ) -> Result<(), Full> {
        if self.buffer.is_empty() {
            self.buffer.extend_from_slice(TORN_MARK);
        }
        let before = self.buffer.len();
        match self.encode(id, from, &kind, text) {
            Ok(()) => {
                self.records += 1;
                Ok(())
            }
            Err(_) => {
                self.buffer.truncate(before);
                Err(Full)
            }
        }
    }

    fn encode(
        &mut self,
        id: Option<&str>,
        from: &Name,
        kind: &Kind,
        text: Option<&str>,
    ) -> io::Result<()> {
        let mut out = Bounded { buffer: &mut self.buffer, capacity: self.capacity };
        out.write_all(STAMP_BLANK)?;
        let pairs: [(&[u8], _); 4] = [
            (b",\"id\":", id),
            (b",\"from\":", Some(from.as_str())),
            (b",\"kind\":", kind.as_str()),
            (b",\"text\":", text),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                out.write_all(key)?;
                serde_json::to_writer(&mut out, value)?;
            }
        }
        out.write_all(b"}\n")
    }

    /// Sets the time stamp of every record, in UTC, to the millisecond (cut, not rounded). A
    /// clock before 1970 or after 9999 is taken to the nearer of the two.
    pub fn stamp(&mut self, now: Timestamp) {
        let stamp = encode_stamp(now);
        let mut at = TORN_MARK.len();
        while let Some(slot) = self.buffer.get_mut(at + STAMP_AT..at + STAMP_AT + STAMP_LEN) {
            slot.copy_from_slice(&stamp);
            // A line end in a text is escaped, so the next one ends this record.
            let line = memchr::memchr(b'\n', &self.buffer[at..]);
            at += line.map_or(self.buffer.len(), |n| n + 1);
        }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The encoded records.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(TORN_MARK.len()..).unwrap_or_default()
    }

    /// [`TORN_MARK`] and the encoded records.
    pub fn bytes_behind_mark(&self) -> &[u8] {
        if self.buffer.is_empty() { TORN_MARK } else { &self.buffer }
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.truncate(TORN_MARK.len());
        self.records = 0;
    }
}

/// Writes up to a capacity; what does not fit is an error, and no memory is allocated.
struct Bounded<'b> {
    buffer: &'b mut Vec<u8>,
    capacity: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.capacity - self.buffer.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode_stamp(now: Timestamp) -> [u8; STAMP_LEN] {
    let mut stamp = *b"1970-01-01T00:00:00.000Z";
    let utc = ZoneOffset::UTC.to_datetime(now.max(Timestamp::UNIX_EPOCH));
    let mut put = |at: usize, digits: usize, mut value: u32| {
        for slot in stamp[at..at + digits].iter_mut().rev() {
            *slot = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, u32::from(utc.year().unsigned_abs()));
    put(5, 2, u32::from(utc.month().unsigned_abs()));
    put(8, 2, u32::from(utc.day().unsigned_abs()));
    put(11, 2, u32::from(utc.hour().unsigned_abs()));
    put(14, 2, u32::from(utc.minute().unsigned_abs()));
    put(17, 2, u32::from(utc.second().unsigned_abs()));
    put(20, 3, utc.subsec_nanosecond().unsigned_abs() / 1_000_000);
    stamp
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("torn: the record ends too early"),
            Self::TooLong => write!(f, "foreign: longer than {MAX_LINE} bytes"),
            Self::NotUtf8 => f.write_str("foreign: not UTF-8"),
            Self::NotJson(why) => write!(f, "foreign: not a record ({why})"),
            Self::Stamp => f.write_str("foreign: its time stamp is not one"),
            Self::Missing(key) => write!(f, "foreign: it has no {key:?}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the batch is full")
    }
}

impl std::error::Error for Full {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T22:23:01.123999Z";

    fn alice() -> Name {
        "alice".parse().unwrap()
    }

    fn stamped(batch: &mut Batch) -> &str {
        batch.stamp(NOW.parse().unwrap());
        std::str::from_utf8(batch.bytes()).unwrap()
    }

    #[test]
    fn records_are_encoded_as_the_protocol_says() {
        let mut batch = Batch::with_capacity(4096);
        batch.push(Some("m-1"), &alice(), Kind::Message, Some("a\n\"b\"\u{1}é")).unwrap();
        batch.push(Some("n"), &alice(), Kind::Notice, Some("")).unwrap();
        batch.push(None, &alice(), Kind::Join, None).unwrap();
        assert_eq!(batch.len(), 3);
        let expected = concat!(
            r#"{"ts":"2026-11-22T22:23:01.123Z","id":"m-1","from":"alice","text":"a\n\"b\"\u0001é"}"#,
            "\n",
            r#"{"ts":"2026-11-22T22:23:01.123Z","id":"n","from":"alice","kind":"notice","text":""}"#,
            "\n",
            r#"{"ts":"2026-11-22T22:23:01.123Z","from":"alice","kind":"join"}"#,
            "\n",
        );
        assert_eq!(stamped(&mut batch), expected);
        batch.clear();
        assert!(batch.is_empty() && batch.bytes().is_empty());
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        let mut batch = Batch::with_capacity(4096);
        let text = "#torn\n\u{7f}\\ \u{2028} 🥭#torn";
        batch.push(Some("i"), &alice(), Kind::Message, Some(text)).unwrap();
        let record = Record::parse(stamped(&mut batch).as_bytes()).unwrap();
        assert_eq!(record.text.as_deref(), Some(text));
        assert_eq!(record.id.as_deref(), Some("i"));
        assert_eq!(record.from, "alice");
        assert_eq!(record.ts, "2026-11-22T22:23:01.123Z".parse().unwrap());
        assert!(record.is_message());
        assert_eq!(stamp_of(batch.bytes()), Some(record.ts));
    }

    #[test]
    fn the_worst_message_fits_and_nothing_ever_grows() {
        let (id, name) = ("i".repeat(64), "n".repeat(32).parse().unwrap());
        let text = "\u{1}".repeat(65_536);
        let mut batch = Batch::with_capacity(MAX_LINE);
        let memory = batch.buffer.capacity();
        batch.push(Some(&id), &name, Kind::Notice, Some(&text)).unwrap();
        assert!(batch.bytes().len() <= MAX_LINE);
        let length = batch.bytes().len();
        assert_eq!(batch.push(Some(&id), &name, Kind::Notice, Some(&text)), Err(Full));
        assert_eq!((batch.bytes().len(), batch.len()), (length, 1));
        assert_eq!(batch.buffer.capacity(), memory);
        batch.stamp(NOW.parse().unwrap());
        assert!(Record::parse(batch.bytes()).is_ok());
    }

    #[test]
    fn a_clock_that_is_wildly_wrong_still_gives_a_stamp() {
        assert_eq!(&encode_stamp(Timestamp::MIN), b"1970-01-01T00:00:00.000Z");
        let last = encode_stamp(Timestamp::MAX);
        assert!(last.starts_with(b"9999-12-30T"), "{}", String::from_utf8_lossy(&last));
    }

    #[test]
    fn a_record_that_was_torn_anywhere_never_comes_to_life() {
        let mut batch = Batch::with_capacity(4096);
        batch.push(Some("i"), &alice(), Kind::Message, Some("häßlich \\ \" 🥭")).unwrap();
        batch.stamp(NOW.parse().unwrap());
        let whole = batch.bytes().to_vec();
        for cut in 1..whole.len() {
            let mut torn = whole[..cut].to_vec();
            torn.extend_from_slice(TORN_MARK);
            assert_eq!(Record::parse(&torn), Err(RecordError::Torn), "cut at {cut}");
        }
        // Without the mark, the cut right before the line end could not be told from a record.
        assert!(Record::parse(&whole[..whole.len() - 1]).is_ok());
        for cut in 1..whole.len() - 1 {
            assert_eq!(Record::parse(&whole[..cut]), Err(RecordError::Torn), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_a_record_is_told_apart() {
        for (line, part) in [
            (&b""[..], "not a record"),
            (b"\n", "not a record"),
            (b"hello", "not a record"),
            (b"[1]", "not a record"),
            (b"{}", "not a record"),
            (b"\xff\xfe", "not UTF-8"),
            (br#"{"ts":"x","from":"a","kind":"join"}"#, "time stamp"),
            (br#"{"ts":"2026-11-22T22:23:01.123Z","from":"","kind":"join"}"#, "from"),
            (br#"{"ts":"2026-11-22T22:23:01.123Z","from":"a","text":"x"}"#, "\"id\""),
            (br#"{"ts":"2026-11-22T22:23:01.123Z","from":"a","id":"x"}"#, "\"text\""),
            (br#"{"ts":"2026-11-22T22:23:01.123Z","from":"a","from":"b"}"#, "duplicate"),
        ] {
            let error = Record::parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let newer = br#"{"ts":"2026-11-22T22:23:01.123Z","from":"a","kind":"wave","to":["b"]}"#;
        let record = Record::parse(newer).unwrap();
        assert_eq!(record.kind, Kind::Other("wave".into()));
        assert!(!record.is_message());
        let long = vec![b' '; MAX_LINE];
        assert_eq!(Record::parse(&long), Err(RecordError::TooLong));
        assert_eq!(Record::parse(&b"[".repeat(MAX_LINE - 1)).ok(), None);
    }
}
