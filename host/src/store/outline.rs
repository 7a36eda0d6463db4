//! The outline of a finished recording, to be drawn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use callreel_core::g711::{decode_alaw, decode_mulaw};
use callreel_core::wav::{Encoding, Spec};
use serde::Serialize;

use super::Store;
use crate::record::{Key, Record};

/// Most bytes of samples read of a file for its peaks. Longer files are sampled.
const PEAK_BYTES_MAX: u64 = 64 << 20;

/// Outline of a recording, to be drawn.
#[derive(Debug, Serialize)]
pub struct Peaks {
    /// Columns of each channel.
    pub columns: usize,
    /// The file was too long to be read whole: peaks between the parts that were read are missing.
    pub is_sampled: bool,
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
    /// Reads the outline of a finished recording, in `columns` columns at most.
    ///
    /// # Errors
    /// `Unsupported` if the record names an encoding that this build does not know; else the WAV cannot
    /// be read.
    pub fn peaks(&self, key: &Key, record: &Record, columns: usize) -> io::Result<Option<Peaks>> {
        let Some(file) = self.open_wav(key)? else {
            return Ok(None);
        };
        let unknown = |error| io::Error::new(io::ErrorKind::Unsupported, error);
        let spec = record.format.spec().map_err(unknown)?;
        Outline { file, spec, samples: record.samples }.read(columns).map(Some)
    }
}

/// A recorder's WAV, to be drawn.
struct Outline {
    file: File,
    spec: Spec,
    samples: u64,
}

impl Outline {
    fn read(&self, columns: usize) -> io::Result<Peaks> {
        let frame_bytes = u64::from(self.spec.sample_frame_bytes());
        let columns = columns.min(usize::try_from(self.samples).unwrap_or(columns));
        let room = PEAK_BYTES_MAX / frame_bytes / (columns.max(1) as u64);
        let mut channels: Vec<ChannelPeaks> = Vec::new();
        channels.resize_with(usize::from(self.spec.channels), ChannelPeaks::default);
        let mut buffer = vec![0; 64 * 1024];
        let mut is_sampled = false;
        for column in 0..columns as u64 {
            let place = |column: u64| {
                (u128::from(self.samples) * u128::from(column) / columns as u128) as u64
            };
            let (from, to) = (place(column), place(column + 1));
            is_sampled |= to - from > room;
            let peaks = self.peaks(from, to.min(from + room), &mut buffer)?;
            for (channel, (low, high)) in channels.iter_mut().zip(peaks) {
                channel.low.push((low >> 8) as i8);
                channel.high.push((high >> 8) as i8);
            }
        }
        Ok(Peaks { columns, is_sampled, channels })
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
            self.file.read_exact_at(bytes, at)?;
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
