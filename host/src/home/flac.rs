//! Recordings whose audio is FLAC in the home: made of the WAV on the disk when it is uploaded.
//!
//! `<id>.flac` is in the place of `<id>.wav`, and the record in the home tells its length and its digest, and the
//! digest of the WAV. A FLAC counts when its samples were decoded and compared with those of the WAV. If no FLAC can
//! be made of a WAV, the home gets the WAV, and a record that tells of no FLAC.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use hyper::body::Bytes;
use object_store::path::Path as ObjectPath;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Home;
use super::fault::Fault;
use super::put::{Parts, Upload};
use super::read::PIECE;
use crate::disk::create_dir;
use crate::flac;
use crate::record::{InFlac, Made, Record};
use crate::tasks;

/// The ending of the objects.
pub(super) const ENDING: &str = ".flac";

/// The audio of a recording in the home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Audio {
    /// The ending of its object.
    pub ending: &'static str,
    /// Its length.
    pub bytes: u64,
}

impl Audio {
    /// The audio that a record of the home tells of; `None` if there is none.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let wav = record.wav.as_ref()?;
        Some(match wav.made() {
            Some((_, made)) => Self { ending: ENDING, bytes: made.bytes },
            None => Self { ending: ".wav", bytes: wav.bytes },
        })
    }
}

impl Home {
    /// The audio of the recording at a URL, by its record in the home; `None` if that is not there, or tells of none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub(crate) async fn audio_of(&self, url: &str) -> Result<Option<Audio>, Fault> {
        let Some(path) = self.address().path_of(url, ".json") else { return Ok(None) };
        match self.get(&path).await {
            Ok(json) => {
                let record: Option<Record> = serde_json::from_slice(&json).ok();
                Ok(record.as_ref().and_then(Audio::of))
            }
            Err(Fault::Missing(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Puts the FLAC of a WAV, made in the folder `dir`, and verifies it. Returns its facts; `None` if no FLAC can be
    /// made of the WAV.
    ///
    /// # Errors
    /// As of [`put_file`](Self::put_file). [`Fault::Taken`] if the object that is there is no FLAC of the WAV.
    pub(super) async fn put_flac(
        &self,
        path: &ObjectPath,
        wav: &Upload,
        dir: PathBuf,
        notes: &dyn Parts,
    ) -> Result<Option<Made>, Fault> {
        let Some((file, made)) = encode(Arc::clone(&wav.file), dir.clone()).await? else {
            return Ok(None);
        };
        if wav.sha256.as_ref().is_some_and(|recorded| *recorded != made.wav_sha256) {
            return Err(Fault::damaged());
        }
        let flac = Upload { file, bytes: made.bytes, sha256: Some(made.sha256.clone()) };
        match self.put_file(path, &flac, notes).await {
            Ok(()) => Ok(Some(made)),
            // Another version of the encoder may have made it before a kill.
            Err(taken @ Fault::Taken(_)) => match self.decodes_to(path, wav, dir).await? {
                Some((bytes, sha256)) => Ok(Some(Made { bytes, sha256, ..made })),
                None => Err(taken),
            },
            Err(fault) => Err(fault),
        }
    }

    /// Length and SHA-256 of an object, if it is a FLAC with the samples of a WAV.
    async fn decodes_to(
        &self,
        path: &ObjectPath,
        wav: &Upload,
        dir: PathBuf,
    ) -> Result<Option<(u64, String)>, Fault> {
        let bytes = match self.head(path).await? {
            // No encoder makes it longer than that.
            Some(object) if object.size <= 4 * wav.bytes + (1 << 20) => object.size,
            _ => return Ok(None),
        };
        let (mut at, mut sha256) = (0, Sha256::new());
        let mut copy = on_disk(move || temporary(&dir)).await?;
        while at < bytes {
            let piece = self.read(path, at..(at + PIECE).min(bytes)).await?;
            at += piece.len() as u64;
            sha256.update(&piece);
            copy = on_disk(move || copy.write_all(&piece).map(|()| copy)).await?;
        }
        let wav = Arc::clone(&wav.file);
        let is_equal = on_disk(move || Ok(flac::compare(&wav, &mut copy).is_ok())).await?;
        Ok(is_equal.then(|| (bytes, HEXLOWER.encode(&sha256.finalize()))))
    }

    /// Whether a FLAC is there as its record tells, and is one of this WAV.
    ///
    /// # Errors
    /// [`Fault::Taken`] if the object or the WAV differs; see [`Fault`] for the rest.
    pub(super) async fn has_flac(
        &self,
        path: &ObjectPath,
        made: &Made,
        wav: &Upload,
    ) -> Result<bool, Fault> {
        let Some(found) = self.head(path).await? else { return Ok(false) };
        if found.size != made.bytes {
            return Err(super::put::other(path, &format!("it has {} bytes", found.size)));
        }
        if self.sha256_of(wav).await? != made.wav_sha256 {
            return Err(super::put::other(path, "it was made of another WAV"));
        }
        Ok(true)
    }
}

/// A record for the home: that of the disk, with the facts of the FLAC, or without one.
pub(super) fn with_flac(json: &Bytes, flac: Option<InFlac>) -> Result<Bytes, Fault> {
    let broken =
        |error: serde_json::Error| Fault::Local(format!("its record cannot be read: {error}"));
    let mut record: Record = serde_json::from_slice(json).map_err(broken)?;
    if let Some(wav) = &mut record.wav {
        wav.flac = flac.map(Box::new);
    }
    let mut text = serde_json::to_vec_pretty(&record).map_err(broken)?;
    text.push(b'\n');
    Ok(text.into())
}

/// Whether two records are of one recording, in whatever form its audio is in the home.
pub(super) fn are_equal(a: &Bytes, b: &Bytes) -> bool {
    let without_form = |json: &Bytes| {
        let mut record: Value = serde_json::from_slice(json).ok()?;
        record.get_mut("wav").and_then(Value::as_object_mut).map(|wav| wav.remove("flac"));
        Some(record)
    };
    a == b || without_form(a).is_some_and(|record| Some(record) == without_form(b))
}

/// Makes a FLAC in a file without a name, verified by decoding; `None` if the WAV gives none.
async fn encode(wav: Arc<File>, dir: PathBuf) -> Result<Option<(Arc<File>, Made)>, Fault> {
    on_disk(move || {
        let mut out = temporary(&dir)?;
        let made = match flac::encode(&wav, &mut out) {
            Ok(made) => made,
            Err(flac::Error::Io(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "a recording does not become FLAC: the home gets its WAV");
                return Ok(None);
            }
        };
        let sha256 = flac::digest(&out)?;
        let flac::Flac { bytes, wav_sha256, .. } = made;
        Ok(Some((Arc::new(out), Made { bytes, sha256, wav_sha256 })))
    })
    .await
}

/// A file that is gone when it is closed, on the disk of the recordings: it may be as long as one.
fn temporary(dir: &Path) -> io::Result<File> {
    create_dir(dir)?;
    tempfile::tempfile_in(dir)
}

/// Runs work on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    match tasks::blocking(work).await {
        Ok(done) => {
            done.map_err(|error| Fault::Local(format!("no FLAC is made on the disk: {error}")))
        }
        Err(_) => {
            Err(Fault::Local("the making of its FLAC ended with a bug, see the log".to_owned()))
        }
    }
}
