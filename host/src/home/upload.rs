//! The uploads: each entry of the outbox is a recording that the home still lacks.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use object_store::path::Path as ObjectPath;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::fault::Fault;
use super::index::{Indexer, Line};
use super::probe::Probe;
use super::put::other;
use super::{Form, Home, Parts, Upload, flac};
use crate::disk::{self, WholeFile, create_dir, found, is_there, read_small, sync_dir};
use crate::outbox::{self, Answer, Outbox};
use crate::record::{InFlac, Key, Record, Wav};
use crate::tasks;

/// The pause before the second try of a recording.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The length of a WAV, in bytes, from which it has peaks, which are uploaded as well.
pub(crate) const PEAKS_FROM: u64 = 1 << 20;

/// An entry of the outbox, as far as an upload needs it.
#[derive(Deserialize)]
struct Entry {
    data: Record,
}

/// The state of a recording's files on the disk.
enum Local {
    /// The files that are to be uploaded.
    Ready(Files),
    /// The recording is being published.
    NotYet,
    /// A user has deleted the recording.
    Deleted,
}

/// The files of a finished recording.
struct Files {
    wav: Option<Upload>,
    /// The name of the FLAC that the home is to get in the place of the WAV.
    flac: Option<String>,
    json: Bytes,
    /// The peaks of a WAV that is long enough to be drawn from them.
    peaks: Option<Bytes>,
}

/// Uploads the recordings with entries in the outbox, and those that come, until `end` is ready and
/// the uploads under way are over, or until the future is dropped. `is_tried`: a probe has found the home
/// good.
///
/// Only one delivery may run on a directory.
pub async fn deliver(home: Home, is_tried: bool, outbox: Outbox, end: impl Future<Output = ()>) {
    let uploader = Arc::new(Uploader {
        indexer: Indexer::new(home.clone()),
        home,
        outbox: outbox.clone(),
        is_tried: Mutex::new(is_tried),
    });
    let tell = move |_, id: String, text: String| {
        let uploader = Arc::clone(&uploader);
        async move { uploader.upload(&id, &text).await }
    };
    outbox::deliver(outbox, outbox::home_receivers(), FIRST_PAUSE, tell, end).await;
}

struct Uploader {
    home: Home,
    indexer: Indexer,
    outbox: Outbox,
    is_tried: Mutex<bool>,
}

impl Uploader {
    async fn upload(&self, id: &str, text: &str) -> Answer {
        if let Some(answer) = self.try_home().await {
            return answer;
        }
        let entry: Entry = match serde_json::from_str(text) {
            Ok(entry) => entry,
            Err(error) => return Answer::Stuck(format!("its entry cannot be read: {error}")),
        };
        let record = entry.data;
        let Some(url) = &record.home else {
            return Answer::Stuck("its entry names no place in a home".to_owned());
        };
        let (wav_path, _) = match paths(&self.home, url) {
            Ok(paths) => paths,
            Err(fault) => return answer(fault),
        };
        let Some(key) = record.id.clone().map(|id| Key::new(record.day(), id)) else {
            return Answer::Stuck("its entry names no file".to_owned());
        };
        let note = Note(self.outbox.note_path(id));
        let local = match local(self.outbox.store_dir(), &key, record.wav.as_ref()).await {
            Ok(local) => local,
            Err(fault) => return answer(fault),
        };
        let done = match local {
            Local::Ready(files) => self.home.put_recording(url, files, &note).await,
            Local::NotYet => return Answer::NotYet,
            Local::Deleted => {
                let is_flac = record.wav.as_ref().is_some_and(|wav| wav.flac.is_some());
                let flac_path = self.home.address().path_of(url, flac::ENDING);
                let path = flac_path.filter(|_| is_flac).unwrap_or(wav_path);
                self.home.give_up_parts(&path, &note).await;
                return Answer::Unwanted("it was deleted on the disk before".to_owned());
            }
        };
        if let Err(fault) = done {
            return answer(fault);
        }
        // The recording is listed before it leaves the outbox.
        let indexed = match Line::new(self.home.address(), &record, url) {
            Some(line) => self.indexer.add(line).await,
            None => Ok(()), // It is not at a place that a recorder gives.
        };
        indexed.map_or_else(answer, |()| Answer::Taken)
    }

    /// Tries the home once it can be reached, unless that was done at the start. Returns the answer if it
    /// takes no recordings.
    async fn try_home(&self) -> Option<Answer> {
        let mut is_tried = self.is_tried.lock().await;
        if *is_tried {
            return None;
        }
        let wait = Duration::ZERO;
        match self.home.probe().await {
            Ok(Probe::Away(error)) => return Some(Answer::Unreachable { error, wait }),
            Err(error) => {
                return Some(Answer::Unreachable { error: error.to_string(), wait });
            }
            Ok(Probe::Limited(warnings)) => super::warn(&warnings),
            Ok(Probe::Good) => {}
        }
        *is_tried = true;
        None
    }
}

fn answer(fault: Fault) -> Answer {
    match fault {
        Fault::Away { reason, wait } => Answer::Unreachable { error: reason, wait },
        Fault::Taken(reason) | Fault::Local(reason) => Answer::Stuck(reason),
        Fault::Unwell(reason)
        | Fault::Missing(reason)
        | Fault::Forbidden(reason)
        | Fault::Refused(reason) => Answer::Refused { error: reason, wait: Duration::ZERO },
    }
}

impl Home {
    async fn put_recording(&self, url: &str, mut files: Files, note: &Note) -> Result<(), Fault> {
        let (wav_path, json_path) = paths(self, url)?;
        let path = |ending| self.address().path_of(url, ending);
        if let (Some(file), Some(wav), Some(path)) =
            (files.flac.take(), &files.wav, path(flac::ENDING))
        {
            // A FLAC takes seconds to make: the store is asked first, whether it is there and has none.
            match self.has_recording(url, &files).await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(Fault::Forbidden(_)) => {}
                Err(fault) => return Err(fault),
            }
            let made = self.put_flac(&path, wav, note.dir(), note).await?;
            let is_made = made.is_some();
            let in_flac = made.map(|made| InFlac { file, made: Some(made) });
            files.json = flac::with_flac(&files.json, in_flac)?;
            if is_made {
                files.wav = None;
            }
        }
        if let Some(wav) = &files.wav {
            self.put_file(&wav_path, wav, note).await?;
        }
        if let Some((peaks, path)) = files.peaks.zip(path(".peaks")) {
            // A recording without them is drawn from its samples.
            if let Err(fault) = self.put(&path, peaks).await {
                tracing::debug!(%fault, %path, "cannot upload the peaks of a recording");
            }
        }
        // The record says that the recording is whole.
        self.put(&json_path, files.json).await
    }

    /// Whether a recording is there, in whatever form its audio is.
    ///
    /// # Errors
    /// [`Fault::Taken`] if an object differs; see [`Fault`] for the rest.
    async fn has_recording(&self, url: &str, files: &Files) -> Result<bool, Fault> {
        let (wav_path, json_path) = paths(self, url)?;
        let json = match self.get(&json_path).await {
            Ok(json) => Some(json),
            Err(Fault::Missing(_)) => None,
            Err(fault) => return Err(fault),
        };
        let found: Option<Record> =
            json.as_ref().and_then(|json| serde_json::from_slice(json).ok());
        let made = found.and_then(|record| Some(record.wav?.made()?.1.clone()));
        let has_audio = match (&files.wav, made, self.address().path_of(url, flac::ENDING)) {
            (None, _, _) => true,
            (Some(wav), Some(made), Some(path)) => self.has_flac(&path, &made, wav).await?,
            (Some(_), None, _) if files.flac.is_some() && json.is_none() => false,
            (Some(wav), _, _) => self.has_file(&wav_path, wav).await?,
        };
        match json {
            Some(json) if flac::are_equal(&json, &files.json) => Ok(has_audio),
            Some(_) => Err(other(&json_path, "its content is another one")),
            None => Ok(false),
        }
    }
}

/// Uploads a finished recording of the directory `dir` to its URL in the home, unless it is there. `form`: that of
/// the audio of a recording which was not made for a home.
///
/// # Errors
/// As of [`Home::put_file`]; [`Fault::Local`] also if its files are not there or differ from the record.
pub(crate) async fn upload(
    home: &Home,
    dir: &Path,
    key: &Key,
    wav: Option<&Wav>,
    url: &str,
    form: Form,
) -> Result<(), Fault> {
    if compare(home, dir, key, wav, url).await? == Found::Equal {
        return Ok(());
    }
    let note = Note(Outbox::of_home(dir, None).note_path(&outbox::entry_id(key)));
    match local(dir, key, wav).await? {
        Local::Ready(mut files) => {
            if form == Form::Flac && files.wav.is_some() {
                files.flac.get_or_insert_with(|| format!("{}{}", key.id(), flac::ENDING));
            }
            home.put_recording(url, files, &note).await
        }
        Local::NotYet | Local::Deleted => Err(Fault::Local("it is not there any more".to_owned())),
    }
}

/// The presence of a recording in a home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// All of it is there, equal to the files on the disk.
    Equal,
    /// Not all is there, and a recorder is to upload it.
    Waiting,
    /// Not all is there.
    Missing,
}

/// Compares a finished recording of the directory `dir` with its objects in the home: by length, and by the
/// digest of the WAV where the store keeps one, or the record there tells of a FLAC.
///
/// # Errors
/// [`Fault::Taken`] if an object differs; [`Fault::Local`] if the files on the disk cannot be read or differ
/// from the record; else the home does not tell.
pub(crate) async fn compare(
    home: &Home,
    dir: &Path,
    key: &Key,
    wav: Option<&Wav>,
    url: &str,
) -> Result<Found, Fault> {
    let Local::Ready(files) = local(dir, key, wav).await? else {
        return Ok(Found::Equal); // It was removed meanwhile.
    };
    if home.has_recording(url, &files).await? {
        return Ok(Found::Equal);
    }
    let is_waiting = Outbox::of_home(dir, None).holds(key);
    Ok(if is_waiting { Found::Waiting } else { Found::Missing })
}

/// The paths of the WAV and of the record at a URL in the home.
fn paths(home: &Home, url: &str) -> Result<(ObjectPath, ObjectPath), Fault> {
    let path = |ending| home.address().path_of(url, ending);
    path(".wav").zip(path(".json")).ok_or_else(|| {
        Fault::Local(format!(
            "it was recorded for {url}, which is not in --home {}: start once with that home",
            home.address()
        ))
    })
}

/// Looks at the files of a recording.
async fn local(dir: &Path, key: &Key, wav: Option<&Wav>) -> Result<Local, Fault> {
    let (dir, key, wav) = (dir.to_owned(), key.clone(), wav.cloned());
    // Only a panic ends the look; it was reported already.
    match tasks::blocking(move || look(&dir, &key, wav.as_ref())).await {
        Ok(looked) => looked.map_err(|error| {
            Fault::Local(format!("its files on the disk cannot be read: {error}"))
        }),
        Err(_) => Err(Fault::Local("the look at its files ended with a bug".to_owned())),
    }
}

fn look(dir: &Path, key: &Key, wav: Option<&Wav>) -> io::Result<Local> {
    let day = dir.join(key.day().to_string());
    let file = |ending: &str| day.join(format!("{}{ending}", key.id()));
    if !is_there(&day)? {
        return Ok(Local::Deleted);
    }
    // The folder may be a link to a disk that is away now.
    fs::metadata(&day)?;
    let json = match found(read_small(&file(".json")))? {
        Some(json) if !json.is_empty() => json,
        _ if is_there(&file(".json.part"))? || is_there(&file(".wav.part"))? => {
            return Ok(Local::NotYet);
        }
        _ => return Ok(Local::Deleted),
    };
    let json = json.into();
    let Some(wav) = wav else {
        return Ok(Local::Ready(Files { wav: None, flac: None, json, peaks: None }));
    };
    let Some(opened) = found(disk::open_to_read(&file(".wav")))? else {
        return match is_there(&file(".wav.part"))? {
            true => Ok(Local::NotYet),
            false => Err(io::Error::new(io::ErrorKind::NotFound, "the WAV is missing")),
        };
    };
    let bytes = opened.metadata()?.len();
    if bytes == 0 {
        return Ok(Local::NotYet); // An empty file only claims the name.
    }
    if bytes != wav.bytes {
        let error = format!("the WAV has {bytes} bytes, not the {} of its record", wav.bytes);
        return Err(io::Error::other(error));
    }
    let upload = Upload { file: Arc::new(opened), bytes, sha256: wav.sha256.clone() };
    let peaks = (bytes > PEAKS_FROM).then(|| read_small(&file(".peaks")).ok()).flatten();
    let peaks = peaks.filter(|peaks| !peaks.is_empty()).map(Bytes::from);
    let flac = wav.flac.as_ref().map(|flac| flac.file.clone());
    Ok(Local::Ready(Files { wav: Some(upload), flac, json, peaks }))
}

/// The note of an upload in parts: a file beside the entry.
struct Note(PathBuf);

impl Note {
    /// The folder of the entries.
    fn dir(&self) -> PathBuf {
        self.0.parent().map_or_else(PathBuf::new, Path::to_owned)
    }
}

impl Parts for Note {
    fn begun(&self) -> Option<String> {
        String::from_utf8(read_small(&self.0).ok()?).ok().filter(|id| !id.is_empty())
    }

    fn begin(&self, id: &str) -> io::Result<()> {
        // An upload by hand may be the first one of the directory.
        create_dir(&self.dir())?;
        let temporary = self.0.with_extension("upload-new");
        WholeFile { temporary: &temporary, to: &self.0, is_durable: true, replaces: true }
            .write(|file| file.write_all(id.as_bytes()))?;
        sync_dir(&self.dir())
    }

    fn end(&self) {
        if let Err(error) = found(fs::remove_file(&self.0)) {
            tracing::debug!(%error, "cannot remove the note of an upload");
        }
    }
}
