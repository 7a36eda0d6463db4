//! What an interrupted run left unfinished is finished at the next start.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use callreel_core::frame::Provider;
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::wav::{self, Encoding, Length, Spec};
use jiff::{SignedDuration, Timestamp};

use super::disk::{self, clear_claim};
use super::ending::audio_bytes;
use super::file::{PartFile, to_io};
use super::keep::days_of;
use super::record::{End, State, ms};
use super::{Left, Names, Part, Record, Store, found, read_small, rename_new, sync_dir};

/// Finishes every orphan in the store's directories. One that cannot be finished stays as it is and
/// is told of in the log: it must not keep the recorder from its work.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn recover(store: &Store) -> io::Result<()> {
    for day in days_of(store.dir())? {
        if let Err(error) = recover_day(store, &day) {
            tracing::error!(dir = ?day, %error, "cannot look for interrupted recordings");
        }
    }
    Ok(())
}

fn recover_day(store: &Store, day: &Path) -> io::Result<()> {
    for entry in fs::read_dir(day)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let recovered = if let Some(id) = name.strip_suffix(".wav.part") {
            recover_wav(store, &Names { dir: day.to_owned(), id: id.to_owned() })
        } else if let Some(id) = name.strip_suffix(".json.part") {
            recover_record(store, &Names { dir: day.to_owned(), id: id.to_owned() })
        } else {
            continue;
        };
        match recovered {
            Ok(Some(record)) => {
                tracing::info!(file = ?name, "finished an interrupted recording");
                store.note_finished(record);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(file = ?name, %error, "cannot finish an interrupted recording");
            }
        }
    }
    Ok(())
}

/// Finishes a recording that the disk refused to finish while its record was known.
///
/// # Errors
/// What the system says; it may be tried again.
pub(super) fn finish_left(store: &Store, left: &mut Left) -> io::Result<()> {
    let Left { record, part } = left;
    let Some(part) = part else {
        return store.publish_failure(record);
    };
    store.rescue(part, record)?;
    part.clear_claims()?;
    if !part.record_published
        && let Some(spec) = spec_of(&part.file, record)?
    {
        let samples = mend(&part.file, spec, store, record)?;
        record.cut(samples);
    }
    part.publish(record)
}

/// Finishes one WAV with its record, if it was ours to finish.
fn recover_wav(store: &Store, names: &Names) -> io::Result<Option<Record>> {
    // A link that somebody put there leads to a file that is not ours.
    let opened = disk::open(File::options().read(true).write(true), &names.wav_part());
    let Some(file) = found(opened)? else {
        return Ok(None);
    };
    let known = read_record(&names.json());
    let published = known.is_some();
    // Before it is mended: when it was written last, unless somebody has touched it since.
    let written_at = modified(&file);
    let mut record = known
        .or_else(|| read_record(&names.json_part()))
        .unwrap_or_else(|| Record::unknown(Provider::Twilio, written_at));
    let Some(spec) = spec_of(&file, &record)? else {
        return Ok(None);
    };
    let webhooks = store.config.webhooks.clone();
    let mut part = Part {
        names: names.clone(),
        file,
        record_published: published,
        wav_published: false,
        webhooks,
    };
    // A record that says how it ended was written when the file was whole and durable.
    if !published && record.state == State::Recording {
        let samples = mend(part.file(), spec, store, &record)?;
        let ended_at = end_of(&record, samples, written_at);
        record.set_samples(samples);
        record.close(End::None);
        record.ended_at = ended_at;
        record.elapsed_ms = elapsed_ms(&record);
        record.state = State::Recovered;
        record.format.channels = spec.channels;
    }
    part.clear_claims()?;
    part.publish(&mut record)?;
    Ok(Some(record))
}

/// Publishes a record that has no WAV, or clears one away whose recording is finished.
fn recover_record(store: &Store, names: &Names) -> io::Result<Option<Record>> {
    if names.wav_part().try_exists()? {
        return Ok(None); // Finished together with its WAV.
    }
    let Some(record) = read_record(&names.json_part()) else {
        return Ok(None);
    };
    if record.id != names.id {
        return Ok(None);
    }
    clear_claim(&names.json())?;
    if names.json().try_exists()? {
        fs::remove_file(names.json_part())?;
        return Ok(None);
    }
    if record.state == State::Recording {
        if names.wav().try_exists()? {
            fs::remove_file(names.json_part())?;
        }
        return Ok(None);
    }
    store.config.webhooks.iter().for_each(|webhooks| webhooks.post(&record));
    rename_new(&names.json_part(), &names.json())?;
    sync_dir(&names.dir)?;
    Ok(Some(record))
}

/// Reads a record, if this is one.
pub(super) fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&read_small(path).ok()?).ok()
}

/// What an unfinished file holds, if its header is one of ours: of any length, or cut short. In one
/// whose record is there, what a power loss left of the header may be zeros.
fn spec_of(file: &File, record: &Record) -> io::Result<Option<Spec>> {
    let is_known = !record.id.is_empty();
    let mut start = [0; wav::HEADER_BYTES_MAX];
    let length = read_start(file, &mut start)?;
    let announced = record.format.encoding.as_str();
    let encodings = match announced {
        "mulaw" => [Encoding::Mulaw, Encoding::Pcm16],
        _ => [Encoding::Pcm16, Encoding::Mulaw],
    };
    let channels = if record.format.channels == 2 { [2, 1] } else { [1, 2] };
    let specs = encodings.into_iter().flat_map(|encoding| {
        channels.map(|channels| Spec { channels, sample_rate_hz: SAMPLE_RATE_HZ, encoding })
    });
    Ok(specs.into_iter().find(|spec| is_header(*spec, &start[..length], is_known)))
}

/// Whether `start` is the beginning of a file of this kind, as far as both go, whatever sizes it
/// announces.
pub(crate) fn is_header(spec: Spec, start: &[u8], may_be_zero: bool) -> bool {
    let expected = wav::header(spec, Length::Unknown);
    let sizes: &[std::ops::Range<usize>] = match spec.encoding {
        Encoding::Mulaw => &[4..8, 46..50, 54..58],
        Encoding::Pcm16 => &[4..8, 40..44],
    };
    let is_size = |index: usize| sizes.iter().any(|size| size.contains(&index));
    let mut pairs = expected.iter().zip(start).enumerate();
    pairs.all(|(index, (expected, found))| {
        expected == found || is_size(index) || may_be_zero && *found == 0
    })
}

/// Completes a file of ours with all the samples that it holds; returns how many each channel has.
fn mend(file: &File, spec: Spec, store: &Store, record: &Record) -> io::Result<u64> {
    let header_bytes = spec.header_bytes();
    let frame_bytes = u64::from(spec.sample_frame_bytes());
    let there = audio_bytes(file, header_bytes)?;
    let samples = there.min(u64::from(wav::DATA_BYTES_MAX)) / frame_bytes;
    let data_bytes = samples * frame_bytes;
    // A torn last sample goes, and so does an ending that was begun.
    file.set_len(u64::from(header_bytes) + data_bytes)?;
    let data_bytes = u32::try_from(data_bytes).unwrap_or(wav::DATA_BYTES_MAX);
    let mut writer = wav::Writer::resume(PartFile::new(file.try_clone()?), spec, data_bytes);
    writer.checkpoint().map_err(to_io)?;
    let mut sealed = record.clone();
    sealed.set_samples(samples);
    store.seal(&mut writer, file, &sealed)?;
    file.sync_all()?;
    Ok(samples)
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

/// When a recording of so many samples ended that nobody saw end: the time of its last note plus the
/// audio that came after that. Audio that came faster than it is spoken ended when the file was
/// written last; a file that was touched or copied since says a later time, or one before the note,
/// and is not believed.
fn end_of(record: &Record, samples: u64, written_at: Timestamp) -> Timestamp {
    // A record that has no note yet says that it ended when it started.
    let noted = if record.ended_at == record.started_at { 0 } else { record.samples };
    let audio = SignedDuration::from_millis(ms(samples.saturating_sub(noted)).cast_signed());
    let by_audio = record.ended_at.saturating_add(audio).unwrap_or(record.ended_at);
    if written_at >= record.ended_at { by_audio.min(written_at) } else { by_audio }
}

fn elapsed_ms(record: &Record) -> u64 {
    let elapsed = record.ended_at.duration_since(record.started_at);
    u64::try_from(elapsed.as_millis()).unwrap_or(0)
}
