//! The header of a WAV file, read from as much of the file's beginning as the caller holds.

use super::{DATA_BYTES_MAX, Encoding, Spec};

/// Bytes of `RIFF`, its size and `WAVE`.
const FORM_BYTES: usize = 12;

/// Bytes of a chunk's name and size.
const CHUNK_HEAD_BYTES: usize = 8;

/// Least bytes of a format chunk that tells the bits of a sample.
const FORMAT_BYTES_MIN: usize = 16;

/// Bytes of a format chunk up to the sub-format's tag, as 16-bit words.
const FORMAT_WORDS: usize = 13;

/// Format tag of a chunk with a sub-format; the sub-format's tag tells the kind of the samples.
const EXTENSIBLE: u16 = 0xFFFE;

/// Reads the header of a WAV file whose first bytes are `start`.
///
/// Chunks before the samples are skipped, but `start` must reach behind them: after
/// [`ParseError::NeedMore`], call again with that many bytes or more, or give the file up if they are
/// more than you want to hold. The time is proportional to the length of `start` at most.
///
/// The sizes may be those of an unfinished file, of a stream, or wrong; only those of the chunks before
/// the samples are relied on. Compare [`Layout::announced`] with the bytes that the file has.
///
/// ```
/// use callreel_core::wav::{self, Encoding, Length, ParseError, Spec, header};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Alaw };
/// let start = header(spec, Length::Bytes(16_000));
/// let layout = wav::parse(&start)?;
/// assert_eq!(layout.spec(), Some(spec));
/// assert_eq!((layout.data_at, layout.announced()), (58, Some(16_000)));
/// assert_eq!(wav::parse(&start[..50]), Err(ParseError::NeedMore { bytes_min: 58 }));
/// # Ok::<(), ParseError>(())
/// ```
///
/// # Errors
/// See [`ParseError`].
#[inline]
pub fn parse(start: &[u8]) -> Result<Layout, ParseError> {
    let need_more = ParseError::NeedMore { bytes_min: FORM_BYTES };
    let (form, riff_size) = chunk_at(start, 0).map_err(|_| need_more)?;
    let kind = start.get(CHUNK_HEAD_BYTES..FORM_BYTES).ok_or(need_more)?;
    match &form {
        b"RIFF" if kind == b"WAVE" => {}
        b"RF64" | b"BW64" => return Err(ParseError::Rf64),
        _ => return Err(ParseError::NotWav),
    }
    let (mut format, mut fact_at) = (None, None);
    let mut at = FORM_BYTES;
    loop {
        let (name, size) = chunk_at(start, at)?;
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        at += CHUNK_HEAD_BYTES;
        match &name {
            b"fmt " => format = Some(FormatChunk::parse(start, at, bytes)?),
            b"fact" if bytes == 4 => fact_at = Some(at),
            b"data" => {
                let format = format.ok_or(ParseError::NoFormat)?;
                return Ok(Layout { format, fact_at, data_at: at, data_size: size, riff_size });
            }
            _ => {}
        }
        // Behind an odd number of bytes there is a pad byte.
        at = at.saturating_add(bytes).saturating_add(bytes % 2);
    }
}

/// The name and the size of the chunk at `at`.
#[inline]
fn chunk_at(start: &[u8], at: usize) -> Result<([u8; 4], u32), ParseError> {
    let end = at.saturating_add(CHUNK_HEAD_BYTES);
    let head = start.get(at..end).and_then(|head| head.as_chunks().0.first_chunk::<2>());
    let [name, size] = *head.ok_or(ParseError::NeedMore { bytes_min: end })?;
    Ok((name, u32::from_le_bytes(size)))
}

/// Places and sizes in the header of a WAV file.
///
/// The sizes are those that the header announces; whether the file has as many bytes is for the caller
/// to find out.
///
/// ```
/// use callreel_core::wav::{self, Encoding, Length, Spec};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Mulaw };
/// // A stream never has its length: the samples go on to the end.
/// let layout = wav::parse(&wav::header(spec, Length::Unknown))?;
/// assert_eq!((layout.spec(), layout.announced()), (Some(spec), None));
/// # Ok::<(), wav::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Layout {
    /// Fields of the format chunk: of the last one before the samples.
    pub format: FormatChunk,
    /// Place of the number of sample frames, 4 bytes, in the `fact` chunk, if there is one before the
    /// samples.
    pub fact_at: Option<usize>,
    /// Place of the first sample, in bytes from the start of the file. At most the length of the bytes
    /// given to [`parse`].
    pub data_at: usize,
    /// Size of the `data` chunk; see [`announced`](Self::announced).
    pub data_size: u32,
    /// Size of the `RIFF` chunk: all bytes of the file but its first 8, if it is true.
    pub riff_size: u32,
}

impl Layout {
    /// Format of the samples; `None` if they are of another kind than the [`Encoding`]s, or of no
    /// channel. The kind decides, as it does for players: a wrong
    /// [`second_bytes`](FormatChunk::second_bytes) or [`frame_bytes`](FormatChunk::frame_bytes) does no
    /// harm.
    #[must_use]
    pub const fn spec(&self) -> Option<Spec> {
        let FormatChunk { channels, sample_rate_hz, bits, .. } = self.format;
        let encoding = match (self.format.kind(), bits) {
            _ if channels == 0 => return None,
            (1, 16) => Encoding::Pcm16,
            (6, 8) => Encoding::Alaw,
            (7, 8) => Encoding::Mulaw,
            _ => return None,
        };
        Some(Spec { channels, sample_rate_hz, encoding })
    }

    /// Bytes of samples that the header announces; `None` for the sizes of a stream of unknown length or
    /// of an unfinished file: 0, or more than [`DATA_BYTES_MAX`]. Then the samples go on to the end of
    /// the file, unless there are none: with size 0, a RIFF size that counts the rest of the file says
    /// that the rest is other chunks.
    #[must_use]
    pub const fn announced(&self) -> Option<u32> {
        match self.data_size {
            0 => None,
            bytes if bytes > DATA_BYTES_MAX => None,
            bytes => Some(bytes),
        }
    }

    /// Whether the header is the one that [`header`](super::header) writes for `spec`, with any sizes:
    /// no other chunks, and no contradictions.
    #[must_use]
    #[inline]
    pub fn is_header_of(&self, spec: Spec) -> bool {
        let fact_at = match spec.encoding {
            Encoding::Alaw | Encoding::Mulaw => Some(46),
            Encoding::Pcm16 => None,
        };
        self.data_at == spec.header_bytes() as usize
            && self.fact_at == fact_at
            && self.format == FormatChunk::from(spec)
    }
}

/// Fields of a format chunk, as the file has them.
///
/// ```
/// use callreel_core::wav::{self, Encoding, Length, Spec};
///
/// let spec = Spec { channels: 2, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
/// let format = wav::parse(&wav::header(spec, Length::Bytes(0)))?.format;
/// assert_eq!((format.kind(), format.bits, format.frame_bytes), (1, 16, 4));
/// # Ok::<(), wav::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct FormatChunk {
    /// Format tag (`wFormatTag`); see [`kind`](Self::kind).
    pub tag: u16,
    /// Number of channels (`nChannels`).
    pub channels: u16,
    /// Samples a second of each channel, in Hz (`nSamplesPerSec`).
    pub sample_rate_hz: u32,
    /// Bytes a second (`nAvgBytesPerSec`).
    pub second_bytes: u32,
    /// Bytes of a sample frame (`nBlockAlign`).
    pub frame_bytes: u16,
    /// Bits of a sample (`wBitsPerSample`).
    pub bits: u16,
    /// Bytes of an extension (`cbSize`); 0 if the chunk is too short to tell.
    pub extension_bytes: u16,
    /// Format tag of the sub-format (first bytes of `SubFormat`), for tag 0xFFFE; 0 if the chunk is too
    /// short to tell.
    pub sub_tag: u16,
}

impl FormatChunk {
    /// Format tag of the samples: 1 for PCM, 6 for A-law, 7 for mu-law. In an extensible format (tag
    /// 0xFFFE) it is that of the sub-format.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        if self.tag == EXTENSIBLE { self.sub_tag } else { self.tag }
    }

    /// Reads a format chunk with a content of `bytes` bytes at `at`.
    #[inline]
    fn parse(start: &[u8], at: usize, bytes: usize) -> Result<Self, ParseError> {
        if bytes < FORMAT_BYTES_MIN {
            return Err(ParseError::NoFormat);
        }
        let end = at + bytes.min(2 * FORMAT_WORDS);
        let content = start.get(at..end).ok_or(ParseError::NeedMore { bytes_min: end })?;
        let mut words = [0; FORMAT_WORDS];
        for (word, bytes) in words.iter_mut().zip(content.as_chunks().0) {
            *word = u16::from_le_bytes(*bytes);
        }
        let [tag, channels, rate, rate_high, second, second_high, frame_bytes, bits, rest @ ..] =
            words;
        let [extension_bytes, .., sub_tag] = rest;
        let long = |low, high| u32::from(low) | u32::from(high) << 16;
        Ok(Self {
            tag,
            channels,
            sample_rate_hz: long(rate, rate_high),
            second_bytes: long(second, second_high),
            frame_bytes,
            bits,
            extension_bytes,
            sub_tag,
        })
    }
}

impl From<Spec> for FormatChunk {
    /// The format chunk that [`header`](super::header) writes.
    #[inline]
    fn from(spec: Spec) -> Self {
        let frame_bytes = spec.sample_frame_bytes();
        Self {
            tag: match spec.encoding {
                Encoding::Alaw => 6,
                Encoding::Mulaw => 7,
                Encoding::Pcm16 => 1,
            },
            channels: spec.channels,
            sample_rate_hz: spec.sample_rate_hz,
            second_bytes: spec.sample_rate_hz.saturating_mul(u32::from(frame_bytes)),
            frame_bytes,
            bits: spec.encoding.sample_bytes() * 8,
            extension_bytes: 0,
            sub_tag: 0,
        }
    }
}

/// Reason that a header gives no [`Layout`].
///
/// ```
/// use callreel_core::wav::{ParseError, parse};
///
/// assert_eq!(parse(b"OggS\0\x02\0\0\0\0\0\0"), Err(ParseError::NotWav));
/// assert_eq!(parse(b"RIFF"), Err(ParseError::NeedMore { bytes_min: 12 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ParseError {
    /// The header goes on behind the bytes that were given: parse at least the first `bytes_min` bytes
    /// of the file, which are more than those. A file that has fewer is cut short or damaged.
    NeedMore {
        /// Bytes from the start of the file; `usize::MAX` if they do not fit into memory.
        bytes_min: usize,
    },
    /// The samples come before their format, or the format chunk is too short: the file is damaged.
    NoFormat,
    /// The file does not begin as a WAV.
    NotWav,
    /// The file is a WAV with 64-bit sizes (`RF64`, `BW64`), which is not read.
    Rf64,
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NeedMore { bytes_min } => {
                write!(f, "the WAV header needs {bytes_min} bytes or more")
            }
            Self::NoFormat => f.write_str("the WAV file has no format before its samples"),
            Self::NotWav => f.write_str("not a WAV file"),
            Self::Rf64 => f.write_str("WAV files with 64-bit sizes (RF64) are not supported"),
        }
    }
}

impl core::error::Error for ParseError {}
