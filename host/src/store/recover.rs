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
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use callreel_core::format::{Codec, Format};
use callreel_core::wav::{self, Encoding, FormatChunk, Length, Spec};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::digest::{DataDigest, SPARE_TIME, WHOLE_BYTES_MAX};
use super::ending::audio_bytes;
use super::file::{PartFile, to_io};
use super::house::try_lock;
use super::part::is_at;
use super::{Left, Names, Part, Store};
use crate::disk::{self, clear_claim, found, is_there, read_small, rename_new, sync_dir};
use crate::lock::lock;
use crate::record::{End, Id, Key, Record, State, Word};

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

/// The outcome of finishing an orphan.
enum Recovered {
    Finished,
    /// Somebody else works on it, or has finished it since it was found.
    Held,
    /// The recovery was told to stop; the file is as it was.
    Interrupted,
    /// Nothing to finish: the file is not callreel's, or its recording is finished already.
    NotOurs,
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
            if self.recovering.is_stopped() {
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
            Ok(Recovered::NotOurs) => true,
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
        if self.recovering.is_stopped() {
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

/// Finishes a recording of this run that the disk refused to finish.
///
/// # Errors
/// The system's error; it may be tried again.
pub(super) fn finish_left(store: &Store, left: &mut Left) -> io::Result<()> {
    let Left { record, part, digest } = left;
    let Some(part) = part else {
        return store.publish_failure(record);
    };
    store.rescue(part, record)?;
    part.clear_claims()?;
    if !part.record_published
        && let Some(spec) = spec_of(&part.file, record)?
    {
        let samples = samples_in(&part.file, spec)?;
        let data_bytes = samples * u64::from(spec.sample_frame_bytes());
        // Reads the part of the last block that the disk took before it refused the rest, if any.
        let go_on = |_, _| ControlFlow::Continue(());
        digest.read_on(&part.file, spec.header_bytes(), data_bytes, go_on)?;
        mend(&part.file, spec, samples, store, record)?;
        record.cut(samples);
        record.wav = None;
    }
    let mut spare = SPARE_TIME;
    part.publish(record, digest, &mut spare)
}

/// Finishes one WAV with its record, if callreel wrote it. Nothing is changed before the whole file is
/// read. `between` is called after each piece and may interrupt.
fn recover_wav(
    store: &Store,
    names: &Names,
    between: &mut dyn FnMut(u64, Duration) -> ControlFlow<()>,
) -> io::Result<Recovered> {
    // A link was put there by another program, and leads to a file that is not callreel's.
    let opened = disk::open(File::options().read(true).write(true), &names.wav_part());
    let Some(file) = found(opened)? else {
        return Ok(Recovered::NotOurs);
    };
    // Its owner may have finished it, and so renamed it, before it was locked here.
    if !try_lock(&file)? || !is_at(&file, &names.wav_part())? {
        return Ok(Recovered::Held);
    }
    let known = read_record(&names.json());
    let published = known.is_some();
    // Read before the file is mended: the time of its last write, unless it was touched since.
    let written_at = modified(&file);
    let mut record = known
        .or_else(|| read_record(&names.json_part()))
        .unwrap_or_else(|| Record::unknown(Word::unknown_provider(), written_at));
    let Some(spec) = spec_of(&file, &record)? else {
        return Ok(Recovered::NotOurs);
    };
    let mut part = Part {
        names: names.clone(),
        file,
        record_published: published,
        wav_published: false,
        finished: store.finished.clone(),
    };
    let samples = samples_in(part.file(), spec)?;
    let mut digest = DataDigest::default();
    if !published && !part.is_described_by(&record)? {
        let data_bytes = samples * u64::from(spec.sample_frame_bytes());
        if !digest.read_on(part.file(), spec.header_bytes(), data_bytes, between)? {
            return Ok(Recovered::Interrupted);
        }
    }
    // A record that gives an end was written when the file was complete and durable.
    if !published && record.state == State::Recording {
        // The record may be lost, and its format unknown.
        record.format = spec.into();
        mend(part.file(), spec, samples, store, &record)?;
        let ended_at = end_of(&record, samples, written_at);
        record.set_samples(samples);
        record.close(End::None);
        record.ended_at = ended_at;
        record.elapsed_ms = elapsed_ms(&record);
        record.state = State::Recovered;
    }
    part.clear_claims()?;
    let mut spare = Duration::MAX;
    part.publish(&mut record, &digest, &mut spare)?;
    Ok(Recovered::Finished)
}

/// Publishes a record that has no WAV, or removes the record's part file if the recording is finished
/// already.
fn recover_record(store: &Store, names: &Names) -> io::Result<Recovered> {
    if names.wav_part().try_exists()? {
        return Ok(Recovered::Held); // It is finished together with its WAV.
    }
    let opened = disk::open(File::options().read(true).write(true), &names.json_part());
    let Some(file) = found(opened)? else {
        return Ok(Recovered::NotOurs);
    };
    if !try_lock(&file)? || !is_at(&file, &names.json_part())? {
        return Ok(Recovered::Held);
    }
    let Some(record) = read_record(&names.json_part()) else {
        return Ok(Recovered::NotOurs);
    };
    if record.id.as_ref() != Some(names.key.id()) {
        return Ok(Recovered::NotOurs);
    }
    clear_claim(&names.json())?;
    if names.json().try_exists()? {
        fs::remove_file(names.json_part())?;
        return Ok(Recovered::NotOurs);
    }
    if record.state == State::Recording {
        if names.wav().try_exists()? {
            fs::remove_file(names.json_part())?;
        }
        return Ok(Recovered::NotOurs);
    }
    store.finished.announce(&names.key, &record);
    rename_new(&names.json_part(), &names.json())?;
    sync_dir(&names.dir)?;
    store.finished.settle(&record);
    Ok(Recovered::Finished)
}

/// Reads a record; `None` if the file is not there, or is no record.
pub(super) fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&read_small(path).ok()?).ok()
}

/// The format of an unfinished file, if its header is one that callreel writes, with any sizes, or the
/// beginning of one. If the file's record is known, bytes of the header may be zeros that a power loss
/// left.
fn spec_of(file: &File, record: &Record) -> io::Result<Option<Spec>> {
    let is_known = record.id.is_some();
    let mut start = [0; wav::HEADER_BYTES_MAX];
    let length = read_start(file, &mut start)?;
    let start = &start[..length];
    let Spec { encoding, sample_rate_hz, .. } = record.format.spec().map_err(io::Error::other)?;
    // The announced rate and encoding come first.
    let rates = [Some(sample_rate_hz), rate_in(start)];
    let encodings = [encoding, Encoding::Mulaw, Encoding::Pcm16, Encoding::Alaw];
    let channels = if record.format.channels == 2 { [2, 1] } else { [1, 2] };
    let specs = rates.into_iter().flatten().flat_map(|sample_rate_hz| {
        encodings.into_iter().flat_map(move |encoding| {
            channels.map(|channels| Spec { channels, sample_rate_hz, encoding })
        })
    });
    Ok(specs.into_iter().find(|spec| is_header(*spec, start, is_known)))
}

/// The sample rate that a whole header gives, if recordings may have it.
fn rate_in(start: &[u8]) -> Option<u32> {
    let FormatChunk { sample_rate_hz, .. } = wav::parse(start).ok()?.format;
    let format = Format { codec: Codec::L16Le, sample_rate_hz };
    format.is_recordable().then_some(sample_rate_hz)
}

/// Whether `start` is the beginning of a file of this format. The sizes in the header may be any. Bytes
/// that `start` lacks, and zeros if they `may_be_zero`, are taken for those that belong there.
fn is_header(spec: Spec, start: &[u8], may_be_zero: bool) -> bool {
    let mut header = wav::header(spec, Length::Unknown);
    for (expected, found) in header.iter_mut().zip(start) {
        if *found != 0 || !may_be_zero {
            *expected = *found;
        }
    }
    wav::parse(&header).is_ok_and(|layout| layout.is_header_of(spec))
}

/// The number of samples of each channel in an unfinished file of callreel's.
fn samples_in(file: &File, spec: Spec) -> io::Result<u64> {
    let there = audio_bytes(file, spec.header_bytes())?;
    Ok(there.min(u64::from(wav::DATA_BYTES_MAX)) / u64::from(spec.sample_frame_bytes()))
}

/// Completes a file of callreel's that has `samples` samples of each channel.
fn mend(file: &File, spec: Spec, samples: u64, store: &Store, record: &Record) -> io::Result<()> {
    let data_bytes = samples * u64::from(spec.sample_frame_bytes());
    // Cuts off a torn last sample and an ending that was begun.
    file.set_len(u64::from(spec.header_bytes()) + data_bytes)?;
    let data_bytes = u32::try_from(data_bytes).unwrap_or(wav::DATA_BYTES_MAX);
    let mut writer = wav::Writer::resume(PartFile::new(file.try_clone()?), spec, data_bytes);
    writer.checkpoint().map_err(to_io)?;
    let mut sealed = record.clone();
    sealed.set_samples(samples);
    store.seal(&mut writer, file, &sealed)?;
    file.sync_all()
}

fn read_start(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match file.read_at(&mut into[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

fn modified(file: &File) -> Timestamp {
    let time = file.metadata().and_then(|metadata| metadata.modified());
    time.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(Timestamp::now)
}

/// The end of an interrupted recording of `samples` samples: the time at which its record was last
/// written, plus the audio that came after that. If audio came faster than real time, the file's last
/// write is earlier than that sum, and counts instead. A later time, or one before the record's, comes
/// from a file that was touched or copied since, and is not believed.
fn end_of(record: &Record, samples: u64, written_at: Timestamp) -> Timestamp {
    // A record written at the start alone gives its start as its end: all samples came after it.
    let noted = if record.ended_at == record.started_at { 0 } else { record.samples };
    let audio_ms = record.format.ms(samples.saturating_sub(noted));
    let audio = SignedDuration::from_millis(audio_ms.cast_signed());
    let by_audio = record.ended_at.saturating_add(audio).unwrap_or(record.ended_at);
    if written_at >= record.ended_at { by_audio.min(written_at) } else { by_audio }
}

fn elapsed_ms(record: &Record) -> u64 {
    let elapsed = record.ended_at.duration_since(record.started_at);
    u64::try_from(elapsed.as_millis()).unwrap_or(0)
}
