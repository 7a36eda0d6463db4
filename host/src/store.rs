//! The recordings' directory: places and names of recordings, and how files get them.
//!
//! `<dir>/<date>/<id>.wav` and `.json` are finished and never changed again; `.peaks` is drawn from
//! (`peaks`). `.wav.part` and
//! `.json.part` are being recorded, or were when the recorder was interrupted: the recovery (`recover`)
//! finishes them. All other files belong to somebody else and are left alone.
//!
//! Several instances may record to one directory. Each holds a lock on every `.part` file that it works
//! on; one of them keeps house (`house`) for all.

pub mod catalog;
mod clock;
pub(crate) mod digest;
mod door;
mod ending;
mod evict;
pub mod file;
mod house;
mod index;
mod keep;
mod left;
mod links;
mod mend;
pub mod outline;
mod part;
pub mod peaks;
mod recover;
mod retention;
mod sync;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use callreel_core::wav::Spec;
use jiff::Timestamp;
use jiff::civil::Date;

use self::catalog::Catalog;
use self::digest::DataDigest;
pub use self::door::Door;
pub(crate) use self::ending::audio_bytes;
pub use self::evict::Evictable;
use self::house::House;
pub use self::house::HouseWork;
pub use self::left::Left;
use self::links::Links;
pub(crate) use self::outline::Lacking;
use self::part::Names;
pub use self::part::Part;
use self::peaks::Meter;
use self::recover::Recovering;
pub use self::recover::Recovery;
use self::retention::Keeping;
pub(crate) use self::retention::clock_doubt;
pub use self::retention::{Plan, Removal, Retention};
use self::sync::Syncs;
pub use crate::disk::TrialError;
use crate::disk::{self, Traits, create_dir, create_new, is_there, rename_new, sync_dir};
use crate::finished::Finished;
use crate::home;
use crate::lock::lock;
use crate::record::{Id, Key, Record, day_of};
use crate::rights::Rights;

/// Most attempts to claim a free name: another thread or program may take it first.
const CLAIMS_MAX: usize = 100;

/// Inodes of a recording: the WAV and its record. Its peaks take one more.
const FILES_PER_RECORDING: u64 = 2;

/// Lock file: its lock shows that the directory is in use, and gives the right to keep house there.
pub(crate) const LOCK_FILE: &str = ".callreel.lock";

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the recordings; created if it is missing.
    pub dir: PathBuf,
    /// Directory for captures of each stream's messages, if they are wanted.
    pub capture_dir: Option<PathBuf>,
    /// Bytes to keep free on the disk: with less free, no new recording begins. Default: 64 MiB, or a
    /// twentieth of a smaller disk.
    pub keep_free: Option<u64>,
    /// Inodes to keep free, of which each file takes one: with fewer free, no new recording begins.
    /// Default: a twentieth of the file system's inodes, at least 16 and at most 4096. A file system
    /// without a limit of inodes is used regardless.
    pub keep_free_inodes: Option<u64>,
    /// Whether the oldest finished recordings are removed while less than `keep_free` or
    /// `keep_free_inodes` is free; those that somebody is still to be told of go last.
    pub make_room: bool,
    /// Days after its end at which a finished recording is removed, if nobody is still to be told of it.
    pub keep_days: Option<u32>,
    /// Whether gaps, keys and marks become cue points behind the samples of a finished WAV.
    pub cues: bool,
    /// Whether the [peaks] of a recording are kept beside its WAV.
    pub peaks: bool,
    /// Number of the newest finished recordings that neither `make_room` nor `keep_days` ever removes.
    pub keep_min: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "recordings".into(),
            capture_dir: None,
            keep_free: None,
            keep_free_inodes: None,
            make_room: false,
            keep_days: None,
            cues: false,
            peaks: true,
            keep_min: 0,
        }
    }
}

/// Reasons why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The capture directory cannot be created.
    #[error("cannot write captures to {}: {cause} (choose another --capture, or mend its permissions)", dir.display())]
    Capture {
        /// The capture directory.
        dir: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// `keep_free` is not less than the size of the disk.
    #[error("--keep-free is {keep_free} bytes, but the disk of {} has {total} in all: give less, or no call could ever be taken", dir.display())]
    KeepFree {
        /// The recordings' directory.
        dir: PathBuf,
        /// Bytes to keep free.
        keep_free: u64,
        /// Size of the disk, in bytes.
        total: u64,
    },
    /// `keep_free_inodes` is not less than the inodes of the file system.
    #[error("--keep-free-inodes is {keep_free}, but the file system of {} has {total} in all: give less, or no call could ever be taken", dir.display())]
    KeepFreeInodes {
        /// The recordings' directory.
        dir: PathBuf,
        /// Inodes to keep free.
        keep_free: u64,
        /// Inodes of the file system.
        total: u64,
    },
    /// A trial recording failed.
    #[error("cannot record to {}: a trial recording there failed: {failure} (choose another --dir on another file system, or mend its permissions)", dir.display())]
    Trial {
        /// The recordings' directory.
        dir: PathBuf,
        /// The step that failed, and the system's error.
        failure: TrialError,
    },
    /// The directory cannot be created, read or written.
    #[error("cannot record to {}: {cause} (choose another --dir, or mend its permissions)", dir.display())]
    Unusable {
        /// The recordings' directory.
        dir: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// A directory to which this process records.
#[derive(Debug)]
pub struct Store {
    config: Config,
    /// The lock file. Its descriptor also stands for the recordings' file system in a sync: no other has
    /// to be opened first, and no error goes unseen.
    lock: File,
    house: House,
    /// Name of the directory for trials, unless this instance keeps house.
    trial_dir: String,
    syncs: Syncs,
    /// Admission of new calls.
    door: Arc<Door>,
    /// Held during a trial: one at a time.
    trying: Mutex<()>,
    /// Latest room on the disk, and the time of that reading.
    room: Mutex<Option<(Instant, Room)>>,
    /// State of the automatic deletion.
    keeping: Keeping,
    /// Calls of [`tend`](Self::tend).
    ticks: AtomicU32,
    /// Recordings that the disk did not let a writer finish in time.
    left: Mutex<VecDeque<Left>>,
    /// The finished recordings.
    catalog: Catalog,
    /// Folders of days that are links.
    links: Links,
    /// Consumers of finished recordings.
    finished: Finished,
    /// Progress of the recovery of unfinished recordings of an earlier run.
    recovering: Recovering,
    /// The peaks of a recording are made from its WAV.
    is_making_peaks: AtomicBool,
}

/// Room on the disk of the recordings, in bytes and in inodes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bytes free to this process.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes to keep free: with less free, no new call is taken.
    pub keep_free: u64,
    /// Room in inodes; `None` where the file system has no limit of inodes.
    pub inodes: Option<Inodes>,
}

impl Room {
    /// The room in `config.dir` by the figures of its file system. Inodes of a file system that reports 0
    /// free are taken for unlimited.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn of(config: &Config) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(&config.dir)?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let inodes = Inodes {
            free: disk.f_favail,
            total: disk.f_files,
            keep_free: config
                .keep_free_inodes
                .unwrap_or_else(|| keep::inodes_to_keep(disk.f_files)),
        };
        Ok(Self {
            free,
            total,
            keep_free: config.keep_free.unwrap_or_else(|| keep::bytes_to_keep(total)),
            inodes: (inodes.free > 0).then_some(inodes),
        })
    }

    /// Bytes and inodes that are missing to those to keep free.
    fn lacking(&self) -> [u64; 2] {
        let inodes = self.inodes.map_or(0, |inodes| inodes.keep_free.saturating_sub(inodes.free));
        [self.keep_free.saturating_sub(self.free), inodes]
    }
}

/// Room for files on the disk of the recordings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Inodes {
    /// Inodes free to this process.
    pub free: u64,
    /// Inodes in all.
    pub total: u64,
    /// Inodes to keep free: with fewer free, no new call is taken.
    pub keep_free: u64,
}

impl Store {
    /// Opens the directory, creating it if it is missing, and locks it, unless another instance has done
    /// so (see [`keeps_house`](Self::keeps_house)). Recordings that an earlier run left unfinished wait
    /// for [`recover`](Self::recover). `finished` is told of each finished recording.
    ///
    /// # Errors
    /// [`Error::Capture`], [`Error::KeepFree`], [`Error::KeepFreeInodes`], [`Error::Trial`],
    /// [`Error::Unusable`]: no recording was touched, but the directories and the lock file may have been
    /// created.
    pub fn open(config: Config, finished: Finished) -> Result<Self, Error> {
        let dir = config.dir.clone();
        let unusable = |cause| Error::Unusable { dir: dir.clone(), cause };
        create_dir(&dir).map_err(unusable)?;
        let lock = disk::open_or_create(&dir.join(LOCK_FILE)).map_err(|cause| {
            unusable(io::Error::new(cause.kind(), format!("{LOCK_FILE} in it: {cause}")))
        })?;
        let keeps_house = house::try_lock(&lock).map_err(|cause| {
            let said = format!("{LOCK_FILE} in it cannot be locked: {cause}");
            unusable(io::Error::new(cause.kind(), said))
        })?;
        if !keeps_house {
            tracing::warn!(
                dir = %dir.display(),
                "another callreel records to the directory as well: it deletes, recovers and sends webhook messages for both, until it drains or is gone"
            );
        }
        if let Some(capture_dir) = &config.capture_dir {
            create_dir(capture_dir)
                .map_err(|cause| Error::Capture { dir: capture_dir.clone(), cause })?;
        }
        let device = lock.metadata().map_err(unusable)?.dev();
        let store = Self {
            config,
            syncs: Syncs::new(&lock, device),
            lock,
            house: House::new(keeps_house),
            trial_dir: disk::new_trial_dir(),
            door: Arc::default(),
            trying: Mutex::default(),
            keeping: Keeping::default(),
            ticks: AtomicU32::new(0),
            left: Mutex::default(),
            room: Mutex::default(),
            catalog: Catalog::new(dir.clone()),
            links: Links::default(),
            finished,
            recovering: Recovering::default(),
            is_making_peaks: AtomicBool::new(false),
        };
        let Room { keep_free, total, inodes, .. } = store.look_for_room().map_err(unusable)?;
        if keep_free >= total && keep_free > 0 {
            return Err(Error::KeepFree { dir, keep_free, total });
        }
        if let Some(Inodes { keep_free, total, .. }) = inodes
            && keep_free >= total
            && store.config.keep_free_inodes.is_some()
        {
            return Err(Error::KeepFreeInodes { dir, keep_free, total });
        }
        if keeps_house {
            store.load_clock();
        }
        store.try_first()?;
        store.tend();
        Ok(store)
    }

    /// Tries the disk before anything is recorded. The recorder starts on a full disk all the same:
    /// there may be room soon, or `--make-room` makes some.
    fn try_first(&self) -> Result<(), Error> {
        match self.try_it(true) {
            Ok(traits) => {
                self.tell_traits(traits);
                Ok(())
            }
            Err(failure) if disk::is_full(&failure.cause) => Ok(()),
            Err(failure) => Err(Error::Trial { dir: self.dir().to_owned(), failure }),
        }
    }

    fn tell_traits(&self, Traits { is_too_open, is_too_closed }: Traits) {
        if is_too_open {
            tracing::warn!(dir = %self.dir().display(), "this file system lets other users read recordings");
        }
        if is_too_closed {
            tracing::warn!(
                dir = %self.dir().display(),
                "--umask or --group has no effect on this file system: other users may be unable to read recordings"
            );
            return;
        }
        // These may have been made before, or by somebody else.
        let last_day = self.days().ok().and_then(|mut days| days.pop());
        let dirs = [Some(self.dir().to_owned()), last_day.map(|day| self.dir_of(day))];
        for dir in dirs.into_iter().flatten().chain(self.config.capture_dir.clone()) {
            if fs::metadata(&dir).is_ok_and(|made| Rights::of_process().are_lacking_in(&made)) {
                tracing::warn!(
                    dir = %dir.display(),
                    "a directory that was there before lacks the rights of --umask and --group: give it its group and mode \
                     (chgrp, chmod), or other users may be unable to read recordings in it"
                );
            }
        }
    }

    /// The recordings' directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    fn names(&self, key: Key) -> Names {
        Names { dir: self.dir_of(key.day()), key }
    }

    /// Begins a recording: claims a free name in the directory, and creates its empty file.
    ///
    /// # Errors
    /// The system's error; nothing is left behind.
    pub fn create(&self, stream_id: &str, started_at: Timestamp) -> io::Result<Part> {
        let (base, day) = (Id::of_stream(stream_id), day_of(started_at));
        let named = |number| {
            let id = if number == 1 { base.clone() } else { base.numbered(number) };
            self.names(Key::new(day, id))
        };
        let is_in_use = |names: &Names| Ok(is_there(&names.wav_part())? || names.is_taken()?);
        // Hardly any name is taken: the first one is tried without a look.
        let mut number = 1;
        for _ in 0..CLAIMS_MAX {
            let names = named(number);
            match self.create_in(day, &names.wav_part()) {
                Ok(file) => {
                    if let Some(part) = self.claim(names, file)? {
                        self.note_files(FILES_PER_RECORDING + u64::from(self.config.peaks));
                        return Ok(part);
                    }
                }
                // Another recording has the name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            number = first_free(|number| is_in_use(&named(number)))?;
        }
        Err(io::Error::other("no free file name: each name tried was taken in the meantime"))
    }

    /// The digest of a new file of this format. It takes the peaks as well, if they are kept.
    pub(crate) fn new_digest(&self, spec: Spec) -> DataDigest {
        DataDigest::with(self.config.peaks.then(|| Meter::new(spec)))
    }

    /// Creates an empty file in the folder of a day, and the folder if it is missing.
    fn create_in(&self, day: Date, path: &Path) -> io::Result<File> {
        let created = match create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The directory above is never created: when it is gone, somebody has moved or unmounted it,
                // and will want to put it back.
                match Rights::of_process().make_dir(&self.dir_of(day)) {
                    Ok(()) => sync_dir(&self.config.dir)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
                self.use_folder(day)?;
                return create_new(path);
            }
            created => created,
        }?;
        self.use_folder(day).inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok(created)
    }

    /// Locks a file that was just created under these names. `None`: the names are another recording's.
    fn claim(&self, names: Names, file: File) -> io::Result<Option<Part>> {
        let part = Part::new(names, file, self.finished.clone())?;
        match house::try_lock(&part.file) {
            Ok(true) => {}
            // The recovery of another instance took the empty file for an interrupted recording.
            Ok(false) => return Ok(None),
            Err(error) => {
                self.stop_recovery();
                tracing::error!(%error, "cannot lock the file of a recording: recording it all the same; nothing is recovered before the next start");
            }
        }
        if !part.is_in_place()? {
            return Ok(None); // That recovery has finished it.
        }
        if part.names.is_taken()? {
            // A finished recording has the name, or an interrupted one.
            fs::remove_file(part.names.wav_part())?;
            return Ok(None);
        }
        Ok(Some(part))
    }

    /// Writes the record of a call without audio.
    ///
    /// # Errors
    /// The system's error; nothing is left behind.
    pub fn publish_failure(&self, record: &mut Record) -> io::Result<()> {
        let part = self.create(&record.stream_id, record.started_at)?;
        record.id = Some(part.id().clone());
        self.finished.place(&part.names.key, record);
        let published = part.write_record_file(record).and_then(|file| {
            // From now on this file's lock keeps the recovery of another instance away. Where files cannot
            // be locked, there is no recovery.
            let _ = house::try_lock(&file);
            fs::remove_file(part.names.wav_part())?;
            self.finished.announce(&part.names.key, record)?;
            rename_new(&part.names.json_part(), &part.names.json())
        });
        if let Err(error) = published {
            part.discard();
            return Err(error);
        }
        if let Err(error) = sync_dir(&part.names.dir) {
            tracing::error!(%error, "a power loss may take the record of a call with no audio");
        }
        self.finished.settle(record);
        Ok(())
    }

    /// Checks that a recording's file still has its name. If not, copies the file to a new name:
    /// somebody removed or moved its directory meanwhile, but the open file can still be read.
    ///
    /// # Errors
    /// The system's error; `part` is unchanged.
    pub fn rescue(&self, part: &mut Part, record: &Record) -> io::Result<()> {
        if part.record_published || part.is_in_place()? {
            return Ok(());
        }
        let copy = self.create(&record.stream_id, record.started_at)?;
        let (mut source, mut target) = (&*part.file, &*copy.file);
        let copied = source.rewind().and_then(|()| io::copy(&mut source, &mut target));
        if let Err(error) = copied.and_then(|_| copy.file.sync_all()) {
            copy.discard();
            return Err(error);
        }
        tracing::warn!(
            from = part.id().as_str(),
            to = copy.id().as_str(),
            "a file was moved or removed while it was recorded: copied it to a new name"
        );
        *part = copy;
        Ok(())
    }

    /// The state of the home, if there is one.
    #[must_use]
    pub fn home(&self) -> Option<home::Health> {
        self.finished.home()
    }

    /// Admission of new calls by the state of the disk, as of a second ago.
    #[must_use]
    pub fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door)
    }

    /// Tries all operations that a recording needs of the disk; [`door`](Self::door) holds the result.
    /// May wait for the disk.
    pub fn try_publishing(&self) {
        let _ = self.try_it(true);
    }

    fn try_it(&self, is_decisive: bool) -> Result<Traits, TrialError> {
        let _turn = lock(&self.trying);
        self.door.begin_trial();
        let trial_dir = if self.keeps_house() { disk::TRIAL_DIR } else { &self.trial_dir };
        let tried = disk::try_publishing(self.dir(), trial_dir)
            .and_then(|traits| self.try_linked_today(trial_dir).map(|()| traits));
        self.door.end_trial(tried.as_ref().err(), is_decisive);
        tried
    }

    /// Creates the capture file of the recording `id`, if streams are captured: `<id>.jsonl`, or
    /// `<id>-2.jsonl` and so on if the name is taken by another day's capture.
    ///
    /// # Errors
    /// The system's error.
    pub fn create_capture(&self, id: &Id) -> io::Result<Option<File>> {
        let Some(dir) = &self.config.capture_dir else {
            return Ok(None);
        };
        let named = |number| {
            let number = if number == 1 { String::new() } else { format!("-{number}") };
            dir.join(format!("{id}{number}.jsonl"))
        };
        for _ in 0..CLAIMS_MAX {
            let path = named(first_free(|number| is_there(&named(number)))?);
            match create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return file.map(Some),
            }
        }
        Err(io::Error::other("no free file name: each name tried was taken in the meantime"))
    }
}

/// Whether a recorder has locked a directory.
pub(crate) fn is_locked(dir: &Path) -> bool {
    let lock = disk::open_to_read(&dir.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Returns a free number in few checks: the first free one, if no taken number follows it.
fn first_free(is_taken: impl Fn(u64) -> io::Result<bool>) -> io::Result<u64> {
    let (mut taken, mut free) = (0, 1);
    while is_taken(free)? {
        (taken, free) = (free, free * 2);
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? {
            taken = middle;
        } else {
            free = middle;
        }
    }
    Ok(free)
}
