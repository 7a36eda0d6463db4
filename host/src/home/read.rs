//! Recordings read back from a home, in pieces.

use hyper::body::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use super::Home;
use super::fault::Fault;
use crate::record::Record;

/// Bytes that are asked for at once: a reader that takes its time holds no answer of the store open.
pub const PIECE: u64 = 512 << 10;

impl Home {
    /// Reads a part of an object, of at least one byte.
    ///
    /// # Errors
    /// See [`Fault`]; [`Fault::Refused`] if the object is shorter.
    pub async fn read(&self, path: &Path, range: std::ops::Range<u64>) -> Result<Bytes, Fault> {
        let wanted = range.end - range.start;
        let read = self.0.store.get_range(path, range).await;
        let piece = read.map_err(|error| self.fault(&error))?;
        if piece.len() as u64 != wanted {
            return Err(Fault::Refused(format!("{path} is shorter than its record says")));
        }
        Ok(piece)
    }
}

/// The digest of audio that is read back, compared with its record.
pub struct Digest {
    sha256: Sha256,
    /// The bytes that the recorded digest is of.
    part: std::ops::Range<u64>,
    wanted: Option<String>,
    at: u64,
}

impl Digest {
    /// Compares with the digest of the whole object, of a FLAC or of a WAV, or with that of the samples where the
    /// record has no other of a WAV.
    #[must_use]
    pub fn of_object(record: &Record) -> Self {
        let wav = record.wav.as_ref();
        if let Some((_, made)) = wav.and_then(|wav| wav.made()) {
            return Self::of_whole(&made.sha256);
        }
        let whole = wav.and_then(|wav| wav.sha256.clone());
        let bytes = wav.map_or(0, |wav| wav.bytes);
        let (part, wanted) = match (whole, record.format.spec()) {
            (Some(whole), _) => (0..bytes, Some(whole)),
            (None, Ok(spec)) => {
                let from = u64::from(spec.header_bytes());
                let to = from + record.samples * u64::from(spec.sample_frame_bytes());
                (from..to, wav.and_then(|wav| wav.data_sha256.clone()))
            }
            (None, Err(_)) => (0..bytes, None),
        };
        Self { sha256: Sha256::new(), part, wanted, at: 0 }
    }

    /// Compares with the SHA-256 of all bytes, in hexadecimal digits.
    #[must_use]
    pub fn of_whole(sha256: &str) -> Self {
        Self { sha256: Sha256::new(), part: 0..u64::MAX, wanted: Some(sha256.to_owned()), at: 0 }
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, piece: &[u8]) {
        let end = self.at + piece.len() as u64;
        let place = |at: u64| (at.clamp(self.at, end) - self.at) as usize;
        self.sha256.update(&piece[place(self.part.start)..place(self.part.end)]);
        self.at = end;
    }

    /// Whether the file is the recorded one; `None` if its record has no digest.
    #[must_use]
    pub fn finish(self) -> Option<bool> {
        let found = data_encoding::HEXLOWER.encode(&self.sha256.finalize());
        self.wanted.map(|wanted| wanted == found)
    }
}
