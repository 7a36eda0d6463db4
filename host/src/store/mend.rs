//! An interrupted recording: whether it is callreel's, its format and length, and its end.
//!
//! Whoever finishes one has the lock of its `.part` file, so nobody else writes to it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callreel_core::format::{Codec, Format};
use callreel_core::wav::{self, Encoding, FormatChunk, Length, Spec};
use jiff::{SignedDuration, Timestamp};

use super::ending::audio_bytes;
use super::file::{PartFile, to_io};
use super::house::try_lock;
use super::part::{is_at, json_of};
use super::{Names, Part, Store, first_free};
use crate::disk::{
    self, WholeFile, clear_claim, found, is_there, read_small, rename_new, sync_dir,
};
use crate::record::{End, Key, Record, State, Word};

/// The outcome of finishing an interrupted recording.
pub(super) enum Recovered {
    Finished,
    /// Somebody else works on it, or has finished it since it was found.
    Held,
    /// The recovery was told to stop; the file is as it was.
    Interrupted,
    /// Nothing to finish: the file is not callreel's, or its recording is finished already.
    NotOurs,
}

/// Finishes one WAV with its record, if callreel wrote it. Nothing except its name is changed before the
/// whole file is read: if a file that is not callreel's has the final name, the recording gets another.
/// `between` is called after each piece and may interrupt.
pub(super) fn recover_wav(
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
    let known = known.filter(|record| record.id.as_ref() == Some(names.key.id()));
    let published = known.is_some();
    // Read before the file is mended: the time of its last write, unless it was touched since.
    let written_at = modified(&file);
    let mut record = known
        .or_else(|| read_record(&names.json_part()))
        .unwrap_or_else(|| Record::unknown(Word::unknown_provider(), written_at));
    let Some(spec) = spec_of(&file, &record)? else {
        return Ok(Recovered::NotOurs);
    };
    let mut part = Part::new(names.clone(), file, store.finished.clone())?;
    part.record_published = published;
    part.clear_claims()?;
    if !published && part.names.has_final_file()? {
        give_another_name(store, &mut part, &mut record)?;
    }
    let samples = samples_in(part.file(), spec)?;
    let mut digest = store.new_digest(spec);
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
        mend(&part, spec, samples, store, &record)?;
        let ended_at = end_of(&record, samples, written_at);
        record.set_samples(samples);
        record.close(End::None);
        record.ended_at = ended_at;
        record.elapsed_ms = elapsed_ms(&record);
        record.state = State::Recovered;
    }
    let mut spare = Duration::MAX;
    part.publish(&mut record, &digest, &mut spare)?;
    Ok(Recovered::Finished)
}

/// Gives an unfinished recording and its record the next free name.
fn give_another_name(store: &Store, part: &mut Part, record: &mut Record) -> io::Result<()> {
    let named = |number| {
        let id = part.names.key.id().numbered(number);
        store.names(Key::new(part.names.key.day(), id))
    };
    let is_in_use = |names: &Names| -> io::Result<bool> {
        Ok(is_there(&names.wav_part())? || names.is_taken()?)
    };
    // The first one is its own.
    let names = named(first_free(|number| Ok(number == 1 || is_in_use(&named(number))?))?);
    rename_new(&part.names.wav_part(), &names.wav_part())?;
    let old = std::mem::replace(&mut part.names, names);
    if is_there(&old.json_part())? {
        rename_new(&old.json_part(), &part.names.json_part())?;
    }
    if let Some(wav) = &mut record.wav {
        wav.file = part.wav_name();
    }
    tracing::warn!(
        from = old.key.id().as_str(),
        to = part.id().as_str(),
        "an interrupted recording gets another name: a file that is not callreel's has its own"
    );
    Ok(())
}

/// Publishes a record that has no WAV, or removes the record's part file if the recording is finished
/// already.
pub(super) fn recover_record(store: &Store, names: &Names) -> io::Result<Recovered> {
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
    let Some(mut record) = read_record(&names.json_part()) else {
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
    let written = record.clone();
    store.finished.place(&names.key, &mut record);
    let _lock = if record == written { None } else { Some(rewrite(names, &record)?) };
    store.finished.announce(&names.key, &record)?;
    rename_new(&names.json_part(), &names.json())?;
    sync_dir(&names.dir)?;
    store.finished.settle(&record);
    Ok(Recovered::Finished)
}

/// Writes the record of an interrupted recording again. Returns its file, which is locked.
fn rewrite(names: &Names, record: &Record) -> io::Result<File> {
    let text = json_of(record)?;
    let (temporary, to) = (names.json_temporary(), names.json_part());
    let file = WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: true }
        .write(|file| file.write_all(&text))?;
    let _ = try_lock(&file);
    Ok(file)
}

/// Reads a record; `None` if the file is not there, or is no record.
pub(super) fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&read_small(path).ok()?).ok()
}

/// The format of an unfinished file, if its header is one that callreel writes, with any sizes, or the
/// beginning of one. If the file's record is known, bytes of the header may be zeros that a power loss
/// left.
pub(super) fn spec_of(file: &File, record: &Record) -> io::Result<Option<Spec>> {
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
pub(super) fn samples_in(file: &File, spec: Spec) -> io::Result<u64> {
    let there = audio_bytes(file, spec.header_bytes())?;
    Ok(there.min(u64::from(wav::DATA_BYTES_MAX)) / u64::from(spec.sample_frame_bytes()))
}

/// Completes a file of callreel's that has `samples` samples of each channel.
pub(super) fn mend(
    part: &Part,
    spec: Spec,
    samples: u64,
    store: &Store,
    record: &Record,
) -> io::Result<()> {
    let file = part.file();
    let data_bytes = samples * u64::from(spec.sample_frame_bytes());
    // Cuts off a torn last sample and an ending that was begun.
    file.set_len(u64::from(spec.header_bytes()) + data_bytes)?;
    let data_bytes = u32::try_from(data_bytes).unwrap_or(wav::DATA_BYTES_MAX);
    let mut writer = wav::Writer::resume(PartFile::new(Arc::clone(file)), spec, data_bytes);
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
