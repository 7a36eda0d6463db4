//! One connection: the bytes of its WebSocket in, recordings and their end records out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use callreel_core::frame::{Provider, Start, Text};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::{Error, Event, Session, Stats, Turn};
use callreel_core::{wav, ws};
use tracing::Span;
use tracing::field::{Empty, debug};

use crate::caller_ids::Callers;
use crate::live::Refused;
use crate::recording::{Done, Finishing, Outbox, Recording, STUCK_AFTER};
use crate::store::Record;
use crate::store::record::{End, What};
use crate::twilio::{STREAM_TOKEN, StreamTokens};

/// The most bytes a message may have: Exotel sends 133 KB of base64 at once.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// How much is kept of the name of a mark.
const TEXT_CHARS_MAX: usize = 256;

/// How many bytes of messages wait before they go to the capture together.
const CAPTURE_BYTES_MAX: usize = 64 * 1024;

/// The most answers to pings that wait to be sent. One more takes the place of the oldest: a peer need
/// only be told of its newest ping (RFC 6455, section 5.5.3).
const PONGS_MAX: usize = 16;

/// What a call needs of the thread it runs on.
pub struct Context<'c> {
    /// Room for mu-law codes between the session and the recording.
    pub codes: &'c mut [u8],
    /// Where recordings go.
    pub outbox: &'c mut Outbox,
    /// What to store samples as.
    pub encoding: wav::Encoding,
    /// How long a file's samples may get before the recording goes on in the next file.
    pub segment_bytes_max: u64,
    /// What a stream has to show at its start, if anything.
    pub stream_tokens: Option<&'c StreamTokens>,
    /// The ends of the calls that webhooks told of, if records are to have them.
    pub callers: Option<&'c Callers>,
    /// The time of this look at the sockets.
    pub now: Instant,
    /// Makes what is to be called when the connection's last recording is finished.
    pub done: &'c dyn Fn() -> Done,
}

/// What a connection wants after some of its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// More bytes.
    GoOn,
    /// To be closed with this code; at once, or when its recording is finished.
    Close(ws::CloseCode),
}

/// Samples in the ring of a session with one track, whose audio passes it by: only the silence of a
/// gap goes through it, in pieces.
const RING_OF_ONE: usize = 64;

/// A session with as much memory as its tracks need. Most calls have one.
enum Line {
    One(Box<Session<RING_OF_ONE>>),
    Both(Box<Session>),
}

impl Line {
    fn new() -> Self {
        Self::One(Box::new(Session::new(Provider::Twilio)))
    }

    fn stats(&self) -> &Stats {
        match self {
            Self::One(session) => session.stats(),
            Self::Both(session) => session.stats(),
        }
    }

    /// Goes on with room for both tracks.
    fn widen(&mut self) {
        if let Self::One(session) = self {
            let session = std::mem::replace(&mut **session, Session::new(Provider::Twilio));
            *self = Self::Both(Box::new(session.with_ring()));
        }
    }
}

/// What is to be done after a message.
enum Next {
    GoOn,
    Close(ws::CloseCode),
    /// End the connection: it may not be recorded.
    Refuse,
    /// End the connection when the record is written that says why nothing was recorded.
    Unsupported,
    /// End the recording and take the message again, with a new session.
    Restart,
    /// End the recording.
    Stop,
    /// Take the message again, with room for both tracks.
    Widen,
}

/// One connection's way from WebSocket to recordings.
pub struct Call {
    decoder: ws::Decoder,
    session: Line,
    /// What of the session's counts has been added to everybody's.
    counted: Stats,
    recording: Option<Recording>,
    /// The one before it on this connection, and since when that is being finished. As long as it is,
    /// messages are left unread: a peer is not to begin recordings faster than the disk takes them.
    before: Option<(Finishing, Instant)>,
    has_unread: bool,
    /// When a message came last.
    heard: Instant,
    /// How it ended, once it has.
    ended: Option<End>,
    /// A recording is on its way to the disk; the connection may close when it is there.
    is_finishing: bool,
    /// Answers to pings, not sent yet, oldest first. *Invariant: [`PONGS_MAX`] at most.* Takes memory
    /// only while it holds some.
    pongs: VecDeque<ws::Control>,
    /// The peer's close frame has come.
    peer_closed: bool,
    capture: Option<Vec<u8>>,
    peer: SocketAddr,
    /// What log lines say they are about.
    span: Span,
}

impl Call {
    /// A connection whose handshake is done. With `capture`, messages are kept as they come.
    #[must_use]
    pub fn new(peer: SocketAddr, capture: bool) -> Self {
        Self {
            decoder: ws::Decoder::new(MESSAGE_BYTES_MAX),
            session: Line::new(),
            counted: Stats::default(),
            recording: None,
            before: None,
            has_unread: false,
            heard: Instant::now(),
            ended: None,
            is_finishing: false,
            pongs: VecDeque::new(),
            peer_closed: false,
            capture: capture.then(Vec::new),
            peer,
            span: span_of(peer),
        }
    }

    /// Takes the connection's bytes; returns how many of them, now at the start, must come again.
    pub fn handle_bytes(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> (usize, Wish) {
        let mut wish = Wish::GoOn;
        while self.before.is_none()
            && let Some(event) = self.decoder.poll(bytes)
        {
            let asked = match event {
                Ok(ws::Event::Text(text)) if self.ended.is_none() => {
                    self.handle_message(text, context)
                }
                // A recorder has no use for binary messages or for what follows the end.
                Ok(ws::Event::Text(_) | ws::Event::Binary(_) | ws::Event::Pong) => Wish::GoOn,
                Ok(ws::Event::Ping(payload)) => {
                    if self.pongs.len() == PONGS_MAX {
                        self.pongs.pop_front();
                    }
                    self.pongs.push_back(ws::pong(payload));
                    Wish::GoOn
                }
                Ok(ws::Event::Close(code)) => {
                    self.peer_closed = true;
                    self.end(End::Close, context);
                    Wish::Close(code.unwrap_or(ws::CloseCode::NORMAL))
                }
                Err(code) => {
                    self.end(End::Protocol, context);
                    Wish::Close(code)
                }
            };
            if asked != Wish::GoOn && wish == Wish::GoOn {
                wish = asked;
            }
        }
        self.has_unread = self.before.is_some();
        (self.decoder.compact(bytes), wish)
    }

    /// Ends the connection's recording, if it has one. Whatever comes later is passed over.
    pub fn end(&mut self, end: End, context: &mut Context<'_>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(end);
        self.finish(end, context);
    }

    /// Posts what has waited long enough.
    pub fn tend(&mut self, outbox: &mut Outbox, now: Instant) {
        outbox.board().counters.add(self.session.stats(), &mut self.counted);
        if let Some(mut recording) = self.recording.take() {
            self.post_capture(&mut recording, outbox);
            recording.tend(self.session.stats(), outbox, now);
            self.recording = Some(recording);
        }
    }

    /// Whether a recording is going on.
    #[must_use]
    pub const fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// When a message came last: in whole, and to be read.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether it left messages unread that it can take when it is held back no more.
    #[must_use]
    pub const fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Lets it take what it left unread, though the recording before this one is not finished.
    pub fn wait_no_more(&mut self) {
        self.before = None;
    }

    /// Whether the peer is to be held back, because the disk is behind.
    pub fn is_held_back(&mut self, now: Instant) -> bool {
        if let Some((finishing, since)) = &self.before {
            if !finishing.is_over() && now - *since < STUCK_AFTER {
                return true;
            }
            self.before = None;
        }
        self.recording.as_mut().is_some_and(|recording| recording.is_full(now))
    }

    /// Takes the answers to pings that are to be sent, oldest first.
    pub fn take_pongs(&mut self) -> VecDeque<ws::Control> {
        std::mem::take(&mut self.pongs)
    }

    /// Whether a recording of it is on its way to the disk.
    #[must_use]
    pub const fn is_finishing(&self) -> bool {
        self.is_finishing
    }

    /// Whether the peer has sent its close frame.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn handle_message(&mut self, text: &mut [u8], context: &mut Context<'_>) -> Wish {
        self.heard = context.now;
        self.capture(text, context.outbox);
        if self.recording.as_ref().is_some_and(|r| r.is_longer_than(context.segment_bytes_max)) {
            self.begin_segment(context);
        }
        self.record(text, context)
    }

    fn record(&mut self, text: &mut [u8], context: &mut Context<'_>) -> Wish {
        let Self { session, recording, span, .. } = self;
        let next = match session {
            Line::One(session) => follow(session.handle_message(text), recording, span, context),
            Line::Both(session) => follow(session.handle_message(text), recording, span, context),
        };
        match next {
            Next::GoOn => Wish::GoOn,
            Next::Close(code) => Wish::Close(code),
            Next::Restart => {
                // This message, kept last, belongs to the next recording's capture.
                let next_capture = self.capture.as_mut().map(|lines| {
                    let ends = |byte: &u8| *byte == b'\n';
                    let before = lines.len().saturating_sub(1);
                    lines.split_off(lines[..before].iter().rposition(ends).map_or(0, |end| end + 1))
                });
                self.finish(End::Restart, context);
                self.capture = next_capture;
                self.session = Line::new();
                self.counted = Stats::default();
                self.span = span_of(self.peer);
                self.record(text, context)
            }
            Next::Refuse => {
                self.capture = None;
                self.ended = Some(End::Refused);
                Wish::Close(ws::CloseCode::POLICY)
            }
            Next::Unsupported => {
                self.ended = Some(End::Refused);
                self.is_finishing = true;
                Wish::Close(ws::CloseCode::UNSUPPORTED)
            }
            Next::Stop => {
                self.end(End::Stop, context);
                Wish::Close(ws::CloseCode::NORMAL)
            }
            Next::Widen => {
                self.session.widen();
                self.record(text, context)
            }
        }
    }

    /// Goes on in another file, since this one is as long as a WAV may be.
    fn begin_segment(&mut self, context: &mut Context<'_>) {
        let Some(full) = self.recording.take() else {
            return;
        };
        let _entered = self.span.enter();
        let record = full.record().next_segment(self.session.stats());
        let next = context.begin(record, full.channels(), full.end_sample());
        let nobody = Box::new(|_| ());
        full.finish(End::Segment, self.session.stats(), context.outbox, context.now, nobody);
        self.recording = Some(next);
    }

    fn finish(&mut self, end: End, context: &mut Context<'_>) {
        let _entered = self.span.clone().entered();
        match &mut self.session {
            Line::One(session) => drain(session.handle_end(), self.recording.as_mut(), context),
            Line::Both(session) => drain(session.handle_end(), self.recording.as_mut(), context),
        }
        context.outbox.board().counters.add(self.session.stats(), &mut self.counted);
        if let Some(mut recording) = self.recording.take() {
            self.post_capture(&mut recording, context.outbox);
            let done: Done = if end == End::Restart {
                Box::new(|_| ())
            } else {
                self.is_finishing = true;
                (context.done)()
            };
            let stats = self.session.stats();
            let finishing = recording.finish(end, stats, context.outbox, context.now, done);
            if end == End::Restart {
                self.before = Some((finishing, context.now));
            }
            tracing::info!(%end, "recording ended");
        }
    }

    /// Keeps a message as it came, before it is decoded in place.
    fn capture(&mut self, text: &[u8], outbox: &mut Outbox) {
        let Some(lines) = &mut self.capture else {
            return;
        };
        // Before this message, which may be the next recording's.
        if lines.len() + text.len() >= CAPTURE_BYTES_MAX {
            // Without a recording there is no name to keep it under, nor a call to keep.
            let lines = std::mem::take(lines);
            if let Some(recording) = &mut self.recording {
                recording.capture(lines, outbox);
            }
        }
        // A line break is a blank in JSON; in a string it would be an error.
        lines.extend(text.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
        lines.push(b'\n');
    }

    fn post_capture(&mut self, recording: &mut Recording, outbox: &mut Outbox) {
        if let Some(lines) = self.capture.as_mut().filter(|lines| !lines.is_empty()) {
            recording.capture(std::mem::take(lines), outbox);
        }
    }
}

impl Context<'_> {
    /// The record of a stream that starts, with the ends of its call if a webhook told them.
    fn record_of(&self, start: &Start<'_>) -> Record {
        let mut record = Record::new(Provider::Twilio, start, self.encoding);
        record.caller = self.callers.and_then(|callers| callers.of(&record.call_id, self.now));
        record
    }

    /// Whether the stream may be recorded; takes its token, which nobody is to read, off the record.
    fn admits(&self, record: &mut Record) -> bool {
        let token = record.parameters.remove(STREAM_TOKEN);
        self.stream_tokens.is_none_or(|tokens| {
            token.is_some_and(|token| tokens.redeem(&record.call_id, &token, self.now))
        })
    }

    fn begin(&mut self, record: Record, channels: u16, first_sample: u64) -> Recording {
        let spec = wav::Spec { channels, sample_rate_hz: SAMPLE_RATE_HZ, encoding: self.encoding };
        Recording::begin(self.outbox, record, spec, first_sample, self.now)
    }
}

/// A text of the peer's as far as it is kept of a key or a mark, of which there may be many.
fn short(text: &Text<'_>) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// What the log lines of one stream have in common. Its ids are known when it starts.
fn span_of(peer: SocketAddr) -> Span {
    let provider = Provider::Twilio.name();
    tracing::info_span!(parent: None, "call", %peer, provider, stream = Empty, call = Empty)
}

/// Does what a message means for the recording.
fn follow<const N: usize>(
    taken: Result<Turn<'_, '_, N>, Error>,
    recording: &mut Option<Recording>,
    span: &Span,
    context: &mut Context<'_>,
) -> Next {
    // Of audio, fifty times a second, there is nothing to log; entering the span for it costs.
    let is_audio = matches!(&taken, Ok(turn) if matches!(turn.event(), Event::Media(_)));
    let _entered = (!is_audio).then(|| span.enter());
    let turn = match taken {
        Ok(turn) => turn,
        Err(Error::Peer(error)) => {
            tracing::debug!(%error, "rejected a message");
            return Next::GoOn;
        }
        Err(Error::Resource) if N == RING_OF_ONE => return Next::Widen,
        Err(error) => {
            tracing::error!(%error, "cannot record a stream");
            return Next::Close(ws::CloseCode::INTERNAL);
        }
    };
    let mut next = Next::GoOn;
    match turn.event() {
        Event::Started(start) => {
            let mut record = context.record_of(start);
            if !context.admits(&mut record) {
                tracing::warn!("refused a stream: it shows no fresh token of its call");
                context.outbox.board().counters.refuse(Refused::Token);
                return Next::Refuse;
            }
            span.record("stream", debug(&record.stream_id)).record("call", debug(&record.call_id));
            tracing::info!("recording began");
            *recording = Some(context.begin(record, start.tracks.channels(), 0));
        }
        Event::Refused(start) => {
            tracing::warn!("refused a stream: its audio is not 8 kHz mono mu-law");
            let record = context.record_of(start);
            context.outbox.refuse(record, (context.done)());
            return Next::Unsupported;
        }
        Event::Dtmf { digit, at } => {
            if let Some(recording) = recording {
                recording.add_event(*at, What::Dtmf(short(digit)));
            }
        }
        Event::Mark { name, at } => {
            if let Some(recording) = recording {
                recording.add_event(*at, What::Mark(short(name)));
            }
        }
        Event::Restart => return Next::Restart,
        Event::Stopped => next = Next::Stop,
        _ => {}
    }
    drain(turn, recording.as_mut(), context);
    next
}

/// Moves all that a turn yields to the recording.
fn drain<const N: usize>(
    mut turn: Turn<'_, '_, N>,
    recording: Option<&mut Recording>,
    context: &mut Context<'_>,
) {
    let Some(recording) = recording else {
        return;
    };
    turn.gaps().for_each(|gap| recording.add_gap(gap));
    loop {
        match turn.poll_mulaw(context.codes) {
            0 => return,
            count => recording.append(&context.codes[..count], context.outbox, context.now),
        }
    }
}
