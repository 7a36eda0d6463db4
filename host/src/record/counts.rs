//! Recordings counted by the days of a time zone.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

/// Most changes of an offset that a zone has: those of a century.
const CHANGES_MAX: usize = 200;

/// Numbers of recordings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// By the day of their start.
    pub days: BTreeMap<Date, u64>,
    /// All recordings were looked at. If not, the index was still being built, and the counts are too low.
    pub is_complete: bool,
}

impl Counts {
    pub(crate) fn add(&mut self, day: Date) {
        *self.days.entry(day).or_default() += 1;
    }

    /// The number of all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.days.values().sum()
    }
}

/// A time zone, by its offset from UTC and the changes of that: a browser knows no more of its own zone that it could
/// tell, and a server need not have a table of zones. The default is UTC.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Zone {
    /// Seconds east of UTC, before the first change.
    offset: i32,
    /// Unix times of changes, in their order, and the offsets from then on.
    changes: Vec<(i64, i32)>,
}

impl Zone {
    /// The day of an instant.
    #[must_use]
    pub fn day_of(&self, instant: Timestamp) -> Date {
        let passed = self.changes.partition_point(|(at, _)| *at <= instant.as_second());
        let offset = passed.checked_sub(1).map_or(self.offset, |last| self.changes[last].1);
        let offset = Offset::from_seconds(offset).unwrap_or(Offset::UTC);
        offset.to_datetime(instant).date()
    }
}

impl FromStr for Zone {
    type Err = &'static str;

    /// Parses `-480`, minutes east of UTC, or `-480,1772964000:-420`, followed by changes, each with its Unix time in
    /// seconds.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "give minutes east of UTC and their changes by Unix time, like -480 or -480,1772964000:-420";
        let seconds = |minutes: &str| {
            let minutes: i32 = minutes.parse().map_err(|_| FORM)?;
            Offset::from_seconds(minutes.saturating_mul(60)).map(Offset::seconds).map_err(|_| FORM)
        };
        let mut parts = text.split(',');
        let offset = seconds(parts.next().unwrap_or_default())?;
        let change = |part: &str| -> Result<(i64, i32), Self::Err> {
            let (at, minutes) = part.split_once(':').ok_or(FORM)?;
            Ok((at.parse().map_err(|_| FORM)?, seconds(minutes)?))
        };
        let changes: Vec<(i64, i32)> = parts.map(change).collect::<Result<_, _>>()?;
        if changes.len() > CHANGES_MAX || !changes.is_sorted() {
            return Err(FORM);
        }
        Ok(Self { offset, changes })
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_day_is_that_of_the_zone_before_and_after_a_change() {
        // Los Angeles, spring of 2026.
        let zone: Zone = "-480,1772964000:-420".parse().unwrap();
        for (instant, day) in [
            ("2026-03-08T07:59:59Z", "2026-03-07"),
            ("2026-03-08T08:00:00Z", "2026-03-08"),
            ("2026-03-09T06:59:59Z", "2026-03-08"),
            ("2026-03-09T07:00:00Z", "2026-03-09"),
        ] {
            let instant = instant.parse().unwrap();
            assert_eq!(zone.day_of(instant).to_string(), day, "{instant}");
            assert_eq!(Zone::default().day_of(instant), instant.to_zoned(TimeZone::UTC).date());
        }
        for wrong in ["", "x", "-480,5", "99999", "0,5:0,4:0", "+1:00"] {
            wrong.parse::<Zone>().unwrap_err();
        }
    }
}
