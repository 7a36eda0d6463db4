//! `callreel decode`: converts stored call audio to WAV, sample by sample as `ffmpeg -f mulaw -ar 8000
//! -ac 1` does.
//!
//! The input is raw mu-law or a capture: the messages of calls, one per line, which pass through the
//! same [`Session`] that records live calls.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use callreel_core::frame::{self, Body, Provider};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::{self, Event, RING_BOTH_TRACKS_MIN, Session, Turn};
use callreel_core::wav::{self, Encoding, Length, Spec};

use crate::audio::{MULAW_EXTENSIONS, has_mulaw_name};
use crate::call::routing::{self, Routed};
use crate::log;

/// Bytes per read: few enough that a short file touches little memory.
const READ_BYTES: usize = 16 << 10;

/// Samples taken from a session at once.
const POLL_SAMPLES: usize = 512;

/// Bytes gathered for one write: the samples decoded from one read go out uncopied.
const WRITE_BYTES: usize = 2 * READ_BYTES;

/// Longest line of a capture that is read, far above the longest recorded message. Longer lines are
/// skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 20;

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

    /// Sample format of the WAV
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Content of IN [default: detected from its first bytes and its name]
    #[arg(long = "input", value_enum, value_name = "KIND")]
    pub kind: Option<Kind>,
}

/// Sample format of the WAV files.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// 16-bit PCM, which every program reads.
    #[default]
    Pcm16,
    /// G.711 mu-law: the same samples in half the disk space.
    Mulaw,
}

impl From<Format> for Encoding {
    fn from(format: Format) -> Self {
        match format {
            Format::Pcm16 => Self::Pcm16,
            Format::Mulaw => Self::Mulaw,
        }
    }
}

/// Content of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Raw mu-law, one byte per sample, mono.
    Mulaw,
    /// Messages of calls, one JSON value per line.
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
    /// Rejected lines of the capture, from the end of the call before up to the end of this one.
    pub rejected: u64,
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
            let seconds = call.samples as f64 / f64::from(SAMPLE_RATE_HZ);
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
    let mut text = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    if text.next() == Some(&b'{') && text.next() == Some(&b'"') {
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
    let mut pcm = vec![0; if encoding == Encoding::Pcm16 { 2 * READ_BYTES } else { 0 }];
    let mut samples = 0;
    loop {
        let codes = input.peek()?;
        if codes.is_empty() {
            break;
        }
        match encoding {
            Encoding::Mulaw => wav.write(codes)?,
            Encoding::Pcm16 => {
                encoding.encode_mulaw(codes, &mut pcm);
                wav.write(&pcm[..2 * codes.len()])?;
            }
        }
        let count = codes.len();
        samples += count as u64;
        input.reader.consume(count);
    }
    wav.finish()?;
    Ok(Decoded {
        path: output.to_owned(),
        stream_id: String::new(),
        samples,
        channels: 1,
        rejected: 0,
    })
}

fn decode_capture(
    input: &mut Input,
    args: &Args,
    encoding: Encoding,
) -> Result<Vec<Decoded>, Error> {
    let mut capture = Capture::new(args, encoding);
    let mut line = Vec::new();
    while let Some(fits) = input.next_line(&mut line)? {
        if fits && !line.trim_ascii().is_empty() {
            capture.take(&mut line)?;
        } else if !fits {
            capture.rejected += 1;
        }
    }
    capture.finish()?;
    capture.into_decoded(input)
}

/// A capture being decoded.
struct Capture<'a> {
    args: &'a Args,
    encoding: Encoding,
    /// Streams in the order of their starts; at least one.
    streams: Vec<Stream>,
    /// Calls that have a WAV, in the order of their starts.
    decoded: Vec<Decoded>,
    /// Whether another call can be written. After a new file it can; after the only WAV of a pipe it
    /// cannot.
    has_room: bool,
    stream_ids: Vec<String>,
    rejected: u64,
    lines: u64,
}

/// A stream of a capture.
struct Stream {
    session: Box<Session<[u8; RING_BOTH_TRACKS_MIN]>>,
    /// The output of a written call, and the index of the call.
    output: Option<(Output, usize)>,
    is_over: bool,
}

impl Stream {
    fn new() -> Self {
        let session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
        Self { session: Box::new(session), output: None, is_over: false }
    }
}

impl Routed for Stream {
    fn is_addressed(&self, stream_id: &[u8]) -> bool {
        self.session.is_addressed(stream_id)
    }

    fn is_live(&self) -> bool {
        self.session.spec().is_some() && !self.is_over
    }
}

impl<'a> Capture<'a> {
    fn new(args: &'a Args, encoding: Encoding) -> Self {
        Capture {
            args,
            encoding,
            streams: vec![Stream::new()],
            decoded: Vec::new(),
            has_room: true,
            stream_ids: Vec::new(),
            rejected: 0,
            lines: 0,
        }
    }

    fn take(&mut self, line: &mut [u8]) -> Result<(), Error> {
        self.lines += 1;
        let frame = match str::from_utf8(line) {
            Ok(_) => frame::parse(Provider::Twilio, line),
            Err(_) => Err(frame::PeerError::Json),
        };
        let Ok(frame) = frame else {
            self.rejected += 1;
            return Ok(());
        };
        let index = match &frame.body {
            Body::Start(_) => self.stream_for_start(frame.stream_id)?,
            _ => routing::index_of(&self.streams, frame.stream_id),
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        let turn = match stream.session.handle_frame(frame) {
            Ok(turn) => turn,
            Err(session::Error::Peer(_)) => {
                self.rejected += 1;
                return Ok(());
            }
            Err(error) => return Err(unfit(self.args, error.to_string())),
        };
        match turn.event() {
            Event::Refused(start) => {
                let reason = format!("its stream is not 8 kHz mono mu-law but {}", start.encoding);
                Err(unfit(self.args, reason))
            }
            Event::Started(start) => {
                let (stream_id, channels) = (start.stream_id.to_string(), start.tracks.channels());
                drop(turn);
                self.begin_call(index, stream_id, channels)
            }
            event => {
                stream.is_over |= matches!(event, Event::Stopped);
                drain(turn, stream.output.as_mut(), &mut self.decoded)
            }
        }
    }

    /// Makes a place for a stream that starts; returns its index.
    fn stream_for_start(&mut self, stream_id: &[u8]) -> Result<usize, Error> {
        if self.streams.iter().any(|stream| stream.session.spec().is_none()) {
            return Ok(0); // No stream has started.
        }
        let is_nameless = stream_id.is_empty() && self.streams.iter().any(Routed::is_live);
        if is_nameless && !self.streams.iter().any(|stream| stream.is_addressed(stream_id)) {
            return Ok(routing::index_of(&self.streams, stream_id)); // The stream there rejects it.
        }
        if let Some(index) = routing::index_to_replace(&self.streams, stream_id) {
            self.finish_call(index)?;
            self.streams.remove(index);
        }
        self.streams.push(Stream::new());
        Ok(self.streams.len() - 1)
    }

    fn begin_call(&mut self, index: usize, stream_id: String, channels: u16) -> Result<(), Error> {
        let is_wanted = self.args.stream.as_ref().is_none_or(|wanted| *wanted == stream_id);
        if let Some(stream) = self.streams.get_mut(index)
            && is_wanted
            && self.has_room
        {
            let path = numbered(&self.args.output, self.decoded.len() + 1);
            let encoding = self.encoding;
            let spec = Spec { channels, sample_rate_hz: SAMPLE_RATE_HZ, encoding };
            let output = Output::create(path.clone(), !self.decoded.is_empty(), spec, None)?;
            self.has_room = output.is_new;
            stream.output = Some((output, self.decoded.len()));
            let stream_id = stream_id.clone();
            self.decoded.push(Decoded { path, stream_id, samples: 0, channels, rejected: 0 });
        }
        self.stream_ids.push(stream_id);
        Ok(())
    }

    /// Ends the call of a stream, if it has a WAV.
    fn finish_call(&mut self, index: usize) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        drain(stream.session.handle_end(), stream.output.as_mut(), &mut self.decoded)?;
        if let Some((output, call)) = stream.output.take() {
            output.finish()?;
            if let Some(call) = self.decoded.get_mut(call) {
                call.rejected += std::mem::take(&mut self.rejected);
            }
        }
        Ok(())
    }

    /// Ends every call.
    fn finish(&mut self) -> Result<(), Error> {
        (0..self.streams.len()).try_for_each(|index| self.finish_call(index))
    }

    fn into_decoded(self, input: &Input) -> Result<Vec<Decoded>, Error> {
        let no_call = |reason| Err(Error::NoCall { path: input.path.clone(), reason });
        match (&self.args.stream, self.stream_ids.len(), self.decoded.len()) {
            (_, 0, _) => no_call(format!("no start of a call in its {} lines", self.lines)),
            (Some(wanted), _, 0) => {
                no_call(format!("no stream {wanted}; it has {}", self.stream_ids.join(", ")))
            }
            (None, calls, 1) if calls > 1 => {
                log::complain(&format!(
                    "{}: {} more calls; choose one with --stream ID: {}",
                    input.path.display(),
                    calls - 1,
                    self.stream_ids.join(", ")
                ));
                Ok(self.decoded)
            }
            _ => Ok(self.decoded),
        }
    }
}

fn unfit(args: &Args, reason: String) -> Error {
    Error::Unfit { path: args.input.clone(), reason }
}

/// Moves all samples of a turn to the WAV of the call, if it has one.
fn drain(
    mut turn: Turn<'_, '_, [u8; RING_BOTH_TRACKS_MIN]>,
    output: Option<&mut (Output, usize)>,
    calls: &mut [Decoded],
) -> Result<(), Error> {
    let mut current = output.and_then(|(output, call)| Some((output, calls.get_mut(*call)?)));
    let mut codes = [0; POLL_SAMPLES];
    let mut bytes = [0; 2 * POLL_SAMPLES];
    loop {
        let count = turn.poll_wire(&mut codes);
        if count == 0 {
            return Ok(());
        }
        if let Some((output, call)) = &mut current {
            let encoding = output.spec.encoding;
            encoding.encode_mulaw(&codes[..count], &mut bytes);
            output.write(&bytes[..count * usize::from(encoding.sample_bytes())])?;
            call.samples += count as u64 / u64::from(call.channels);
        }
    }
}

/// Returns the name of the n-th WAV of a capture: `OUT.wav`, `OUT-2.wav` and so on.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// A WAV being written to a file or a pipe.
///
/// A new file is removed if this is dropped before [`finish`](Self::finish).
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    spec: Spec,
    data_bytes: u64,
    /// The length in the header.
    length: Length,
    is_new: bool,
}

impl Output {
    /// Begins a WAV. Its header is right from the start if `expected_bytes` are known.
    fn create(
        path: PathBuf,
        is_derived: bool,
        spec: Spec,
        expected_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let length = match expected_bytes {
            Some(bytes) if bytes > u64::from(wav::DATA_BYTES_MAX) => {
                return Err(too_long(path, spec));
            }
            Some(bytes) => Length::Bytes(bytes as u32),
            None => Length::Unknown,
        };
        let (file, is_new) = create_or_open(&path, is_derived)?;
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut output = Self { path, file, spec, data_bytes: 0, length, is_new };
        let header = wav::header(spec, length);
        output.file.write_all(&header).map_err(|cause| output.failed(cause))?;
        Ok(output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.data_bytes += bytes.len() as u64;
        if self.data_bytes > u64::from(wav::DATA_BYTES_MAX) {
            return Err(too_long(self.path.clone(), self.spec));
        }
        self.file.write_all(bytes).map_err(|cause| self.failed(cause))
    }

    /// Ends the data as the format demands, and corrects the header of a new file.
    ///
    /// A redirected standard output keeps the sizes of a stream: it may be open for appending.
    fn finish(mut self) -> Result<(), Error> {
        self.complete().map_err(|cause| self.failed(cause))?;
        self.is_new = false;
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        let data_bytes = self.data_bytes as u32;
        // Readers of a stream of unknown length read everything behind the header as audio.
        if self.is_new || self.length != Length::Unknown {
            self.file.write_all(wav::ending(data_bytes))?;
        }
        let length = Length::Bytes(data_bytes);
        if self.length != length && self.is_new {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&wav::header(self.spec, length))?;
        }
        self.file.flush()
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Write { path: self.path.clone(), cause }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new {
            // A file left over is a nuisance, not a loss: the first error is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens standard output, a pipe or a device, or creates a file. Returns the file and whether it is new.
/// A name that is derived from the user's (`is_derived`) is accepted for a new file only.
fn create_or_open(path: &Path, is_derived: bool) -> Result<(File, bool), Error> {
    let failed = |cause| Error::Write { path: path.to_owned(), cause };
    if path == Path::new("-") {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok((File::from(stdout), false));
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let exists = || Error::Exists(path.to_owned());
            if is_derived || fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
                return Err(exists());
            }
            // The user named it: a device, a pipe, or a link to one.
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            // No other program has put a file there meanwhile.
            if file.metadata().map_err(failed)?.is_file() {
                Err(exists())
            } else {
                Ok((file, false))
            }
        }
        Err(cause) => Err(failed(cause)),
    }
}

fn too_long(path: PathBuf, spec: Spec) -> Error {
    let advice = match spec.encoding {
        Encoding::Pcm16 => "use --format mulaw, or decode in parts",
        Encoding::Mulaw => "decode in parts",
    };
    Error::TooLong { path, advice }
}
