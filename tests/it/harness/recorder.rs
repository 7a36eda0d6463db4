//! The smallest recorder that can be made of core's parts, and the interface of recorders under test.

use std::convert::Infallible;

use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Body, Detector, Frame, PeerError, Provider, Start, Verdict};
use callreel_core::session::{
    Error, Event, Gap, MediaClock, RING_BOTH_TRACKS_MIN, Run, Session, Stats, Turn, ring_bytes_min,
};
use callreel_core::wav;
use callreel_core::ws::{self, CloseCode};
use embedded_io::{ErrorType, Seek, SeekFrom, Write};

use super::client;

/// A recorder of calls: core, or a server around it.
pub(crate) trait Recorder {
    /// Sends the messages of these lines on one connection, then ends it; returns the WAV files of its streams in the order of their starts.
    fn record(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>>;
}

/// Core with nothing around it.
pub(crate) struct Core;

impl Recorder for Core {
    fn record(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = messages.iter().flat_map(client::message).collect();
        connection(&[&bytes], 256 << 10).into_iter().map(|recording| recording.wav()).collect()
    }
}

/// The result of one session.
#[derive(Debug, PartialEq)]
pub(crate) struct Recording {
    pub spec: wav::Spec,
    /// Interleaved.
    pub samples: Vec<i16>,
    pub stats: Stats,
    pub gaps: Vec<Gap>,
    /// Whether a stop came.
    pub stopped: bool,
    /// Keys that were pressed and marks that came back, each with its sample.
    pub cues: Vec<(String, u64)>,
    pub clock: MediaClock,
}

impl Recording {
    /// The file, written as the server and the device write it.
    pub(crate) fn wav(&self) -> Vec<u8> {
        let mut writer = wav::Writer::new(Sink::default(), self.spec).unwrap();
        for samples in self.samples.chunks(400) {
            writer.write(samples).unwrap();
        }
        writer.finish().unwrap().bytes
    }

    /// The samples of one channel.
    pub(crate) fn channel(&self, index: usize) -> Vec<i16> {
        self.samples.iter().skip(index).step_by(usize::from(self.spec.channels)).copied().collect()
    }
}

/// Feeds a connection's bytes, as they were received, to a decoder and sessions.
///
/// # Panics
/// If an invariant of the decoder does not hold.
pub(crate) fn connection(received: &[&[u8]], message_bytes_max: usize) -> Vec<Recording> {
    streams_of(received, message_bytes_max, Streams::new(RING_BOTH_TRACKS_MIN, 512))
}

/// Feeds a connection's bytes to a decoder and sessions as a device does, with the memory of one
/// session: a start ends the stream before it.
pub(crate) fn device_connection(received: &[&[u8]], message_bytes_max: usize) -> Vec<Recording> {
    let streams = Streams { has_one: true, ..Streams::new(RING_BOTH_TRACKS_MIN, 512) };
    streams_of(received, message_bytes_max, streams)
}

fn streams_of(
    received: &[&[u8]],
    message_bytes_max: usize,
    mut streams: Streams,
) -> Vec<Recording> {
    decode(received, message_bytes_max, |event| match event {
        Ok(ws::Event::Text(text)) => streams.take(text),
        Ok(ws::Event::Binary(bytes)) => streams.take_audio(bytes),
        _ => {}
    });
    streams.end().0
}

/// Hands the received bytes to a decoder, piece by piece, in a buffer of the documented size, and its
/// events to `handle`; returns the number of bytes held at the end.
///
/// # Panics
/// If an invariant of the decoder does not hold.
pub(crate) fn decode(
    received: &[&[u8]],
    message_bytes_max: usize,
    mut handle: impl FnMut(Result<ws::Event<'_>, CloseCode>),
) -> usize {
    let mut decoder = ws::Decoder::new(message_bytes_max);
    let mut buffer = vec![0; message_bytes_max + ws::OVERHEAD_BYTES_MAX];
    let mut held = 0;
    for mut piece in received.iter().copied() {
        while !piece.is_empty() {
            let room = &mut buffer[held..];
            assert!(!room.is_empty(), "the buffer is full and the decoder waits");
            let count = room.len().min(piece.len());
            room[..count].copy_from_slice(&piece[..count]);
            piece = &piece[count..];
            let bytes = &mut buffer[..held + count];
            while let Some(event) = decoder.poll(bytes) {
                assert_eq!(decoder.is_closed(), matches!(event, Err(_) | Ok(ws::Event::Close(_))));
                handle(event);
            }
            held = decoder.compact(bytes);
        }
    }
    held
}

/// Feeds messages to sessions with rings of `ring_bytes`, and polls `out_places` samples at a time.
pub(crate) fn record(
    messages: &[impl AsRef<[u8]>],
    ring_bytes: usize,
    out_places: usize,
) -> (Vec<Recording>, Vec<Error>) {
    let mut streams = Streams::new(ring_bytes, out_places);
    for message in messages {
        streams.take(&mut message.as_ref().to_vec());
    }
    streams.end()
}

/// The only recording of messages that are all taken.
pub(crate) fn record_one(messages: &[impl AsRef<[u8]>]) -> Recording {
    let (mut recordings, errors) = record(messages, 4096, 512);
    assert_eq!((recordings.len(), errors), (1, vec![]));
    recordings.remove(0)
}

/// A connection's sessions in the order of their starts, each with the tape of its output.
struct Streams {
    detector: Detector,
    ring_bytes: usize,
    out_places: usize,
    all: Vec<(Session<Vec<u8>>, Tape)>,
    errors: Vec<Error>,
    /// Whether a start ends the stream before it.
    has_one: bool,
    /// Audio that came before a start.
    early: Vec<u8>,
}

impl Streams {
    fn new(ring_bytes: usize, out_places: usize) -> Self {
        let mut streams = Self {
            detector: Detector::new(),
            ring_bytes,
            out_places,
            all: vec![],
            errors: vec![],
            has_one: false,
            early: vec![],
        };
        streams.add();
        streams
    }

    fn add(&mut self) -> usize {
        let mut session = Session::new(self.provider(), vec![0; self.ring_bytes]);
        if let Some((last, _)) = self.all.last_mut() {
            *session.dialogue_mut() = *last.dialogue_mut();
        }
        self.all.push((session, Tape { out_places: self.out_places, ..Tape::default() }));
        self.all.len() - 1
    }

    /// The provider that the messages tell; Twilio as long as they do not.
    fn provider(&self) -> Provider {
        match self.detector.verdict() {
            Verdict::Known(provider) => provider,
            _ => Provider::Twilio,
        }
    }

    fn take(&mut self, text: &mut [u8]) {
        let last = self.all.len() - 1;
        if self.has_one {
            return self.take_alone(last, text);
        }
        let verdict = self.detector.note_text(text);
        let provider = self.provider();
        self.all.iter_mut().for_each(|(session, _)| session.set_provider(provider));
        let index = match verdict.and_then(|_| self.all[last].0.parse(text)) {
            Ok(frame @ Frame { body: Body::Start(_), .. })
                if provider.habits().begins_with_audio =>
            {
                // The message is a start, and audio as well.
                let id = frame.stream_id;
                let begun = self.all.iter().rposition(|(session, _)| session.is_addressed(id));
                if begun.is_none() {
                    self.take_frame(frame);
                }
                begun.unwrap_or(self.all.len() - 1)
            }
            parsed => return self.take_parsed(parsed, provider),
        };
        let parsed = self.all[index].0.parse(text);
        self.take_parsed(parsed, provider);
    }

    fn take_parsed(&mut self, parsed: Result<Frame<'_>, PeerError>, provider: Provider) {
        match parsed {
            Ok(frame) => {
                let is_start = matches!(frame.body, Body::Start(_));
                self.take_frame(frame);
                if is_start && provider.habits().has_binary_audio {
                    let early = std::mem::take(&mut self.early);
                    self.place_audio(&early);
                }
            }
            Err(error) => {
                let last = self.all.len() - 1;
                let error = self.all[last].0.reject(error);
                self.errors.push(error);
            }
        }
    }

    fn take_audio(&mut self, bytes: &[u8]) {
        let last = self.all.len() - 1;
        let mut has_started = self.all[last].0.spec().is_some();
        let habits = match self.detector.verdict() {
            Verdict::Known(provider) => provider.habits(),
            Verdict::Foreign(_) => return,
            Verdict::Undecided => return self.early.extend(bytes),
        };
        if !habits.has_binary_audio {
            return;
        }
        if !has_started && habits.has_optional_start && !bytes.is_empty() {
            let start = Body::Start(Start::assumed(self.provider()));
            self.take_frame(Frame::new(None, b"", start));
            has_started = true;
        }
        if has_started { self.place_audio(bytes) } else { self.early.extend(bytes) }
    }

    fn place_audio(&mut self, bytes: &[u8]) {
        let (session, tape) = self.all.last_mut().unwrap();
        tape.note(session);
        match session.handle_audio(bytes) {
            Ok(turn) => tape.drain(turn, usize::MAX),
            Err(error) => self.errors.push(error),
        }
    }

    fn take_frame(&mut self, frame: Frame<'_>) {
        let last = self.all.len() - 1;
        let is_live =
            |(session, tape): &(Session<_>, Tape)| session.spec().is_some() && !tape.ended;
        let named = self.all.iter().rposition(|stream| {
            stream.0.is_addressed(frame.stream_id) && (is_live(stream) || stream.1.stopped)
        });
        let live = self.all.iter().rposition(is_live);
        let index = match (&frame.body, named, live) {
            (Body::Start(_), Some(index), _) => {
                self.finish(index);
                self.add()
            }
            (Body::Start(_), None, Some(index)) if frame.stream_id.is_empty() => index,
            (Body::Start(_), None, _) if self.all[last].0.spec().is_some() => self.add(),
            (_, Some(index), _) | (_, None, Some(index)) => index,
            _ => last,
        };
        let (session, tape) = &mut self.all[index];
        tape.note(session);
        if let Body::Start(start) = &frame.body
            && let Some(bytes_min) = ring_bytes_min(start)
            && (bytes_min > self.ring_bytes || start.is_interleaved)
        {
            session.set_ring(vec![0; bytes_min]);
        }
        let mut is_over = false;
        match session.handle_frame(frame) {
            Ok(turn) => {
                is_over = matches!(turn.event(), Event::Over);
                tape.drain(turn, usize::MAX);
            }
            Err(error) => self.errors.push(error),
        }
        let dialogue = *session.dialogue_mut();
        for (session, _) in &mut self.all {
            *session.dialogue_mut() = dialogue;
        }
        if is_over {
            (0..self.all.len()).for_each(|index| self.finish(index));
        }
    }

    fn take_alone(&mut self, index: usize, text: &mut [u8]) {
        let (session, tape) = &mut self.all[index];
        tape.note(session);
        let begins_another = match session.handle_message(text) {
            Ok(turn) => {
                let begins_another = matches!(turn.event(), Event::Restart);
                tape.drain(turn, usize::MAX);
                begins_another
            }
            Err(error) => {
                self.errors.push(error);
                false
            }
        };
        if begins_another {
            self.finish(index);
            let index = self.add();
            self.take_alone(index, text);
        }
    }

    fn finish(&mut self, index: usize) {
        let (session, tape) = &mut self.all[index];
        tape.note(session);
        tape.drain(session.handle_end(), usize::MAX);
        tape.ended = true;
    }

    fn end(mut self) -> (Vec<Recording>, Vec<Error>) {
        (0..self.all.len()).for_each(|index| self.finish(index));
        let recordings =
            self.all.into_iter().filter_map(|(session, tape)| tape.recording(&session));
        (recordings.collect(), self.errors)
    }
}

/// Output of one session.
struct Tape {
    out_places: usize,
    /// Channels and codec of the session before its last message.
    channels: usize,
    codec: Codec,
    /// Polls so far.
    polls: usize,
    samples: Vec<i16>,
    gaps: Vec<Gap>,
    stopped: bool,
    /// Whether the session was ended from outside or by a stop.
    ended: bool,
    cues: Vec<(String, u64)>,
}

impl Default for Tape {
    fn default() -> Self {
        Self {
            out_places: 512,
            channels: 1,
            codec: Codec::Mulaw,
            polls: 0,
            samples: vec![],
            gaps: vec![],
            stopped: false,
            ended: false,
            cues: vec![],
        }
    }
}

impl Tape {
    /// Notes the channels and the codec of the session before its next message.
    fn note(&mut self, session: &Session<Vec<u8>>) {
        self.channels = session.tracks().channels().into();
        self.codec = session.format().unwrap_or(Format::TELEPHONE).codec;
    }

    /// Decodes the bytes of a poll.
    fn decode(&mut self, bytes: &[u8]) {
        let mut samples = vec![0; bytes.len() / self.codec.width()];
        self.codec.decode(bytes, &mut samples);
        self.samples.extend(samples);
    }

    fn drain(&mut self, mut turn: Turn<'_, '_, Vec<u8>>, polls_max: usize) {
        match turn.event() {
            Event::Over | Event::Stopped => {
                self.stopped = true;
                self.ended = true;
            }
            Event::Dtmf { digit, at } => self.cues.push((format!("digit {digit}"), *at)),
            Event::Mark { name, at } => self.cues.push((format!("mark {name}"), *at)),
            _ => {}
        }
        self.gaps.extend(turn.gaps());
        let (mut out, mut codes) = (vec![0; self.out_places], vec![0; self.out_places]);
        for _ in 0..polls_max {
            // The three polls by turns: codes, silence as a number and samples must be the same audio.
            self.polls += 1;
            let count = match self.polls % 3 {
                0 => {
                    let count = turn.poll_wire(&mut codes);
                    self.decode(&codes[..count]);
                    count
                }
                1 => match turn.poll_run(&mut codes) {
                    Run::Bytes(count) => {
                        self.decode(&codes[..count]);
                        count
                    }
                    Run::Silence(samples) => {
                        let count = samples as usize * self.channels;
                        let silence = vec![self.codec.silence(); count * self.codec.width()];
                        self.decode(&silence);
                        count
                    }
                },
                _ => {
                    let count = turn.poll_pcm(&mut out);
                    self.samples.extend(&out[..count]);
                    count
                }
            };
            if count == 0 {
                return;
            }
        }
    }

    fn recording(self, session: &Session<Vec<u8>>) -> Option<Recording> {
        let Self { samples, gaps, stopped, cues, .. } = self;
        let stats = *session.stats();
        let clock = session.media_clock();
        session.spec().map(|spec| Recording { spec, samples, stats, gaps, stopped, cues, clock })
    }
}

/// A file in memory.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub bytes: Vec<u8>,
    position: usize,
}

impl ErrorType for Sink {
    type Error = Infallible;
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> Result<usize, Infallible> {
        let end = self.position + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[self.position..end].copy_from_slice(data);
        self.position = end;
        Ok(data.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Infallible> {
        self.position = match to {
            SeekFrom::Start(place) => place as usize,
            SeekFrom::End(offset) => self.bytes.len().strict_add_signed(offset as isize),
            SeekFrom::Current(offset) => self.position.strict_add_signed(offset as isize),
        };
        Ok(self.position as u64)
    }
}
