//! Automatic deletion: by age (`--keep-days`) and for room (`--make-room`).
//!
//! Both remove finished recordings only, with a record that callreel wrote, oldest first, and never the
//! newest `--keep-min`.
//!
//! **By age**, only announced recordings are removed: each look announces the removals of the next one,
//! a minute later. Nothing is removed while the clock is not believed (see [`clock`](super::clock)), and
//! never a recording that may be younger than a day.
//!
//! **For room**, one recording is removed. If the disk then has that much more room, two are removed,
//! then four, and so on. It stops when the room does not come (a snapshot or another program's file
//! takes it), and removes nothing at all where all recordings together would not be enough.
//!
//! **The outbox is asked first.** A recording that its receiver is still to be told of stays, since the
//! receiver will want to fetch it, until it was told or the outbox gives up. New calls matter more: while
//! the disk lacks room, these recordings go as well, after all others, oldest first, and no more of them
//! than the room needs. A recording that the home lacks is never removed.

mod balance;
mod room;

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use self::balance::{Balance, Coin};
use super::clock::{self, CONFIRM_FILE, Clock, Reading};
use super::keep::{DAY, our_record, remove, start_of};
use super::{Catalog, LOCK_FILE, Names, Store, peaks};
use crate::disk;
use crate::finished::Held;
use crate::lock::lock;

/// The most recordings that one look announces for removal because of their age. Later looks take the
/// rest.
const PLAN_MAX: usize = 10_000;

/// The time after which an alarm that goes on is logged again.
const ALARM_EVERY: Duration = Duration::from_secs(60 * 60);

/// The time from one look for recordings that are too old to the next.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The reason for a removal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// A user asked for it through the API.
    Api,
    /// The recording was older than `--keep-days`.
    KeepDays,
    /// `--make-room` needed the recording's room.
    MakeRoom,
    /// It was in the home for longer than `--evict-after`.
    Evicted,
}

impl Removal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Api, Self::KeepDays, Self::MakeRoom, Self::Evicted];

    /// Its name in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::KeepDays => "keep_days",
            Self::MakeRoom => "make_room",
            Self::Evicted => "evicted",
        }
    }
}

/// The recordings that the next look will remove because of their age.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// Time at which that look is due.
    pub at: Timestamp,
    /// The number of recordings.
    pub recordings: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
    /// The end of the oldest of them.
    pub oldest: Timestamp,
    /// The end of the newest of them.
    pub newest: Timestamp,
}

/// The state of automatic deletion: its next removals, and the reasons for holding back.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The removals of the next look because of age, if any.
    pub next: Option<Plan>,
    /// The reason why the clock is not believed.
    pub clock_doubt: Option<String>,
    /// The reason why nothing is removed because of age although `--keep-days` is given.
    pub clock_alarm: Option<String>,
    /// The recordings that `--keep-days` leaves because their receiver is still to be told of them.
    pub held_alarm: Option<String>,
    /// The reason why nothing more is removed for room although `--make-room` is given and room short.
    pub room_alarm: Option<String>,
    /// Recordings removed since the start, in the order of [`Removal::ALL`].
    pub removed: [u64; Removal::ALL.len()],
    /// Of them, recordings removed for their age or for room before their receiver was told of them.
    pub removed_undelivered: u64,
}

impl Retention {
    /// The alarms, in words.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        [&self.clock_alarm, &self.held_alarm, &self.room_alarm]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// The store's state of automatic deletion.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// The part that other threads may read.
    shown: Mutex<Retention>,
    removed: [AtomicU64; Removal::ALL.len()],
    removed_undelivered: AtomicU64,
    /// Bytes that writers have written.
    pub written: AtomicU64,
    /// Files that writers have made.
    pub files: AtomicU64,
    /// For the one thread that removes.
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    clock: Clock,
    /// Paths of the records that the next look may remove because of their age.
    announced: HashSet<PathBuf>,
    clock_alarm: Alarm,
    held_alarm: Alarm,
    room_alarm: Alarm,
    /// One for each [`Coin`].
    balances: [Balance; 2],
    /// The recordings to remove next for room, oldest first. They were found at the time and for the
    /// coin in `queue_made`.
    queue: VecDeque<Found>,
    queue_made: Option<(Instant, Coin)>,
}

/// The time at which a fault was last logged for the operator; it is logged again while it goes on.
#[derive(Debug, Default)]
struct Alarm(Option<Instant>);

impl Alarm {
    /// Whether it is time to log it; if so, notes the time.
    fn is_due(&mut self, goes_on: bool) -> bool {
        let is_due = goes_on && self.0.is_none_or(|told| told.elapsed() >= ALARM_EVERY);
        match (goes_on, is_due) {
            (false, _) => self.0 = None,
            (true, true) => self.0 = Some(Instant::now()),
            (true, false) => {}
        }
        is_due
    }
}

/// A finished recording that may be removed.
#[derive(Debug)]
struct Found {
    names: Names,
    ended: SystemTime,
    /// Bytes that its removal frees.
    bytes: u64,
    inodes: u64,
    /// Its day's folder is a link to another disk, where its removal frees nothing that new calls need.
    is_elsewhere: bool,
}

impl Found {
    fn new(names: Names, ended: SystemTime, is_elsewhere: bool) -> Self {
        let freed = |path: PathBuf| match fs::symlink_metadata(path) {
            // Another hard link keeps the file's room.
            Ok(file) if file.nlink() > 1 => (0, 0),
            Ok(file) if file.blocks() > 0 => (file.blocks() * 512, 1),
            Ok(file) => (file.len(), 1),
            Err(_) => (0, 0),
        };
        let (wav, record) = (freed(names.wav()), freed(names.json()));
        let peaks = names.peaks();
        let peaks = if peaks::is_ours(&peaks) { freed(peaks) } else { (0, 0) };
        let (bytes, inodes) = (wav.0 + record.0 + peaks.0, wav.1 + record.1 + peaks.1);
        Self { names, ended, bytes, inodes, is_elsewhere }
    }

    /// The room that its removal frees on the disk of the directory.
    const fn room(&self, coin: Coin) -> u64 {
        match coin {
            _ if self.is_elsewhere => 0,
            Coin::Bytes => self.bytes,
            Coin::Inodes => self.inodes,
        }
    }
}

/// The time at which the newest recording ended or was published, by the latest day's start, records
/// and file times.
fn newest_s(catalog: &Catalog) -> Option<i64> {
    let day = catalog.days().ok()?.pop()?;
    let began_s = clock::wall_s(start_of(day)?);
    let (published_s, records) = catalog.latest_of(day).unwrap_or_default();
    let ended_s = records.iter().map(|record| record.ended_at.as_second()).max();
    [Some(began_s), published_s, ended_s].into_iter().max()?
}

/// The reason why a store that opens `dir` now would doubt the clock, in words; `None` if it would not.
/// Only reads: a server may be running there.
pub(crate) fn clock_doubt(dir: &Path) -> Option<String> {
    let now = Reading::now();
    let newest_s = newest_s(&Catalog::new(dir.to_owned()));
    let known = disk::open_to_read(&dir.join(LOCK_FILE)).ok();
    let mut clock = match known.and_then(|lock| Clock::load(&lock)) {
        Some(mut clock) => {
            clock.advance(&now);
            clock
        }
        None => Clock::first(&now, newest_s),
    };
    clock.judge(&now, newest_s).err()
}

impl Store {
    /// The state of automatic deletion.
    #[must_use]
    pub fn retention(&self) -> Retention {
        let shown = lock(&self.keeping.shown).clone();
        let removed = std::array::from_fn(|why| self.keeping.removed[why].load(Ordering::Relaxed));
        let removed_undelivered = self.keeping.removed_undelivered.load(Ordering::Relaxed);
        Retention { removed, removed_undelivered, ..shown }
    }

    /// Notes that `bytes` bytes of a recording were written.
    pub fn note_written(&self, bytes: u64) {
        self.keeping.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that `count` files were made, or will soon be.
    pub(super) fn note_files(&self, count: u64) {
        self.keeping.files.fetch_add(count, Ordering::Relaxed);
        self.door.take_inodes(count);
    }

    pub(super) fn count_removed(&self, why: Removal) {
        self.keeping.removed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn show(&self, change: impl FnOnce(&mut Retention)) {
        change(&mut lock(&self.keeping.shown));
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        lock(&self.keeping.work)
    }

    /// Forgets what was announced: another instance removes recordings now.
    pub(super) fn forget_announced(&self) {
        self.work().announced.clear();
        self.show(|shown| *shown = Retention::default());
    }

    /// Takes over an earlier run's knowledge of the clock. To be called before anything is written.
    pub(super) fn load_clock(&self) {
        let now = Reading::now();
        let clock = match Clock::load(&self.lock) {
            Some(mut clock) => {
                clock.advance(&now);
                clock
            }
            None => Clock::first(&now, newest_s(&self.catalog)),
        };
        self.work().clock = clock;
    }

    /// Reads the clock and saves the reading. Returns whether ages may be believed.
    fn watch_clock(&self) -> bool {
        let mut work = self.work();
        let now = Reading::now();
        work.clock.advance(&now);
        let newest_s = self.config.keep_days.and_then(|_| newest_s(&self.catalog));
        if clock::is_confirmed(self.dir()) {
            tracing::warn!("an operator has confirmed the clock");
            work.clock.believe(newest_s);
        }
        let verdict = work.clock.judge(&now, newest_s);
        match work.clock.save(&self.lock) {
            Ok(()) => self.set_dirty(),
            Err(error) => tracing::debug!(%error, "cannot save the reading of the clock"),
        }
        let clock_doubt = verdict.err();
        let doubt = clock_doubt.clone().filter(|_| self.config.keep_days.is_some());
        let is_believed = doubt.is_none();
        self.show(|shown| {
            shown.clock_doubt = clock_doubt;
            let alarm = |doubt| format!("--keep-days removes nothing: {doubt}");
            shown.clock_alarm = doubt.as_ref().map(alarm);
        });
        if work.clock_alarm.is_due(doubt.is_some())
            && let Some(doubt) = &doubt
        {
            let confirm = self.dir().join(CONFIRM_FILE);
            tracing::error!(
                doubt,
                "--keep-days removes nothing: set the clock right, or make the file {} to say that it is",
                confirm.display()
            );
        }
        is_believed
    }

    /// Removes announced recordings that are too old, and announces the removals of the next look,
    /// `next_look` from now. The first look only announces.
    pub(super) fn watch_ages(&self, next_look: Duration) {
        let is_believed = self.watch_clock();
        match self.config.keep_days {
            Some(days) if is_believed => self.remove_old(days, next_look),
            _ => {
                self.work().announced.clear();
                self.show(|shown| (shown.next, shown.held_alarm) = (None, None));
            }
        }
    }

    fn remove_old(&self, days: u32, next_look: Duration) {
        let now = SystemTime::now();
        let (Some(horizon), at) = (now.checked_sub(DAY * days), now + next_look) else {
            return;
        };
        let old = self.old(horizon + next_look);
        let announced = std::mem::take(&mut self.work().announced);
        // An old recording may be unannounced: it was put there since, or is not among the newest any
        // more. It waits for the next look.
        let is_due =
            |found: &Found| found.ended < horizon && announced.contains(&found.names.json());
        let (due, next): (Vec<Found>, Vec<Found>) = old.into_iter().partition(is_due);
        let (due, held) = self.part_held(due);
        for found in due {
            self.remove_found(&found, Removal::KeepDays);
        }
        let (mut next, still_held) = self.part_held(next);
        self.tell_held(held + still_held);
        next.truncate(PLAN_MAX);
        self.work().announced = next.iter().map(|found| found.names.json()).collect();
        self.remove_empty_days();
        let plan = plan_of(&next, at);
        if let Some(Plan { at, recordings, bytes, oldest, newest }) = &plan {
            tracing::info!(%at, recordings, bytes, %oldest, %newest, "the next look removes recordings that are older than --keep-days");
        }
        self.show(|shown| shown.next = plan);
    }

    /// Leaves out the recordings that the outbox holds. While the disk lacks room, the oldest of them stay
    /// in, as many as the room needs, behind the others. Returns the rest, and the number left out.
    fn part_held(&self, found: Vec<Found>) -> (Vec<Found>, usize) {
        let (mut rest, mut held, mut homeless) = (Vec::new(), Vec::new(), 0);
        for found in found {
            match self.finished.holds(&found.names.key) {
                None => rest.push(found),
                Some(Held::Webhook) => held.push(found),
                Some(Held::Home) => homeless += 1,
            }
        }
        if held.is_empty() {
            return (rest, homeless);
        }
        let mut lacking = self.look_for_room().map_or([0; 2], |room| room.lacking());
        // Counts the room that the removal frees, and returns whether any of it is lacking.
        let mut takes = |found: &Found| {
            let mut helps = false;
            for (lacking, coin) in lacking.iter_mut().zip([Coin::Bytes, Coin::Inodes]) {
                helps |= *lacking > 0 && found.room(coin) > 0;
                *lacking = lacking.saturating_sub(found.room(coin));
            }
            helps
        };
        for found in &rest {
            takes(found);
        }
        let (needed, held): (Vec<Found>, Vec<Found>) = held.into_iter().partition(takes);
        rest.extend(needed);
        (rest, held.len() + homeless)
    }

    /// Tells of the old recordings that wait for the outbox.
    fn tell_held(&self, recordings: usize) {
        let told = "--keep-days leaves recordings until they are in the home and their webhook messages are delivered or given up";
        if self.work().held_alarm.is_due(recordings > 0) {
            tracing::warn!(recordings, "{told}");
        }
        self.show(|shown| {
            shown.held_alarm = (recordings > 0).then(|| format!("{told}: {recordings} now"));
        });
    }

    /// The recordings that ended before `horizon` and may be removed, oldest first.
    fn old(&self, horizon: SystemTime) -> Vec<Found> {
        let mut old = Vec::new();
        for day in self.days().unwrap_or_default() {
            if start_of(day).is_none_or(|began| began >= horizon) {
                break; // Later recordings have ended later.
            }
            old.extend(self.finished_in(day, |_| true).unwrap_or_default());
        }
        old.retain(|(_, ended)| *ended < horizon);
        if old.is_empty() {
            return Vec::new();
        }
        let (newest, work) = (self.newest(), self.work());
        old.retain(|(names, ended)| {
            !newest.contains(&names.json()) && !work.clock.may_be_young(clock::wall_s(*ended))
        });
        old.sort_by_key(|(_, ended)| *ended);
        let found = |(names, ended): (Names, SystemTime)| {
            let is_elsewhere = self.is_elsewhere(names.key.day());
            Found::new(names, ended, is_elsewhere)
        };
        old.into_iter().map(found).collect()
    }

    /// The records of the newest `keep_min` recordings, which are always kept.
    fn newest(&self) -> HashSet<PathBuf> {
        let mut newest = Vec::new();
        if self.config.keep_min > 0 {
            for day in self.days().unwrap_or_default().into_iter().rev() {
                // A long call may have begun the day before and ended last.
                let is_last = newest.len() >= self.config.keep_min;
                newest.extend(self.finished_in(day, |_| true).unwrap_or_default());
                if is_last {
                    break;
                }
            }
        }
        newest.sort_by_key(|(_, ended)| std::cmp::Reverse(*ended));
        newest.into_iter().take(self.config.keep_min).map(|(names, _)| names.json()).collect()
    }

    /// Removes one recording, if it is still there and callreel's. Returns whether it did.
    fn remove_found(&self, found: &Found, why: Removal) -> bool {
        let key = &found.names.key;
        let (id, reason) = (key.id().as_str(), why.name());
        if our_record(&found.names).is_none() {
            return false;
        }
        let held = self.finished.holds(key);
        if held == Some(Held::Home) {
            return false; // Its upload was begun anew since it was found.
        }
        let is_held = held.is_some();
        match remove(&found.names) {
            Ok(()) => {
                self.count_removed(why);
                if is_held {
                    self.keeping.removed_undelivered.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        id,
                        reason,
                        "removed a recording before its webhook message was delivered: the disk lacks room"
                    );
                } else {
                    tracing::warn!(id, reason, "removed a recording");
                }
                true
            }
            Err(error) => {
                tracing::error!(id, %error, "cannot remove a recording");
                false
            }
        }
    }

    pub(super) fn remove_empty_days(&self) {
        let now = SystemTime::now();
        for day in self.days().unwrap_or_default() {
            match start_of(day) {
                // A directory with anything in it stays.
                Some(began) if began + DAY < now => drop(fs::remove_dir(self.dir_of(day))),
                _ => break,
            }
        }
    }
}

/// The figures of these recordings; `None` if there are none.
fn plan_of(found: &[Found], at: SystemTime) -> Option<Plan> {
    let time = |time: SystemTime| Timestamp::try_from(time).unwrap_or_default();
    let ends = || found.iter().map(|found| found.ended);
    let (oldest, newest) = (ends().min()?, ends().max()?);
    Some(Plan {
        at: time(at),
        recordings: found.len() as u64,
        bytes: found.iter().map(|found| found.bytes).sum(),
        oldest: time(oldest),
        newest: time(newest),
    })
}
