//! Audio and waveforms of recordings that are in the home alone.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::StatusCode;
use hyper::body::Bytes;
use object_store::path::Path as ObjectPath;
use tokio::runtime::Handle;

use super::{Admin, Problem, stream};
use crate::flac;
use crate::home::{Fault, Home, PEAKS_FROM, PIECE};
use crate::lock::lock;
use crate::record::{Record, Wav};
use crate::store::outline::{self, Drawing, Peaks, Source};
use crate::tasks;

/// Bytes of a file that are read and sent at once.
pub(super) const PIECE_BYTES: u64 = 64 * 1024;

/// Error text for a path that names no recording.
pub(super) const NO_RECORDING: &str = "there is no such recording";

/// Most bytes of samples that are read of the home for a waveform. Of longer files only parts are read, in
/// this number of columns.
const WAVE_BYTES_MAX: u64 = 16 << 20;
const WAVE_COLUMNS: usize = 100;

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let status = match &fault {
            Fault::Away { .. } | Fault::Unwell(_) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Missing(_) => StatusCode::NOT_FOUND,
            Fault::Forbidden(_) | Fault::Taken(_) | Fault::Refused(_) => StatusCode::BAD_GATEWAY,
            Fault::Local(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, format!("the home does not give it: {fault}"))
    }
}

/// The waveform of a recording in the home: from its peaks, or from the samples.
pub(super) async fn peaks(
    admin: &Admin,
    home: &Home,
    url: &str,
    record: Record,
    wav: &Wav,
    mut drawing: Drawing,
) -> Result<Peaks, Problem> {
    let wav_bytes = wav.bytes;
    let path = |ending| home.address().path_of(url, ending);
    if wav_bytes > PEAKS_FROM
        && let Some(path) = path(".peaks")
        && let Ok(content) = home.get(&path).await
        && let Some(peaks) = outline::outline_of_peaks(content.to_vec(), &record, &drawing)
    {
        return Ok(peaks);
    }
    let ending = if wav.made().is_some() { ".flac" } else { ".wav" };
    let Some(path) = path(ending) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, NO_RECORDING));
    };
    if let Some((_, made)) = wav.made() {
        return peaks_of_flac(admin, home, &path, made.bytes, record, wav_bytes, drawing).await;
    }
    let part_bytes = outline::bytes_of_part(&record, &drawing).map_err(Problem::internal)?;
    let is_long = part_bytes > WAVE_BYTES_MAX;
    if is_long {
        drawing.columns = drawing.columns.min(WAVE_COLUMNS);
    }
    let piece = if is_long { WAVE_BYTES_MAX / WAVE_COLUMNS as u64 } else { PIECE };
    let source = InHome {
        home: home.clone(),
        path,
        bytes: wav_bytes,
        piece,
        held: Mutex::default(),
        runtime: Handle::current(),
    };
    let _turn = admin.readers.acquire().await.map_err(Problem::internal)?;
    let drawn = tasks::blocking(move || {
        outline::outline_of_samples(&source, &record, &drawing, WAVE_BYTES_MAX)
    });
    let drawn = drawn.await.map_err(Problem::internal)?;
    drawn.map_err(|error| {
        Problem::new(StatusCode::BAD_GATEWAY, format!("the home does not give the audio: {error}"))
    })
}

/// The waveform of a recording that is FLAC in the home and has no peaks there: it is decoded.
async fn peaks_of_flac(
    admin: &Admin,
    home: &Home,
    path: &ObjectPath,
    bytes: u64,
    record: Record,
    wav_bytes: u64,
    drawing: Drawing,
) -> Result<Peaks, Problem> {
    if wav_bytes.max(bytes) > WAVE_BYTES_MAX {
        let detail = "the recording has no waveform: its peaks are not in the home, and its FLAC is too long to be decoded for it";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let _turn = admin.readers.acquire().await.map_err(Problem::internal)?;
    let flac = home.get(path).await?;
    let drawn = tasks::blocking(move || {
        let mut wav = Decoded { wav: Vec::with_capacity(wav_bytes as usize), bytes_max: wav_bytes };
        flac::restore(&flac[..], &mut wav).map_err(io::Error::other)?;
        outline::outline_of_samples(&wav, &record, &drawing, WAVE_BYTES_MAX)
    });
    let drawn = drawn.await.map_err(Problem::internal)?;
    drawn.map_err(|error| {
        let detail = format!("the FLAC in the home cannot be decoded: {error}");
        Problem::new(StatusCode::BAD_GATEWAY, detail)
    })
}

/// A WAV in memory, of a bounded length.
struct Decoded {
    wav: Vec<u8>,
    bytes_max: u64,
}

impl io::Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.wav.len() + bytes.len()) as u64 > self.bytes_max {
            return Err(io::Error::other("it is longer than its record says"));
        }
        self.wav.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Decoded {
    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let from = at as usize;
        let bytes = self.wav.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A WAV in the home, for a thread that may wait.
struct InHome {
    home: Home,
    path: ObjectPath,
    bytes: u64,
    /// Bytes that are asked for at once.
    piece: u64,
    /// The last piece, and its place.
    held: Mutex<(u64, Bytes)>,
    runtime: Handle,
}

impl Source for InHome {
    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut held = lock(&self.held);
        let wanted = buffer.len() as u64;
        if at < held.0 || at + wanted > held.0 + held.1.len() as u64 {
            let end = (at + wanted.max(self.piece)).min(self.bytes).max(at + wanted);
            let read = self.runtime.block_on(self.home.read(&self.path, at..end));
            *held = (at, read.map_err(io::Error::other)?);
        }
        let from = (at - held.0) as usize;
        let bytes = held.1.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A part of an object in the home. The first piece is there before the answer begins.
pub(super) async fn body(home: Home, path: ObjectPath, range: Range<u64>) -> Result<Body, Problem> {
    if range.is_empty() {
        return Ok(Body::empty());
    }
    let end_of = move |at: u64| (at + PIECE).min(range.end);
    let (mut at, end) = (range.start, range.end);
    let mut piece = home.read(&path, at..end_of(at)).await?;
    Ok(stream::body(async move |feed| {
        loop {
            at += piece.len() as u64;
            while !piece.is_empty() {
                let slice = piece.split_to(piece.len().min(PIECE_BYTES as usize));
                feed.send(slice).await?;
            }
            if at >= end {
                return Ok(());
            }
            match home.read(&path, at..end_of(at)).await {
                Ok(next) => piece = next,
                Err(error) => {
                    // As of a file.
                    tracing::warn!(%error, %path, "the home stopped giving the audio of a recording");
                    return Ok(());
                }
            }
        }
    }))
}
