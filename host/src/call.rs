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
use crate::caller_ids::Callers;
use crate::live::Refused;
use crate::pace::Pace;
use crate::recording::{Done, Finishing, Outbox, Outcome, Recording, STUCK_AFTER};
use crate::store::record::{End, ms};
use crate::store::{Door, Record};
use crate::stream_tokens::{self, StreamTokens};

/// The most bytes a message may have: Exotel sends 133 KB of base64 at once.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// The most answers to pings that wait to be sent. One more takes the place of the oldest: a peer need
/// only be told of its newest ping (RFC 6455, section 5.5.3).
const PONGS_MAX: usize = 16;

/// Each start after a connection's first costs so much of its [`SilenceBudget`], in samples: 2 KiB, as
/// much as a file's header and an end record take of the disk.
pub const START_SAMPLES: u32 = 1024;

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
    /// Whether the disk takes one more recording than a connection's first.
    pub door: &'c Door,
    /// How many connections without a start may still be told of in a record.
    pub failures: &'c Allowance,
    /// How many streams may begin beside the first of a connection, for which its upgrade counts.
    pub pace: &'c Pace,
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

/// One connection's way from WebSocket to recordings.
pub struct Call {
    decoder: ws::Decoder,
    /// In the order of their starts; one at least.
    streams: Vec<Stream>,
    /// What came so far, until the first stream starts.
    opening: Option<Box<Opening>>,
    /// A recording that gave way to the next, and since when it is being finished. As long as it is,
    /// messages are left unread: a peer is not to begin recordings faster than the disk takes them.
    before: Option<(Finishing, Instant)>,
    has_unread: bool,
    /// What is unread is to be read, though the disk is behind.
    is_pressed: bool,
    /// The silence that its streams' timestamps may still ask for, all together.
    silence: SilenceBudget,
    /// What the starts cost beyond that. As long as it costs anything, messages are left unread.
    owed: u32,
    /// When a message came last.
    heard: Instant,
    /// How it ended, once it has.
    ended: Option<End>,
    /// Recordings on their way to the disk; the connection may close when they are there.
    finishing: usize,
    /// One of them could not be finished yet.
    has_left: bool,
    /// Answers to pings, not sent yet, oldest first. *Invariant: [`PONGS_MAX`] at most.* Takes memory
    /// only while it holds some.
    pongs: VecDeque<ws::Control>,
    /// The peer's close frame has come.
    peer_closed: bool,
    /// The last message as it came, if messages are kept.
    line: Option<Vec<u8>>,
    peer: SocketAddr,
    began: Instant,
    began_at: Timestamp,
}

impl Call {
    /// A connection whose handshake is done. With `capture`, messages are kept as they come.
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

    /// Takes the connection's bytes; returns how many of them, now at the start, must come again.
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
                    // A recorder has no use for it, but whoever looks for a lost call has.
                    if let Some(opening) = self.opening.as_mut().filter(|_| self.ended.is_none()) {
                        opening.note_binary(bytes);
                    }
                    Wish::GoOn
                }
                // A recorder has no use for what follows the end.
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

    /// Ends the connection's recordings, or tells that there was none. Whatever comes later is passed
    /// over.
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

    /// Leaves a record and a line in the log of a connection on which no stream started.
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
            // Without the excerpt: the record's reader may see more than the log's.
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

    /// Posts what has waited long enough.
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

    /// The far end of the connection.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What the connection has shown of being a call.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.opening.as_ref().map_or(Shown::Stream, |opening| opening.shown())
    }

    /// When a message came last: in whole, and to be read.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether it may have left messages unread that it can take when it is held back no more.
    #[must_use]
    pub const fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Lets it take what it left unread, though the disk is behind.
    pub fn wait_no_more(&mut self) {
        self.before = None;
        self.owed = 0;
        self.is_pressed = self.has_unread;
    }

    /// Whether the peer is to be held back, because the disk is behind, or because it began more
    /// recordings than its time on the line pays for.
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

    /// Whether no message may be taken now. Looked at between two messages: of one there is a bound to
    /// what it may put into a queue.
    fn has_to_wait(&mut self, now: Instant) -> bool {
        if self.before.is_some() || self.is_pressed {
            return self.before.is_some();
        }
        let mut recordings = self.streams.iter_mut().filter_map(|stream| stream.recording.as_mut());
        self.owed > 0 || recordings.any(|recording| recording.is_full(now))
    }

    /// Lets time pass: real time is what silence and starts are paid with.
    fn advance(&mut self, now: Instant) {
        let now_ms = now.saturating_duration_since(self.began).as_millis() as u64;
        let live = self.streams.iter().filter(|stream| stream.recording.is_some()).count();
        self.silence.advance(now_ms, live as u32);
        self.pay();
    }

    fn pay(&mut self) {
        if self.silence.take(self.owed) {
            self.owed = 0;
        }
    }

    /// How much media time the longest of its recordings has, all of a stream's files together.
    #[must_use]
    pub fn media_time(&self) -> Duration {
        let recordings = self.streams.iter().filter_map(|stream| stream.recording.as_ref());
        let longest = recordings.map(Recording::end_sample).max().unwrap_or_default();
        Duration::from_millis(ms(longest))
    }

    /// Takes the answers to pings that are to be sent, oldest first.
    pub fn take_pongs(&mut self) -> VecDeque<ws::Control> {
        std::mem::take(&mut self.pongs)
    }

    /// Notes what became of one of its recordings. Returns the code to close with instead of the one
    /// wished for, if one is on the disk yet.
    pub fn note_finished(&mut self, outcome: Outcome) -> Option<ws::CloseCode> {
        self.finishing = self.finishing.saturating_sub(1);
        self.has_left |= outcome == Outcome::Left;
        self.has_left.then_some(ws::CloseCode::INTERNAL)
    }

    /// Whether a recording of it is on its way to the disk.
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
            // A line break is a blank in JSON; in a string it would be an error.
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

    /// Counts a message that cannot be read: it may have been any stream's.
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

    /// Takes audio. Not by way of a frame, which is as large as a start and moved about.
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
                // Its record is on its way.
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

    /// Makes a place for a stream that starts; returns its index. A start that comes again under an id
    /// that is being recorded ends that recording.
    fn stream_for_start(&mut self, stream_id: &[u8], context: &mut Context<'_>) -> usize {
        if self.opening.is_some() {
            return 0;
        }
        // A start that names no stream begins none beside one that has a name: it is rejected there.
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
    /// Takes room in the log for a line about what is amiss; see [`crate::log::Room::take`].
    fn room(&self, peer: SocketAddr) -> Option<Option<u64>> {
        self.outbox.board().log_rooms.trouble.take(peer.ip(), self.now)
    }

    /// The record of a stream that starts, with the ends of its call if a webhook told them.
    fn record_of(&self, start: &Start<'_>) -> Record {
        let mut record = Record::new(Provider::Twilio, start, self.encoding);
        record.caller = self.callers.and_then(|callers| callers.of(&record.call_id, self.now));
        record
    }

    /// Whether the stream may be recorded; takes its token, which nobody is to read, off the record.
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
