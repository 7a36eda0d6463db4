//! `callreel decode`: converts stored call audio to WAV, sample by sample as `ffmpeg -f mulaw -ar 8000
//! -ac 1` does.
//!
//! The input is raw mu-law or a capture: the messages of calls, one per line, which pass through the
//! same [`Session`](callreel_core::session::Session) that records live calls.

mod capture;
mod output;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::wav::{Encoding, Spec};

use self::capture::decode_capture;
use self::output::Output;
use crate::audio::{MULAW_EXTENSIONS, has_mulaw_name};
use crate::log;
use crate::stream_paths::Spoken;

/// Bytes per read: few enough that a short file touches little memory.
const READ_BYTES: usize = 16 << 10;

/// Longest line of a capture that is read, far above the longest recorded message. Longer lines are
/// skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Beginnings of captures, without blanks: of messages in JSON, and of Asterisk's in words.
const CAPTURE_STARTS: [&[u8]; 2] = [b"{\"", b"\"MEDIA_START"];

/// Turns raw mu-law or a capture of frames into WAV, sample by sample as ffmpeg does.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  callreel decode call.ulaw -o call.wav
  cat call.ulaw | callreel decode - -o - | aplay
  callreel decode capture.jsonl -o call.wav --stream MZ8993907d76ad521d2bfb945804e17b8f")]
pub struct Args {
    /// Raw mu-law at 8 kHz, or a capture of frames, one JSON message per line; - reads standard input
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// Path of the WAV; - writes standard output. Further calls of a capture go to OUT-2.wav, OUT-3.wav
    /// and so on; standard output or a pipe takes one call only. An existing file is never overwritten
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,

    /// Decode only the stream of this id from a capture [default: all streams]
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,

    /// Provider of a capture's messages: acs, asterisk, audiocodes, bandwidth, exotel, genesys, jambonz,
    /// mod-audio-stream, plivo, ringcentral, signalwire, sinch, telnyx, twilio, vonage, voximplant, wavix or
    /// webex; NAME:RATE or NAME:RATE:stereo for messages
    /// that do not tell it [default: the messages tell it]
    #[arg(long, value_name = "NAME[:RATE[:stereo]]")]
    pub provider: Option<Spoken>,

    /// Sample format of the WAV
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,

    /// Content of IN [default: detected from its first bytes and its name]
    #[arg(long = "input", value_enum, value_name = "KIND")]
    pub kind: Option<Kind>,
}

/// Sample format of the WAV files.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// 16-bit PCM, which every program reads.
    #[default]
    Pcm16,
    /// G.711, mu-law or A-law as the stream has it: the same samples in half the disk space. A stream of
    /// linear samples becomes 16-bit PCM.
    Mulaw,
}

impl From<OutputFormat> for Encoding {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Pcm16 => Self::Pcm16,
            OutputFormat::Mulaw => Self::Mulaw,
        }
    }
}

/// Content of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Raw mu-law, one byte per sample, mono.
    Mulaw,
    /// Messages of calls, one JSON value per line: a text that is JSON as it came, any other text as a
    /// string, a binary message as {"binary":"BASE64"}.
    Jsonl,
}

/// A written WAV.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// Path of the WAV; `-` for standard output.
    pub path: PathBuf,
    /// Id of the stream; empty for raw mu-law.
    pub stream_id: String,
    /// Samples of each channel.
    pub samples: u64,
    /// Channels.
    pub channels: u16,
    /// Samples a second of each channel.
    pub sample_rate_hz: u32,
    /// Rejected lines of the capture, from the end of the call before up to the end of this one.
    pub rejected: u64,
}

impl Decoded {
    /// A WAV without samples so far.
    fn new(path: PathBuf, stream_id: String, spec: Spec) -> Self {
        let Spec { channels, sample_rate_hz, .. } = spec;
        Self { path, stream_id, samples: 0, channels, sample_rate_hz, rejected: 0 }
    }
}

/// Reasons why there is no WAV. Each is one line that names the file and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The output exists already.
    #[error("{} exists and is not overwritten: remove it, or choose another name", .0.display())]
    Exists(PathBuf),
    /// The input has no call, or not the call asked for.
    #[error("{}: {reason}", .path.display())]
    NoCall {
        /// The input.
        path: PathBuf,
        /// Content found instead.
        reason: String,
    },
    /// The input cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// The audio is longer than a WAV can hold.
    #[error("{}: a WAV cannot pass 4 GiB; {advice}", .path.display())]
    TooLong {
        /// The output.
        path: PathBuf,
        /// Ways out.
        advice: &'static str,
    },
    /// The input is of another kind.
    #[error("{}: {reason}", .path.display())]
    Unfit {
        /// The input.
        path: PathBuf,
        /// Kind of the input, and the way out.
        reason: String,
    },
    /// The reader of standard output closed its end before the whole WAV was written.
    #[error(transparent)]
    ReaderGone(#[from] log::ReaderGone),
    /// The output cannot be written.
    #[error("cannot write {}: {cause}", .path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
}

/// Runs `callreel decode`. Reports the calls on standard error where there are several, and rejected
/// lines.
///
/// A WAV that could not be completed is removed again.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &Args) -> Result<Vec<Decoded>, Error> {
    let mut input = Input::open(&args.input)?;
    let kind = match args.kind {
        Some(kind) => kind,
        None => tell_kind(&args.input, input.peek()?)?,
    };
    let encoding = args.format.into();
    let decoded = match kind {
        Kind::Mulaw => vec![decode_raw(&mut input, &args.output, encoding)?],
        Kind::Jsonl => decode_capture(&mut input, args, encoding)?,
    };
    for call in &decoded {
        let path = call.path.display();
        if decoded.len() > 1 {
            let seconds = call.samples as f64 / f64::from(call.sample_rate_hz);
            log::complain(&format!("{path}: stream {}, {seconds:.1} s", call.stream_id));
        }
        if call.rejected > 0 {
            let rejected = call.rejected;
            log::complain(&format!("{path}: {rejected} of the call's lines could not be taken"));
        }
    }
    Ok(decoded)
}

/// Detects the content of a file from its first bytes, else from its name.
fn tell_kind(path: &Path, start: &[u8]) -> Result<Kind, Error> {
    const OTHERS: [(&[u8], &str); 7] = [
        (b"RIFF", "a WAV file"),
        (b"RF64", "a WAV file"),
        (b".snd", "an AU file: skip its header"),
        (b"OggS", "an Ogg file"),
        (b"fLaC", "a FLAC file"),
        (b"ID3", "an MP3 file"),
        (b"caff", "a CAF file"),
    ];
    let unfit = |reason| Err(Error::Unfit { path: path.to_owned(), reason });
    if let Some((magic, what)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        let magic = String::from_utf8_lossy(magic);
        return unfit(format!("not a mu-law file: it begins with {magic}, it is {what}"));
    }
    let text = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    let text: Vec<u8> = text.take(CAPTURE_STARTS[1].len()).copied().collect();
    if CAPTURE_STARTS.iter().any(|start| text.starts_with(start)) {
        return Ok(Kind::Jsonl);
    }
    let is_stdin = path == Path::new("-");
    if is_stdin || has_mulaw_name(path) {
        return Ok(Kind::Mulaw);
    }
    unfit(format!(
        "neither a capture nor named like raw mu-law (.{}); if it is raw mu-law, say --input mulaw",
        MULAW_EXTENSIONS.join(", .")
    ))
}

/// The input with its name, and its length where known.
struct Input {
    path: PathBuf,
    length: Option<u64>,
    reader: BufReader<File>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |cause| Error::Read { path: path.to_owned(), cause };
        let mut file = if path == Path::new("-") {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            File::open(path).map_err(failed)?
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        // Standard input may be a file of which another program has read a part.
        let length = match file.stream_position() {
            Ok(position) if metadata.is_file() => metadata.len().checked_sub(position),
            _ => None,
        };
        let reader = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self { path: path.to_owned(), length, reader })
    }

    /// Returns the next bytes; none only at the end. Consumed bytes make way for more.
    fn peek(&mut self) -> Result<&[u8], Error> {
        let path = &self.path;
        loop {
            // Called twice to satisfy the borrow checker; the second call reads nothing.
            match self.reader.fill_buf().map(<[u8]>::len) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(Error::Read { path: path.clone(), cause }),
            }
        }
        Ok(self.reader.buffer())
    }

    /// Reads one line into `line`, without its end. Returns `None` at the end of the input, and
    /// `Some(false)` for a line that is too long, of which `line` has only the beginning.
    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<bool>, Error> {
        line.clear();
        let mut fits = true;
        loop {
            let bytes = self.peek()?;
            if bytes.is_empty() {
                return Ok((!line.is_empty()).then_some(fits));
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LINE_BYTES_MAX - line.len();
            fits &= part.len() <= room;
            line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(fits));
            }
        }
    }
}

fn decode_raw(input: &mut Input, output: &Path, encoding: Encoding) -> Result<Decoded, Error> {
    let spec = Spec { channels: 1, sample_rate_hz: SAMPLE_RATE_HZ, encoding };
    let sample_bytes = u64::from(spec.sample_frame_bytes());
    let expected_bytes = input.length.map(|length| length.saturating_mul(sample_bytes));
    let mut wav = Output::create(output.to_owned(), false, spec, expected_bytes)?;
    let mut encoded = vec![0; usize::from(encoding.sample_bytes()) * READ_BYTES];
    let mut decoded = Decoded::new(output.to_owned(), String::new(), spec);
    loop {
        let codes = input.peek()?;
        if codes.is_empty() {
            break;
        }
        match encoding {
            Encoding::Mulaw => wav.write(codes)?,
            Encoding::Alaw | Encoding::Pcm16 => {
                encoding.encode_mulaw(codes, &mut encoded);
                wav.write(&encoded[..codes.len() * usize::from(encoding.sample_bytes())])?;
            }
        }
        let count = codes.len();
        decoded.samples += count as u64;
        input.reader.consume(count);
    }
    wav.finish()?;
    Ok(decoded)
}
