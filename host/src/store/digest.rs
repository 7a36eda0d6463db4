//! Digests of a recording's file: one of its samples, made while they are written, and one of the whole
//! file if it is short. The [peaks](super::peaks) of the samples are taken along.
//!
//! The header of a file is known last and stands first, so the digest of a whole file takes a second
//! pass over it. The digest of the samples takes none: at its end a long file costs no more than a short
//! one.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use callreel_core::format::Codec;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::peaks::Meter;

/// Longest file that gets a digest of the whole.
pub(crate) const WHOLE_BYTES_MAX: u64 = 16 << 20;

/// Time for reading files for their digest before other recordings wait too long to be finished.
pub(crate) const SPARE_TIME: Duration = Duration::from_secs(1);

/// Most bytes read at a time of a file whose recording was interrupted.
const PIECE_BYTES: u64 = 256 * 1024;

/// Most bytes read at a time of a file that was just written: they stay in the processor's cache until they
/// are digested, and the allocator has that much at hand.
const FRESH_PIECE_BYTES: u64 = 32 * 1024;

/// SHA-256 of a file's samples so far, as they lie in the file: without header, pad byte and chunks.
#[derive(Clone, Debug, Default)]
pub struct DataDigest {
    hash: Sha256,
    bytes: u64,
    /// Takes the peaks of the samples, if they are kept.
    meter: Option<Meter>,
}

impl DataDigest {
    /// The digest of a file without samples; with `meter` it takes their peaks as well.
    pub(super) fn with(meter: Option<Meter>) -> Self {
        Self { meter, ..Self::default() }
    }

    /// Takes in samples that were appended to the file. Their peaks are taken by a call of their own.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Takes the peaks of the same samples, as they came by the wire.
    pub(crate) fn note_peaks(&mut self, codec: Codec, bytes: &[u8]) {
        if let Some(meter) = &mut self.meter {
            meter.note(codec, bytes);
        }
    }

    /// Takes the peaks of silence that the digest has taken in: this many samples of all channels together.
    pub(crate) fn note_silence(&mut self, samples: u64) {
        if let Some(meter) = &mut self.meter {
            meter.note_silence(samples);
        }
    }

    /// Whether so many peaks are in memory that their file should take them.
    pub(crate) fn has_peaks_to_spill(&self) -> bool {
        self.meter.as_ref().is_some_and(Meter::is_due)
    }

    /// Moves the peaks in memory to their file.
    pub(super) fn spill_peaks(&mut self, path: &Path) {
        if let Some(meter) = &mut self.meter {
            meter.spill(path);
        }
    }

    /// The meter of the peaks of all samples that the digest has, if they are kept.
    pub(super) const fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// The digest, in hexadecimal digits.
    pub fn text(&self) -> String {
        HEXLOWER.encode(&self.hash.clone().finalize())
    }

    /// Takes in the samples of the file that the digest does not have yet, up to `data_bytes` bytes
    /// behind the header. If the digest has more than that, it starts again. Calls `between` after each
    /// piece with the piece's length and the time it took; `between` may stop the reading. Returns
    /// whether the reading reached its end.
    ///
    /// # Errors
    /// The file cannot be read; this may be called again.
    pub(super) fn read_on(
        &mut self,
        file: &File,
        header_bytes: u32,
        data_bytes: u64,
        between: impl FnMut(u64, Duration) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        if self.bytes > data_bytes {
            *self = Self::with(self.meter.as_ref().map(|meter| Meter::new(meter.spec())));
        }
        self.read_by(PIECE_BYTES, file, header_bytes, data_bytes, between)
    }

    /// The same, for a digest that has no more than that, in pieces of this length.
    fn read_by(
        &mut self,
        piece_bytes: u64,
        file: &File,
        header_bytes: u32,
        data_bytes: u64,
        mut between: impl FnMut(u64, Duration) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        let mut piece = vec![0; piece_bytes.min(data_bytes - self.bytes) as usize];
        while self.bytes < data_bytes {
            let began = Instant::now();
            let count = piece_bytes.min(data_bytes - self.bytes);
            let piece = &mut piece[..count as usize];
            file.read_exact_at(piece, u64::from(header_bytes) + self.bytes)?;
            self.update(piece);
            if let Some(meter) = &mut self.meter {
                meter.note(meter.codec(), piece);
            }
            if between(count, began.elapsed()).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// SHA-256 of a whole file of `bytes` bytes, in hexadecimal digits. `None` if the file is longer than
/// [`WHOLE_BYTES_MAX`], or if reading it takes longer than `spare`. Takes the time it needs off `spare`.
///
/// # Errors
/// The file cannot be read.
pub(super) fn whole(file: &File, bytes: u64, spare: &mut Duration) -> io::Result<Option<String>> {
    if bytes > WHOLE_BYTES_MAX || spare.is_zero() {
        return Ok(None);
    }
    let mut digest = DataDigest::default();
    let take_time = |_, took: Duration| {
        *spare = spare.saturating_sub(took);
        if spare.is_zero() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let is_whole = digest.read_by(FRESH_PIECE_BYTES, file, 0, bytes, take_time)?;
    Ok(is_whole.then(|| digest.text()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_digest_goes_on_in_the_file_and_begins_again_when_the_file_is_shorter() {
        let data: Vec<u8> = (0..700_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 44]).unwrap();
        file.write_all(&data).unwrap();
        let of = |bytes: &[u8]| HEXLOWER.encode(&Sha256::digest(bytes));
        let mut digest = DataDigest::default();
        assert_eq!(digest.text(), of(&[]));
        digest.update(&data[..1000]);
        let go_on = |_, _| ControlFlow::Continue(());
        assert!(digest.read_on(&file, 44, 700_000, go_on).unwrap());
        assert_eq!(digest.text(), of(&data));
        assert!(digest.read_on(&file, 44, 699_999, go_on).unwrap());
        assert_eq!(digest.text(), of(&data[..699_999]));
        let mut digest = DataDigest::default();
        assert!(!digest.read_on(&file, 44, 700_000, |_, _| ControlFlow::Break(())).unwrap());
        assert!(digest.read_on(&file, 44, 700_000, go_on).unwrap());
        assert_eq!(digest.text(), of(&data));
    }

    #[test]
    fn a_whole_file_has_a_digest_if_it_is_short_and_there_is_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"callreel").unwrap();
        let mut spare = SPARE_TIME;
        let digest = whole(&file, 8, &mut spare).unwrap();
        assert_eq!(digest, Some(HEXLOWER.encode(&Sha256::digest(b"callreel"))));
        assert!(!spare.is_zero() && spare < SPARE_TIME);
        let mut no_time = Duration::ZERO;
        assert_eq!(whole(&file, 8, &mut no_time).unwrap(), None);
        file.set_len(WHOLE_BYTES_MAX + 1).unwrap();
        assert_eq!(whole(&file, WHOLE_BYTES_MAX + 1, &mut spare).unwrap(), None);
    }
}
