//! The WAV that is being written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use callreel_core::wav::{self, Encoding, Length, Spec};

use super::{Error, READ_BYTES};
use crate::log::ReaderGone;

/// Bytes gathered for one write: the samples decoded from one read go out uncopied.
const WRITE_BYTES: usize = 2 * READ_BYTES;

/// A WAV being written to a file or a pipe.
///
/// A new file is removed if this is dropped before [`finish`](Self::finish).
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    pub(super) spec: Spec,
    data_bytes: u64,
    /// The length in the header.
    length: Length,
    pub(super) is_new: bool,
}

impl Output {
    /// Begins a WAV. Its header is right from the start if `expected_bytes` are known.
    pub(super) fn create(
        path: PathBuf,
        is_derived: bool,
        spec: Spec,
        expected_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let length = match expected_bytes {
            Some(bytes) if bytes > u64::from(wav::DATA_BYTES_MAX) => {
                return Err(too_long(path, spec));
            }
            Some(bytes) => Length::Bytes(bytes as u32),
            None => Length::Unknown,
        };
        let (file, is_new) = create_or_open(&path, is_derived)?;
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut output = Self { path, file, spec, data_bytes: 0, length, is_new };
        let header = wav::header(spec, length);
        output.file.write_all(&header).map_err(|cause| output.failed(cause))?;
        Ok(output)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.data_bytes += bytes.len() as u64;
        if self.data_bytes > u64::from(wav::DATA_BYTES_MAX) {
            return Err(too_long(self.path.clone(), self.spec));
        }
        self.file.write_all(bytes).map_err(|cause| self.failed(cause))
    }

    /// Ends the data as the format demands, and corrects the header of a new file.
    ///
    /// A redirected standard output keeps the sizes of a stream: it may be open for appending.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.complete().map_err(|cause| self.failed(cause))?;
        self.is_new = false;
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        let data_bytes = self.data_bytes as u32;
        // Readers of a stream of unknown length read everything behind the header as audio.
        if self.is_new || self.length != Length::Unknown {
            self.file.write_all(wav::ending(data_bytes))?;
        }
        let length = Length::Bytes(data_bytes);
        if self.length != length && self.is_new {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&wav::header(self.spec, length))?;
        }
        self.file.flush()
    }

    fn failed(&self, cause: io::Error) -> Error {
        if self.path == Path::new("-") && cause.kind() == ErrorKind::BrokenPipe {
            return ReaderGone.into();
        }
        Error::Write { path: self.path.clone(), cause }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new {
            // A file left over is a nuisance, not a loss: the first error is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens standard output, a pipe or a device, or creates a file. Returns the file and whether it is new.
/// A name that is derived from the user's (`is_derived`) is accepted for a new file only.
fn create_or_open(path: &Path, is_derived: bool) -> Result<(File, bool), Error> {
    let failed = |cause| Error::Write { path: path.to_owned(), cause };
    if path == Path::new("-") {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok((File::from(stdout), false));
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let exists = || Error::Exists(path.to_owned());
            if is_derived || fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
                return Err(exists());
            }
            // The user named it: a device, a pipe, or a link to one.
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            // No other program has put a file there meanwhile.
            if file.metadata().map_err(failed)?.is_file() {
                Err(exists())
            } else {
                Ok((file, false))
            }
        }
        Err(cause) => Err(failed(cause)),
    }
}

fn too_long(path: PathBuf, spec: Spec) -> Error {
    let advice = match spec.encoding {
        Encoding::Pcm16 => "use --format mulaw, or decode in parts",
        Encoding::Alaw | Encoding::Mulaw => "decode in parts",
    };
    Error::TooLong { path, advice }
}
