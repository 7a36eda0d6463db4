//! What the store does by itself while the server runs: it finishes what the disk did not let it
//! finish, watches the room that is left, and removes what is old if it is told to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::recover::finish_left;
use super::{Names, Record, Room, Store};

/// What is kept free unless the user says so: an hour of eight calls.
const KEEP_FREE_DEFAULT: u64 = 64 * 1024 * 1024;

/// A disk that has not said for so long how much room there is does not answer.
const ROOM_AGE_MAX: Duration = Duration::from_secs(10);

/// At how many of the calls of [`Store::tend`] it is looked for what is too old: a minute's.
const LOOK_EVERY: u32 = 60;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Does what is due; to be called once a second, by a thread that may wait for the disk.
    pub fn tend(&self) {
        self.finish_left();
        if self.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.remove_old();
        }
        self.make_room();
        self.watch_room();
    }

    /// Finishes what was left, until the disk refuses again.
    fn finish_left(&self) {
        loop {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(mut left) = left else {
                return;
            };
            match finish_left(self, &mut left) {
                Ok(()) => {
                    tracing::info!(id = ?left.record.id, "finished a recording that the disk had refused");
                    self.note_finished(left.record);
                }
                Err(error) => {
                    tracing::debug!(%error, "the disk still refuses to finish a recording");
                    self.left.lock().unwrap_or_else(PoisonError::into_inner).push_front(left);
                    return;
                }
            }
        }
    }

    fn watch_room(&self) {
        let Ok(Room { free, keep_free, .. }) = self.look_for_room() else {
            return; // Whoever took the directory away will bring it back; calls wait for it.
        };
        let is_full = free < keep_free;
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
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

    fn look_for_room(&self) -> io::Result<Room> {
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
        self.remove_while(|ended| (ended < horizon).then_some("it is older than --keep-days"));
    }

    /// Removes what is oldest as long as there is too little room.
    fn make_room(&self) {
        if self.config.make_room {
            let is_short = || self.look_for_room().is_ok_and(|room| room.free < room.keep_free);
            self.remove_while(|_| is_short().then_some("less is free than --keep-free"));
        }
    }

    /// Removes finished recordings, oldest first, until there is no reason to remove the next.
    fn remove_while(&self, reason: impl Fn(SystemTime) -> Option<&'static str>) {
        for day in days_of(self.dir()).unwrap_or_default() {
            let Some(date) = date_of(&day).filter(|began| reason(*began).is_some()) else {
                return; // What began later has ended later.
            };
            let mut recordings = finished_in(&day).unwrap_or_default();
            recordings.sort_by_key(|(_, ended)| *ended);
            for (names, ended) in recordings {
                let Some(reason) = reason(ended) else {
                    break;
                };
                match remove(&names) {
                    Ok(()) => tracing::warn!(id = names.id, reason, "removed a recording"),
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

/// A day's finished recordings and when each was finished: those whose record is one of ours.
fn finished_in(day: &Path) -> io::Result<Vec<(Names, SystemTime)>> {
    let mut recordings = Vec::new();
    for entry in fs::read_dir(day)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let names = Names { dir: day.to_owned(), id: id.to_owned() };
        // One that is being finished has its record, but not its WAV.
        let is_whole = !names.wav_part().try_exists()?;
        if is_whole && is_ours(&names) {
            recordings.push((names, entry.metadata()?.modified()?));
        }
    }
    Ok(recordings)
}

fn is_ours(names: &Names) -> bool {
    let text = fs::read(names.json()).unwrap_or_default();
    serde_json::from_slice::<Record>(&text).is_ok_and(|record| record.id == names.id)
}

/// The record goes last: it says what the WAV is.
fn remove(names: &Names) -> io::Result<()> {
    match fs::remove_file(names.wav()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(names.json())
}
