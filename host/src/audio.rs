//! Call audio as mu-law: read from a file, or made up. Audio in another format.
//!
//! The WAV files that recorders and sound tools write are accepted, unfinished ones included.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callreel_core::g711::{SAMPLE_RATE_HZ, decode_alaw, encode_mulaw};
use callreel_core::wav::{self, FormatChunk, Layout, ParseError};

mod convert;
mod speech;

pub(crate) use convert::{converted, encode};
pub use speech::speech;

/// Largest audio file that is read: 36 hours of mu-law.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// File name extensions of raw mu-law.
pub const MULAW_EXTENSIONS: [&str; 5] = ["ul", "ulaw", "mulaw", "pcmu", "raw"];

/// An error with an audio file; the message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        cause: std::io::Error,
    },
    /// The file can be read, but its content cannot be sent as call audio.
    #[error("{}: {reason}", .path.display())]
    Unfit {
        /// Path of the file.
        path: PathBuf,
        /// The reason, and the remedy.
        reason: String,
    },
}

/// Audio of one call, mu-law at 8 kHz: one track, or two of the same length.
#[derive(Clone, Debug)]
pub struct Audio {
    inbound: Arc<[u8]>,
    outbound: Option<Arc<[u8]>>,
}

impl Audio {
    /// Audio of one track.
    pub fn mono(inbound: impl Into<Arc<[u8]>>) -> Self {
        Self { inbound: inbound.into(), outbound: None }
    }

    /// Audio of two tracks; the shorter one is padded with silence to the length of the other.
    pub fn stereo(mut inbound: Vec<u8>, mut outbound: Vec<u8>) -> Self {
        let samples = inbound.len().max(outbound.len());
        inbound.resize(samples, callreel_core::g711::MULAW_SILENCE);
        outbound.resize(samples, callreel_core::g711::MULAW_SILENCE);
        Self { inbound: inbound.into(), outbound: Some(outbound.into()) }
    }

    /// Reads a WAV file (PCM of 8 to 32 bits, A-law or mu-law, mono or stereo, 8 kHz) or raw mu-law.
    ///
    /// A file that begins as a WAV is one, even under another name. Every other file must have an
    /// extension of raw mu-law (see [`MULAW_EXTENSIONS`]), since its content does not show whether it
    /// is raw audio. A stereo file's left channel is the inbound track.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 1 GiB, is empty, or is audio of another kind: the
    /// message says which.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read_bounded(path)?;
        let unfit = |reason: String| Error::Unfit { path: path.to_owned(), reason };
        let is_wav = [b"RIFF", b"RF64", b"BW64"].iter().any(|form| bytes.starts_with(*form));
        let audio = if is_wav {
            parse_wav(&bytes).map_err(unfit)?
        } else if has_mulaw_name(path) {
            Self::mono(bytes)
        } else {
            return Err(unfit(format!(
                "neither a WAV file nor named like raw mu-law (.{}); convert it: {CONVERT}",
                MULAW_EXTENSIONS.join(", .")
            )));
        };
        if audio.samples() == 0 {
            return Err(unfit("it holds no audio".to_owned()));
        }
        Ok(audio)
    }

    /// Samples of each track.
    pub fn samples(&self) -> usize {
        self.inbound.len()
    }

    /// The inbound track.
    pub fn inbound(&self) -> &Arc<[u8]> {
        &self.inbound
    }

    /// The outbound track, if there are two tracks.
    pub fn outbound(&self) -> Option<&Arc<[u8]>> {
        self.outbound.as_ref()
    }
}

/// Whether the file's name has an extension of raw mu-law.
pub fn has_mulaw_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    MULAW_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

const CONVERT: &str = "ffmpeg -i IN -ar 8000 -c:a pcm_s16le OUT.wav";

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |cause| Error::Read { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = "larger than 1 GiB, which is 36 hours of mu-law; cut it".to_owned();
        return Err(Error::Unfit { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

fn parse_wav(bytes: &[u8]) -> Result<Audio, String> {
    let layout = wav::parse(bytes).map_err(|error| match error {
        ParseError::NeedMore { .. } => "it has no data chunk; it is damaged".to_owned(),
        ParseError::NoFormat => "its audio comes before its format; it is damaged".to_owned(),
        ParseError::NotWav => "begins with RIFF but is no WAV file".to_owned(),
        other => format!("{other}; convert it: {CONVERT}"),
    })?;
    let to_mulaw = decoder_of(&layout.format)?;
    let behind = bytes.get(layout.data_at..).unwrap_or_default();
    let data = match layout.announced() {
        // A size beyond the end is that of an unfinished file.
        Some(size) => behind.get(..size as usize).unwrap_or(behind),
        None if layout.data_size == 0 && riff_counts(&layout, bytes.len()) => &[],
        None => behind,
    };
    Ok(split_channels(data, &layout.format, to_mulaw))
}

/// Whether a RIFF size counts the bytes behind the header, so that they are other chunks if the header
/// announces no audio. If it does not count them, the file is unfinished, and they are audio.
fn riff_counts(layout: &Layout, file_bytes: usize) -> bool {
    let counted = (layout.riff_size as usize).saturating_add(8);
    // The pad byte may be missing.
    (layout.data_at + 1..=file_bytes + 1).contains(&counted)
}

/// The function that turns a sample's bytes into mu-law.
fn decoder_of(format: &FormatChunk) -> Result<fn(&[u8]) -> u8, String> {
    let FormatChunk { sample_rate_hz, channels, bits, .. } = *format;
    let kind = format.kind();
    let to_mulaw: fn(&[u8]) -> u8 = match (kind, bits) {
        (1, 8) => |sample| encode_mulaw((i16::from(sample[0]) - 128) << 8),
        (1, 16 | 24 | 32) => |sample| {
            let [.., low, high] = *sample else { unreachable!("16 bits and more") };
            encode_mulaw(i16::from_le_bytes([low, high]))
        },
        (6, 8) => |sample| encode_mulaw(decode_alaw(sample[0])),
        (7, 8) => |sample| sample[0],
        _ => return Err(format!("WAV of format {kind} with {bits} bits; convert it: {CONVERT}")),
    };
    if sample_rate_hz != SAMPLE_RATE_HZ {
        return Err(format!("{sample_rate_hz} Hz where calls have 8000; convert it: {CONVERT}"));
    }
    if !matches!(channels, 1 | 2) {
        return Err(format!("{channels} channels where calls have one or two; convert it"));
    }
    Ok(to_mulaw)
}

fn split_channels(data: &[u8], format: &FormatChunk, to_mulaw: fn(&[u8]) -> u8) -> Audio {
    let sample_bytes = usize::from(format.bits / 8);
    let frames = data.chunks_exact(sample_bytes * usize::from(format.channels));
    if format.channels == 1 {
        return Audio::mono(frames.map(to_mulaw).collect::<Vec<_>>());
    }
    let (left, right) = frames
        .map(|frame| frame.split_at(sample_bytes))
        .map(|(left, right)| (to_mulaw(left), to_mulaw(right)))
        .unzip();
    Audio::stereo(left, right)
}

#[cfg(test)]
mod tests {
    use callreel_core::g711::decode_mulaw;

    use super::*;

    fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8], data_size: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\xFF\xFF\xFF\xFFWAVELIST\x03\0\0\0odd\0fmt \x10\0\0\0".to_vec();
        bytes.extend(tag.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(data_size.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_sample_size_gives_the_same_mulaw() {
        let pcm8 = parse_wav(&wav(1, 1, 8000, 8, &[0x80, 0xC0, 0x40], 3)).unwrap();
        let pcm16 = parse_wav(&wav(1, 1, 8000, 16, &[0, 0, 0, 0x40, 0, 0xC0], 6)).unwrap();
        let pcm24 = parse_wav(&wav(1, 1, 8000, 24, &[9, 0, 0, 9, 0, 0x40, 9, 0, 0xC0], 9)).unwrap();
        let mulaw = parse_wav(&wav(7, 1, 8000, 8, pcm16.inbound(), 3)).unwrap();
        for other in [&pcm8, &pcm24, &mulaw] {
            assert_eq!(other.inbound(), pcm16.inbound());
        }
        assert_eq!(decode_mulaw(pcm16.inbound()[0]), 0);
        assert!((i32::from(decode_mulaw(pcm16.inbound()[1])) - 0x4000).abs() < 512);
    }

    #[test]
    fn left_is_inbound_and_right_is_outbound() {
        let audio = parse_wav(&wav(7, 2, 8000, 8, &[1, 2, 3, 4], 4)).unwrap();
        assert_eq!(
            (&audio.inbound()[..], &audio.outbound().unwrap()[..]),
            (&[1, 3][..], &[2, 4][..])
        );
    }

    #[test]
    fn an_unfinished_wav_is_read_to_its_end() {
        for announced in [u32::MAX, 0xFFFF_FFC0, 4] {
            let audio = parse_wav(&wav(7, 1, 8000, 8, &[1, 2, 3], announced)).unwrap();
            assert_eq!(&audio.inbound()[..], [1, 2, 3]);
        }
        let mut begun = wav(7, 1, 8000, 8, &[1, 2, 3], 0);
        let riff_bytes = begun.len() as u32 - 8 - 3;
        begun[4..8].copy_from_slice(&riff_bytes.to_le_bytes());
        assert_eq!(&parse_wav(&begun).unwrap().inbound()[..], [1, 2, 3]);
        // If the RIFF size counts the bytes behind an empty data chunk, they are not audio.
        begun[4..8].copy_from_slice(&(riff_bytes + 3).to_le_bytes());
        assert_eq!(parse_wav(&begun).unwrap().samples(), 0);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_the_way_out() {
        let refusal = |bytes: Vec<u8>| parse_wav(&bytes).unwrap_err();
        assert!(refusal(wav(1, 1, 44_100, 16, &[], 0)).contains("-ar 8000"));
        assert!(refusal(wav(3, 1, 8000, 32, &[], 0)).contains("format 3"));
        assert!(refusal(wav(1, 6, 8000, 16, &[], 0)).contains("6 channels"));
        assert!(refusal(b"RIFF\0\0\0\0WAVE".to_vec()).contains("no data chunk"));
    }
}
