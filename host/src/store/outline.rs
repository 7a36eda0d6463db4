//! The outline of a finished recording, to be drawn: from its [peaks], or where these are too coarse or missing,
//! from the samples of its WAV.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use callreel_core::g711::{decode_alaw, decode_mulaw};
use callreel_core::wav::{Encoding, Spec};
use serde::Serialize;

use super::mend::read_record;
use super::{Store, peaks};
use crate::disk::open_to_read;
use crate::record::{Id, Key, Record};

/// Most bytes of samples read of a file for its outline. Of longer files only parts are read.
const READ_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of samples that are read although there are peaks: samples show both halves of the wave.
const CHEAP_BYTES_MAX: u64 = 4 << 20;

/// The longest pause between two pieces of a WAV whose peaks are made again.
const REST_MAX: Duration = Duration::from_millis(100);

/// How a recording is to be drawn.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Most columns.
    pub columns: usize,
    /// The part that is drawn, in ms from the first sample. Time behind the end counts for nothing.
    pub part_ms: Range<u64>,
}

impl Drawing {
    /// The whole recording in `columns` columns at most.
    #[must_use]
    pub const fn whole(columns: usize) -> Self {
        Self { columns, part_ms: 0..u64::MAX }
    }

    /// The part in samples of each channel, of a recording of `samples`.
    fn samples(&self, spec: Spec, samples: u64) -> Range<u64> {
        let place = |ms: u64| {
            let place = u128::from(ms) * u128::from(spec.sample_rate_hz) / 1000;
            place.min(u128::from(samples)) as u64
        };
        place(self.part_ms.start)..place(self.part_ms.end)
    }

    /// The part in intervals of the recording's peaks: those that it touches.
    fn intervals(&self, spec: Spec, samples: u64) -> Range<usize> {
        let Range { start, end } = self.samples(spec, samples);
        let frames = peaks::interval_frames(spec);
        (start / frames) as usize..end.div_ceil(frames) as usize
    }
}

/// Outline of a recording, to be drawn.
#[derive(Debug, Serialize)]
pub struct Peaks {
    /// Columns of each channel.
    pub columns: usize,
    /// The file was too long to be read whole, and has no peaks beside it: columns lack what is between the
    /// parts that were read. It is so from 64 MiB of samples on the disk, and from 16 MiB in a home, which are
    /// drawn in 100 columns at most.
    pub is_sampled: bool,
    /// The columns come from the recording's [peaks], which are exact to this many ms: `low` is
    /// then the negative of `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u16>,
    /// One for each track, in the order of the channels.
    pub channels: Vec<ChannelPeaks>,
}

/// Lowest and highest sample of a channel in each column, divided by 256.
#[derive(Debug, Default, Serialize)]
pub struct ChannelPeaks {
    /// -128 to 0.
    pub low: Vec<i8>,
    /// 0 to 127.
    pub high: Vec<i8>,
}

impl Store {
    /// Reads the outline of a finished recording, or of a part of it: from its peaks if it has some, the part
    /// is longer than 4 MiB, and no column is shorter than an interval of them; else from the samples.
    ///
    /// # Errors
    /// `Unsupported` if the record names an encoding that this build does not know; else the WAV cannot
    /// be read.
    pub fn peaks(
        &self,
        key: &Key,
        record: &Record,
        drawing: &Drawing,
    ) -> io::Result<Option<Peaks>> {
        let Some(file) = self.open_wav(key)? else {
            return Ok(None);
        };
        let spec = spec_of(record)?;
        let samples = drawing.samples(spec, record.samples);
        let outline = Outline { source: &file, spec, samples, bytes_max: READ_BYTES_MAX };
        let intervals = drawing.intervals(spec, record.samples);
        if outline.prefers_peaks(intervals.len(), drawing.columns)
            && let Some(levels) =
                peaks::read(&self.names(key.clone()).peaks(), spec, record.samples)
        {
            return Ok(Some(drawn(
                &levels,
                usize::from(spec.channels),
                intervals,
                drawing.columns,
            )));
        }
        outline.read(drawing.columns).map(Some)
    }

    /// Makes the peaks of a finished recording that has none, by a read of its whole WAV that leaves the disk
    /// to the calls half of the time. Does nothing if peaks are not to be kept, another read of this kind is
    /// under way, or the recorder stops meanwhile. Returns whether they were made.
    ///
    /// # Errors
    /// As of [`peaks`](Self::peaks).
    pub fn make_peaks(&self, key: &Key, record: &Record) -> io::Result<bool> {
        if !self.config.peaks || self.is_making_peaks.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        let made = self.make_peaks_at_leisure(key, record);
        self.is_making_peaks.store(false, Ordering::Release);
        made
    }

    fn make_peaks_at_leisure(&self, key: &Key, record: &Record) -> io::Result<bool> {
        let (names, spec) = (self.names(key.clone()), spec_of(record)?);
        let Some(file) = self.open_wav(key)? else {
            return Ok(false);
        };
        if !peaks::are_lacking(&names.peaks(), spec, record.samples) {
            return Ok(false);
        }
        let rest = |took: Duration| {
            if self.is_stopping() {
                return ControlFlow::Break(());
            }
            thread::sleep(took.min(REST_MAX));
            ControlFlow::Continue(())
        };
        let is_made = peaks::make_of(&file, spec, record.samples, &names.peaks(), rest)?;
        // The recording may have been removed meanwhile.
        if is_made && !names.json().try_exists()? {
            peaks::remove(&names.peaks())?;
        }
        Ok(is_made)
    }
}

/// A finished recording that lacks its peaks.
pub(crate) struct Lacking {
    wav: File,
    spec: Spec,
    samples: u64,
    /// The name of its peaks.
    pub path: PathBuf,
}

impl Lacking {
    /// The recording of this WAV if it lacks its peaks; `None` if it has them, if its record is not beside it,
    /// or if another program's file has their name.
    ///
    /// # Errors
    /// The WAV cannot be opened.
    pub(crate) fn of(wav: &Path) -> io::Result<Option<Self>> {
        let id = wav.file_stem().and_then(|stem| Id::try_from(stem.to_str()?.to_owned()).ok());
        let record = read_record(&wav.with_extension("json"));
        let Some(record) = record.filter(|record| record.id.is_some() && record.id == id) else {
            return Ok(None);
        };
        let (path, samples) = (wav.with_extension("peaks"), record.samples);
        match spec_of(&record) {
            Ok(spec) if peaks::are_lacking(&path, spec, samples) => {
                let wav = open_to_read(wav)?;
                Ok(Some(Self { wav, spec, samples, path }))
            }
            _ => Ok(None),
        }
    }

    /// Makes the peaks, by a read of the whole WAV.
    ///
    /// # Errors
    /// The system's error; nothing was made.
    pub(crate) fn make(&self) -> io::Result<()> {
        let Self { wav, spec, samples, path } = self;
        peaks::make_of(wav, *spec, *samples, path, |_| ControlFlow::Continue(())).map(drop)
    }
}

/// A WAV whose bytes can be read anywhere.
pub trait Source {
    /// Fills `buffer` with the bytes from `at` on.
    ///
    /// # Errors
    /// They cannot be read, or there are fewer.
    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

/// The outline of a recording by the content of the file of its [peaks]; `None` if that is not the one of such
/// a recording, or is too coarse.
#[must_use]
pub fn outline_of_peaks(content: Vec<u8>, record: &Record, drawing: &Drawing) -> Option<Peaks> {
    let spec = spec_of(record).ok()?;
    let intervals = drawing.intervals(spec, record.samples);
    if intervals.len() < drawing.columns {
        return None;
    }
    let levels = peaks::levels(content, spec, record.samples)?;
    Some(drawn(&levels, usize::from(spec.channels), intervals, drawing.columns))
}

/// The bytes of samples that lie in the part to be drawn.
///
/// # Errors
/// `Unsupported` if the record names an encoding that this build does not know.
pub fn bytes_of_part(record: &Record, drawing: &Drawing) -> io::Result<u64> {
    let spec = spec_of(record)?;
    let Range { start, end } = drawing.samples(spec, record.samples);
    Ok(end.saturating_sub(start) * u64::from(spec.sample_frame_bytes()))
}

/// The outline of a recording by its samples. Reads `bytes_max` bytes at most, the same part of each column, each
/// with as few reads as it takes.
///
/// # Errors
/// As of [`Store::peaks`].
pub fn outline_of_samples(
    source: &dyn Source,
    record: &Record,
    drawing: &Drawing,
    bytes_max: u64,
) -> io::Result<Peaks> {
    let spec = spec_of(record)?;
    let samples = drawing.samples(spec, record.samples);
    Outline { source, spec, samples, bytes_max }.read(drawing.columns)
}

fn spec_of(record: &Record) -> io::Result<Spec> {
    record.format.spec().map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))
}

/// The outline that some intervals of peaks give, the channels in turns, in `columns` columns at most.
fn drawn(levels: &[u8], channels: usize, intervals: Range<usize>, columns: usize) -> Peaks {
    let levels = levels.get(intervals.start * channels..intervals.end * channels).unwrap_or(&[]);
    let intervals = levels.len() / channels;
    let columns = columns.min(intervals);
    let mut drawn: Vec<ChannelPeaks> = Vec::new();
    drawn.resize_with(channels, ChannelPeaks::default);
    for column in 0..columns {
        let place = |column: usize| intervals * column / columns;
        let part = &levels[place(column) * channels..place(column + 1) * channels];
        for (index, channel) in drawn.iter_mut().enumerate() {
            let level = part.iter().skip(index).step_by(channels).max().copied();
            let magnitude = i32::from(peaks::magnitude(level.unwrap_or(0)));
            channel.low.push((-magnitude >> 8) as i8);
            channel.high.push((magnitude >> 8).min(127) as i8);
        }
    }
    let interval_ms = Some(peaks::INTERVAL_MS);
    Peaks { columns, is_sampled: false, interval_ms, channels: drawn }
}

/// A recorder's WAV, to be drawn.
struct Outline<'s> {
    source: &'s dyn Source,
    spec: Spec,
    /// The part that is drawn.
    samples: Range<u64>,
    /// Most bytes of samples that are read.
    bytes_max: u64,
}

impl Outline<'_> {
    /// Samples of each channel in the part.
    const fn length(&self) -> u64 {
        self.samples.end.saturating_sub(self.samples.start)
    }

    /// Whether peaks of so many intervals show the part as well as its samples would, at less cost.
    fn prefers_peaks(&self, intervals: usize, columns: usize) -> bool {
        let bytes = self.length() * u64::from(self.spec.sample_frame_bytes());
        bytes > READ_BYTES_MAX || bytes > CHEAP_BYTES_MAX && intervals >= columns
    }

    fn read(&self, columns: usize) -> io::Result<Peaks> {
        let frame_bytes = u64::from(self.spec.sample_frame_bytes());
        let columns = columns.min(usize::try_from(self.length()).unwrap_or(columns));
        let room = self.bytes_max / frame_bytes / (columns.max(1) as u64);
        let mut channels: Vec<ChannelPeaks> = Vec::new();
        channels.resize_with(usize::from(self.spec.channels), ChannelPeaks::default);
        let mut buffer = vec![0; 64 * 1024];
        let mut is_sampled = false;
        for column in 0..columns as u64 {
            let place = |column: u64| {
                let behind = u128::from(self.length()) * u128::from(column) / columns as u128;
                self.samples.start + behind as u64
            };
            let (from, to) = (place(column), place(column + 1));
            is_sampled |= to - from > room;
            let peaks = self.peaks(from, to.min(from + room), &mut buffer)?;
            for (channel, (low, high)) in channels.iter_mut().zip(peaks) {
                channel.low.push((low >> 8) as i8);
                channel.high.push((high >> 8) as i8);
            }
        }
        Ok(Peaks { columns, is_sampled, interval_ms: None, channels })
    }

    /// Lowest and highest sample of each channel between two sample frames.
    fn peaks(&self, from: u64, to: u64, buffer: &mut [u8]) -> io::Result<[(i16, i16); 2]> {
        let frame_bytes = u64::from(self.spec.sample_frame_bytes());
        let mut peaks = [(0, 0); 2];
        let mut at = u64::from(self.spec.header_bytes()) + from * frame_bytes;
        let end = u64::from(self.spec.header_bytes()) + to * frame_bytes;
        while at < end {
            let wanted = (end - at).min(buffer.len() as u64) as usize;
            let bytes = &mut buffer[..wanted];
            self.source.fill(bytes, at)?;
            at += wanted as u64;
            let mut note = |index: usize, sample: i16| {
                let (low, high) = &mut peaks[index % usize::from(self.spec.channels)];
                *low = sample.min(*low);
                *high = sample.max(*high);
            };
            match self.spec.encoding {
                Encoding::Alaw => {
                    bytes.iter().enumerate().for_each(|(i, code)| note(i, decode_alaw(*code)));
                }
                Encoding::Mulaw => {
                    bytes.iter().enumerate().for_each(|(i, code)| note(i, decode_mulaw(*code)));
                }
                Encoding::Pcm16 => {
                    let samples = bytes.as_chunks::<2>().0.iter();
                    samples.enumerate().for_each(|(i, two)| note(i, i16::from_le_bytes(*two)));
                }
            }
        }
        Ok(peaks)
    }
}
