//! What the store does by itself while the server runs: it finishes what the disk did not let it
//! finish, watches the room that is left and whether the disk works, and has what is old removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::recover::{finish_left, read_record};
use super::retention::LOOK_EVERY;
use super::{Inodes, Names, Record, Room, Store, found};

/// What is kept free unless the user says so: an hour of eight calls.
const KEEP_FREE_DEFAULT: u64 = 64 * 1024 * 1024;

/// What is kept free of the inodes unless the user says so: those of a thousand calls. At least what a
/// trial and the calls of a small disk need to be finished.
const KEEP_INODES_DEFAULT: u64 = 4096;
const KEEP_INODES_MIN: u64 = 16;

/// A disk that has not said for so long how much room there is does not answer.
const ROOM_AGE_MAX: Duration = Duration::from_secs(10);

/// At how many of the calls of [`Store::tend`] it is looked for what is too old: a minute's.
const LOOK_TICKS: u32 = LOOK_EVERY.as_secs() as u32;

/// At which of them what is too old at the start is removed: announced before, and soon.
const FIRST_LOOK_TICK: u32 = 3;

const SECOND: Duration = Duration::from_secs(1);

/// At how many of them the disk is tried although nothing speaks against it.
const TRY_EVERY: u32 = 10;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Does what is due; to be called once a second, by a thread that may wait for the disk.
    pub fn tend(&self) {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        self.watch_door();
        match tick {
            0 => self.watch_ages(SECOND * FIRST_LOOK_TICK),
            FIRST_LOOK_TICK => self.watch_ages(SECOND * (LOOK_TICKS - FIRST_LOOK_TICK)),
            tick if tick.is_multiple_of(LOOK_TICKS) => self.watch_ages(LOOK_EVERY),
            _ => {}
        }
        self.make_room();
        self.watch_room();
        self.finish_left();
    }

    /// Finishes what was left, until the disk refuses again; the next time another comes first, so that
    /// one which can never be finished keeps no other.
    fn finish_left(&self) {
        let waiting = || self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(mut left) = waiting().pop_front() else {
                return;
            };
            match finish_left(self, &mut left) {
                Ok(()) => {
                    tracing::info!(id = ?left.record.id, "finished a recording that the disk had refused");
                    self.note_finished(left.record);
                }
                Err(error) => {
                    tracing::debug!(%error, "the disk still refuses to finish a recording");
                    waiting().push_back(left);
                    return;
                }
            }
        }
    }

    /// Tries the disk now and then, and every second while there is reason to doubt it.
    fn watch_door(&self) {
        let is_due = self.ticks.load(Ordering::Relaxed).is_multiple_of(TRY_EVERY);
        if is_due || self.door.is_doubtful() {
            let _ = self.try_it(false);
        }
    }

    fn watch_room(&self) {
        let Ok(Room { free, keep_free, inodes, .. }) = self.look_for_room() else {
            return; // Whoever took the directory away will bring it back; calls wait for it.
        };
        let is_full = free < keep_free;
        self.watch_inodes(inodes);
        if self.door.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            if is_full {
                tracing::error!(free, keep_free, "the disk is almost full: new calls are refused");
            } else {
                tracing::info!(
                    free,
                    keep_free,
                    "there is room on the disk again: new calls are taken"
                );
            }
        }
    }

    fn watch_inodes(&self, inodes: Option<Inodes>) {
        // Signed: how far below the mark it is.
        let left = inodes.map_or(i64::MAX, |inodes| {
            let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
            signed(inodes.free) - signed(inodes.keep_free)
        });
        let was_short = self.door.set_inodes_left(left);
        match (inodes, was_short, left < 0) {
            (Some(Inodes { free, keep_free, .. }), false, true) => {
                tracing::error!(
                    free,
                    keep_free,
                    "the file system has hardly any inodes left: new calls are refused"
                );
            }
            (_, true, false) => tracing::info!("there are inodes again: new calls are taken"),
            _ => {}
        }
    }

    /// The room on the disk, as it was a second ago; `None` if the disk does not say. Never waits.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        let last = *self.room.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at, _)| at.elapsed() < ROOM_AGE_MAX).map(|(_, room)| room)
    }

    pub(super) fn look_for_room(&self) -> io::Result<Room> {
        let disk = rustix::fs::statvfs(self.dir())?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let keep_free = self.config.keep_free.unwrap_or(KEEP_FREE_DEFAULT.min(total / 20));
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let inodes = self.inodes_of(disk.f_favail, disk.f_files);
        let room = Room { free, total, keep_free, inodes };
        let now = Instant::now();
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, room));
        Ok(room)
    }

    /// What a file system's figures mean. Some have no limit of inodes and say 0 of 0. Others say that
    /// none of many is free, and make a trial's files all the same: that is no limit either.
    fn inodes_of(&self, free: u64, total: u64) -> Option<Inodes> {
        let is_unlimited = total == 0 || free == 0 && !self.door.is_doubtful();
        let had_inodes = || self.room().is_some_and(|room| room.inodes.is_some());
        if free == 0 && had_inodes() {
            self.door.doubt();
        }
        let keep_free = self
            .config
            .keep_free_inodes
            .unwrap_or((total / 20).clamp(KEEP_INODES_MIN, KEEP_INODES_DEFAULT));
        (!is_unlimited).then_some(Inodes { free, total, keep_free })
    }
}

/// When a day began.
pub(super) fn date_of(day: &Path) -> Option<SystemTime> {
    let date: jiff::civil::Date = day.file_name()?.to_str()?.parse().ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.into())
}

/// The directories that are named like a day, oldest first.
pub(super) fn days_of(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut days = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if date_of(&entry.path()).is_some() && entry.file_type()?.is_dir() {
            days.push(entry.path());
        }
    }
    days.sort();
    Ok(days)
}

/// A day's finished recordings and when each ended: those whose record is one of ours.
pub(super) fn finished_in(day: &Path) -> io::Result<Vec<(Names, SystemTime)>> {
    let mut recordings = Vec::new();
    for entry in fs::read_dir(day)? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let names = Names { dir: day.to_owned(), id: id.to_owned() };
        // One that is being finished has its record, but not its WAV.
        if !names.wav_part().try_exists()?
            && let Some(record) = our_record(&names)
        {
            recordings.push((names, record.ended_at.into()));
        }
    }
    Ok(recordings)
}

/// The record of that name, if it is one of ours.
pub(super) fn our_record(names: &Names) -> Option<Record> {
    read_record(&names.json()).filter(|record| record.id == names.id)
}

/// Removes a finished recording. Its record goes last: it says what the WAV is, and what is
/// interrupted can be done again.
pub(super) fn remove(names: &Names) -> io::Result<()> {
    found(fs::remove_file(names.wav()))?;
    fs::remove_file(names.json())
}
