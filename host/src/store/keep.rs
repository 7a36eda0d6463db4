//! The store's own periodic work while the server runs: it finishes recordings that the disk refused
//! to finish, watches the free room, tries the disk, and has old recordings removed.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::mend::read_record;
use super::retention::LOOK_EVERY;
use super::{Inodes, Names, Room, Store, peaks};
use crate::disk::found;
use crate::home::Health;
use crate::lock::lock;
use crate::record::{Id, Key, Record};

/// Bytes kept free by default: an hour of one call, one track of 16-bit PCM.
const KEEP_FREE_DEFAULT: u64 = 64 * 1024 * 1024;

/// Inodes kept free by default: enough for a thousand calls. On a small disk at least enough for a
/// trial and for finishing its calls.
const KEEP_INODES_DEFAULT: u64 = 4096;
const KEEP_INODES_MIN: u64 = 16;

/// A disk that has not reported its free room for this long does not answer.
const ROOM_AGE_MAX: Duration = Duration::from_secs(10);

/// Calls of [`Store::tend`] between two looks for recordings that are too old: one minute's calls.
const LOOK_TICKS: u32 = LOOK_EVERY.as_secs() as u32;

/// The call of [`Store::tend`] that removes recordings too old at the start. Call 0 announces them.
const FIRST_LOOK_TICK: u32 = 3;

const SECOND: Duration = Duration::from_secs(1);

/// Calls of [`Store::tend`] between two trials of a disk that works.
const TRY_EVERY: u32 = 10;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Does the periodic work that is due. Called every second, by a thread that may wait for the disk.
    pub fn tend(&self) {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        self.watch_door();
        if self.try_to_keep_house() {
            self.keep_house(tick);
        }
        self.watch_room();
        self.finish_left();
    }

    /// Does the periodic work that one instance does for all.
    fn keep_house(&self, tick: u32) {
        match tick {
            0 => self.watch_ages(SECOND * FIRST_LOOK_TICK),
            FIRST_LOOK_TICK => self.watch_ages(SECOND * (LOOK_TICKS - FIRST_LOOK_TICK)),
            tick if tick.is_multiple_of(LOOK_TICKS) => self.watch_ages(LOOK_EVERY),
            _ => {}
        }
        self.make_room();
    }

    /// Tries the disk every [`TRY_EVERY`] seconds, and every second while it is in doubt.
    fn watch_door(&self) {
        let is_due = self.ticks.load(Ordering::Relaxed).is_multiple_of(TRY_EVERY);
        if is_due || self.door.is_doubtful() {
            let _ = self.try_it(false);
        }
    }

    fn watch_room(&self) {
        let Ok(Room { free, keep_free, inodes, .. }) = self.look_for_room() else {
            return; // The directory was moved or unmounted: calls wait until it is back.
        };
        let is_full = free < keep_free;
        self.watch_inodes(inodes);
        if self.door.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            if is_full {
                match self.home().filter(|home| home.pending > 0) {
                    Some(Health { pending, pending_bytes, .. }) => tracing::error!(
                        free,
                        keep_free,
                        pending,
                        pending_bytes,
                        "the disk is almost full, also of recordings that the home lacks: new calls are refused"
                    ),
                    None => tracing::error!(
                        free,
                        keep_free,
                        "the disk is almost full: new calls are refused"
                    ),
                }
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
        // Free inodes above the mark; negative below it.
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

    /// The room on the disk, as it was a second ago; `None` if the disk does not answer. Never waits.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        let last = *lock(&self.room);
        last.filter(|(at, _)| at.elapsed() < ROOM_AGE_MAX).map(|(_, room)| room)
    }

    pub(super) fn look_for_room(&self) -> io::Result<Room> {
        let disk = rustix::fs::statvfs(self.dir())?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let keep_free = self.config.keep_free.unwrap_or_else(|| bytes_to_keep(total));
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let inodes = self.inodes_of(disk.f_favail, disk.f_files);
        let room = Room { free, total, keep_free, inodes };
        let now = Instant::now();
        *lock(&self.room) = Some((now, room));
        Ok(room)
    }

    /// The inodes of a file system by its figures; `None` if it has no limit of them. Some file systems
    /// without a limit report 0 of 0. Others report 0 free of many, yet make a trial's files. If 0 are
    /// free where the last look found a limit, a trial is due now.
    fn inodes_of(&self, free: u64, total: u64) -> Option<Inodes> {
        let is_unlimited = total == 0 || free == 0 && !self.door.is_doubtful();
        let had_inodes = || self.room().is_some_and(|room| room.inodes.is_some());
        if free == 0 && had_inodes() {
            self.door.doubt();
        }
        let keep_free = self.config.keep_free_inodes.unwrap_or_else(|| inodes_to_keep(total));
        (!is_unlimited).then_some(Inodes { free, total, keep_free })
    }
}

/// Bytes kept free by default on a file system of `total` bytes.
pub(super) fn bytes_to_keep(total: u64) -> u64 {
    KEEP_FREE_DEFAULT.min(total / 20)
}

/// Inodes kept free by default of `total`.
pub(super) fn inodes_to_keep(total: u64) -> u64 {
    (total / 20).clamp(KEEP_INODES_MIN, KEEP_INODES_DEFAULT)
}

/// The start of a day, in UTC.
pub(super) fn start_of(day: Date) -> Option<SystemTime> {
    Some(day.to_zoned(TimeZone::UTC).ok()?.into())
}

impl Store {
    /// The days that have a folder, or a link to one, oldest first.
    pub(super) fn days(&self) -> io::Result<Vec<Date>> {
        self.catalog.days()
    }

    /// The folder of a day.
    pub(super) fn dir_of(&self, day: Date) -> PathBuf {
        self.dir().join(day.to_string())
    }

    /// Those of a day's finished recordings that are `wanted`, with the time of each one's end. Only
    /// records that callreel wrote count.
    pub(super) fn finished_in(
        &self,
        day: Date,
        wanted: impl Fn(&Key) -> bool,
    ) -> io::Result<Vec<(Names, SystemTime)>> {
        let mut recordings = Vec::new();
        for entry in fs::read_dir(self.dir_of(day))? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let Some(id) = id.and_then(|id| Id::try_from(id.to_owned()).ok()) else {
                continue;
            };
            let names = self.names(Key::new(day, id));
            // A recording that is being finished has its record, but its WAV is still a part file.
            if wanted(&names.key)
                && !names.wav_part().try_exists()?
                && let Some(record) = our_record(&names)
            {
                recordings.push((names, record.ended_at.into()));
            }
        }
        Ok(recordings)
    }
}

/// The record under these names, if callreel wrote it.
pub(super) fn our_record(names: &Names) -> Option<Record> {
    read_record(&names.json()).filter(|record| record.id.as_ref() == Some(names.key.id()))
}

/// Removes a finished recording and its peaks. Its record goes last: it describes the WAV, and an interrupted
/// removal can be repeated.
pub(super) fn remove(names: &Names) -> io::Result<()> {
    found(fs::remove_file(names.wav()))?;
    peaks::remove(&names.peaks())?;
    fs::remove_file(names.json())
}
