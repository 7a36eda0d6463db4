//! A file as core's WAV writer wants it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use callreel_core::wav;

/// A file that is written where the position says, in one system call each time.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    position: u64,
}

impl PartFile {
    /// Writes from the start of `file` on.
    pub const fn new(file: File) -> Self {
        Self { file, position: 0 }
    }
}

impl embedded_io::ErrorType for PartFile {
    type Error = io::Error;
}

impl embedded_io::Write for PartFile {
    /// Takes all of `bytes` or, after an error, none as far as the position is concerned.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.position)?;
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

/// A writer's error as an error of the system.
pub fn to_io(error: wav::Error<io::Error>) -> io::Error {
    match error {
        wav::Error::Sink(error) => error,
        error => io::Error::other(error.to_string()),
    }
}
