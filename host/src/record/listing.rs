//! Listings of recordings, newest first: their conditions, and places in them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;

use super::search::Searched;
use super::{Id, Record, State, parse_day};

/// Conditions for a listing; a recording must meet them all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Words, without case and accents, that must all be found: parts of an id, of a parameter's name or value,
    /// or of a caller's number or name, or `name:value` for a parameter's value.
    pub text: Option<String>,
    /// State of the recording.
    pub state: Option<State>,
    /// First day, in UTC.
    pub from: Option<Date>,
    /// Last day, in UTC.
    pub to: Option<Date>,
    /// Earliest start.
    pub since: Option<Timestamp>,
    /// The start is earlier than this.
    pub until: Option<Timestamp>,
}

/// End of a page: the next page begins behind it, even if recordings came or went meanwhile.
///
/// The order is that of time: the earlier place is the lesser.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cursor {
    day: Date,
    started_at: Timestamp,
    id: Id,
}

impl Cursor {
    /// The place of a recording.
    #[must_use]
    pub const fn new(day: Date, started_at: Timestamp, id: Id) -> Self {
        Self { day, started_at, id }
    }

    /// The place of the recording with this record; `None` if it has no file.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Some(Self::new(record.day(), record.started_at, record.id.clone()?))
    }

    /// The place behind all recordings of a day.
    #[must_use]
    pub fn behind(day: Date) -> Self {
        // No id is less.
        Self::new(day, Timestamp::MIN, Id::of_stream("0"))
    }

    /// The day of the recording.
    #[must_use]
    pub const fn day(&self) -> Date {
        self.day
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}", self.day, self.started_at.as_nanosecond(), self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '~');
        let mut part = || parts.next().ok_or(());
        let (day, started_ns, id) = (part()?, part()?, part()?);
        let id = id.to_owned().try_into().map_err(|_| ())?;
        let started_ns = started_ns.parse().map_err(|_| ())?;
        let started_at = Timestamp::from_nanosecond(started_ns).map_err(|_| ())?;
        Ok(Self { day: parse_day(day).ok_or(())?, started_at, id })
    }
}

/// Some of the recordings, newest first.
#[derive(Debug)]
pub struct Page<T> {
    /// The records, as `show` made them.
    pub records: Vec<T>,
    /// Start of the next page, if there may be more recordings. A page may be short, even empty, and not
    /// the last.
    pub next: Option<Cursor>,
}

impl Filter {
    /// Whether a text is a record, or the line of one in an index, that meets the state, the times and the
    /// search text.
    #[must_use]
    pub fn may_be_met_by(&self, text: &[u8]) -> bool {
        let Self { text: words, state, since, until, .. } = self;
        if words.is_none() && state.is_none() && since.is_none() && until.is_none() {
            return true;
        }
        let Ok(record) = serde_json::from_slice::<Searched<'_>>(text) else {
            return false;
        };
        state.is_none_or(|state| record.state == state)
            && since.is_none_or(|since| record.started_at >= since)
            && until.is_none_or(|until| record.started_at < until)
            && words.as_ref().is_none_or(|words| record.has_words(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        let cursor = Cursor {
            day: "2026-11-22".parse().unwrap(),
            started_at: "2026-11-22T20:25:40.123456789Z".parse().unwrap(),
            id: "MZ1".to_owned().try_into().unwrap(),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "2026-11-22", "2026-11-22~1~../x", "2026-11-22~x~MZ1"] {
            assert_eq!(text.parse::<Cursor>(), Err(()));
        }
    }
}
