//! The peaks of a recording, kept while it is written: `<id>.peaks` beside the WAV. Whoever draws a
//! recording of a day reads a megabyte or two instead of gigabytes. A recording of a MiB of samples and less has
//! none: it is drawn from its samples.
//!
//! The file is a header of 16 bytes, then one byte for each 100 ms and channel, the channels in turns; the
//! last one is of whatever is left. All numbers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 3 | `crpk` |
//! | 4 | version of the format: 1 |
//! | 5 | channels, 1 or 2, as in the WAV |
//! | 6, 7 | length of an interval: 100 ms |
//! | 8 to 11 | samples of each channel in a second |
//! | 12 to 15 | samples of each channel in all; 0 while the recording goes on |
//!
//! A byte `v` stands for the largest magnitude in its interval, of 0 to 32 768: `v` is 255 √(m / 32 768) to the
//! nearest whole number, and m is 32 768 (v / 255)². That leaves quiet speech visible: 3 % of full scale are
//! 44 of 255. Magnitudes up to 8, the smallest of A-law, are silence, and 0.
//!
//! The recording does not depend on the file: it is never waited for, never synced by itself, and whatever it
//! lacks is made again from the WAV. So a reader believes a file of exactly the length and the header that its
//! record asks for, and no other.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use callreel_core::format::Codec;
use callreel_core::wav::{Encoding, Spec};

use crate::disk::{open, open_to_read, write_new};
use crate::home::PEAKS_FROM;

/// Length of an interval, in ms.
pub const INTERVAL_MS: u16 = 100;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"crpk";
const VERSION: u8 = 1;

/// The largest magnitude that is silence.
const QUIET_MAX: u16 = 8;

/// Bytes of peaks that a recording in progress holds in memory before it writes them: more than those of the
/// longest recording without a file of them, mu-law at 8 kHz.
const HELD_BYTES: usize = 2048;

const _: () = assert!(PEAKS_FROM / 800 < HELD_BYTES as u64);

/// Most bytes read at a time of a WAV whose peaks are made again: whole sample frames.
const PIECE_BYTES: u64 = 256 * 1024;

/// The byte for a magnitude.
fn level(magnitude: u16) -> u8 {
    if magnitude <= QUIET_MAX {
        return 0;
    }
    (255.0 * (f32::from(magnitude) / 32_768.0).sqrt()).round() as u8
}

/// The magnitude that a byte stands for, 0 to 32 768.
#[must_use]
pub fn magnitude(level: u8) -> u16 {
    (f32::from(level).powi(2) / 65_025.0 * 32_768.0).round() as u16
}

/// The intervals of a recording of `frames` samples of each channel.
pub(super) const fn intervals(spec: Spec, frames: u64) -> u64 {
    frames.div_ceil(interval_frames(spec))
}

/// The samples of each channel in an interval. Sample rates are whole numbers of kHz.
pub(super) const fn interval_frames(spec: Spec) -> u64 {
    let frames = spec.sample_rate_hz as u64 * INTERVAL_MS as u64 / 1000;
    if frames == 0 { 1 } else { frames }
}

/// Whether a recording of `frames` samples of each channel has peaks.
const fn are_wanted(spec: Spec, frames: u64) -> bool {
    frames * spec.sample_frame_bytes() as u64 > PEAKS_FROM
}

fn header(spec: Spec, frames: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = spec.channels as u8;
    header[6..8].copy_from_slice(&INTERVAL_MS.to_le_bytes());
    header[8..12].copy_from_slice(&spec.sample_rate_hz.to_le_bytes());
    header[12..].copy_from_slice(&(frames as u32).to_le_bytes());
    header
}

/// Takes the peaks of samples as they are written.
#[derive(Clone, Debug)]
pub struct Meter {
    spec: Spec,
    /// Samples of each channel so far.
    frames: u64,
    /// Samples of each channel that the interval at hand still lacks.
    lacking: u64,
    /// The largest magnitude of each channel in the interval at hand.
    loudest: [u16; 2],
    /// Whole intervals that are not in the file.
    held: Vec<u8>,
    /// Bytes of the intervals in the file.
    written: u64,
    /// The file did not take some of it, so there will be none.
    is_lost: bool,
}

impl Meter {
    /// The meter of a file of this format.
    pub(super) const fn new(spec: Spec) -> Self {
        Self {
            spec,
            frames: 0,
            lacking: interval_frames(spec),
            loudest: [0; 2],
            held: Vec::new(),
            written: 0,
            is_lost: false,
        }
    }

    pub(super) const fn spec(&self) -> Spec {
        self.spec
    }

    /// The codec of the samples in the file.
    pub(super) const fn codec(&self) -> Codec {
        match self.spec.encoding {
            Encoding::Alaw => Codec::Alaw,
            Encoding::Mulaw => Codec::Mulaw,
            Encoding::Pcm16 => Codec::L16Le,
        }
    }

    /// Takes in samples that were appended to the file: whole sample frames, in the codec of the file, or in
    /// that of the wire, in which there may be fewer bytes to look at.
    pub(super) fn note(&mut self, codec: Codec, mut bytes: &[u8]) {
        let frame_bytes = codec.width() * usize::from(self.spec.channels);
        let is_stereo = self.spec.channels == 2;
        while bytes.len() >= frame_bytes && !self.is_lost {
            let count = (bytes.len() / frame_bytes).min(self.lacking as usize);
            let (part, rest) = bytes.split_at(count * frame_bytes);
            for (most, found) in self.loudest.iter_mut().zip(codec.loudest(part, is_stereo)) {
                *most = found.max(*most);
            }
            self.pass(count as u64);
            bytes = rest;
        }
    }

    /// Takes in silence that was appended to the file: this many samples of all channels together.
    pub(super) fn note_silence(&mut self, samples: u64) {
        let mut frames = samples / u64::from(self.spec.channels.max(1));
        while frames > 0 && !self.is_lost {
            let count = frames.min(self.lacking);
            self.pass(count);
            frames -= count;
        }
    }

    /// Goes on by this many samples of each channel, of the interval at hand at most.
    fn pass(&mut self, frames: u64) {
        self.frames += frames;
        self.lacking -= frames;
        if self.lacking == 0 {
            let levels = self.loudest.map(level);
            self.held.extend(&levels[..usize::from(self.spec.channels.min(2))]);
            (self.loudest, self.lacking) = ([0; 2], interval_frames(self.spec));
        }
    }

    /// Whether enough is held for the file of a recording in progress to take it.
    pub(crate) const fn is_due(&self) -> bool {
        self.held.len() >= HELD_BYTES
    }

    /// Moves the whole intervals to the file. If it does not take them, gives it up.
    pub(crate) fn spill(&mut self, path: &Path) {
        let spilled = match self.written {
            0 => make(path, &[&header(self.spec, 0)[..], &self.held].concat()),
            _ => self.file_so_far(path).and_then(|file| file.write_all_at(&self.held, self.end())),
        };
        match spilled {
            Ok(()) => self.written += self.held.len() as u64,
            Err(error) => {
                tracing::debug!(%error, "a recording gets no peaks while it is made");
                self.is_lost = true;
                if self.written > 0 {
                    let _ = remove(path);
                }
            }
        }
        self.held = Vec::new();
    }

    /// Completes the file of peaks, or makes it. May be called again. A short recording gets none.
    ///
    /// # Errors
    /// The system's error, or `AlreadyExists` if another program's file has the name: what is there is no
    /// whole file of peaks.
    pub(super) fn finish(&self, path: &Path) -> io::Result<()> {
        if self.is_lost || !are_wanted(self.spec, self.frames) {
            return Ok(());
        }
        let mut rest = self.held.clone();
        if self.lacking < interval_frames(self.spec) {
            let levels = self.loudest.map(level);
            rest.extend(&levels[..usize::from(self.spec.channels.min(2))]);
        }
        let header = header(self.spec, self.frames);
        if self.written == 0 {
            return make(path, &[&header[..], &rest].concat());
        }
        let file = self.file_so_far(path)?;
        file.write_all_at(&rest, self.end())?;
        file.set_len(self.end() + rest.len() as u64)?;
        file.write_all_at(&header, 0)
    }

    const fn end(&self) -> u64 {
        HEADER_BYTES as u64 + self.written
    }

    /// Opens the file that holds the intervals so far.
    fn file_so_far(&self, path: &Path) -> io::Result<File> {
        let file = open(File::options().read(true).write(true), path)?;
        if has_magic(&file)? && file.metadata()?.len() >= self.end() {
            return Ok(file);
        }
        Err(io::Error::other("another file has the place of the peaks"))
    }
}

/// Makes a file of peaks, in place of one that callreel left there.
fn make(path: &Path, content: &[u8]) -> io::Result<()> {
    match write_new(path, content) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && remove(path)? => {
            write_new(path, content).map(drop)
        }
        made => made.map(drop),
    }
}

fn has_magic(file: &File) -> io::Result<bool> {
    let mut magic = MAGIC;
    match file.read_exact_at(&mut magic, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| magic == MAGIC),
    }
}

/// Whether the file of this name is one of peaks, or the beginning of one that a power loss left empty.
pub(super) fn is_ours(path: &Path) -> bool {
    open_to_read(path).is_ok_and(|file| {
        has_magic(&file).unwrap_or(false) || file.metadata().is_ok_and(|file| file.len() == 0)
    })
}

/// Removes a file of peaks; another program's stays. Returns whether there was one.
///
/// # Errors
/// The system's error; the file is still there.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    if !is_ours(path) {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

/// The peaks of a recording of `frames` samples of each channel: a byte for each interval and channel.
/// `None` if there is no file of peaks, or it is not the whole one of such a recording.
pub(super) fn read(path: &Path, spec: Spec, frames: u64) -> Option<Vec<u8>> {
    let file = open_to_read(path).ok()?;
    if file.metadata().ok()?.len() != file_bytes(spec, frames) {
        return None;
    }
    let mut content = vec![0; file_bytes(spec, frames) as usize];
    file.read_exact_at(&mut content, 0).ok()?;
    levels(content, spec, frames)
}

/// The peaks of a recording in the content of their file, as of [`read`].
pub(super) fn levels(mut content: Vec<u8>, spec: Spec, frames: u64) -> Option<Vec<u8>> {
    let is_whole = frames > 0
        && content.len() as u64 == file_bytes(spec, frames)
        && content.starts_with(&header(spec, frames));
    is_whole.then(|| content.split_off(HEADER_BYTES))
}

/// The length of the file of a recording's peaks.
pub(super) fn file_bytes(spec: Spec, frames: u64) -> u64 {
    HEADER_BYTES as u64 + intervals(spec, frames) * u64::from(spec.channels)
}

/// Whether a recording lacks its peaks, and they can be made: it is long enough, and no other program's file
/// has the name.
pub(super) fn are_lacking(path: &Path, spec: Spec, frames: u64) -> bool {
    are_wanted(spec, frames)
        && matches!(spec.channels, 1 | 2)
        && read(path, spec, frames).is_none()
        && (fs::symlink_metadata(path).is_err() || is_ours(path))
}

/// Makes the peaks of a finished recording from its WAV. Reads the whole of it; `between` gets the time that
/// each piece took, and may stop it. Returns whether they were made.
///
/// # Errors
/// The system's error; nothing was made.
pub(super) fn make_of(
    wav: &File,
    spec: Spec,
    frames: u64,
    path: &Path,
    mut between: impl FnMut(Duration) -> ControlFlow<()>,
) -> io::Result<bool> {
    let mut meter = Meter::new(spec);
    let mut left = frames * u64::from(spec.sample_frame_bytes());
    let mut at = u64::from(spec.header_bytes());
    let mut piece = vec![0; PIECE_BYTES.min(left) as usize];
    while left > 0 {
        let began = Instant::now();
        let count = PIECE_BYTES.min(left);
        let piece = &mut piece[..count as usize];
        wav.read_exact_at(piece, at)?;
        meter.note(meter.codec(), piece);
        (at, left) = (at + count, left - count);
        if between(began.elapsed()).is_break() {
            return Ok(false);
        }
    }
    meter.finish(path).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { channels: 2, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };

    #[test]
    fn a_level_stands_for_its_magnitude_and_only_silence_is_zero() {
        assert_eq!([0, 8, 9, 104, 1000, 32_767, 32_768].map(level), [0, 0, 4, 14, 45, 255, 255]);
        assert_eq!([0, 4, 14, 255].map(magnitude), [0, 8, 99, 32_768]);
        for magnitude_before in QUIET_MAX + 1..=32_768 {
            let after = magnitude(level(magnitude_before));
            // Half a step of the scale, in steps of the samples.
            let step = 2.0 * f32::from(level(magnitude_before)) / 65_025.0 * 32_768.0;
            let off = f32::from(magnitude_before.abs_diff(after));
            assert!(off <= step / 2.0 + 2.0, "{magnitude_before} became {after}");
        }
        for byte in 5..=255 {
            assert_eq!(level(magnitude(byte)), byte);
        }
    }

    #[test]
    fn peaks_are_the_same_however_the_samples_come_and_wherever_the_file_takes_them() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.peaks");
        // 120 s and 50 samples: more than is held.
        let frames = 960_050_u64;
        let samples: Vec<u8> = (0..frames * 2)
            .flat_map(|n| ((n * n % 30_011 / (1 + n % 2 * 50)) as i16).to_le_bytes())
            .collect();
        let mut meter = Meter::new(SPEC);
        let mut at = 0;
        for round in 0.. {
            let count = (round * 997 % 40_000 * 4 + 4).min(samples.len() - at);
            meter.note(Codec::L16Le, &samples[at..at + count]);
            if meter.is_due() {
                meter.spill(&path);
                assert_eq!(read(&path, SPEC, meter.frames), None, "it goes on");
            }
            at += count;
            if at == samples.len() {
                break;
            }
        }
        assert!(meter.written >= HELD_BYTES as u64);
        meter.finish(&path).unwrap();
        meter.finish(&path).unwrap();
        let levels = read(&path, SPEC, frames).unwrap();
        assert_eq!(levels.len(), 1201 * 2);
        for (interval, both) in levels.chunks(2).enumerate() {
            let from = interval * 800 * 4;
            let part = &samples[from..samples.len().min(from + 3200)];
            assert_eq!(both, Codec::L16Le.loudest(part, true).map(level));
        }
        assert_eq!(read(&path, SPEC, frames + 1), None);
        assert_eq!(read(&path, Spec { channels: 1, ..SPEC }, frames), None);
    }

    #[test]
    fn a_file_of_another_program_is_neither_replaced_nor_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.peaks");
        fs::write(&path, "somebody's").unwrap();
        let mut meter = Meter::new(SPEC);
        let frames = PEAKS_FROM / 4 + 1;
        meter.note(Codec::L16Be, &vec![1; frames as usize * 4]);
        assert_eq!(meter.finish(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!remove(&path).unwrap() && !are_lacking(&path, SPEC, frames));
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        fs::remove_file(&path).unwrap();
        assert!(are_lacking(&path, SPEC, frames) && !are_lacking(&path, SPEC, frames - 1));
        meter.finish(&path).unwrap();
        assert!(!are_lacking(&path, SPEC, frames) && are_lacking(&path, SPEC, frames + 1));
        assert!(remove(&path).unwrap() && !path.exists());
    }
}
