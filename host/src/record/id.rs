//! Names of recordings. A path may safely be built from them.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::texts;

/// Longest stream id that becomes a file name unchanged, in bytes.
const STREAM_ID_BYTES_MAX: usize = 128;

/// Longest number that an id gets where the name is taken, with its hyphen.
const NUMBER_BYTES_MAX: usize = 21;

/// The name of a recording's files, without their endings: letters, digits, `.`, `_` and `-` of ASCII,
/// with a letter, a digit or `_` first, and at least one of them.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String")]
pub struct Id(String);

impl Id {
    /// The id for a stream: the stream's own one if that is harmless, else a digest of it.
    #[must_use]
    pub fn of_stream(stream_id: &str) -> Self {
        if is_name(stream_id, STREAM_ID_BYTES_MAX) {
            Self(stream_id.to_owned())
        } else if stream_id.is_empty() {
            Self("stream".to_owned())
        } else {
            Self(format!("stream-{}", texts::digest_of(stream_id)))
        }
    }

    /// The id with a number behind it.
    #[must_use]
    pub fn numbered(&self, number: u64) -> Self {
        Self(format!("{self}-{number}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text is an id of at most `bytes_max` bytes.
fn is_name(text: &str, bytes_max: usize) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=bytes_max).contains(&text.len())
        && text.chars().all(is_plain)
        && !text.starts_with(['.', '-'])
}

/// A text is not the name of a recording's files.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is not the id of a recording")]
pub struct NotAnId;

impl TryFrom<String> for Id {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        if is_name(&text, STREAM_ID_BYTES_MAX + NUMBER_BYTES_MAX) {
            Ok(Self(text))
        } else {
            Err(NotAnId)
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a recording: the day it began, in UTC, and the name of its files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    day: Date,
    id: Id,
}

impl Key {
    /// The recording of this day and name.
    #[must_use]
    pub const fn new(day: Date, id: Id) -> Self {
        Self { day, id }
    }

    /// Reads a key; `None` for anything that cannot be a recording's name.
    #[must_use]
    pub fn parse(day: &str, id: &str) -> Option<Self> {
        Some(Self { day: parse_day(day)?, id: id.to_owned().try_into().ok()? })
    }

    /// The day, in UTC.
    #[must_use]
    pub const fn day(&self) -> Date {
        self.day
    }

    /// The name of the files.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.id
    }
}

/// The day of a time, in UTC.
#[must_use]
pub fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Reads `YYYY-MM-DD` and nothing else.
#[must_use]
pub fn parse_day(text: &str) -> Option<Date> {
    let day: Date = text.parse().ok()?;
    (day.to_string() == text).then_some(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_a_path() {
        assert!(Key::parse("2026-11-22", "MZ0123.a_b-2").is_some());
        for (day, id) in [
            ("2026-11-22", ""),
            ("2026-11-22", ".."),
            ("2026-11-22", "../x"),
            ("2026-11-22", "a/b"),
            ("2026-11-22", "a\0"),
            ("2026-11-22", "-rf"),
            ("2026-11-22", "ä"),
            ("..", "MZ1"),
            ("2026-13-01", "MZ1"),
            ("2026-1-1", "MZ1"),
            ("20261122", "MZ1"),
            ("2026-11-22/..", "MZ1"),
            ("+002026-11-22", "MZ1"),
        ] {
            assert_eq!(Key::parse(day, id), None, "{day} {id}");
        }
        assert!(Key::parse("2026-11-22", &"a".repeat(200)).is_none());
    }

    #[test]
    fn every_id_that_a_recording_gets_is_an_id() {
        for stream_id in ["", "MZ1", "-rf", "../x", "ä", &"a".repeat(128), &"a".repeat(129)] {
            let id = Id::of_stream(stream_id);
            for id in [id.numbered(2), id.numbered(u64::MAX), id] {
                assert_eq!(Id::try_from(id.to_string()), Ok(id));
            }
        }
        assert_eq!(Id::of_stream("MZ1").as_str(), "MZ1");
    }
}
