//! A file for core's WAV writer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use callreel_core::wav;

/// A file written at a position that it keeps, in one system call a write. Bytes at its start that are there
/// already are not written again: the end of a file often has the sizes of its last checkpoint.
#[derive(Debug)]
pub struct PartFile {
    file: Arc<File>,
    position: u64,
    /// The bytes of the last write to the start; empty if they are not known.
    start: [u8; wav::HEADER_BYTES_MAX],
    start_bytes: usize,
}

impl PartFile {
    /// Writes from the start of `file` on.
    pub const fn new(file: Arc<File>) -> Self {
        Self { file, position: 0, start: [0; wav::HEADER_BYTES_MAX], start_bytes: 0 }
    }
}

impl embedded_io::ErrorType for PartFile {
    type Error = io::Error;
}

impl embedded_io::Write for PartFile {
    /// Takes all of `bytes`. After an error the position is as it was, so none of them count.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.position == 0 && self.start[..self.start_bytes] == *bytes) {
            if self.position < self.start_bytes as u64 {
                self.start_bytes = 0;
            }
            self.file.write_all_at(bytes, self.position)?;
            if let (0, Some(start)) = (self.position, self.start.get_mut(..bytes.len())) {
                start.copy_from_slice(bytes);
                self.start_bytes = bytes.len();
            }
        }
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl embedded_io::Seek for PartFile {
    fn seek(&mut self, to: embedded_io::SeekFrom) -> io::Result<u64> {
        self.position = match to {
            embedded_io::SeekFrom::Start(position) => position,
            embedded_io::SeekFrom::Current(step) => self.position.saturating_add_signed(step),
            embedded_io::SeekFrom::End(step) => {
                self.file.metadata()?.len().saturating_add_signed(step)
            }
        };
        Ok(self.position)
    }
}

/// Turns a writer's error into a system error.
pub fn to_io(error: wav::Error<io::Error>) -> io::Error {
    match error {
        wav::Error::Sink(error) => error,
        error => io::Error::other(error.to_string()),
    }
}
