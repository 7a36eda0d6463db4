//! A recording's files from the first byte to their final names.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::digest::{self, DataDigest};
use super::peaks;
use crate::disk::{
    WholeFile, clear_claim, found, is_there, rename_new, sync_dir, write_new, write_temporary,
};
use crate::finished::Finished;
use crate::record::{Id, Key, Record, State, Wav};

/// A recording's file while it is being recorded or finished. It is locked, also under its final name,
/// so that the recovery of another instance leaves it alone.
#[derive(Debug)]
pub struct Part {
    pub(super) names: Names,
    /// Shared with the writer of its samples: one descriptor.
    pub(super) file: Arc<File>,
    identity: Identity,
    /// The record has its final name.
    pub(super) record_published: bool,
    /// The WAV has its final name; only its directory is still to be made durable.
    pub(super) wav_published: bool,
    pub(super) finished: Finished,
}

impl Part {
    /// A file of these names, of which none is a final one yet.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn new(names: Names, file: File, finished: Finished) -> io::Result<Self> {
        let identity = Identity::of(&file.metadata()?);
        let file = Arc::new(file);
        Ok(Self { names, file, identity, record_published: false, wav_published: false, finished })
    }

    /// The recording's name.
    #[must_use]
    pub const fn id(&self) -> &Id {
        self.names.key.id()
    }

    /// The file, open for reading and writing.
    #[must_use]
    pub const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether the name still belongs to this file.
    ///
    /// # Errors
    /// The system's error; the answer is not known.
    pub fn is_in_place(&self) -> io::Result<bool> {
        self.identity.is_at(&self.names.wav_part())
    }

    /// The device on which the file lies.
    pub(crate) const fn device(&self) -> u64 {
        self.identity.device
    }

    /// Removes the empty files of interrupted renames under the final names not yet given.
    pub(super) fn clear_claims(&self) -> io::Result<()> {
        if !self.record_published {
            clear_claim(&self.names.json())?;
        }
        if !self.wav_published {
            clear_claim(&self.names.wav())?;
        }
        Ok(())
    }

    /// Gives the name back and removes all files begun under it.
    pub(super) fn discard(&self) {
        for path in [self.names.wav_part(), self.names.json_part(), self.names.json_temporary()] {
            let _ = fs::remove_file(path);
        }
        let _ = peaks::remove(&self.names.peaks());
    }

    pub(super) fn wav_name(&self) -> String {
        format!("{}.wav", self.id())
    }

    /// Whether a record already describes the finished file, with the digest of its samples.
    pub(super) fn is_described_by(&self, record: &Record) -> io::Result<bool> {
        Ok(self.describes(record, self.file.metadata()?.len()))
    }

    fn describes(&self, record: &Record, bytes: u64) -> bool {
        record.wav.as_ref().is_some_and(|wav| {
            wav.file == self.wav_name() && wav.bytes == bytes && wav.data_sha256.is_some()
        })
    }

    /// Writes the record of a recording that begins, so that it survives a crash. May be called again
    /// after an error.
    ///
    /// # Errors
    /// The system's error.
    pub fn write_first_record(&self, record: &Record) -> io::Result<()> {
        match write_new(&self.names.json_part(), &json_of(record)?) {
            // An earlier try, or another program, has made it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.write_record(record),
            made => made.map(drop),
        }
    }

    /// Writes the record as far as it is known, so that it survives a crash.
    ///
    /// # Errors
    /// The system's error; the record written before is still there.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write_record_file(record).map(drop)
    }

    /// The same; returns the record's file.
    pub(super) fn write_record_file(&self, record: &Record) -> io::Result<File> {
        let text = json_of(record)?;
        let (temporary, to) = (self.names.json_temporary(), self.names.json_part());
        let is_durable = record.state != State::Recording;
        WholeFile { temporary: &temporary, to: &to, is_durable, replaces: true }
            .write(|file| file.write_all(&text))
    }

    /// Gives the finished WAV and its record their final names, durably. May be called again after an
    /// error.
    ///
    /// # Errors
    /// The system's error; no existing file is replaced.
    pub fn publish(
        &mut self,
        record: &mut Record,
        digest: &DataDigest,
        spare: &mut Duration,
    ) -> io::Result<()> {
        if let Some(described) = self.describe(record, digest, spare)? {
            described.sync_all().inspect_err(|_| self.discard_described())?;
        }
        self.name(record)?;
        sync_dir(self.dir())?;
        self.finished.settle(record);
        Ok(())
    }

    /// The directory of the final names: to be synced when they are given.
    pub(crate) fn dir(&self) -> &Path {
        &self.names.dir
    }

    /// Completes the peaks, and writes the record of the finished WAV under a temporary name. Returns the
    /// record's file; `None` if an earlier try has given the record its final name. May be called again.
    ///
    /// `digest` is that of the file's samples. A digest of the whole file is made if `spare` time
    /// allows.
    ///
    /// # Errors
    /// The system's error; the record written before is still there.
    pub(crate) fn describe(
        &self,
        record: &mut Record,
        digest: &DataDigest,
        spare: &mut Duration,
    ) -> io::Result<Option<File>> {
        if self.record_published {
            return Ok(None);
        }
        record.id = Some(self.id().clone());
        let bytes = self.file.metadata()?.len();
        if !self.describes(record, bytes) {
            let sha256 = digest::whole(&self.file, bytes, spare)?;
            let (file, data_sha256) = (self.wav_name(), Some(digest.text()));
            record.wav = Some(Wav { file, bytes, sha256, data_sha256, flac: None });
        }
        self.finished.place(&self.names.key, record);
        self.complete_peaks(digest);
        write_temporary(&self.names.json_temporary(), &json_of(record)?).map(Some)
    }

    /// Moves the peaks that `digest` holds to their file. The recording does not depend on it.
    pub(crate) fn spill_peaks(&self, digest: &mut DataDigest) {
        digest.spill_peaks(&self.names.peaks());
    }

    fn complete_peaks(&self, digest: &DataDigest) {
        if let Some(meter) = digest.meter()
            && let Err(error) = meter.finish(&self.names.peaks())
        {
            tracing::debug!(%error, "a recording has no peaks");
        }
    }

    /// Removes a described record that cannot be made durable.
    pub(crate) fn discard_described(&self) {
        let _ = fs::remove_file(self.names.json_temporary());
    }

    /// Gives the finished WAV and its record their final names, and leaves it to the caller to sync the
    /// directory and to settle the recording. May be called again after an error, behind another
    /// [`describe`](Self::describe).
    ///
    /// The order decides the state after a crash: the WAV's bytes, then the record, then the WAV's name.
    /// So both files must be durable: the record is one that [`describe`](Self::describe) wrote.
    ///
    /// # Errors
    /// The system's error; no existing file is replaced.
    pub(crate) fn name(&mut self, record: &Record) -> io::Result<()> {
        if !self.record_published {
            fs::rename(self.names.json_temporary(), self.names.json_part())?;
            self.finished.announce(&self.names.key, record)?;
            rename_new(&self.names.json_part(), &self.names.json())?;
            self.record_published = true;
        }
        if !self.wav_published {
            rename_new(&self.names.wav_part(), &self.names.wav())?;
            self.wav_published = true;
        }
        Ok(())
    }

    /// Tells the consumers of finished recordings: the final names are durable.
    pub(crate) fn settle(&self, record: &Record) {
        self.finished.settle(record);
    }
}

/// Whether an open file has this name.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    Identity::of(&file.metadata()?).is_at(path)
}

/// The numbers that tell a file from all others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }

    /// Whether the file has this name.
    fn is_at(self, path: &Path) -> io::Result<bool> {
        Ok(found(fs::symlink_metadata(path))?.is_some_and(|there| Self::of(&there) == self))
    }
}

/// The text of a record's file. Until the recording is over only programs read it: it is in one line.
pub(super) fn json_of(record: &Record) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(record.size());
    match record.state {
        State::Recording => serde_json::to_writer(&mut text, record)?,
        _ => serde_json::to_writer_pretty(&mut text, record)?,
    }
    text.push(b'\n');
    Ok(text)
}

/// Names of one recording's files.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The folder of the recording's day.
    pub dir: PathBuf,
    pub key: Key,
}

impl Names {
    fn with(&self, ending: &str) -> PathBuf {
        let id = self.key.id().as_str();
        let mut path =
            OsString::with_capacity(self.dir.as_os_str().len() + 1 + id.len() + ending.len());
        for part in [self.dir.as_os_str(), "/".as_ref(), id.as_ref(), ending.as_ref()] {
            path.push(part);
        }
        path.into()
    }

    pub(super) fn wav(&self) -> PathBuf {
        self.with(".wav")
    }

    pub(super) fn wav_part(&self) -> PathBuf {
        self.with(".wav.part")
    }

    /// The peaks, also while the recording goes on.
    pub(super) fn peaks(&self) -> PathBuf {
        self.with(".peaks")
    }

    pub(super) fn json(&self) -> PathBuf {
        self.with(".json")
    }

    pub(super) fn json_part(&self) -> PathBuf {
        self.with(".json.part")
    }

    pub(super) fn json_temporary(&self) -> PathBuf {
        self.with(".json.tmp")
    }

    /// Whether a finished recording, or a record on its way, has the name.
    pub(super) fn is_taken(&self) -> io::Result<bool> {
        Ok(self.has_final_file()? || is_there(&self.json_part())?)
    }

    /// Whether a file has one of the final names.
    pub(super) fn has_final_file(&self) -> io::Result<bool> {
        Ok(is_there(&self.wav())? || is_there(&self.json())?)
    }
}
