//! WAV files: the header as a pure value, a reader of headers, and a writer that keeps the header true
//! while the file grows: [`Composer`] without a file, [`Writer`] over one of `embedded_io`.
//!
//! Layout (Multimedia Programming Interface 1.0, Microsoft's revisions): `RIFF`, `fmt `, for G.711
//! `fact`, then `data` last, so that bytes left at the end by a crash are audio. The header is the one
//! that ffmpeg and SoX write, without ffmpeg's `LIST`.

mod composer;
mod parse;
mod writer;

use heapless::Vec;

pub use self::composer::{Composer, Step};
pub use self::parse::{FormatChunk, Layout, ParseError, parse};
pub use self::writer::{Error, Unbegun, Writer};
use crate::format::Codec;
use crate::g711;

/// Bytes of the longest header: that of G.711.
pub const HEADER_BYTES_MAX: usize = 58;

/// Most sample bytes that a WAV file can hold. Sizes are 32-bit numbers; the largest of them belong to
/// [`Length::Unknown`], and the RIFF size also counts the header and the [`ending`].
pub const DATA_BYTES_MAX: u32 = u32::MAX - 127;

/// Largest RIFF size of a file of known length: below those of [`Length::Unknown`].
const RIFF_BYTES_MAX: u32 = 0xFFFF_FFF0;

/// Data sizes of [`Length::Unknown`]: as large as the RIFF size, which also counts the header, allows;
/// and whole sample frames, since some readers refuse other data sizes.
const STREAM_PCM_DATA_BYTES: u32 = 0xFFFF_FFD0;
const STREAM_G711_DATA_BYTES: u32 = 0xFFFF_FFC0;

/// End of a file with an odd number of sample bytes: a pad byte, as RIFF demands, and a chunk with the
/// recorder's name. GStreamer plays no sample of such a file if it ends with the pad byte.
const ODD_ENDING: [u8; 31] = *b"\0LIST\x16\0\0\0INFOISFT\x09\0\0\0callreel\0\0";

const _: () = assert!(DATA_BYTES_MAX < STREAM_G711_DATA_BYTES);
const _: () = assert!(RIFF_BYTES_MAX < STREAM_G711_DATA_BYTES + HEADER_BYTES_MAX as u32 - 8);
const _: () = assert!(
    DATA_BYTES_MAX as u64 + HEADER_BYTES_MAX as u64 + ODD_ENDING.len() as u64
        <= RIFF_BYTES_MAX as u64
);

/// Encoding of the samples in a file.
///
/// ```
/// use callreel_core::wav::Encoding;
///
/// let mut bytes = [0; 4];
/// assert_eq!(Encoding::Pcm16.encode(&[256, -2], &mut bytes), 2);
/// assert_eq!(bytes, [0x00, 0x01, 0xFE, 0xFF]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Encoding {
    /// G.711 A-law, one byte a sample (format tag 6).
    Alaw,
    /// G.711 mu-law, one byte a sample (format tag 7).
    Mulaw,
    /// Linear PCM, 16-bit little-endian (format tag 1): every tool reads it.
    Pcm16,
}

impl Encoding {
    /// Bytes of one sample.
    #[must_use]
    pub const fn sample_bytes(self) -> u16 {
        match self {
            Self::Alaw | Self::Mulaw => 1,
            Self::Pcm16 => 2,
        }
    }

    /// The byte that is silence when repeated.
    #[must_use]
    pub const fn silence(self) -> u8 {
        match self {
            Self::Alaw => g711::ALAW_SILENCE,
            Self::Mulaw => g711::MULAW_SILENCE,
            Self::Pcm16 => 0,
        }
    }

    /// Encodes `samples` into `out`, as many as fit; returns their number.
    #[inline]
    pub fn encode(self, samples: &[i16], out: &mut [u8]) -> usize {
        let fitting = out.iter_mut().zip(samples);
        match self {
            Self::Alaw => fitting.map(|(byte, sample)| *byte = g711::encode_alaw(*sample)).count(),
            Self::Mulaw => {
                fitting.map(|(byte, sample)| *byte = g711::encode_mulaw(*sample)).count()
            }
            Self::Pcm16 => {
                let (pairs, _) = out.as_chunks_mut::<2>();
                let fitting = pairs.iter_mut().zip(samples);
                fitting.map(|(pair, sample)| *pair = sample.to_le_bytes()).count()
            }
        }
    }

    /// Encodes the samples of mu-law `codes`, as [`encode`](Self::encode) would; returns the number that
    /// fitted.
    pub fn encode_mulaw(self, codes: &[u8], out: &mut [u8]) -> usize {
        let room = out.len() / usize::from(self.sample_bytes());
        match self {
            Self::Alaw => {
                for (byte, code) in out.iter_mut().zip(codes) {
                    *byte = g711::encode_alaw(g711::decode_one_of_many(*code));
                }
            }
            Self::Mulaw => {
                for (byte, code) in out.iter_mut().zip(codes) {
                    // Negative zero is written as positive zero.
                    *byte = if *code == 0x7F { g711::MULAW_SILENCE } else { *code };
                }
            }
            Self::Pcm16 => {
                for (pair, code) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
                    *pair = g711::decode_one_of_many(*code).to_le_bytes();
                }
            }
        }
        codes.len().min(room)
    }

    /// Encodes the samples of `bytes`, which are in `codec`, as [`encode`](Self::encode) would; returns
    /// the number of samples that fitted. Bytes that are less than a sample are not read. Bytes of G.722,
    /// which needs the decoder of its track, become silence.
    ///
    /// ```
    /// use callreel_core::format::Codec;
    /// use callreel_core::wav::Encoding;
    ///
    /// let mut file = [0; 4];
    /// assert_eq!(Encoding::Pcm16.encode_wire(Codec::L16Be, &[0x01, 0x00, 0xFF, 0xFE], &mut file), 2);
    /// assert_eq!(file, [0x00, 0x01, 0xFE, 0xFF]);
    /// ```
    pub fn encode_wire(self, codec: Codec, bytes: &[u8], out: &mut [u8]) -> usize {
        let room = out.len() / usize::from(self.sample_bytes());
        let count = room.min(bytes.len() / codec.width());
        let bytes = bytes.get(..count * codec.width()).unwrap_or_default();
        match (codec, self) {
            (Codec::Mulaw, _) => {
                self.encode_mulaw(bytes, out);
            }
            (Codec::Alaw, Self::Alaw) | (Codec::L16Le, Self::Pcm16) => {
                out.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            }
            _ => {
                let mut samples = [0; WIRE_SAMPLES];
                let pieces = bytes.chunks(WIRE_SAMPLES * codec.width());
                let places = out.chunks_mut(WIRE_SAMPLES * usize::from(self.sample_bytes()));
                for (piece, place) in pieces.zip(places) {
                    codec.decode(piece, &mut samples);
                    let count = piece.len() / codec.width();
                    self.encode(samples.get(..count).unwrap_or_default(), place);
                }
            }
        }
        count
    }
}

/// Samples that [`Encoding::encode_wire`] decodes at one time.
const WIRE_SAMPLES: usize = 256;

/// Format of a file.
///
/// ```
/// use callreel_core::wav::{Encoding, Spec};
///
/// let spec = Spec { channels: 2, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
/// assert_eq!((spec.sample_frame_bytes(), spec.header_bytes()), (4, 44));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Spec {
    /// Number of channels, interleaved: 1 or 2 for a call.
    pub channels: u16,
    /// Samples a second of each channel, in Hz.
    pub sample_rate_hz: u32,
    /// Encoding of a sample.
    pub encoding: Encoding,
}

impl Spec {
    /// Bytes of one sample frame: one sample of each channel.
    #[must_use]
    pub const fn sample_frame_bytes(self) -> u16 {
        self.channels.saturating_mul(self.encoding.sample_bytes())
    }

    /// Bytes of its [`header`]: 44 for PCM, 58 for G.711.
    #[must_use]
    pub const fn header_bytes(self) -> u32 {
        match self.encoding {
            Encoding::Alaw | Encoding::Mulaw => 58,
            Encoding::Pcm16 => 44,
        }
    }
}

/// The sizes in a header.
///
/// ```
/// use callreel_core::wav::{self, Encoding, Length, Spec};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
/// let header = wav::header(spec, Length::Bytes(320));
/// assert_eq!(header[36..], *b"data\x40\x01\0\0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Length {
    /// A finished file: this many bytes of samples, at most [`DATA_BYTES_MAX`] (a larger number counts
    /// as that), then their [`ending`].
    Bytes(u32),
    /// `data_bytes` of samples, at most [`DATA_BYTES_MAX`] (a larger number counts as that), then
    /// `behind_bytes` of other bytes: a pad byte, chunks, or nothing in a file that grows.
    Followed {
        /// Bytes of samples.
        data_bytes: u32,
        /// Bytes behind the samples.
        behind_bytes: u32,
    },
    /// A stream that cannot seek, so its length is never written: data 0xFFFFFFD0 and RIFF 0xFFFFFFF4
    /// for PCM; data 0xFFFFFFC0, RIFF 0xFFFFFFF2 and fact 0 for G.711. Readers take the samples up to
    /// the end of the stream, so nothing may follow them.
    Unknown,
}

/// The header: all bytes before the first sample.
#[must_use]
pub fn header(spec: Spec, length: Length) -> Vec<u8, HEADER_BYTES_MAX> {
    let frame_bytes = spec.sample_frame_bytes();
    let known = |data_bytes: u32, behind_bytes: u32| {
        let riff_size = (spec.header_bytes() - 8).saturating_add(data_bytes);
        let riff_size = riff_size.saturating_add(behind_bytes).min(RIFF_BYTES_MAX);
        let sample_frames = data_bytes.checked_div(u32::from(frame_bytes)).unwrap_or(0);
        (riff_size, data_bytes, sample_frames)
    };
    let (riff_size, data_size, sample_frames) = match length {
        Length::Bytes(bytes) => {
            let data_bytes = bytes.min(DATA_BYTES_MAX);
            known(data_bytes, ending(data_bytes).len() as u32)
        }
        Length::Followed { data_bytes, behind_bytes } => {
            known(data_bytes.min(DATA_BYTES_MAX), behind_bytes)
        }
        Length::Unknown => {
            let data_bytes = match spec.encoding {
                Encoding::Alaw | Encoding::Mulaw => STREAM_G711_DATA_BYTES,
                Encoding::Pcm16 => STREAM_PCM_DATA_BYTES,
            };
            (data_bytes + (spec.header_bytes() - 8), data_bytes, 0)
        }
    };
    let has_fact = match spec.encoding {
        Encoding::Alaw | Encoding::Mulaw => true,
        Encoding::Pcm16 => false,
    };
    let format = FormatChunk::from(spec);
    let mut out = Vec::new();
    // Cannot fail: the capacity is the longest header.
    let mut put = |bytes: &[u8]| drop(out.extend_from_slice(bytes));
    put(b"RIFF");
    put(&riff_size.to_le_bytes());
    put(b"WAVEfmt ");
    put(&(if has_fact { 18u32 } else { 16 }).to_le_bytes());
    put(&format.tag.to_le_bytes()); // wFormatTag
    put(&format.channels.to_le_bytes()); // nChannels
    put(&format.sample_rate_hz.to_le_bytes()); // nSamplesPerSec
    put(&format.second_bytes.to_le_bytes()); // nAvgBytesPerSec
    put(&format.frame_bytes.to_le_bytes()); // nBlockAlign
    put(&format.bits.to_le_bytes()); // wBitsPerSample
    if has_fact {
        put(&format.extension_bytes.to_le_bytes()); // cbSize
        put(b"fact");
        put(&4u32.to_le_bytes());
        put(&sample_frames.to_le_bytes()); // dwSampleLength, a channel
    }
    put(b"data");
    put(&data_size.to_le_bytes());
    out
}

/// The bytes behind the last sample of a finished file: none behind an even number of sample bytes;
/// behind an odd number, a pad byte and a `LIST` chunk of type `INFO` with the recorder's name.
#[must_use]
pub const fn ending(data_bytes: u32) -> &'static [u8] {
    if data_bytes.is_multiple_of(2) { &[] } else { &ODD_ENDING }
}
