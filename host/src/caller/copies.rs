//! Copies of the audio that is sent, a file a track.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::{Error, Track};

const BUFFER_BYTES: usize = 16 << 10;

/// The files of one recording; none where no copies are wanted.
#[derive(Default)]
pub(super) struct Copies {
    files: Vec<(Track, PathBuf, BufWriter<File>)>,
}

impl Copies {
    /// Creates `<streamSid>[-<recording>][.outbound].ulaw` for each track; the number from the
    /// second recording of a stream on.
    pub(super) fn create(
        directory: &Path,
        stream_sid: &str,
        recording: u32,
        tracks: &[Track],
    ) -> Result<Copies, Error> {
        let number = if recording > 1 { format!("-{recording}") } else { String::new() };
        let mut files = Vec::new();
        for &track in tracks {
            let side = if track == Track::Outbound { ".outbound" } else { "" };
            let path = directory.join(format!("{stream_sid}{number}{side}.ulaw"));
            let file = fs::create_dir_all(directory).and_then(|()| File::create(&path));
            let file = file.map_err(|cause| Error::Save { path: path.clone(), cause })?;
            files.push((track, path, BufWriter::with_capacity(BUFFER_BYTES, file)));
        }
        Ok(Copies { files })
    }

    pub(super) fn write(&mut self, track: Track, payload: &[u8]) -> Result<(), Error> {
        match self.files.iter_mut().find(|(of, ..)| *of == track) {
            Some((_, path, file)) => {
                file.write_all(payload).map_err(|cause| Error::Save { path: path.clone(), cause })
            }
            None => Ok(()),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.files.iter_mut().try_for_each(|(_, path, file)| {
            file.flush().map_err(|cause| Error::Save { path: path.clone(), cause })
        })
    }
}
