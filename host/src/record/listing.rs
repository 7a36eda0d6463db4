//! Listings of recordings: their conditions, their orders, and places in them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::facts::{Entry, Facts};
use super::search::Search;
use super::{Id, Record, State, parse_day};

/// Conditions for a listing; a recording must meet them all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The search.
    pub search: Search,
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

/// An order of a listing. Recordings that are equal in it come by their starts, the last one first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// By start, the last one first.
    #[default]
    Newest,
    /// By start, the first one first.
    Oldest,
    /// By duration.
    Longest,
    /// By duration, in reverse.
    Shortest,
    /// By state (failed, partial, recovered, complete), and then by the time that is missing or lost.
    MostTrouble,
    /// The same in reverse.
    LeastTrouble,
    /// By the slowest answer of the bot; without one, at the end.
    Slowest,
    /// The same in reverse; without one, at the end as well.
    Quickest,
}

impl Order {
    /// All orders, by their names in the API. A hyphen reverses an order, so that the greatest comes first.
    pub const ALL: [(&'static str, Self); 8] = [
        ("-started", Self::Newest),
        ("started", Self::Oldest),
        ("-duration", Self::Longest),
        ("duration", Self::Shortest),
        ("-trouble", Self::MostTrouble),
        ("trouble", Self::LeastTrouble),
        ("-latency", Self::Slowest),
        ("latency", Self::Quickest),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, order)| *order == self).map_or("", |(name, _)| name)
    }

    /// Whether it is the order of starts: the days come one after the other.
    #[must_use]
    pub const fn is_by_start(self) -> bool {
        matches!(self, Self::Newest | Self::Oldest)
    }

    /// A number that is greater for a recording that comes earlier.
    pub(crate) fn rank(self, started_at: Timestamp, facts: &Facts) -> u64 {
        match self {
            Self::Newest => 0,
            Self::Oldest => rank_of_start(started_at.as_nanosecond()),
            Self::Longest => facts.duration_ms(),
            Self::Shortest => !facts.duration_ms(),
            Self::MostTrouble => facts.trouble(),
            Self::LeastTrouble => !facts.trouble(),
            Self::Slowest => facts.latency_ms().map_or(0, |ms| ms + 1),
            Self::Quickest => facts.latency_ms().map_or(0, |ms| !ms),
        }
    }
}

/// A number that is greater for an earlier start.
fn rank_of_start(started_ns: i128) -> u64 {
    u64::try_from(i128::from(i64::MAX) - started_ns).unwrap_or(0)
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, order)| *order);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("give one of {}", names.join(", "))
        })
    }
}

/// End of a page: the next page begins behind it, even if recordings came or went meanwhile.
///
/// The greater place comes earlier in the list. In the default order that is the later start.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cursor {
    /// [`Order::rank`] of the recording.
    rank: u64,
    day: Date,
    started_at: Timestamp,
    id: Id,
}

impl Cursor {
    /// The place of a recording in the default order.
    #[must_use]
    pub const fn new(day: Date, started_at: Timestamp, id: Id) -> Self {
        Self { rank: 0, day, started_at, id }
    }

    /// The place of a recording in an order in which it has this rank.
    #[must_use]
    pub fn ranked(self, rank: u64) -> Self {
        Self { rank, ..self }
    }

    /// The place of the recording with this record, in the default order; `None` if it has no file.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Some(Self::new(record.day(), record.started_at, record.id.clone()?))
    }

    /// The place behind all recordings of a day, in an order by start.
    #[must_use]
    pub fn behind(day: Date, order: Order) -> Self {
        // No start and no id is less.
        let place = Self::new(day, Timestamp::MIN, Id::of_stream("0"));
        let end = day.at(23, 59, 59, 999_999_999).to_zoned(TimeZone::UTC);
        let last_ns = end.map_or(i128::MAX, |end| end.timestamp().as_nanosecond());
        place.ranked(if order == Order::Newest { 0 } else { rank_of_start(last_ns) })
    }

    /// The day of the recording.
    #[must_use]
    pub const fn day(&self) -> Date {
        self.day
    }

    /// The place but for the id: the greater comes earlier.
    pub(crate) const fn coarse(&self) -> (u64, Date, Timestamp) {
        (self.rank, self.day, self.started_at)
    }

    /// The id of the recording.
    pub(crate) const fn id(&self) -> &Id {
        &self.id
    }

    /// The text of the place in this order.
    #[must_use]
    pub fn text(&self, order: Order) -> String {
        match order {
            Order::Newest => self.to_string(),
            order => format!("{}~{}~{self}", order.name(), self.rank),
        }
    }

    /// Reads such a text; `None` if it is not one of this order.
    #[must_use]
    pub fn read(text: &str, order: Order) -> Option<Self> {
        if order == Order::Newest {
            return text.parse().ok();
        }
        let (rank, place) = text.strip_prefix(order.name())?.strip_prefix('~')?.split_once('~')?;
        Some(place.parse::<Self>().ok()?.ranked(rank.parse().ok()?))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}", self.day, self.started_at.as_nanosecond(), self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    /// Reads a place in the default order.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '~');
        let mut part = || parts.next().ok_or(());
        let (day, started_ns, id) = (part()?, part()?, part()?);
        let id = id.to_owned().try_into().map_err(|_| ())?;
        let started_ns = started_ns.parse().map_err(|_| ())?;
        let started_at = Timestamp::from_nanosecond(started_ns).map_err(|_| ())?;
        Ok(Self::new(parse_day(day).ok_or(())?, started_at, id))
    }
}

/// Some of the recordings, in the order of the list.
#[derive(Debug)]
pub struct Page<T> {
    /// The records, as `show` made them.
    pub records: Vec<T>,
    /// Start of the next page, if there may be more recordings. A page may be short, even empty, and not
    /// the last.
    pub next: Option<Cursor>,
    /// All recordings were looked at. If not, the index was still being built, and the list lacks some.
    pub is_complete: bool,
}

impl Filter {
    /// Whether a text is a record, or the line of one in an index, that meets the state, the times and the
    /// search.
    #[must_use]
    pub fn may_be_met_by(&self, text: &[u8]) -> bool {
        let Self { search, state, since, until, .. } = self;
        if search.is_empty() && state.is_none() && since.is_none() && until.is_none() {
            return true;
        }
        let Some(Entry { started_at, facts, texts, .. }) = Entry::read(text) else { return false };
        self.is_met_by_facts(started_at, &facts) && search.is_met_by_texts(&texts)
    }

    /// Whether it wants a day.
    pub(crate) fn wants(&self, day: Date) -> bool {
        self.from.is_none_or(|from| day >= from) && self.to.is_none_or(|to| day <= to)
    }

    /// Whether all is met but for the days and the texts.
    pub(crate) fn is_met_by_facts(&self, started_at: Timestamp, facts: &Facts) -> bool {
        self.state.is_none_or(|state| facts.state() == state)
            && self.since.is_none_or(|since| started_at >= since)
            && self.until.is_none_or(|until| started_at < until)
            && self.search.is_met_by_facts(facts)
    }

    /// Whether the texts of recordings are needed as well.
    pub(crate) fn has_texts(&self) -> bool {
        self.search.has_texts()
    }

    /// Whether these texts meet it, which [`Entry::read`] made.
    pub(crate) fn is_met_by_texts(&self, texts: &str) -> bool {
        self.search.is_met_by_texts(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_in_its_order_alone() {
        let started_at = "2026-11-22T20:25:40.123456789Z".parse().unwrap();
        let id: Id = "MZ1".to_owned().try_into().unwrap();
        let cursor = Cursor::new("2026-11-22".parse().unwrap(), started_at, id);
        for (name, order) in Order::ALL {
            let rank = if order == Order::Newest { 0 } else { 1 << 40 };
            let cursor = cursor.clone().ranked(rank);
            let text = cursor.text(order);
            assert_eq!(Cursor::read(&text, order), Some(cursor), "{name}");
            for (_, other) in Order::ALL.into_iter().filter(|(_, other)| *other != order) {
                assert_eq!(Cursor::read(&text, other), None, "{text} {other:?}");
            }
        }
        for text in ["", "2026-11-22", "2026-11-22~1~../x", "2026-11-22~x~MZ1"] {
            assert_eq!(text.parse::<Cursor>(), Err(()));
        }
    }
}
