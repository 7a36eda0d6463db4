//! What the store does by itself while the server runs: it finishes what the disk did not let it
//! finish, watches the room that is left, and removes what is old if it is told to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::recover::{finish_left, read_record};
use super::{Names, Record, Room, Store, found};

/// What is kept free unless the user says so: an hour of eight calls.
const KEEP_FREE_DEFAULT: u64 = 64 * 1024 * 1024;

/// A disk that has not said for so long how much room there is does not answer.
const ROOM_AGE_MAX: Duration = Duration::from_secs(10);

/// At how many of the calls of [`Store::tend`] it is looked for what is too old: a minute's.
const LOOK_EVERY: u32 = 60;

/// At how many of them the disk is tried although nothing speaks against it.
const TRY_EVERY: u32 = 10;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Does what is due; to be called once a second, by a thread that may wait for the disk.
    pub fn tend(&self) {
        if self.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.remove_old();
        }
        self.watch_door();
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
        let Ok(Room { free, keep_free, .. }) = self.look_for_room() else {
            return; // Whoever took the directory away will bring it back; calls wait for it.
        };
        let is_full = free < keep_free;
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
        let room = Room { free: disk.f_bavail.saturating_mul(disk.f_frsize), total, keep_free };
        let now = Instant::now();
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, room));
        Ok(room)
    }

    /// Removes what ended too long ago.
    fn remove_old(&self) {
        let Some(days) = self.config.keep_days else {
            return;
        };
        let Some(horizon) = SystemTime::now().checked_sub(DAY * days) else {
            return;
        };
        self.remove_while("it is older than --keep-days", |ended, _| ended < horizon);
    }

    /// Removes what is oldest, as much as there is too little room.
    fn make_room(&self) {
        if self.config.make_room
            && let Ok(Room { free, keep_free, .. }) = self.look_for_room()
        {
            // Not by looking again after each: some file systems free later what was removed.
            let short = keep_free.saturating_sub(free);
            self.remove_while("less is free than --keep-free", |_, removed| removed < short);
        }
    }

    /// Removes finished recordings, oldest first, until one is not to be removed: told by when it
    /// ended, and by how many bytes were removed before it.
    fn remove_while(&self, reason: &str, is_to_go: impl Fn(SystemTime, u64) -> bool) {
        let mut removed = 0;
        for day in days_of(self.dir()).unwrap_or_default() {
            let Some(date) = date_of(&day).filter(|began| is_to_go(*began, removed)) else {
                return; // What began later has ended later.
            };
            let mut recordings = finished_in(&day).unwrap_or_default();
            recordings.sort_by_key(|(_, ended)| *ended);
            for (names, ended) in recordings {
                if !is_to_go(ended, removed) {
                    break;
                }
                let bytes = fs::metadata(names.wav()).map_or(0, |wav| wav.len());
                match remove(&names) {
                    Ok(()) => {
                        removed += bytes;
                        tracing::warn!(id = names.id, reason, "removed a recording");
                    }
                    Err(error) => {
                        tracing::error!(id = names.id, %error, "cannot remove a recording")
                    }
                }
            }
            if date + DAY < SystemTime::now() {
                // It stays if anything is in it.
                let _ = fs::remove_dir(&day);
            }
        }
    }
}

/// When a day began.
fn date_of(day: &Path) -> Option<SystemTime> {
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
fn finished_in(day: &Path) -> io::Result<Vec<(Names, SystemTime)>> {
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
