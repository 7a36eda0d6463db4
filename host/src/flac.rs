//! A finished WAV as FLAC: the same samples in about half the room.
//!
//! - 16-bit PCM keeps its chunks, header included, as `riff` application blocks: those that `flac
//!   --keep-foreign-metadata` writes and reads, which makes the WAV again, bit for bit. So does [`restore`].
//! - mu-law and A-law become the 16-bit samples that they stand for. Their chunks are in `crel` application blocks,
//!   of the same form, and [`restore`] makes the codes again. Only the code 0x7F of mu-law has no sample of its own:
//!   it is a zero as 0xFF is. No callreel writes it, and of a WAV with that code no chunks are kept.
//! - Cue points become chapters (`CHAPTER001`, `CHAPTER001NAME`), which ffmpeg and mpv show.
//! - `CALLREEL_WAV_SHA256` is the digest of the whole WAV.
//!
//! Memory does not grow with the length of the file. The work takes three seconds of processor time for an hour of
//! telephone audio: it is for a thread that may wait.

mod restore;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use callreel_core::format::Codec;
use callreel_core::wav::{self, Encoding, Spec};
use data_encoding::HEXLOWER;
use flac_codec::decode::FlacSampleReader;
use flac_codec::encode::{FlacSampleWriter, Options};
use flac_codec::metadata::Application;
use sha2::{Digest as _, Sha256};

pub use self::restore::restore;

/// The application block with a chunk of a mu-law or A-law WAV. The reference decoder does not know it, so it does
/// not fail at samples that are not those of the chunk.
const CODES: u32 = u32::from_be_bytes(*b"crel");

/// The code of mu-law that stands for the same sample as 0xFF.
const NEGATIVE_ZERO: u8 = 0x7F;

/// The samples must begin within this many bytes.
const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes of chunks behind the samples: callreel writes half a megabyte at most.
const CHUNKS_BYTES_MAX: u64 = 4 << 20;

/// Bytes read at a time: whole sample frames of up to eight channels.
const PIECE_BYTES: u64 = 64 * 1024;

/// Most channels of FLAC.
const CHANNELS_MAX: u16 = 8;

/// Bytes of the form's header, and of the name and size of a chunk.
const FORM_BYTES: usize = 12;
const CHUNK_HEAD_BYTES: usize = 8;

/// The tag with the digest of the WAV.
const DIGEST_TAG: &str = "CALLREEL_WAV_SHA256";

/// Reasons why a WAV does not become FLAC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The samples read back are not those of the WAV. The FLAC is not to be used.
    #[error("the FLAC does not hold the samples of the WAV: keep the WAV, and report this")]
    Differs,
    /// There is no sample, and FLAC has no form for that.
    #[error("it holds no audio")]
    Empty,
    /// The encoder or the decoder refuses.
    #[error("FLAC: {0}")]
    Flac(#[from] flac_codec::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a WAV file.
    #[error("it is not a WAV file with the format and data chunks where a WAV has them")]
    NotWav,
    /// The samples are no 16-bit PCM, mu-law or A-law.
    #[error("its samples are not 16-bit PCM, mu-law or A-law of up to eight channels")]
    Samples,
    /// The FLAC has no chunks of a WAV.
    #[error(
        "it does not tell the header and the chunks of a WAV: it was made by another program, or of a mu-law WAV with \
         codes that have no sample of their own"
    )]
    NoWav,
    /// The sizes of the header are not those of the file.
    #[error("it is not finished, or was cut: see `callreel repair`")]
    Unfinished,
}

/// A FLAC file that was written and read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flac {
    /// Its length.
    pub bytes: u64,
    /// Samples of each channel.
    pub samples: u64,
    /// Length of the WAV.
    pub wav_bytes: u64,
    /// SHA-256 of the whole WAV, in hexadecimal digits; also in the FLAC, as `CALLREEL_WAV_SHA256`.
    pub wav_sha256: String,
}

/// Writes the samples of a WAV to `out`, an empty file that is open for reading and writing, and reads them back:
/// all are equal when this returns. Nothing is durable yet.
///
/// Reads the WAV three times, one of mu-law four times. After an error `out` is not to be used.
///
/// # Errors
/// [`Error::NotWav`], [`Error::Samples`], [`Error::Unfinished`], [`Error::Empty`]: nothing was written. The others:
/// see there.
pub fn encode(wav: &File, out: &mut File) -> Result<Flac, Error> {
    let source = Source::open(wav)?;
    let wav_sha256 = digest(wav)?;
    let mut options = Options::default().no_padding().tag(DIGEST_TAG, &wav_sha256);
    for (name, text) in source.chapters() {
        options = options.tag(&name, text);
    }
    let id = match source.spec.encoding {
        Encoding::Pcm16 => Some(Application::RIFF),
        Encoding::Mulaw if source.has_negative_zero()? => None,
        Encoding::Alaw | Encoding::Mulaw => Some(CODES),
    };
    for data in id.iter().flat_map(|_| source.kept_chunks()) {
        options = options.application(Application { id: id.unwrap_or_default(), data });
    }
    let Spec { sample_rate_hz, channels, .. } = source.spec;
    let total = source.samples * u64::from(channels);
    let writer = BufWriter::new(&mut *out);
    let mut writer =
        FlacSampleWriter::new(writer, options, sample_rate_hz, 16, channels as u8, Some(total))?;
    source.each_piece(|samples| Ok(writer.write(samples)?))?;
    writer.finalize()?;
    out.flush()?;
    source.compare(out)?;
    let bytes = out.metadata()?.len();
    Ok(Flac { bytes, samples: source.samples, wav_bytes: source.bytes, wav_sha256 })
}

/// Whether a FLAC holds the samples of a WAV. Reads both.
///
/// # Errors
/// [`Error::Differs`] if it does not; the others: see there.
pub fn compare(wav: &File, flac: &mut File) -> Result<(), Error> {
    Source::open(wav)?.compare(flac)
}

/// SHA-256 of a whole file, in hexadecimal digits.
///
/// # Errors
/// The system's error.
pub fn digest(file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    each_part(file, 0, file.metadata()?.len(), PIECE_BYTES, |part| {
        hash.update(part);
        Ok::<_, io::Error>(true)
    })?;
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// Calls `take` with the bytes of a part of a file, so many at a time, until it is false.
fn each_part<E: From<io::Error>>(
    file: &File,
    mut at: u64,
    end: u64,
    count: u64,
    mut take: impl FnMut(&[u8]) -> Result<bool, E>,
) -> Result<(), E> {
    let mut bytes = vec![0; count.min(end - at) as usize];
    while at < end {
        let bytes = &mut bytes[..count.min(end - at) as usize];
        file.read_exact_at(bytes, at)?;
        if !take(bytes)? {
            break;
        }
        at += bytes.len() as u64;
    }
    Ok(())
}

/// A chunk's name, and its content without its pad byte.
type Chunk = ([u8; 4], Vec<u8>);

/// A WAV that is read.
struct Source<'f> {
    file: &'f File,
    spec: Spec,
    /// Samples of each channel.
    samples: u64,
    /// Bytes of the file.
    bytes: u64,
    /// The file up to its first sample.
    head: Vec<u8>,
    /// The chunks behind the samples.
    chunks: Vec<Chunk>,
}

impl<'f> Source<'f> {
    fn open(file: &'f File) -> Result<Self, Error> {
        let bytes = file.metadata()?.len();
        let mut head = vec![0; bytes.min(HEADER_BYTES_MAX) as usize];
        file.read_exact_at(&mut head, 0)?;
        let layout = wav::parse(&head).map_err(|_| Error::NotWav)?;
        let spec = layout.spec().filter(|spec| spec.channels <= CHANNELS_MAX);
        let spec = spec.ok_or(Error::Samples)?;
        head.truncate(layout.data_at);
        let (data_at, data_bytes) = (layout.data_at as u64, u64::from(layout.data_size));
        let frame_bytes = u64::from(spec.sample_frame_bytes());
        let is_whole = u64::from(layout.riff_size) + 8 == bytes
            && data_at + data_bytes <= bytes
            && data_bytes.is_multiple_of(frame_bytes);
        if !is_whole {
            return Err(Error::Unfinished);
        }
        if data_bytes == 0 {
            return Err(Error::Empty);
        }
        let chunks = chunks_from(file, data_at + data_bytes + data_bytes % 2, bytes)?;
        Ok(Self { file, spec, samples: data_bytes / frame_bytes, bytes, head, chunks })
    }

    /// Whether there is a code that stands for the same sample as another one.
    fn has_negative_zero(&self) -> io::Result<bool> {
        let (mut has_it, from) = (false, self.head.len() as u64);
        let to = from + self.samples * u64::from(self.spec.sample_frame_bytes());
        each_part(self.file, from, to, PIECE_BYTES, |part| {
            has_it = part.contains(&NEGATIVE_ZERO);
            Ok::<_, io::Error>(!has_it)
        })?;
        Ok(has_it)
    }

    /// Calls `take` with all samples, in pieces, the channels in turns.
    fn each_piece(&self, mut take: impl FnMut(&[i32]) -> Result<(), Error>) -> Result<(), Error> {
        let codec = match self.spec.encoding {
            Encoding::Alaw => Codec::Alaw,
            Encoding::Mulaw => Codec::Mulaw,
            Encoding::Pcm16 => Codec::L16Le,
        };
        let frame_bytes = u64::from(self.spec.sample_frame_bytes());
        let piece_bytes = PIECE_BYTES / frame_bytes * frame_bytes;
        let from = self.head.len() as u64;
        let (mut samples, mut wide) = (Vec::new(), Vec::new());
        each_part(self.file, from, from + self.samples * frame_bytes, piece_bytes, |bytes| {
            samples.resize(bytes.len() / codec.width(), 0);
            codec.decode(bytes, &mut samples);
            wide.clear();
            wide.extend(samples.iter().copied().map(i32::from));
            take(&wide)?;
            Ok(true)
        })
    }

    /// Reads a FLAC file from its start, and compares its samples.
    fn compare(&self, flac: &mut File) -> Result<(), Error> {
        flac.seek(SeekFrom::Start(0))?;
        let mut reader = FlacSampleReader::new(BufReader::new(flac))?;
        self.each_piece(|mut samples| {
            while !samples.is_empty() {
                let read = reader.fill_buf()?;
                let count = read.len().min(samples.len());
                if count == 0 || read[..count] != samples[..count] {
                    return Err(Error::Differs);
                }
                reader.consume(count);
                samples = &samples[count..];
            }
            Ok(())
        })?;
        if reader.fill_buf()?.is_empty() { Ok(()) } else { Err(Error::Differs) }
    }

    /// The blocks by which `flac --decode --keep-foreign-metadata` and [`restore`] make the WAV again: the form, each
    /// chunk, and of `data` its name and size.
    fn kept_chunks(&self) -> Vec<Vec<u8>> {
        let (form, mut rest) = self.head.split_at(FORM_BYTES.min(self.head.len()));
        let mut kept = vec![form.to_vec()];
        while rest.len() > CHUNK_HEAD_BYTES {
            let bytes = size_of_chunk(rest);
            let (chunk, behind) =
                rest.split_at((CHUNK_HEAD_BYTES + bytes + bytes % 2).min(rest.len()));
            kept.push(chunk.to_vec());
            rest = behind;
        }
        kept.push(rest.to_vec());
        for (name, content) in &self.chunks {
            let size = (content.len() as u32).to_le_bytes();
            kept.push([&name[..], &size, content, &vec![0; content.len() % 2]].concat());
        }
        kept
    }

    /// The cue points as tags, in the order of their names.
    fn chapters(&self) -> Vec<(String, String)> {
        let number = |bytes: &[u8], at: usize| {
            Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
        };
        let mut labels = BTreeMap::new();
        for (name, content) in &self.chunks {
            let Some(mut rest) = content.strip_prefix(b"adtl").filter(|_| name == b"LIST") else {
                continue;
            };
            while rest.len() > CHUNK_HEAD_BYTES {
                let bytes = size_of_chunk(rest);
                let body = &rest[CHUNK_HEAD_BYTES..(CHUNK_HEAD_BYTES + bytes).min(rest.len())];
                if rest.starts_with(b"labl")
                    && let (Some(id), Some(text)) = (number(body, 0), body.get(4..))
                {
                    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                    labels.insert(id, String::from_utf8_lossy(text).into_owned());
                }
                let whole = CHUNK_HEAD_BYTES + bytes + bytes % 2;
                rest = rest.get(whole..).unwrap_or_default();
            }
        }
        let cues = self.chunks.iter().filter(|(name, _)| name == b"cue ");
        let points = cues.flat_map(|(_, content)| content.get(4..).unwrap_or_default().chunks(24));
        let points = points.filter_map(|point| Some((number(point, 20)?, number(point, 0)?)));
        let mut tags = Vec::new();
        for (index, (frame, id)) in (1..).zip(points) {
            let ms = u64::from(frame) * 1000 / u64::from(self.spec.sample_rate_hz.max(1));
            let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
            let (seconds, ms) = (ms / 1000 % 60, ms % 1000);
            let chapter = format!("CHAPTER{index:03}");
            tags.push((chapter.clone(), format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}")));
            if let Some(label) = labels.remove(&id) {
                tags.push((format!("{chapter}NAME"), label));
            }
        }
        tags
    }
}

/// The size that the head of a chunk tells.
fn size_of_chunk(chunk: &[u8]) -> usize {
    let size = chunk.get(4..).and_then(|size| size.first_chunk::<4>());
    size.map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

/// The chunks of a file from `at` to its end.
fn chunks_from(file: &File, at: u64, end: u64) -> Result<Vec<Chunk>, Error> {
    let bytes = end.saturating_sub(at);
    if bytes > CHUNKS_BYTES_MAX {
        return Err(Error::NotWav);
    }
    let mut file = file;
    file.seek(SeekFrom::Start(at))?;
    let mut behind = Vec::new();
    file.take(bytes).read_to_end(&mut behind)?;
    let (mut rest, mut chunks) = (&behind[..], Vec::new());
    while let Some(name) = rest.first_chunk::<4>() {
        let bytes = size_of_chunk(rest);
        let content = rest.get(CHUNK_HEAD_BYTES..).and_then(|content| content.get(..bytes));
        chunks.push((*name, content.ok_or(Error::Unfinished)?.to_vec()));
        rest = rest.get(CHUNK_HEAD_BYTES + bytes + bytes % 2..).unwrap_or_default();
    }
    Ok(chunks)
}
