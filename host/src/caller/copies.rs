//! Copies of the audio that is sent, a file a track.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use callreel_core::format::Codec;

use super::{Error, Track};
use crate::disk::create_new;

const BUFFER_BYTES: usize = 16 << 10;

/// Most recordings of one stream id that are kept beside each other.
const RECORDINGS_MAX: u32 = 100_000;

/// The files of one recording; none if no copies are wanted.
#[derive(Default)]
pub(super) struct Copies {
    files: Vec<(Track, PathBuf, BufWriter<File>)>,
}

impl Copies {
    /// Creates `<streamSid>[-<n>][.outbound].<format>` for each track; `n` counts from 2 if a stream of
    /// that id has been kept before. Nothing is overwritten.
    pub(super) fn create(
        directory: &Path,
        stream_sid: &str,
        tracks: &[Track],
        codec: Codec,
    ) -> Result<Self, Error> {
        // As ffmpeg names raw formats, and files of mu-law are named here.
        let format = match codec {
            Codec::Alaw => "alaw",
            Codec::G722 => "g722",
            Codec::L16Be => "s16be",
            Codec::L16Le => "s16le",
            Codec::Mulaw => "ulaw",
        };
        let path = |number: u32, track: Track| {
            let number = if number > 1 { format!("-{number}") } else { String::new() };
            let side = if track == Track::Outbound { ".outbound" } else { "" };
            directory.join(format!("{stream_sid}{number}{side}.{format}"))
        };
        let failed = |path: &Path, cause| Error::Save { path: path.to_owned(), cause };
        fs::create_dir_all(directory).map_err(|cause| failed(directory, cause))?;
        for number in 1..=RECORDINGS_MAX {
            let files = tracks.iter().map(|&track| {
                let path = path(number, track);
                let file = create_new(&path).map_err(|cause| failed(&path, cause))?;
                Ok((track, path, BufWriter::with_capacity(BUFFER_BYTES, file)))
            });
            match files.collect() {
                Ok(files) => return Ok(Self { files }),
                Err(Error::Save { cause, .. }) if cause.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(failed(directory, ErrorKind::AlreadyExists.into()))
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
