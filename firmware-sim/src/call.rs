//! One call: takes the bytes of its connection and queues its samples for the card's side.

use core::fmt::{self, Write};

#[cfg(feature = "formats")]
use callreel_core::format::Codec;
#[cfg(feature = "formats")]
use callreel_core::frame::{Body, Detector, Frame, Verdict};
use callreel_core::frame::{PeerError, Provider, Start, Text, Track, Tracks};
use callreel_core::names::End;
use callreel_core::session::{
    Error, Event, RING_BOTH_TRACKS_MIN, RING_ONE_TRACK_MIN, Session, SilenceBudget, Turn,
};
use callreel_core::wav::{Encoding, Spec};
use callreel_core::ws::{self, CloseCode, Control, Decoder};
use heapless::String;

use crate::queue::Queue;

/// The longest WebSocket message accepted: four times a media frame of 20 ms.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Size of a connection's buffer.
pub const BUFFER_BYTES: usize = MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX;

/// Bytes of a session's ring. One track waits only for missing messages; two tracks also wait for
/// each other. Whole sample frames of 16-bit samples, the ring of two tracks of mu-law also serves two
/// such tracks of 8 kHz that come in one message, or one of 16 kHz.
pub const RING_BYTES: usize = if cfg!(feature = "formats") {
    RING_BOTH_TRACKS_MIN.next_multiple_of(4)
} else if cfg!(feature = "both-tracks") {
    RING_BOTH_TRACKS_MIN
} else {
    RING_ONE_TRACK_MIN
};

/// Tracks of a recording.
const TRACKS: usize = if cfg!(feature = "both-tracks") { 2 } else { 1 };

/// Bytes of the queue to the card: with the frames that wait in the connection's buffer it holds half a
/// second of each track of mu-law, and has room for one message more.
pub const QUEUE_BYTES: usize =
    TRACKS * callreel_core::g711::SAMPLE_RATE_HZ as usize / 2 - BUFFER_SAMPLES + ROOM_MIN;

/// Samples of mu-law of the whole media frames of 20 ms that fit into a connection's buffer.
const BUFFER_SAMPLES: usize = BUFFER_BYTES / FRAME_BYTES * 160;

/// A media frame of 20 ms as Twilio sends it, with its WebSocket header.
const FRAME_BYTES: usize = 384 + 8;

/// Most bytes of audio in one message of text: all of it were base64.
const MESSAGE_AUDIO_MAX: usize = MESSAGE_BYTES_MAX / 4 * 3;

/// While the queue has less room than this, messages wait in the connection's window. It covers the
/// bytes that one message can bring: its own, and those that the ring has held. Of two tracks the ring
/// gives no more than it holds, or than a message has: each moment needs both of them. Long silence takes
/// no room. A binary message has all tracks, and nothing waits for it in the ring.
const ROOM_MIN: usize = match TRACKS {
    1 => MESSAGE_AUDIO_MAX + RING_BYTES,
    _ if RING_BYTES > TRACKS * MESSAGE_AUDIO_MAX => RING_BYTES,
    _ => TRACKS * MESSAGE_AUDIO_MAX,
};
const _: () = assert!(ROOM_MIN >= TRACKS * MESSAGE_AUDIO_MAX && ROOM_MIN >= RING_BYTES);
const _: () = assert!(TRACKS == 1 || ROOM_MIN >= MESSAGE_BYTES_MAX);
const _: () = assert!(QUEUE_BYTES > ROOM_MIN);

/// Longest time that a full queue holds the provider back. After that, audio is dropped, counted
/// and replaced by silence, so that a stop or a close still gets through.
pub const STALL_MS_MAX: u64 = 2000;

/// An id in an end record: the first 40 characters, with `_` for any character except ASCII
/// letters, digits, `-`, `_` and `.`.
pub type Id = String<40>;

/// Most bytes of a call's parameters as JSON. Parameters that do not fit are counted.
const PARAMETERS_BYTES_MAX: usize = 96;

/// The texts of a stream's start that the end record keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Id of the stream.
    pub stream_id: Id,
    /// Id of the call.
    pub call_id: Id,
    /// Id of the account.
    pub account_id: Id,
    /// Parameters that the user gave the stream: the members of a JSON object.
    pub parameters: String<PARAMETERS_BYTES_MAX>,
    /// Number of further parameters, which found no room.
    pub parameters_dropped: u32,
}

/// The start of a recording.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Format of the file.
    pub spec: Spec,
    /// Tracks of the file.
    pub tracks: Tracks,
    /// Origin of the stream.
    pub origin: Origin,
    /// Uptime at the start.
    pub started_ms: u64,
    /// Provider of the stream.
    #[cfg(feature = "formats")]
    pub provider: Provider,
    /// Codec of the bytes that [`Call::pop`] yields.
    #[cfg(feature = "formats")]
    pub codec: Codec,
}

impl Opening {
    /// The opening of a stream of this origin, with the format of most streams.
    pub const fn new(origin: Origin) -> Self {
        Self {
            spec: Spec {
                channels: 1,
                sample_rate_hz: callreel_core::g711::SAMPLE_RATE_HZ,
                encoding: Encoding::Pcm16,
            },
            tracks: Tracks::One(Track::Inbound),
            origin,
            started_ms: 0,
            #[cfg(feature = "formats")]
            provider: Provider::Twilio,
            #[cfg(feature = "formats")]
            codec: Codec::Mulaw,
        }
    }

    /// Provider of the stream.
    #[cfg(not(feature = "formats"))]
    #[must_use]
    pub const fn provider(&self) -> Provider {
        Provider::Twilio
    }

    /// Provider of the stream.
    #[cfg(feature = "formats")]
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }
}

/// Counts of a recording's messages and samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Media messages recorded.
    pub received: u32,
    /// Recorded media messages that came late.
    pub late: u32,
    /// Messages missing by their sequence numbers.
    pub missing: u32,
    /// Repeated messages, which are dropped.
    pub repeated: u32,
    /// Messages rejected, by [`PeerError::index`].
    pub rejected: [u32; PeerError::ALL.len()],
    /// Gaps in media time.
    pub gaps: u32,
    /// Samples of silence of one channel that fill the gaps.
    pub filled: u32,
    /// Samples of one channel dropped because the card was stalled for too long, and replaced by silence.
    pub lost: u32,
}

/// The end of a recording, which the card's side takes after the last sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Cause of the end.
    pub end: End,
    /// Counts of the recording.
    pub summary: Summary,
    /// Uptime at the end.
    pub ended_ms: u64,
}

/// One connection's call, and its recording.
///
/// The network's side feeds [`handle_bytes`](Self::handle_bytes) and [`end`](Self::end). The card's
/// side takes [`take_opening`](Self::take_opening), then samples, then
/// [`take_end`](Self::take_end), and reports [`finished`](Self::finished). A second recording on
/// the connection begins only after the end of the first was taken.
pub struct Call<'q> {
    decoder: Decoder,
    #[cfg(feature = "formats")]
    detector: Detector,
    session: Session<[u8; RING_BYTES]>,
    queue: &'q mut Queue<QUEUE_BYTES>,
    opening: Option<Opening>,
    end: Option<Ended>,
    summary: Summary,
    is_recording: bool,
    /// The card's side has taken an opening and has not yet called `finished`.
    is_open: bool,
    full_since_ms: Option<u64>,
    close: Option<CloseCode>,
    pong: Option<Control>,
    /// Uptime at the last [`handle_bytes`](Self::handle_bytes).
    now_ms: u64,
}

impl<'q> Call<'q> {
    /// The call of a connection that has just become a WebSocket.
    #[must_use]
    pub fn new(queue: &'q mut Queue<QUEUE_BYTES>) -> Self {
        queue.clear();
        let mut session = Session::new(Provider::Twilio, [0; RING_BYTES]);
        *session.silence_mut() = SilenceBudget::new();
        Self {
            decoder: Decoder::new(MESSAGE_BYTES_MAX),
            #[cfg(feature = "formats")]
            detector: Detector::new(),
            session,
            queue,
            opening: None,
            end: None,
            summary: Summary::default(),
            is_recording: false,
            is_open: false,
            full_since_ms: None,
            close: None,
            pong: None,
            now_ms: 0,
        }
    }

    /// Resets the call for another connection, in the same memory.
    pub fn reset(&mut self) {
        self.queue.clear();
        self.decoder = Decoder::new(MESSAGE_BYTES_MAX);
        self.session.reset();
        #[cfg(feature = "formats")]
        {
            self.detector = Detector::new();
            self.session.set_provider(Provider::Twilio);
        }
        *self.session.silence_mut() = SilenceBudget::new();
        self.opening = None;
        self.end = None;
        self.summary = Summary::default();
        self.is_recording = false;
        self.is_open = false;
        self.full_since_ms = None;
        self.close = None;
        self.pong = None;
    }

    /// Handles the bytes in the connection's buffer. Moves the bytes to keep to its start and
    /// returns their number.
    ///
    /// Bytes stay while the card is behind: then call this again, even without new bytes.
    pub fn handle_bytes(&mut self, bytes: &mut [u8], now_ms: u64) -> usize {
        self.now_ms = now_ms;
        self.session.silence_mut().advance(now_ms, self.is_recording.into());
        while self.may_take_message(now_ms) {
            match self.decoder.poll(bytes) {
                None => break,
                Some(Ok(ws::Event::Text(text))) => self.handle_text(text),
                #[cfg(feature = "formats")]
                Some(Ok(ws::Event::Binary(audio))) => self.handle_binary(audio),
                #[cfg(not(feature = "formats"))]
                Some(Ok(ws::Event::Binary(_))) => self.stop(End::Protocol, CloseCode::UNSUPPORTED),
                Some(Ok(ws::Event::Ping(payload))) => self.pong = Some(ws::pong(payload)),
                Some(Ok(ws::Event::Pong)) => {}
                Some(Ok(ws::Event::Close(code))) => {
                    self.stop(End::Close, code.unwrap_or(CloseCode::NORMAL));
                }
                Some(Err(code)) => self.stop(End::Protocol, code),
            }
        }
        self.decoder.compact(bytes)
    }

    /// Whether the card holds messages back, or did so at the last
    /// [`handle_bytes`](Self::handle_bytes).
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.opening.is_some() || self.end.is_some() || self.full_since_ms.is_some()
    }

    /// Ends the call from outside: the connection broke, or was silent for too long. Must not be
    /// called while the call [`is_behind`](Self::is_behind): the connection's bytes must be handled
    /// first.
    pub fn end(&mut self, end: End) {
        self.stop(end, CloseCode::GOING_AWAY);
    }

    /// The close code to send, once the recording has finished.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        self.close.filter(|_| self.opening.is_none() && !self.is_open)
    }

    /// Ends the call after a failure of the card: its audio has no place to go. Must be called
    /// before [`finished`](Self::finished), while no close code is out yet.
    pub fn fail(&mut self) {
        // A pending opening belongs to the next stream, which has no place either. A pending end
        // belongs to the recording before it.
        if self.opening.take().is_some() {
            self.is_recording = false;
        }
        self.finish(End::Internal);
        self.close = Some(CloseCode::INTERNAL);
    }

    /// Takes the pong that has to be sent, if any.
    pub fn take_pong(&mut self) -> Option<Control> {
        self.pong.take()
    }

    /// Takes the opening of a recording that has begun.
    pub fn take_opening(&mut self) -> Option<Opening> {
        let opening = self.opening.take();
        self.is_open |= opening.is_some();
        opening
    }

    /// Whether `bytes` bytes of samples, a piece of a file, or the last ones of the recording are there
    /// for [`pop`](Self::pop).
    #[must_use]
    pub fn has(&self, bytes: usize) -> bool {
        self.queue.holds(if self.end.is_some() { 1 } else { bytes })
    }

    /// Moves samples of the recording to `out`, in the bytes that they arrived in, and returns the
    /// number of bytes; zero means that none are there now.
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        self.queue.pop(out)
    }

    /// Takes the recording's end, after its samples were taken.
    pub fn take_end(&mut self) -> Option<Ended> {
        let end = self.end.take()?;
        self.queue.clear();
        Some(end)
    }

    /// Reports that the recording taken is on the card, as far as it ever will be.
    pub fn finished(&mut self) {
        self.is_open = false;
    }

    /// Whether another message may be taken: the queue has room for its samples, or has been full
    /// for [`STALL_MS_MAX`]. The message may be another start, so a pending opening must be taken
    /// first.
    fn may_take_message(&mut self, now_ms: u64) -> bool {
        if self.opening.is_some() || self.end.is_some() || self.close.is_some() {
            return false;
        }
        if self.queue.room() >= ROOM_MIN {
            self.full_since_ms = None;
            return true;
        }
        let since = *self.full_since_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since) >= STALL_MS_MAX
    }

    fn handle_text(&mut self, text: &mut [u8]) {
        match self.take_message(text) {
            Ok(Next::Go) => {}
            Ok(Next::Begin) => self.begin(),
            Ok(Next::Stop) => self.stop(End::Stop, CloseCode::NORMAL),
            Ok(Next::Restart) => {
                self.finish(End::Restart);
                self.session.reset();
                // Recurses once at most: a session's first start is no restart.
                self.handle_text(text);
            }
            Ok(Next::Refuse) | Err(Error::Ring { .. }) => {
                self.close.get_or_insert(CloseCode::UNSUPPORTED);
            }
            // The session has counted the rejected message; the call goes on.
            Err(_) => {}
        }
    }

    fn take_message(&mut self, text: &mut [u8]) -> Result<Next, Error> {
        #[cfg(feature = "formats")]
        if !self.identify(text)? {
            return Ok(Next::Refuse);
        }
        let mut turn = self.session.handle_message(text)?;
        Ok(drain(&mut turn, self.queue, &mut self.summary, &mut self.opening))
    }

    /// Completes the opening, which has the origin alone.
    fn begin(&mut self) {
        let Some((spec, opening)) = self.session.spec().zip(self.opening.as_mut()) else {
            self.opening = None;
            return;
        };
        #[cfg(feature = "formats")]
        let codec = self.session.format().map_or(Codec::Mulaw, |format| format.codec);
        #[cfg(feature = "formats")]
        self.queue.set_silent(codec.silence());
        self.is_recording = true;
        opening.spec = spec;
        opening.tracks = self.session.tracks();
        opening.started_ms = self.now_ms;
        #[cfg(feature = "formats")]
        {
            opening.provider = self.session.provider();
            opening.codec = codec;
        }
    }

    fn stop(&mut self, end: End, code: CloseCode) {
        self.finish(end);
        self.close.get_or_insert(code);
    }

    /// Ends the recording, if one is under way.
    fn finish(&mut self, end: End) {
        if !core::mem::take(&mut self.is_recording) {
            return;
        }
        // The end of a stream begins none.
        drain(&mut self.session.handle_end(), self.queue, &mut self.summary, &mut None);
        let stats = self.session.stats();
        let summary = Summary {
            received: stats.media as u32,
            late: stats.late as u32,
            missing: (stats.missing - stats.reordered) as u32,
            repeated: stats.repeated as u32,
            rejected: stats.rejected.map(|count| count as u32),
            lost: self.queue.lost() as u32 / self.sample_frame_bytes(),
            ..core::mem::take(&mut self.summary)
        };
        self.end = Some(Ended { end, summary, ended_ms: self.now_ms });
    }

    /// Bytes of one sample of each channel in the queue.
    fn sample_frame_bytes(&self) -> u32 {
        #[cfg(feature = "formats")]
        let width = self.session.format().map_or(1, |format| format.codec.width()) as u32;
        #[cfg(not(feature = "formats"))]
        let width = 1;
        if TRACKS == 1 { width } else { width * u32::from(self.session.tracks().channels()) }
    }
}

/// The providers beside Twilio.
#[cfg(feature = "formats")]
impl Call<'_> {
    /// Takes the subprotocols that the peer offers in its handshake: one may tell the provider. Must be
    /// called before any bytes are handled.
    pub fn note_subprotocols(&mut self, offered: &str) {
        self.detector.note_header("sec-websocket-protocol", offered);
        self.follow_verdict();
    }

    /// Finds out the provider by a message; Twilio until one tells another. Returns whether it is one that
    /// is recorded.
    fn identify(&mut self, text: &mut [u8]) -> Result<bool, Error> {
        if let Err(error) = self.detector.note_text(text) {
            return Err(self.session.reject(error));
        }
        Ok(self.follow_verdict())
    }

    fn follow_verdict(&mut self) -> bool {
        match self.detector.verdict() {
            Verdict::Known(provider) => self.session.set_provider(provider),
            Verdict::Foreign(_) => return false,
            Verdict::Undecided => {}
        }
        true
    }

    /// Takes a binary message: audio, if the provider sends it so.
    fn handle_binary(&mut self, audio: &[u8]) {
        let provider = self.session.provider();
        let habits = provider.habits();
        if !habits.has_binary_audio {
            return self.stop(End::Protocol, CloseCode::UNSUPPORTED);
        }
        if self.session.spec().is_none() && habits.has_optional_start && !audio.is_empty() {
            let start = Frame::new(None, b"", Body::Start(Start::assumed(provider)));
            let is_begun = self.session.handle_frame(start).is_ok();
            if is_begun {
                self.opening = Some(Opening::new(Origin::default()));
                self.begin();
            }
        }
        // The session counts what it does not take.
        if let Ok(mut turn) = self.session.handle_audio(audio) {
            drain(&mut turn, self.queue, &mut self.summary, &mut None);
        }
    }
}

/// The action that a message asks for.
enum Next {
    Go,
    Begin,
    Stop,
    Restart,
    Refuse,
}

/// Moves a turn's samples to the queue until none are left, as the session requires. Returns the
/// action that the turn's event asks for; a start puts its origin into `opening`.
fn drain<const Q: usize>(
    turn: &mut Turn<'_, '_, [u8; RING_BYTES]>,
    queue: &mut Queue<Q>,
    summary: &mut Summary,
    opening: &mut Option<Opening>,
) -> Next {
    for gap in turn.gaps() {
        summary.gaps += 1;
        summary.filled += gap.filled as u32;
    }
    let next = match turn.event() {
        Event::Started { start, .. } => {
            // In its place: the texts are too long to be handed about.
            *opening = Some(Opening::new(origin(start)));
            Next::Begin
        }
        Event::Stopped => Next::Stop,
        Event::Restart => Next::Restart,
        Event::Refused(_) => Next::Refuse,
        _ => Next::Go,
    };
    let mut bytes = [0; 256];
    loop {
        match turn.poll_wire(&mut bytes) {
            0 => return next,
            count => queue.push(&bytes[..count]),
        }
    }
}

/// Not inlined: it runs once a call, and its caller for each message.
#[inline(never)]
fn origin(start: &Start<'_>) -> Origin {
    let mut origin = Origin {
        stream_id: id_of(start.stream_id.chars()),
        call_id: id_of(start.call_id.chars()),
        account_id: id_of(start.account_id.chars()),
        parameters: String::new(),
        parameters_dropped: start.parameters_dropped,
    };
    for (name, value) in &start.parameters {
        let length = origin.parameters.len();
        if put_parameter(&mut origin.parameters, *name, *value).is_err() {
            origin.parameters.truncate(length);
            origin.parameters_dropped += 1;
        }
    }
    origin
}

fn put_parameter(text: &mut impl Write, name: Text<'_>, value: Text<'_>) -> fmt::Result {
    put_text(text, name)?;
    text.write_char(':')?;
    put_text(text, value)?;
    text.write_char(',')
}

/// Writes a string of JSON.
fn put_text(text: &mut impl Write, characters: Text<'_>) -> fmt::Result {
    text.write_char('"')?;
    for character in characters.chars() {
        match character {
            '"' | '\\' => text.write_char('\\').and_then(|()| text.write_char(character))?,
            '\0'..' ' => write!(text, "\\u{:04x}", character as u32)?,
            _ => text.write_char(character)?,
        }
    }
    text.write_char('"')
}

/// The id of these characters.
pub fn id_of(characters: impl Iterator<Item = char>) -> Id {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut id = Id::new();
    for character in characters {
        let byte = if plain(character) { character as u8 } else { b'_' };
        if id.push(char::from(byte)).is_err() {
            break;
        }
    }
    id
}
