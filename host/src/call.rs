//! One connection: the bytes of its WebSocket in, recordings and their end records out.

mod opening;
pub mod routing;
mod starts;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callreel_core::frame::{self, Body, Frame, MediaFrame, PeerError, Provider, Start};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::SilenceBudget;
use callreel_core::{wav, ws};
use jiff::Timestamp;

use self::opening::Opening;
pub use self::opening::{Allowance, Shown};
use self::stream::{Next, Stream, warn};
use crate::board::Refused;
use crate::caller_ids::Callers;
use crate::pace::Pace;
use crate::record::{End, Record, ms_at};
use crate::recording::{Done, Finishing, Outbox, Outcome, Recording, STUCK_AFTER};
use crate::store::Door;
use crate::stream_tokens::{self, StreamTokens};

/// Largest message, in bytes: Exotel sends 133 KB of base64 at once.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Most pongs that wait to be sent. One more replaces the oldest: a peer needs an answer only to its
/// newest ping (RFC 6455, section 5.5.3).
const PONGS_MAX: usize = 16;

/// Samples of the [`SilenceBudget`] that each start after a connection's first costs. They stand for 2
/// KiB: the disk space of a file's header and an end record.
pub const START_SAMPLES: u32 = 1024;

/// Resources of the media thread, for the call that it handles.
pub struct Context<'c> {
    /// Buffer for mu-law codes between the session and the recording.
    pub codes: &'c mut [u8],
    /// The queue to the writer of the recordings.
    pub outbox: &'c mut Outbox,
    /// Encoding of the stored samples.
    pub encoding: wav::Encoding,
    /// Most bytes of samples in a file; beyond it the recording goes on in the next file.
    pub segment_bytes_max: u64,
    /// The tokens of which a stream must send one in its start; `None`: a stream needs no token.
    pub stream_tokens: Option<&'c StreamTokens>,
    /// Caller ids of the calls reported by webhooks, if end records include them.
    pub callers: Option<&'c Callers>,
    /// State of the disk, asked before each recording after a connection's first.
    pub door: &'c Door,
    /// Allowance of records for connections without a start.
    pub failures: &'c Allowance,
    /// Rate limit of new calls. Each stream after a connection's first counts; the upgrade counts for
    /// the first.
    pub pace: &'c Pace,
    /// The time of this look at the sockets.
    pub now: Instant,
    /// Makes the callback for each recording or failure record of the connection, called when it is
    /// finished.
    pub done: &'c dyn Fn() -> Done,
}

/// A connection's wish after some of its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// More bytes.
    GoOn,
    /// To be closed with this code; at once, or when its recording is finished.
    Close(ws::CloseCode),
}

/// One connection, from its WebSocket to its recordings.
pub struct Call {
    decoder: ws::Decoder,
    /// The streams in the order of their starts, those refused for the rate before all others.
    /// *Invariant: at least one.*
    streams: Vec<Stream>,
    /// Counts of the messages so far, until the first stream starts.
    opening: Option<Box<Opening>>,
    /// The recording that a repeated start has ended, and the time of that end. Until it is finished,
    /// or [`STUCK_AFTER`] has passed, messages stay unread: a peer must not begin recordings faster
    /// than the disk takes them.
    before: Option<(Finishing, Instant)>,
    has_unread: bool,
    /// Unread messages are to be handled although the disk is behind.
    is_pressed: bool,
    /// Silence that the timestamps of all its streams together may still ask for.
    silence: SilenceBudget,
    /// Samples that starts cost beyond that budget. Until they are paid, messages stay unread.
    owed: u32,
    /// Time of the last message.
    heard: Instant,
    /// The end of the connection, once it has ended.
    ended: Option<End>,
    /// Recordings that are being finished; the connection may close when there are none.
    finishing: usize,
    /// The disk did not let one of its recordings be finished yet.
    has_left: bool,
    /// Pongs that are not sent yet, oldest first. *Invariant: [`PONGS_MAX`] at most.* Takes memory only
    /// while it holds some.
    pongs: VecDeque<ws::Control>,
    /// The peer's close frame has come.
    peer_closed: bool,
    /// The last message as received, if messages are captured.
    line: Option<Vec<u8>>,
    peer: SocketAddr,
    began: Instant,
    began_at: Timestamp,
}

impl Call {
    /// A connection after its handshake. With `capture`, messages are kept as received.
    #[must_use]
    pub fn new(peer: SocketAddr, capture: bool) -> Self {
        let now = Instant::now();
        Self {
            decoder: ws::Decoder::new(MESSAGE_BYTES_MAX),
            streams: vec![Stream::new(peer)],
            opening: Some(Box::default()),
            before: None,
            has_unread: false,
            is_pressed: false,
            silence: SilenceBudget::new(),
            owed: 0,
            began: now,
            heard: now,
            ended: None,
            finishing: 0,
            has_left: false,
            pongs: VecDeque::new(),
            peer_closed: false,
            line: capture.then(Vec::new),
            peer,
            began_at: Timestamp::now(),
        }
    }

    /// Handles the connection's bytes. Returns the number of bytes, moved to the start of `bytes`, that
    /// must be passed again, and the connection's wish.
    pub fn handle_bytes(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> (usize, Wish) {
        let mut wish = Wish::GoOn;
        self.advance(context.now);
        while !self.has_to_wait(context.now)
            && let Some(event) = self.decoder.poll(bytes)
        {
            let asked = match event {
                Ok(ws::Event::Text(text)) if self.ended.is_none() => {
                    self.handle_message(text, context)
                }
                Ok(ws::Event::Binary(bytes)) => {
                    // Never recorded, but counted for the record of a connection without a start.
                    if let Some(opening) = self.opening.as_mut().filter(|_| self.ended.is_none()) {
                        opening.note_binary(bytes);
                    }
                    Wish::GoOn
                }
                // Nothing to do for a message after the end, or for a pong.
                Ok(ws::Event::Text(_) | ws::Event::Pong) => Wish::GoOn,
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
        self.has_unread = self.has_to_wait(context.now);
        self.is_pressed &= self.has_unread;
        (self.decoder.compact(bytes), wish)
    }

    /// Ends the connection's recordings, or reports that there was none. Ignores all later messages.
    pub fn end(&mut self, end: End, context: &mut Context<'_>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(end);
        for index in 0..self.streams.len() {
            self.finish(index, end, context);
        }
        if let Some(opening) = self.opening.take() {
            self.tell_failure(*opening, end, context);
        }
    }

    /// Writes a record and a log line about a connection on which no stream started.
    fn tell_failure(&mut self, opening: Opening, end: End, context: &mut Context<'_>) {
        let Some(Stream { span, session, .. }) = self.streams.first() else {
            return;
        };
        let _entered = span.enter();
        let room = context.room(self.peer);
        let Some(mut record) = opening.record(end, self.began_at) else {
            if let Some(left_out) = room {
                tracing::info!(%end, left_out, "a connection ended before a stream started");
            }
            return;
        };
        record.set_stats(session.stats());
        context.outbox.board().counters.refuse(Refused::NoStart);
        if let Some(left_out) = room {
            // Without the excerpt: readers of the record may see more than readers of the log.
            tracing::warn!(
                %end,
                messages = record.no_start.as_ref().map_or(0, |seen| seen.text_messages + seen.binary_messages),
                media = record.frames.before_start,
                left_out,
                "no call was recorded: messages came, but no start message that could be read"
            );
        }
        if context.failures.take(context.now) {
            context.outbox.fail(record, (context.done)());
            self.finishing += 1;
        }
    }

    /// Does the housekeeping of each stream.
    pub fn tend(&mut self, outbox: &mut Outbox, now: Instant) {
        for stream in &mut self.streams {
            stream.tend(outbox, now);
        }
    }

    /// Whether a recording is going on.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.streams.iter().any(|stream| stream.recording.is_some())
    }

    /// Address of the peer.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The connection's evidence of being a call.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.opening.as_ref().map_or(Shown::Stream, |opening| opening.shown())
    }

    /// Time of the last whole text message.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether messages may be unread that the call can handle when it is no longer held back.
    #[must_use]
    pub const fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Lets the call handle its unread messages although the disk is behind.
    pub fn wait_no_more(&mut self) {
        self.before = None;
        self.owed = 0;
        self.is_pressed = self.has_unread;
    }

    /// Whether to hold the peer back: the disk is behind, or the peer began more recordings than its
    /// time on the line pays for.
    pub fn is_held_back(&mut self, now: Instant) -> bool {
        if let Some((finishing, since)) = &self.before
            && (finishing.is_over() || now - *since >= STUCK_AFTER)
        {
            self.before = None;
        }
        if self.owed > 0 {
            self.advance(now);
        }
        self.has_to_wait(now)
    }

    /// Whether no message may be handled now. Checked between messages: one message can put only a
    /// bounded amount into a queue.
    fn has_to_wait(&mut self, now: Instant) -> bool {
        if self.before.is_some() || self.is_pressed {
            return self.before.is_some();
        }
        let mut recordings = self.streams.iter_mut().filter_map(|stream| stream.recording.as_mut());
        self.owed > 0 || recordings.any(|recording| recording.is_full(now))
    }

    /// Lets time pass: real time pays for silence and starts.
    fn advance(&mut self, now: Instant) {
        let now_ms = now.saturating_duration_since(self.began).as_millis() as u64;
        let live = self.streams.iter().filter(|stream| stream.recording.is_some()).count();
        self.silence.advance(now_ms, live as u32);
        self.pay();
    }

    /// Whether its peer has to wait until time has paid for its starts.
    #[must_use]
    pub const fn owes_time(&self) -> bool {
        self.owed > 0
    }

    fn pay(&mut self) {
        if self.silence.take(self.owed) {
            self.owed = 0;
        }
    }

    /// Media time of the longest live recording, all of a stream's files together.
    #[must_use]
    pub fn media_time(&self) -> Duration {
        let recordings = self.streams.iter().filter_map(|stream| stream.recording.as_ref());
        let longest = recordings.map(Recording::end_sample).max().unwrap_or_default();
        Duration::from_millis(ms_at(SAMPLE_RATE_HZ, longest))
    }

    /// Takes the pongs that are to be sent, oldest first.
    pub fn take_pongs(&mut self) -> VecDeque<ws::Control> {
        std::mem::take(&mut self.pongs)
    }

    /// Notes the outcome of one of the recordings. Returns the code to close with instead of the wished
    /// one, if the disk did not let a recording be finished yet.
    pub fn note_finished(&mut self, outcome: Outcome) -> Option<ws::CloseCode> {
        self.finishing = self.finishing.saturating_sub(1);
        self.has_left |= outcome == Outcome::Left;
        self.has_left.then_some(ws::CloseCode::INTERNAL)
    }

    /// Whether one of the recordings is being finished.
    #[must_use]
    pub const fn is_finishing(&self) -> bool {
        self.finishing > 0
    }

    /// Whether the peer has sent its close frame.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn handle_message(&mut self, text: &mut [u8], context: &mut Context<'_>) -> Wish {
        self.heard = context.now;
        if let Some(opening) = &mut self.opening {
            opening.note_text(text);
        }
        if let Some(line) = &mut self.line {
            // In JSON a line break is white space; in a string it would be an error.
            let plain = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
            line.clear();
            line.extend(text.iter().map(plain));
            line.push(b'\n');
        }
        let parsed = match self.streams.last() {
            Some(stream) => stream.session.parse(text),
            None => frame::parse(Provider::Twilio, text),
        };
        if let Ok(frame) = &parsed
            && let Some(media) = frame.media().filter(|_| self.opening.is_none())
        {
            self.handle_media(&media, context);
            return Wish::GoOn;
        }
        match parsed {
            Ok(frame) => {
                if let Some(opening) = &mut self.opening {
                    opening.note_frame(&frame.body);
                } else if matches!(frame.body, Body::Start(_)) && !self.may_start(&frame, context) {
                    self.refuse_start(frame, context);
                    return Wish::GoOn;
                }
                self.handle_frame(frame, context)
            }
            Err(error) => {
                self.reject(error, context);
                Wish::GoOn
            }
        }
    }

    /// Counts a message that cannot be read, for each stream that it may belong to.
    fn reject(&mut self, error: PeerError, context: &mut Context<'_>) {
        if let Some(opening) = &mut self.opening {
            opening.note_strange(b"");
        }
        let is_alone = self.streams.len() == 1;
        for stream in &mut self.streams {
            if is_alone || stream.recording.is_some() {
                stream.session.reject(error);
                let peer = stream.peer;
                stream.span.in_scope(|| warn(error, &mut stream.has_warned, peer, context));
                stream.keep_line(self.line.as_deref(), context.outbox);
            }
        }
    }

    /// Handles audio. Takes no [`Frame`], which is as large as a start and costly to move.
    fn handle_media(&mut self, media: &MediaFrame<'_>, context: &mut Context<'_>) {
        let index = routing::index_of(&self.streams, media.stream_id);
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        stream.make_ready(self.line.as_deref(), context);
        *stream.session.silence_mut() = self.silence;
        stream.handle_media(media, context);
        self.silence = *stream.session.silence_mut();
    }

    fn handle_frame(&mut self, frame: Frame<'_>, context: &mut Context<'_>) -> Wish {
        let index = match &frame.body {
            Body::Start(_) => self.stream_for_start(frame.stream_id, context),
            _ => routing::index_of(&self.streams, frame.stream_id),
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return Wish::GoOn;
        };
        stream.make_ready(self.line.as_deref(), context);
        *stream.session.silence_mut() = self.silence;
        let next = stream.follow(frame, &mut self.opening, context);
        self.silence = *stream.session.silence_mut();
        match next {
            Next::GoOn => Wish::GoOn,
            Next::Close(code) => Wish::Close(code),
            Next::Refuse(code) => {
                // Its failure record is being written.
                self.finishing += usize::from(code == ws::CloseCode::UNSUPPORTED);
                if self.is_recording() {
                    self.streams.remove(index);
                    return Wish::GoOn;
                }
                self.ended = Some(End::Refused);
                Wish::Close(code)
            }
            Next::Stop => {
                self.finish(index, End::Stop, context);
                if self.is_recording() {
                    return Wish::GoOn;
                }
                self.end(End::Stop, context);
                Wish::Close(ws::CloseCode::NORMAL)
            }
        }
    }

    /// Makes a place for a stream that starts; returns its index. A repeated start with the id of a
    /// live recording ends that recording. So does one stream more than
    /// [`STREAMS_MAX`](routing::STREAMS_MAX), if all are live: the oldest recording ends.
    fn stream_for_start(&mut self, stream_id: &[u8], context: &mut Context<'_>) -> usize {
        if self.opening.is_some() {
            return 0;
        }
        // Beside a stream with an id, a start without an id begins no stream: the session of that
        // stream rejects it.
        if self.is_nameless_beside_named(stream_id) {
            return routing::index_of(&self.streams, stream_id);
        }
        if let Some(index) = routing::index_to_replace(&self.streams, stream_id) {
            self.finish(index, End::Restart, context);
            self.streams.remove(index);
        }
        self.owed += START_SAMPLES;
        self.pay();
        self.streams.reserve_exact(1);
        self.streams.push(Stream::new(self.peer));
        self.streams.len() - 1
    }

    /// Ends the recording of a stream, if it has one.
    fn finish(&mut self, index: usize, end: End, context: &mut Context<'_>) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let done: Done = match end {
            End::Restart => Box::new(|_| ()),
            _ => (context.done)(),
        };
        let Some(finishing) = stream.finish(end, context, done) else {
            return;
        };
        if end == End::Restart {
            self.before = Some((finishing, context.now));
        } else {
            self.finishing += 1;
        }
    }
}

impl Context<'_> {
    /// Takes room in the log for a line about a problem; see [`crate::log::Room::take`].
    fn room(&self, peer: SocketAddr) -> Option<Option<u64>> {
        self.outbox.board().log_rooms.trouble.take(peer.ip(), self.now)
    }

    /// The record of a stream that starts, with its call's caller ids if a webhook reported them.
    fn record_of(&self, start: &Start<'_>) -> Record {
        let mut record = Record::new(Provider::Twilio, start, self.encoding);
        record.caller = self.callers.and_then(|callers| callers.of(&record.call_id, self.now));
        record
    }

    /// Whether the stream may be recorded. Removes its token, which is secret, from the record.
    fn admits(&self, record: &mut Record) -> bool {
        let token = record.parameters.remove(stream_tokens::PARAMETER);
        self.stream_tokens.is_none_or(|tokens| {
            token.is_some_and(|token| tokens.redeem(&record.call_id, &token, self.now))
        })
    }

    fn begin(&mut self, record: Record, channels: u16, first_sample: u64) -> Recording {
        let spec = wav::Spec { channels, sample_rate_hz: SAMPLE_RATE_HZ, encoding: self.encoding };
        Recording::begin(self.outbox, record, spec, first_sample, self.now)
    }
}
