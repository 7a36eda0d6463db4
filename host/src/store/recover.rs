//! Recovery: finishes interrupted recordings while calls are taken: those of an earlier run, and those of
//! other instances that were killed.
//!
//! The digest of a file's samples takes a read of the whole file, and no call waits for that: a thread
//! of its own reads short files first, in pieces. After each piece of a long file it leaves the disk to
//! the calls for as long as the piece took.
//!
//! Only the instance that [keeps house](super::house) recovers. A `.part` file is interrupted if nobody
//! has its lock. Its owner creates it empty, locks it, and then writes to it: so an empty file may be
//! about to be locked, and is left alone for a while. If it is locked here first all the same, its owner
//! takes another name. A folder that has not changed since it had no unfinished files is not read again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::Date;
use serde::Serialize;

use super::digest::WHOLE_BYTES_MAX;
use super::house::try_lock;
use super::mend::{Recovered, recover_record, recover_wav};
use super::{Names, Store};
use crate::disk::{self, found, is_there};
use crate::lock::lock;
use crate::record::{Id, Key};

/// The time between two log lines about the progress.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The longest pause between two pieces of a file.
const REST_MAX: Duration = Duration::from_millis(100);

/// The shortest and the longest time between two looks for interrupted recordings.
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// The pause after a look, as a multiple of the time that the look took.
const LOOK_PAUSE_PART: u32 = 200;

/// The time between two looks whether this instance keeps house by now.
const HOUSE_PAUSE: Duration = Duration::from_secs(1);

/// The age below which an empty file may be about to be locked by its owner.
const NEW_FOR: Duration = Duration::from_secs(2);

/// The time for which a folder must be unchanged to be known by its time of change: before, it may hold
/// a new file, or a later change may get the same time stamp.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
const _: () = assert!(SETTLED_AFTER.as_secs() > NEW_FOR.as_secs());

/// The progress of finishing interrupted recordings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Recovery {
    /// All that were found are done, as far as they can be. Others may be found later.
    pub is_over: bool,
    /// Unfinished files found since the start, in the directories read so far.
    pub found: u64,
    /// Of them, files that are finished, or that turned out not to be callreel's.
    pub finished: u64,
    /// Of them, files that could not be finished: the next start tries again.
    pub failed: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// The bytes of the files that are done, and those read so far of the file under way.
    pub bytes_done: u64,
}

impl Recovery {
    /// The number of files that are still to be finished.
    const fn left(&self) -> u64 {
        self.found - self.finished - self.failed
    }

    /// The progress in words; `None` when nothing waits.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let Self { found, bytes, bytes_done, .. } = *self;
        let (left, mb) = (self.left(), |bytes: u64| bytes / 1_000_000);
        (!self.is_over && found > 0).then(|| {
            format!(
                "{left} of {found} interrupted recordings are still to be finished ({} of {} MB done)",
                mb(bytes_done),
                mb(bytes)
            )
        })
    }
}

/// The store's state of the recovery.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    is_stopped: Mutex<bool>,
    stopped: Condvar,
    shown: Mutex<Recovery>,
    seen: Mutex<Seen>,
}

/// Knowledge from earlier looks.
#[derive(Debug, Default)]
struct Seen {
    /// Files that are left alone until the next start: they cannot be finished, or are not callreel's.
    passed: HashSet<PathBuf>,
    /// Folders without unfinished files, by their time of change.
    settled: HashMap<Date, SystemTime>,
}

impl Recovering {
    fn show(&self, change: impl FnOnce(&mut Recovery)) {
        change(&mut lock(&self.shown));
    }

    fn is_stopped(&self) -> bool {
        *lock(&self.is_stopped)
    }

    /// Waits, but not beyond a stop. Returns whether there was none.
    fn wait(&self, pause: Duration) -> bool {
        let is_stopped = lock(&self.is_stopped);
        let waited = self.stopped.wait_timeout_while(is_stopped, pause, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// An interrupted recording.
struct Orphan {
    names: Names,
    /// The length of its WAV; `None` if only its record is there.
    wav_bytes: Option<u64>,
}

impl Orphan {
    fn bytes(&self) -> u64 {
        self.wav_bytes.unwrap_or(0)
    }

    fn file(&self) -> PathBuf {
        if self.wav_bytes.is_some() { self.names.wav_part() } else { self.names.json_part() }
    }
}

impl Store {
    /// Finishes interrupted recordings as soon and as long as this instance keeps house: those that are
    /// there, and every few seconds those that have come. Returns after
    /// [`stop_recovery`](Self::stop_recovery).
    pub fn keep_recovering(&self) {
        loop {
            let pause = match self.keeps_house() {
                true => self.look_and_recover() * LOOK_PAUSE_PART,
                false => HOUSE_PAUSE,
            };
            let min = if self.keeps_house() { LOOK_PAUSE_MIN } else { HOUSE_PAUSE };
            if !self.recovering.wait(pause.clamp(min, LOOK_PAUSE_MAX)) {
                return;
            }
        }
    }

    /// Finishes the recordings that are interrupted now, short files first, until all are done or
    /// [`stop_recovery`](Self::stop_recovery) is called. A recording that cannot be finished stays as it
    /// is, and the log tells of it. New recordings may begin meanwhile: they never count as interrupted
    /// ones, and never get the name of one. Does nothing unless this instance keeps house.
    pub fn recover(&self) {
        if self.keeps_house() {
            self.look_and_recover();
        }
    }

    /// Returns the time that the look took.
    fn look_and_recover(&self) -> Duration {
        let over = Over(self);
        let began = Instant::now();
        if let Err(error) = disk::clear_old_trials(self.dir()) {
            tracing::debug!(%error, "cannot remove the leftovers of another instance's trial");
        }
        let orphans = self.find_orphans();
        let took = began.elapsed();
        if orphans.is_empty() {
            return took;
        }
        let (found, bytes) = (orphans.len(), orphans.iter().map(Orphan::bytes).sum::<u64>());
        tracing::info!(found, bytes, "finishing interrupted recordings, while calls are taken");
        let mut told = Instant::now();
        for orphan in &orphans {
            if self.must_stop_recovery() {
                break;
            }
            self.recover_one(orphan, &mut told);
        }
        drop(over);
        let recovery @ Recovery { finished, failed, .. } = self.recovery();
        tracing::info!(finished, failed, left = recovery.left(), "recovery is over");
        took
    }

    /// Ends [`recover`](Self::recover) and [`keep_recovering`](Self::keep_recovering) soon; the next
    /// start, or another instance, finishes the rest.
    pub fn stop_recovery(&self) {
        *lock(&self.recovering.is_stopped) = true;
        self.recovering.stopped.notify_all();
    }

    /// Whether the process stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.recovering.is_stopped()
    }

    /// Whether the process stops, or another instance is to go on.
    fn must_stop_recovery(&self) -> bool {
        self.is_stopping() || !self.keeps_house()
    }

    /// The progress of [`recover`](Self::recover).
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        *lock(&self.recovering.shown)
    }

    /// The interrupted recordings, the shortest first.
    fn find_orphans(&self) -> Vec<Orphan> {
        let days = self.days().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for interrupted recordings");
            Vec::new()
        });
        let before = self.recovery();
        let mut seen = lock(&self.recovering.seen);
        let mut orphans = Vec::new();
        for day in days {
            match self.orphans_of(day, &mut seen) {
                Ok(found) => orphans.extend(found),
                Err(error) => {
                    tracing::error!(dir = %self.dir_of(day).display(), %error, "cannot look for interrupted recordings");
                }
            }
            if !orphans.is_empty() {
                let bytes: u64 = orphans.iter().map(Orphan::bytes).sum();
                self.recovering.show(|shown| {
                    shown.is_over = false;
                    shown.found = before.found + orphans.len() as u64;
                    shown.bytes = before.bytes + bytes;
                });
            }
            if self.recovering.is_stopped() {
                break;
            }
        }
        orphans.sort_by_key(Orphan::bytes);
        orphans
    }

    fn orphans_of(&self, day: Date, seen: &mut Seen) -> io::Result<Vec<Orphan>> {
        let changed = fs::metadata(self.dir_of(day))?.modified()?;
        if seen.settled.get(&day) == Some(&changed) {
            return Ok(Vec::new());
        }
        let is_settled = changed.elapsed().is_ok_and(|age| age >= SETTLED_AFTER);
        let mut all = self.unfinished_of(day)?;
        if all.is_empty() && is_settled {
            seen.settled.insert(day, changed);
        }
        all.retain(|orphan| !seen.passed.contains(&orphan.file()) && !is_held(&orphan.file()));
        Ok(all)
    }

    /// The unfinished recordings of a day, whether or not somebody works on them.
    fn unfinished_of(&self, day: Date) -> io::Result<Vec<Orphan>> {
        let (mut wavs, mut records) = (BTreeMap::new(), BTreeSet::new());
        for entry in fs::read_dir(self.dir_of(day))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let id = |ending| Id::try_from(name.strip_suffix(ending)?.to_owned()).ok();
            if let Some(id) = id(".wav.part") {
                // A file that is gone meanwhile is finished.
                if let Some(file) = found(entry.metadata())? {
                    wavs.insert(id, file);
                }
            } else if let Some(id) = id(".json.part") {
                records.insert(id);
            }
        }
        let is_new = |id: &Id, file: &Metadata| is_new(file) && !records.contains(id);
        // A record is finished together with its WAV.
        let alone = records.iter().filter(|id| !wavs.contains_key(id)).map(|id| (id.clone(), None));
        let wavs = wavs.iter().filter(|(id, file)| !is_new(id, file));
        let all = wavs.map(|(id, file)| (id.clone(), Some(file.len()))).chain(alone);
        let orphan = |(id, wav_bytes)| Orphan { names: self.names(Key::new(day, id)), wav_bytes };
        Ok(all.map(orphan).collect())
    }

    fn recover_one(&self, orphan: &Orphan, told: &mut Instant) {
        let bytes_before = self.recovery().bytes_done;
        let recovered = match orphan.wav_bytes {
            Some(bytes) => recover_wav(self, &orphan.names, &mut |count, took| {
                self.go_on(bytes, count, took, told)
            }),
            None => recover_record(self, &orphan.names),
        };
        let path = orphan.file();
        let file = path.file_name().unwrap_or_default().display();
        let is_finished = match recovered {
            Ok(Recovered::Interrupted) => return,
            Ok(Recovered::Held) => {
                return self.recovering.show(|shown| {
                    shown.found -= 1;
                    shown.bytes -= orphan.bytes();
                    shown.bytes_done = bytes_before;
                });
            }
            Ok(Recovered::Finished) => {
                tracing::info!(%file, "finished an interrupted recording");
                true
            }
            Ok(Recovered::NotOurs) => {
                if is_there(&path).unwrap_or(false) {
                    tracing::warn!(%file, "left a file alone that has the name of an interrupted recording, and is none");
                }
                true
            }
            Err(error) => {
                tracing::error!(%file, %error, "cannot finish an interrupted recording");
                false
            }
        };
        self.recovering.show(|shown| {
            shown.bytes_done = bytes_before + orphan.bytes();
            *(if is_finished { &mut shown.finished } else { &mut shown.failed }) += 1;
        });
        if is_there(&path).unwrap_or(true) {
            lock(&self.recovering.seen).passed.insert(path);
        }
        self.tell_progress(told);
    }

    /// Notes that a piece of a file of `bytes` bytes was read. If the file is a long one, leaves the
    /// disk to the calls for as long as that took, [`REST_MAX`] at most.
    fn go_on(&self, bytes: u64, count: u64, took: Duration, told: &mut Instant) -> ControlFlow<()> {
        self.recovering.show(|shown| shown.bytes_done += count);
        self.tell_progress(told);
        if self.must_stop_recovery() {
            return ControlFlow::Break(());
        }
        if bytes > WHOLE_BYTES_MAX {
            thread::sleep(took.min(REST_MAX));
        }
        ControlFlow::Continue(())
    }

    fn tell_progress(&self, told: &mut Instant) {
        if told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            if let Some(progress) = self.recovery().in_words() {
                tracing::info!("{progress}");
            }
        }
    }
}

/// Marks the recovery as over when dropped, so after a panic, too.
struct Over<'s>(&'s Store);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.recovering.show(|shown| shown.is_over = true);
    }
}

/// Whether somebody has the lock of a file. One that cannot be opened or locked fails when it is to be
/// finished.
fn is_held(path: &Path) -> bool {
    let opened = disk::open(File::options().read(true).write(true), path);
    opened.is_ok_and(|file| matches!(try_lock(&file), Ok(false)))
}

/// Whether a file is empty and so young that its owner may be about to lock it. Times to come, from a
/// clock that was wrong, count as old.
fn is_new(file: &Metadata) -> bool {
    let age = || file.modified().ok()?.elapsed().ok();
    file.len() == 0 && age().is_some_and(|age| age < NEW_FOR)
}
