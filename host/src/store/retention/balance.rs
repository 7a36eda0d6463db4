//! The account of removals for room: whether they help, and how many are next.

use std::time::{Duration, Instant};

use crate::store::keep::DAY;

/// The most by which the room on the disk may differ from the expected room without a cause.
const SLACK_BYTES: u64 = 16 * 1024;
const SLACK_INODES: u64 = 8;

/// The longest time that a file system may take to free the room of removed files.
const FREED_WITHIN: Duration = Duration::from_secs(10);

/// The time for which nothing is removed if the room does not come by then; twice as long each further
/// time, a day at most.
const HOLD: Duration = Duration::from_secs(10 * 60);

/// After this long without a need for room, removals begin with one recording again.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// The most recordings that are removed between two looks at the room.
const BATCH_MAX: usize = 1024;

/// The unit of room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Coin {
    Bytes,
    Inodes,
}

impl Coin {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Inodes => "inodes",
        }
    }

    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Bytes => "--keep-free",
            Self::Inodes => "--keep-free-inodes",
        }
    }

    const fn slack(self) -> u64 {
        match self {
            Self::Bytes => SLACK_BYTES,
            Self::Inodes => SLACK_INODES,
        }
    }
}

/// The account of removals for room against the room on the disk.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// The free room, callreel's bytes written or files made, and the time, all when the account was
    /// opened.
    opened: Option<(u64, u64, Instant)>,
    /// Bytes or inodes removed since.
    pub removed: u64,
    /// The most recordings that are removed at one time.
    batch: usize,
    /// The time since which the room that removals ought to have made is missing.
    waits_since: Option<Instant>,
    /// The time until which nothing is removed, the length of this hold, and the room missing when it
    /// began.
    hold: Option<(Instant, Duration, u64)>,
    /// The time at which room was last short.
    needed: Option<Instant>,
    /// Removing all recordings that may be removed would not be enough.
    pub is_in_vain: bool,
}

/// The next thing to do for room.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing: there is room.
    Rest,
    /// Nothing yet: the file system may still be freeing the room.
    Wait,
    /// Nothing: removals do not help, for this reason.
    Hold(String),
    /// Remove at most this many recordings.
    Remove(usize),
}

impl Balance {
    pub(super) fn step(
        &mut self,
        coin: Coin,
        short: u64,
        free: u64,
        written: u64,
        now: Instant,
    ) -> Step {
        let slack = coin.slack();
        if short == 0 {
            if self.needed.is_some_and(|needed| now - needed >= FORGET_AFTER) {
                *self = Self::default();
            }
            (self.waits_since, self.hold, self.is_in_vain) = (None, None, false);
            if self.removed == 0 {
                self.opened = None;
            }
            return Step::Rest;
        }
        self.needed = Some(now);
        let (free_then, written_then, opened) = *self.opened.get_or_insert((free, written, now));
        let expected =
            (free_then + self.removed).saturating_sub(written.saturating_sub(written_then));
        let missing = expected.saturating_sub(free);
        if self.removed == 0 || missing <= self.removed / 2 + slack {
            let is_first = self.removed == 0;
            if is_first || now - opened >= FORGET_AFTER {
                (self.opened, self.removed) = (Some((free, written, now)), 0);
            }
            (self.waits_since, self.hold) = (None, None);
            self.batch =
                if is_first && self.batch == 0 { 1 } else { (self.batch * 2).min(BATCH_MAX) };
            return Step::Remove(self.batch);
        }
        if now - *self.waits_since.get_or_insert(now) < FREED_WITHIN {
            return Step::Wait;
        }
        match self.hold {
            None => self.hold = Some((now + HOLD, HOLD, missing)),
            Some((until, _, _)) if now < until => {}
            // The other files that took the room grow no more: try again, with one recording.
            Some((_, length, then)) if missing <= then + slack => {
                let length = (length * 2).min(DAY);
                self.opened = Some((free, written, now));
                (self.removed, self.batch, self.waits_since) = (0, 1, None);
                self.hold = Some((now + length, length, 0));
                return Step::Remove(1);
            }
            Some((_, length, _)) => self.hold = Some((now + length, length, missing)),
        }
        let unit = coin.name();
        Step::Hold(format!(
            "{} {unit} were removed, but {missing} of them are not free: other files took the room, or the file system keeps it",
            self.removed
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk on which removals may free no room, and on which other programs write.
    struct Sim {
        balance: Balance,
        free: u64,
        now: Instant,
        removed: usize,
    }

    impl Sim {
        fn new(free: u64) -> Self {
            Self { balance: Balance::default(), free, now: Instant::now(), removed: 0 }
        }

        /// One second: removes recordings of 1 MiB as the step says, then others write `others` bytes.
        fn tick(&mut self, keep_free: u64, others: u64, frees: bool) -> Step {
            self.now += Duration::from_secs(1);
            let short = keep_free.saturating_sub(self.free);
            let step = self.balance.step(Coin::Bytes, short, self.free, 0, self.now);
            if let Step::Remove(count) = step {
                let count = count.min(short.div_ceil(MIB) as usize);
                self.removed += count;
                self.balance.removed += count as u64 * MIB;
                self.free += if frees { count as u64 * MIB } else { 0 };
            }
            self.free = self.free.saturating_sub(others);
            step
        }
    }

    #[test]
    fn removals_that_help_go_on_in_growing_batches_and_no_further_than_needed() {
        let mut disk = Sim::new(0);
        let steps: Vec<Step> = (0..6).map(|_| disk.tick(20 * MIB, 0, true)).collect();
        assert_eq!(steps[..5], [1, 2, 4, 8, 16].map(Step::Remove));
        assert_eq!((disk.removed, &steps[5]), (20, &Step::Rest));
    }

    #[test]
    fn a_removal_that_frees_nothing_is_the_last_for_a_long_time() {
        let mut disk = Sim::new(0);
        let steps: Vec<Step> = (0..600).map(|_| disk.tick(20 * MIB, 0, false)).collect();
        assert_eq!((disk.removed, &steps[1]), (1, &Step::Wait));
        assert!(matches!(steps[15], Step::Hold(_)));
        for _ in 0..24 * 3600 {
            disk.tick(20 * MIB, 0, false);
        }
        assert!(disk.removed < 10, "{}", disk.removed);
    }

    #[test]
    fn room_that_others_take_at_once_is_not_made_for_them() {
        let mut disk = Sim::new(10 * MIB);
        for _ in 0..600 {
            disk.tick(20 * MIB, MIB, true);
        }
        assert!(disk.removed <= 4, "{}", disk.removed);
    }

    #[test]
    fn a_file_system_that_frees_late_is_waited_for() {
        let mut disk = Sim::new(0);
        disk.tick(20 * MIB, 0, false);
        assert_eq!(disk.tick(20 * MIB, 0, false), Step::Wait);
        disk.free += MIB;
        assert_eq!(disk.tick(20 * MIB, 0, false), Step::Remove(2));
    }
}
