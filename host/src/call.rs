//! One connection: the bytes of its WebSocket in, recordings and their end records out.

mod answers;
mod audio;
mod beside;
mod bot;
mod context;
mod conversation;
mod dialect;
mod hints;
mod masked;
mod opening;
pub mod pause;
pub mod routing;
mod starts;
mod stream;
mod waits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callreel_core::frame::{self, Body, Detector, Frame, MediaFrame, PeerError, Provider};
use callreel_core::session::{SKIP_MS_MAX, SilenceBudget};
use callreel_core::ws;
use jiff::Timestamp;

pub use self::answers::Answers;
pub use self::audio::{EARLY_BYTES_MAX, Known};
pub use self::context::Context;
pub use self::hints::Hints;
use self::opening::Opening;
pub use self::opening::{Allowance, Shown};
use self::starts::ToldEnds;
use self::stream::{Next, Stream, warn};
use crate::board::Refused;
use crate::lines;
use crate::record::End;
use crate::recording::{Done, Finishing, Outcome, Posts, Recording};

/// Largest message, in bytes: Exotel sends 133 KB of base64 at once.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Samples of the [`SilenceBudget`] that each start after a connection's first costs. They stand for 2
/// KiB: the disk space of a file's header and an end record.
pub const START_SAMPLES: u32 = 1024;

/// The step that a connection needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Read more bytes.
    GoOn,
    /// Wait: the call has ended, and its recordings are being finished. After the last of them,
    /// [`Call::note_finished`] returns another step.
    Wait,
    /// Close the connection with this code.
    Close(ws::CloseCode),
}

/// Result of [`Call::handle_bytes`].
#[derive(Debug)]
pub struct Handled {
    /// Number of bytes, moved to the start, that must be passed again in front of the next ones.
    pub kept: usize,
    /// The peer is to be held back: the disk is behind, the peer began more recordings than its time on the
    /// line pays for, or the answers are as many as may wait. Some of the kept bytes may be whole messages.
    /// Pass them again, without new bytes, until this is `false`; only then read on.
    pub is_held_back: bool,
    /// The step that the connection needs next.
    pub action: Action,
    /// Answers to the peer's newest pings, and to its provider's questions.
    pub answers: Answers,
    /// The peer's close frame was among the bytes.
    pub has_peer_closed: bool,
    /// The connection's evidence of being a call.
    pub shown: Shown,
}

/// State of a call after its housekeeping.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// A recording is going on.
    pub is_recording: bool,
    /// Media time of the longest live recording, all of a stream's files together.
    pub media_time: Duration,
    /// Time of the last whole text message.
    pub heard: Instant,
    /// If no recording is going on: the handshake, or the end of the last recording.
    pub waiting_since: Instant,
    /// The peer has to wait for its own starts: until time has paid for them, or until the recording that
    /// a repeated one has ended is finished.
    pub is_held_by_starts: bool,
    /// The provider's conversation is over, and its peer left the connection open: call
    /// [`Call::end_overdue`].
    pub is_overdue: bool,
    /// The peer is to be held back, as in [`Handled::is_held_back`]: pass the kept bytes again, without
    /// new ones, before the next read.
    pub is_held_back: bool,
}

/// One connection, from its WebSocket to its recordings, without its socket.
///
/// Inputs are [`handle_bytes`](Self::handle_bytes), [`tend`](Self::tend), a few times a second,
/// [`note_finished`](Self::note_finished), after each call of [`Context::finished`], and
/// [`end`](Self::end). All but `tend` return the [`Action`] that follows. `handle_bytes` and `tend` tell
/// whether the peer is to be held back.
pub struct Call {
    decoder: ws::Decoder,
    /// The streams in the order of their starts, those refused for the rate before all others.
    /// *Invariant: at least one.*
    streams: Vec<Stream>,
    /// The provider, as far as the handshake and the messages tell it.
    detector: Detector,
    /// The facts about its streams that no message tells.
    known: Arc<Known>,
    ends: Option<Arc<ToldEnds>>,
    /// Audio that came before the start. *Invariant: at most [`EARLY_BYTES_MAX`] bytes.*
    early: Vec<u8>,
    /// Counts of the messages so far, until the first stream starts.
    opening: Option<Box<Opening>>,
    /// The recording that a repeated start has ended, and the time of that end. Until it is finished, or
    /// [`STUCK_AFTER`](crate::recording::STUCK_AFTER) has passed, messages stay unread: a peer must not begin
    /// recordings faster than the disk takes them.
    before: Option<(Finishing, Instant)>,
    /// Silence that the timestamps of all its streams together may still ask for.
    silence: SilenceBudget,
    /// Samples that starts cost beyond that budget. Until they are paid, messages stay unread.
    owed: u32,
    /// Time of the last message.
    heard: Instant,
    /// Beginning of the time in which nothing is recorded: the handshake, or the end of the last
    /// recording on a connection that stays open.
    waiting_since: Instant,
    /// The time at which the provider said that the conversation is over: its peer is to close the
    /// connection.
    parted: Option<Instant>,
    /// Answers that the next result hands out.
    answers: Answers,
    /// The end of the connection, once it has ended.
    ended: Option<End>,
    /// The code to close the connection with, once that is wanted.
    closing: Option<ws::CloseCode>,
    /// Recordings that are being finished; the connection may close when there are none.
    finishing: usize,
    /// The disk did not let one of its recordings be finished yet.
    has_unfinished: bool,
    /// The last message as received, if messages are captured.
    line: Option<Vec<u8>>,
    /// Names the call to [`Context::finished`].
    key: usize,
    peer: SocketAddr,
    began: Instant,
    began_at: Timestamp,
}

impl Call {
    /// A connection after its handshake, with the `key` that [`Context::finished`] is to tell, and with
    /// what the handshake tells of its provider. With `capture`, messages are kept as received.
    #[must_use]
    pub fn new(peer: SocketAddr, key: usize, detector: Detector, capture: bool) -> Self {
        let now = Instant::now();
        Self {
            decoder: ws::Decoder::new(MESSAGE_BYTES_MAX),
            streams: vec![Stream::new(peer, dialect::provider_of(detector))],
            detector,
            known: Arc::default(),
            ends: None,
            early: Vec::new(),
            opening: Some(Box::default()),
            before: None,
            silence: SilenceBudget::new(),
            owed: 0,
            began: now,
            heard: now,
            waiting_since: now,
            parted: None,
            answers: Answers::default(),
            ended: None,
            closing: None,
            finishing: 0,
            has_unfinished: false,
            line: capture.then(Vec::new),
            key,
            peer,
            began_at: Timestamp::now(),
        }
    }

    /// The same connection, with facts that no message tells. With a voice bot, messages that cannot be read
    /// do not end it.
    #[must_use]
    pub fn knowing(self, known: Arc<Known>) -> Self {
        let decoder = self.decoder;
        let decoder = if known.has_bot { decoder.leaving_out() } else { decoder };
        Self { known, decoder, ..self }
    }

    /// Handles bytes of the connection: those that the last result kept, and new ones behind them.
    /// Changes `bytes` in place. While [`Context::is_stopping`], handles them although the disk is behind,
    /// up to a repeated start.
    pub fn handle_bytes(
        &mut self,
        bytes: &mut [u8],
        context: &mut Context,
        now: Instant,
    ) -> Handled {
        let mut has_peer_closed = false;
        let is_stopping = context.is_stopping;
        self.let_go(is_stopping, now);
        self.note_arrival(bytes.len(), now);
        while !self.has_to_wait(is_stopping, now)
            && !self.answers.is_full()
            && let Some(event) = self.decoder.poll(bytes)
        {
            match event {
                Ok(ws::Event::Text(text)) if self.ended.is_none() => {
                    self.handle_message(text, context, now);
                }
                Ok(ws::Event::Binary(text)) if self.ended.is_none() && self.is_json(text) => {
                    self.handle_message(text, context, now);
                }
                Ok(ws::Event::Binary(bytes)) if self.ended.is_none() => {
                    self.handle_binary(bytes, context, now);
                }
                // Nothing to do for a message after the end, or for a pong.
                Ok(ws::Event::Text(_) | ws::Event::Binary(_) | ws::Event::Pong) => {}
                Ok(ws::Event::Ping(payload)) => self.answers.pong(payload),
                Ok(ws::Event::Close(code)) => {
                    has_peer_closed = true;
                    let code = code.unwrap_or(ws::CloseCode::NORMAL);
                    self.end(End::Close, code, context, now);
                }
                Err(code) if self.decoder.is_closed() => {
                    self.end(End::Protocol, code, context, now);
                }
                Err(code) => self.leave_out(code, context, now),
            }
        }
        let is_held_back = self.has_to_wait(false, now) || self.answers.is_full();
        let answers = std::mem::take(&mut self.answers);
        let shown = self.opening.as_ref().map_or(Shown::Stream, |opening| opening.shown());
        let kept = self.decoder.compact(bytes);
        let action = self.action();
        Handled { kept, is_held_back, action, answers, has_peer_closed, shown }
    }

    /// Ends the connection's recordings, or reports that there was none; the connection is to be closed
    /// with `code`. Ignores all later messages. After the first end, changes nothing.
    pub fn end(
        &mut self,
        end: End,
        code: ws::CloseCode,
        context: &mut Context,
        now: Instant,
    ) -> Action {
        self.close(code);
        if self.ended.is_some() {
            return self.action();
        }
        self.ended = Some(end);
        for index in 0..self.streams.len() {
            self.finish(index, end, context, now);
        }
        if let Some(opening) = self.opening.take() {
            self.tell_failure(*opening, end, context, now);
        }
        self.action()
    }

    /// Asks for the connection to be closed. The first code counts.
    fn close(&mut self, code: ws::CloseCode) {
        self.closing.get_or_insert(code);
    }

    /// Whether the provider has said that the stream, or the last of several, stops.
    #[must_use]
    pub const fn has_stopped(&self) -> bool {
        matches!(self.ended, Some(End::Stop))
    }

    /// Whether recordings that have ended are not finished yet.
    #[must_use]
    pub const fn is_finishing(&self) -> bool {
        self.finishing > 0
    }

    /// The step that the connection needs next.
    const fn action(&self) -> Action {
        match self.closing {
            None => Action::GoOn,
            Some(_) if self.finishing > 0 => Action::Wait,
            // The disk did not let a recording be finished yet.
            Some(_) if self.has_unfinished => Action::Close(ws::CloseCode::INTERNAL),
            Some(code) => Action::Close(code),
        }
    }

    /// Writes a record and a log line about a connection on which no stream started.
    fn tell_failure(&mut self, opening: Opening, end: End, context: &mut Context, now: Instant) {
        let Some(Stream { span, session, .. }) = self.streams.first() else {
            return;
        };
        let _entered = span.enter();
        let room = context.room(self.peer, now);
        let reason = opening.reason().to_owned();
        let Some(mut record) = opening.record(self.provider_word(), end, self.began_at) else {
            if let Some(left_out) = room {
                tracing::info!(%end, left_out, "a connection ended before a stream started");
            }
            return;
        };
        record.set_stats(session.stats());
        context.posts.board().counters.refuse(Refused::NoStart);
        if let Some(left_out) = room {
            // Without the excerpt: readers of the record may see more than readers of the log.
            tracing::warn!(
                %end,
                messages = record.no_start.as_ref().map_or(0, |seen| seen.text_messages + seen.binary_messages),
                media = record.frames.before_start,
                left_out,
                "no call was recorded: messages came, but {reason}"
            );
        }
        if context.failures.take(now) {
            context.posts.fail(record, context.done(self.key));
            self.finishing += 1;
        }
    }

    /// Does the housekeeping of each stream. Call it a few times a second.
    pub fn tend(&mut self, posts: &mut Posts, now: Instant) -> Health {
        for stream in &mut self.streams {
            stream.tend(posts, now);
        }
        let recordings = self.streams.iter().filter_map(|stream| stream.recording.as_ref());
        let longest = recordings.map(Recording::media_time).max();
        Health {
            is_recording: longest.is_some(),
            media_time: longest.unwrap_or_default(),
            heard: self.heard,
            waiting_since: self.waiting_since,
            is_held_by_starts: self.owed > 0 || self.before.is_some(),
            is_overdue: self.is_overdue(now),
            is_held_back: self.has_to_wait(false, now),
        }
    }

    /// Whether a recording is going on.
    fn is_recording(&self) -> bool {
        self.streams.iter().any(|stream| stream.recording.is_some())
    }

    /// Notes the outcome of one of the recordings.
    pub fn note_finished(&mut self, outcome: Outcome) -> Action {
        self.finishing = self.finishing.saturating_sub(1);
        self.has_unfinished |= outcome == Outcome::Unfinished;
        self.action()
    }

    fn handle_message(&mut self, text: &mut [u8], context: &mut Context, now: Instant) {
        self.heard = now;
        if let Some(opening) = &mut self.opening {
            opening.note_text(text);
        }
        if let Some(line) = &mut self.line {
            lines::write_text(line, text);
        }
        if self.opening.is_some() && !self.identify(text, context, now) {
            return;
        }
        if self.begins_with_audio() {
            return self.handle_twofold(text, context, now);
        }
        let parsed = match self.streams.last() {
            Some(stream) => stream.session.parse(text),
            None => frame::parse(Provider::Twilio, text),
        };
        self.take(parsed, context, now);
    }

    /// Handles a message that was parsed.
    fn take(&mut self, parsed: Result<Frame<'_>, PeerError>, context: &mut Context, now: Instant) {
        if let Ok(frame) = &parsed
            && let Some(media) = frame.media().filter(|_| self.opening.is_none())
        {
            self.handle_media(&media, context, now);
            return;
        }
        match parsed {
            Ok(frame) => {
                self.note_ends(&frame.body);
                let (known, ends) = (Arc::clone(&self.known), self.ends.clone());
                let frame = self.complete_start(frame, &known, ends.as_deref());
                if let Some(opening) = &mut self.opening {
                    opening.note_frame(&frame.body);
                    if matches!(frame.body, Body::Start(_)) && self.provider().is_none() {
                        return self.refuse_unknown(context, now);
                    }
                } else if matches!(frame.body, Body::Start(_))
                    && !self.may_start(&frame, context, now)
                {
                    return self.refuse_start(frame, context, now);
                }
                self.handle_frame(frame, true, context, now);
                self.record_early(context, now);
            }
            Err(error) => self.reject(error, context, now),
        }
    }

    /// Counts a message that cannot be read, for each stream that it may belong to.
    fn reject(&mut self, error: PeerError, context: &mut Context, now: Instant) {
        if let Some(opening) = &mut self.opening {
            opening.note_strange(b"");
        }
        let is_alone = self.streams.len() == 1;
        for stream in &mut self.streams {
            if is_alone || stream.recording.is_some() {
                stream.session.reject(error);
                let peer = stream.peer;
                stream.span.in_scope(|| warn(error, &mut stream.has_warned, peer, context, now));
                stream.follow_pause(now);
                stream.keep_line(self.line.as_deref(), &mut context.posts);
            }
        }
    }

    /// Handles audio. Takes no [`Frame`], which is as large as a start and costly to move.
    fn handle_media(&mut self, media: &MediaFrame<'_>, context: &mut Context, now: Instant) {
        let index = routing::index_of(&self.streams, media.stream_id);
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        stream.make_ready(self.line.as_deref(), context, now);
        let index = self.index_for_track(index, &media.media, media.stream_id, context, now);
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        *stream.session.silence_mut() = self.silence;
        stream.handle_media(media, context, now);
        self.silence = *stream.session.silence_mut();
    }

    /// Handles a message other than audio. `has_line`: it is the last message, which the capture does not
    /// have yet.
    fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        has_line: bool,
        context: &mut Context,
        now: Instant,
    ) {
        let index = match &frame.body {
            Body::Start(_) => self.stream_for_start(frame.stream_id, context, now),
            _ => routing::index_of(&self.streams, frame.stream_id),
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let silence = match &frame.body {
            Body::Skipped(skipped) => {
                let longest = Duration::from_millis(SKIP_MS_MAX.into());
                Duration::from_micros(skipped.micros).min(longest)
            }
            _ => Duration::ZERO,
        };
        let is_secret = pause::has_keys_of_pause(&frame.body, context.pause_key.as_ref());
        let line = self.line.as_deref().filter(|_| has_line && !is_secret);
        stream.make_ready_for(silence, line, context, now);
        *stream.session.silence_mut() = self.silence;
        let next =
            stream.follow(frame, &self.known, &mut self.opening, &mut self.answers, context, now);
        self.silence = *stream.session.silence_mut();
        self.note_beside(index, now);
        self.share_dialogue(index);
        match next {
            Next::GoOn => {}
            Next::Close(code) => self.close(code),
            Next::Refuse(code) => self.refuse(index, code),
            Next::Unsupported(record) => {
                context.posts.fail(*record, context.done(self.key));
                self.finishing += 1;
                self.refuse(index, ws::CloseCode::UNSUPPORTED);
            }
            Next::Part => self.part(context, now),
            Next::Stop => {
                let index = self.finish_beside(index, End::Stop, context, now);
                self.finish(index, End::Stop, context, now);
                self.waiting_since = now;
                if !self.is_recording() && self.closes_after_stop() {
                    self.end(End::Stop, ws::CloseCode::NORMAL, context, now);
                }
            }
        }
    }

    /// Drops a stream; ends the connection if nothing else is recorded on it.
    fn refuse(&mut self, index: usize, code: ws::CloseCode) {
        if self.is_recording() {
            self.streams.remove(index);
            return;
        }
        self.ended = Some(End::Refused);
        self.close(code);
    }

    /// Makes a place for a stream that starts; returns its index. A repeated start with the id of a
    /// live recording ends that recording. So does one stream more than
    /// [`STREAMS_MAX`](routing::STREAMS_MAX), if all are live: the oldest recording ends.
    fn stream_for_start(&mut self, stream_id: &[u8], context: &mut Context, now: Instant) -> usize {
        if self.opening.is_some() {
            return 0;
        }
        // Beside a stream with an id, a start without an id begins no stream: the session of that
        // stream rejects it.
        if self.is_nameless_beside_named(stream_id) {
            return routing::index_of(&self.streams, stream_id);
        }
        let stream = self.next_stream();
        if let Some(index) = routing::index_to_replace(&self.streams, stream_id) {
            let index = self.finish_beside(index, End::Restart, context, now);
            self.finish(index, End::Restart, context, now);
            self.streams.remove(index);
        }
        self.owed += START_SAMPLES;
        self.pay();
        self.streams.reserve_exact(1);
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Ends the recording of a stream, if it has one.
    fn finish(&mut self, index: usize, end: End, context: &mut Context, now: Instant) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let done: Done = match end {
            End::Restart => Box::new(|_| ()),
            _ => context.done(self.key),
        };
        let Some(finishing) = stream.finish(end, context, now, done) else {
            return;
        };
        if end == End::Restart {
            self.before = Some((finishing, now));
        } else {
            self.finishing += 1;
        }
    }
}
