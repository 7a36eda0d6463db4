//! Captures: the messages of calls, one per line, and the WAV of each call.

use callreel_core::byte_order::ByteOrder;
use callreel_core::format::Codec;
use callreel_core::frame::{Body, Detector, Frame, PeerError, Provider, Start, Verdict};
use callreel_core::session::{self, Event, Session, Turn, ring_bytes_min};
use callreel_core::wav::{Encoding, Spec};

use super::output::Output;
use super::{Args, Decoded, Error, Input};
use crate::call::EARLY_BYTES_MAX;
use crate::call::routing::{self, Routed};
use crate::disk::numbered;
use crate::lines::{self, Message};
use crate::log;
use crate::recording::AudioFormat;
use crate::stream_paths::Assumed;

/// Bytes taken from a session at once.
const POLL_BYTES: usize = 1024;

pub(super) fn decode_capture(
    input: &mut Input,
    args: &Args,
    encoding: Encoding,
) -> Result<Vec<Decoded>, Error> {
    let mut capture = Capture::new(args, encoding);
    let mut line = Vec::new();
    while let Some(fits) = input.next_line(&mut line)? {
        if fits && !line.trim_ascii().is_empty() {
            capture.take(&line)?;
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
    detector: Detector,
    encoding: Encoding,
    /// Streams in the order of their starts; at least one.
    streams: Vec<CapturedStream>,
    /// Calls that have a WAV, in the order of their starts.
    decoded: Vec<Decoded>,
    /// Whether another call can be written. After a new file it can; after the only WAV of a pipe it
    /// cannot.
    has_room: bool,
    stream_ids: Vec<String>,
    rejected: u64,
    lines: u64,
    /// Audio that came before a start.
    early: Vec<u8>,
}

/// A stream of a capture.
struct CapturedStream {
    session: Box<Session<Vec<u8>>>,
    /// The output of a written call.
    output: Option<CallOutput>,
    is_over: bool,
}

/// The WAV of a call.
struct CallOutput {
    wav: Output,
    /// Encoding of the stream.
    codec: Codec,
    /// The measurement of the byte order, and the bytes that wait for its end; `None` if it is settled.
    order: Option<(ByteOrder, Vec<u8>)>,
    /// Index of the call.
    call: usize,
}

impl CallOutput {
    /// Takes bytes of the stream. Returns the number of samples written.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let Some((measured, held)) = &mut self.order else {
            return self.write(bytes);
        };
        measured.note(bytes);
        if !measured.has_begun() {
            return self.write(bytes);
        }
        held.extend_from_slice(bytes);
        if measured.is_over() { self.settle() } else { Ok(0) }
    }

    /// Writes the bytes that wait, in the order that the sound so far shows. Returns the number of samples
    /// written.
    fn settle(&mut self) -> Result<usize, Error> {
        let Some((measured, held)) = self.order.take() else {
            return Ok(0);
        };
        if measured.is_too_short() {
            self.order = Some((order_of(self.wav.spec), Vec::new()));
        }
        self.codec = measured.codec().unwrap_or(self.codec);
        let written = held.chunks(POLL_BYTES).map(|bytes| self.write(bytes));
        written.sum()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut encoded = [0; 2 * POLL_BYTES];
        let encoding = self.wav.spec.encoding;
        let samples = encoding.encode_wire(self.codec, bytes, &mut encoded);
        self.wav.write(&encoded[..samples * usize::from(encoding.sample_bytes())])?;
        Ok(samples)
    }
}

const fn order_of(spec: Spec) -> ByteOrder {
    ByteOrder::new(spec.sample_rate_hz, spec.channels == 2)
}

impl CapturedStream {
    fn new(provider: Provider) -> Self {
        let session = Box::new(Session::new(provider, Vec::new()));
        Self { session, output: None, is_over: false }
    }
}

impl Routed for CapturedStream {
    fn is_addressed(&self, stream_id: &[u8]) -> bool {
        self.session.is_addressed(stream_id)
    }

    fn is_live(&self) -> bool {
        self.session.spec().is_some() && !self.is_over
    }
}

impl<'a> Capture<'a> {
    fn new(args: &'a Args, encoding: Encoding) -> Self {
        let provider = args.provider.map(|spoken| spoken.provider);
        let detector = provider.map_or_else(Detector::new, Detector::of);
        Capture {
            args,
            detector,
            encoding,
            streams: vec![CapturedStream::new(provider.unwrap_or(Provider::Twilio))],
            decoded: Vec::new(),
            has_room: true,
            stream_ids: Vec::new(),
            rejected: 0,
            lines: 0,
            early: Vec::new(),
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        self.lines += 1;
        match lines::read(line) {
            Message::Text(mut text) => self.take_text(&mut text),
            Message::Binary(bytes) => self.take_audio(&bytes),
        }
    }

    /// Takes a binary message: audio, if the provider sends it in such messages or is not known yet.
    fn take_audio(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let has_started = self.streams.iter().any(|stream| stream.session.spec().is_some());
        match self.detector.verdict() {
            Verdict::Known(provider) if provider.habits().has_binary_audio => {
                if has_started {
                    return self.place_audio(bytes);
                }
                if provider.habits().has_optional_start && !bytes.is_empty() {
                    let start = Body::Start(Start::assumed(provider));
                    self.take_frame(Frame::new(None, b"", start), provider)?;
                    return self.place_audio(bytes);
                }
            }
            Verdict::Known(_) | Verdict::Foreign(_) => return Ok(()),
            Verdict::Undecided => {}
        }
        if self.early.len() + bytes.len() <= EARLY_BYTES_MAX {
            self.early.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Gives audio to the stream that began last.
    fn place_audio(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let index = routing::index_of(&self.streams, b"");
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        match stream.session.handle_audio(bytes) {
            Ok(turn) => drain(turn, stream.output.as_mut(), &mut self.decoded),
            Err(_) => {
                self.rejected += 1;
                Ok(())
            }
        }
    }

    fn take_text(&mut self, line: &mut [u8]) -> Result<(), Error> {
        let verdict = match str::from_utf8(line) {
            Ok(_) => self.detector.note_text(line),
            Err(_) => Err(PeerError::Json),
        };
        // Messages before the provider is known are read in the dialect that most others resemble.
        let provider = match verdict {
            Ok(Verdict::Known(provider)) => provider,
            _ => Provider::Twilio,
        };
        for stream in &mut self.streams {
            stream.session.set_provider(provider);
        }
        let is_known = matches!(verdict, Ok(Verdict::Known(_)));
        let mut index = self.streams.len().saturating_sub(1);
        match verdict.and_then(|_| self.parse(index, line)) {
            // The message is a start, and audio as well.
            Ok(frame @ Frame { body: Body::Start(_), .. })
                if provider.habits().begins_with_audio =>
            {
                let id = frame.stream_id;
                let begun = self.streams.iter().rposition(|stream| stream.is_addressed(id));
                if let Some(begun) = begun {
                    index = begun;
                } else {
                    self.take_frame(frame, provider)?;
                    index = self.streams.len().saturating_sub(1);
                }
            }
            parsed => return self.take_parsed(parsed, provider, is_known),
        }
        let parsed = self.parse(index, line);
        self.take_parsed(parsed, provider, is_known)
    }

    /// Parses a message for a stream.
    fn parse<'t>(&self, index: usize, line: &'t mut [u8]) -> Result<Frame<'t>, PeerError> {
        match self.streams.get(index) {
            Some(stream) => stream.session.parse(line),
            None => Err(PeerError::Shape),
        }
    }

    fn take_parsed(
        &mut self,
        parsed: Result<Frame<'_>, PeerError>,
        provider: Provider,
        is_known: bool,
    ) -> Result<(), Error> {
        let Ok(frame) = parsed else {
            self.rejected += 1;
            return Ok(());
        };
        if matches!(frame.body, Body::Start(_)) && !is_known {
            let reason = "its messages do not tell the provider; name it with --provider";
            return Err(unfit(self.args, reason.to_owned()));
        }
        let is_start = matches!(frame.body, Body::Start(_));
        self.take_frame(frame, provider)?;
        if !is_start || self.early.is_empty() {
            return Ok(());
        }
        let early = std::mem::take(&mut self.early);
        if provider.habits().has_binary_audio { self.place_audio(&early) } else { Ok(()) }
    }

    fn take_frame(&mut self, mut frame: Frame<'_>, provider: Provider) -> Result<(), Error> {
        if let Body::Start(start) = &mut frame.body {
            let has_started = self.streams.iter().any(|stream| stream.session.spec().is_some());
            if provider.habits().has_free_start && has_started {
                return Ok(());
            }
            self.assumed().complete(start);
        }
        let index = match &frame.body {
            Body::Start(_) => self.stream_for_start(frame.stream_id, provider)?,
            _ => routing::index_of(&self.streams, frame.stream_id),
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        if let Body::Start(start) = &frame.body {
            stream.session.set_ring(vec![0; ring_bytes_min(start).unwrap_or_default()]);
        }
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
                let reason = format!(
                    "audio of its stream's format ({}) cannot be decoded",
                    start.encoding.to_string().escape_debug()
                );
                Err(unfit(self.args, reason))
            }
            Event::Started { start, .. } => {
                let stream_id = start.stream_id.to_string();
                let format = AudioFormat::of(start, self.encoding);
                drop(turn);
                self.begin_call(index, stream_id, format)
            }
            event => {
                stream.is_over |= matches!(event, Event::Stopped);
                let is_all_over = matches!(event, Event::Over);
                drain(turn, stream.output.as_mut(), &mut self.decoded)?;
                let dialogue = *stream.session.dialogue_mut();
                for stream in &mut self.streams {
                    stream.is_over |= is_all_over;
                    *stream.session.dialogue_mut() = dialogue;
                }
                Ok(())
            }
        }
    }

    /// Settings of the user's for streams that do not tell their format.
    fn assumed(&self) -> Assumed {
        self.args.provider.map(|spoken| spoken.assumed).unwrap_or_default()
    }

    /// Makes a place for a stream that starts; returns its index.
    fn stream_for_start(&mut self, stream_id: &[u8], provider: Provider) -> Result<usize, Error> {
        if self.streams.iter().any(|stream| stream.session.spec().is_none()) {
            return Ok(0); // No stream has started.
        }
        let is_nameless = stream_id.is_empty() && self.streams.iter().any(Routed::is_live);
        if is_nameless && !self.streams.iter().any(|stream| stream.is_addressed(stream_id)) {
            return Ok(routing::index_of(&self.streams, stream_id)); // The stream there rejects it.
        }
        let mut stream = CapturedStream::new(provider);
        if let Some(last) = self.streams.last_mut() {
            *stream.session.dialogue_mut() = *last.session.dialogue_mut();
        }
        if let Some(index) = routing::index_to_replace(&self.streams, stream_id) {
            self.finish_call(index)?;
            self.streams.remove(index);
        }
        self.streams.push(stream);
        Ok(self.streams.len() - 1)
    }

    fn begin_call(
        &mut self,
        index: usize,
        stream_id: String,
        format: AudioFormat,
    ) -> Result<(), Error> {
        let is_wanted = self.args.stream.as_ref().is_none_or(|wanted| *wanted == stream_id);
        if let Some(stream) = self.streams.get_mut(index)
            && is_wanted
            && self.has_room
        {
            let path = numbered(&self.args.output, self.decoded.len() + 1);
            let AudioFormat { codec, payload, spec } = format;
            let has_order = matches!(payload, Codec::L16Be | Codec::L16Le);
            let order = has_order.then(|| (order_of(spec), Vec::new()));
            let wav = Output::create(path.clone(), !self.decoded.is_empty(), spec, None)?;
            self.has_room = wav.is_new;
            stream.output = Some(CallOutput { wav, codec, order, call: self.decoded.len() });
            self.decoded.push(Decoded::new(path, stream_id.clone(), spec));
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
        if let Some(mut output) = stream.output.take() {
            let samples = output.settle()?;
            let CallOutput { wav, call, .. } = output;
            wav.finish()?;
            if let Some(call) = self.decoded.get_mut(call) {
                call.samples += samples as u64 / u64::from(call.channels);
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
    mut turn: Turn<'_, '_, Vec<u8>>,
    output: Option<&mut CallOutput>,
    calls: &mut [Decoded],
) -> Result<(), Error> {
    let mut current = output.and_then(|output| {
        let call = calls.get_mut(output.call)?;
        Some((output, call))
    });
    let mut bytes = [0; POLL_BYTES];
    loop {
        let count = turn.poll_wire(&mut bytes);
        if count == 0 {
            return Ok(());
        }
        if let Some((output, call)) = &mut current {
            let samples = output.take(&bytes[..count])?;
            call.samples += samples as u64 / u64::from(call.channels);
        }
    }
}
