//! One stream of a connection and its recording.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callreel_core::frame::{
    Ask, Body, Frame, MediaFrame, PeerError, Provider, Start, Text, Track, Tracks,
};
use callreel_core::session::{
    Error, Event, MediaClock, RING_BOTH_TRACKS_MIN, Session, Stats, Turn, ring_bytes_min,
};
use callreel_core::ws;
use tracing::Span;
use tracing::field::Empty;

use super::answers::Answers;
use super::opening::Opening;
use super::pause::TEXT_CHARS_MAX;
use super::routing::Routed;
use super::{Context, Known, masked, pause};
use crate::record::{End, PauseCause, Record, What, Word};
use crate::recording::{Done, Finishing, Posts, Recording};
use crate::shown;

/// Bytes of messages at which they go to the capture together.
const CAPTURE_BYTES_MAX: usize = 64 * 1024;

/// The ring of a session. Most calls have one track and lose no message: they never write to the ring, so
/// it takes no memory.
#[derive(Clone, Debug)]
pub(super) struct Ring(Cow<'static, [u8]>);

impl Ring {
    /// The ring that a session writes to first.
    const UNUSED: &[u8] = &[0; roomy(RING_BOTH_TRACKS_MIN)];

    const fn new() -> Self {
        Self(Cow::Borrowed(Self::UNUSED))
    }

    /// The ring for a stream. Audio with many bytes a second takes its memory at once.
    fn of(start: &Start<'_>) -> Self {
        let bytes = roomy(ring_bytes_min(start).unwrap_or_default());
        Self(Self::UNUSED.get(..bytes).map_or_else(|| vec![0; bytes].into(), Cow::Borrowed))
    }
}

/// Bytes of a ring with room for a chunk of 20 ms beside the 200 ms for which a track waits for one that does
/// not come: without it, each instant of the chunk would pass the ring by itself.
const fn roomy(bytes_min: usize) -> usize {
    bytes_min + (bytes_min / 10).next_multiple_of(8)
}

impl AsRef<[u8]> for Ring {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Ring {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.to_mut()
    }
}

/// The next step after a message.
pub(super) enum Next {
    GoOn,
    Close(ws::CloseCode),
    /// Drop the stream; if nothing else is recorded on the connection, end it with this code.
    Refuse(ws::CloseCode),
    /// Refuse the stream for its format, and write this record of it.
    Unsupported(Box<Record>),
    /// End the recordings of all streams: the conversation is over.
    Part,
    /// End the recording.
    Stop,
}

/// One stream of a connection, from its start on; before that, the stream that is expected.
pub(super) struct Stream {
    pub session: Session<Ring>,
    /// The part of the session's counts that has been added to the recorder's counters.
    pub counted: Stats,
    /// The recording, until it ends.
    pub recording: Option<Recording>,
    /// A recording of all audio that the voice bot of a relayed call sends, if that is kept.
    pub sent: Option<Recording>,
    /// Beginning of the recording, with all files of the stream.
    pub began: Option<Instant>,
    /// Messages as received that wait to go to the capture.
    pub capture: Vec<u8>,
    /// A rejected message has been logged.
    pub has_warned: bool,
    pub clock: MediaClock,
    /// The context of log lines: peer, provider, stream and call. All but the peer are filled in when
    /// they are known.
    pub span: Span,
    pub peer: SocketAddr,
    /// The log had no room for the start of the recording, so its end is not logged, either.
    pub is_quiet: bool,
    /// It records a track beside another stream, which did not announce it.
    pub is_beside: bool,
}

impl Routed for Stream {
    fn is_addressed(&self, stream_id: &[u8]) -> bool {
        !self.is_beside && self.session.is_addressed(stream_id)
    }

    fn is_live(&self) -> bool {
        self.recording.is_some()
    }
}

impl Stream {
    /// A stream that is expected, of `provider`; `None`: its messages are still to tell the provider.
    pub(super) fn new(peer: SocketAddr, provider: Option<Provider>) -> Self {
        let span = tracing::info_span!(parent: None, "call", %peer, provider = Empty, stream = Empty, call = Empty);
        let mut stream = Self {
            // Until the provider is known, messages are read in the dialect that most others resemble.
            session: Session::new(Provider::Twilio, Ring::new()),
            counted: Stats::default(),
            recording: None,
            sent: None,
            began: None,
            capture: Vec::new(),
            has_warned: false,
            clock: MediaClock::Milliseconds,
            span,
            peer,
            is_quiet: false,
            is_beside: false,
        };
        if let Some(provider) = provider {
            stream.set_provider(provider);
        }
        stream
    }

    /// Sets the provider of the stream that is expected.
    pub(super) fn set_provider(&mut self, provider: Provider) {
        self.session.set_provider(provider);
        self.span.record("provider", provider.name());
    }

    /// Makes memory for the stream of a start that comes next.
    pub(super) fn expect(&mut self, start: &Start<'_>) {
        self.session.set_ring(Ring::of(start));
    }

    /// Goes on in another file if this one is full, and keeps the next message, `line`, for the
    /// capture.
    pub(super) fn make_ready(&mut self, line: Option<&[u8]>, context: &mut Context, now: Instant) {
        self.make_ready_for(Duration::ZERO, line, context, now);
    }

    /// Like [`make_ready`](Self::make_ready), for a message that adds so much silence to the file.
    pub(super) fn make_ready_for(
        &mut self,
        silence: Duration,
        line: Option<&[u8]>,
        context: &mut Context,
        now: Instant,
    ) {
        let is_full = |recording: &Recording| {
            let more = {
                let format = recording.format();
                format.file_bytes(format.bytes_in(silence.as_millis() as u64))
            };
            recording.is_longer_than(context.segment_bytes_max.saturating_sub(more))
        };
        if self.recording.as_ref().is_some_and(is_full) {
            self.begin_segment(context, now);
        }
        self.follow_pause(now);
        self.keep_line(line, &mut context.posts);
    }

    /// Handles audio.
    pub(super) fn handle_media(
        &mut self,
        media: &MediaFrame<'_>,
        context: &mut Context,
        now: Instant,
    ) {
        let taken =
            record(&mut self.session.handle_media(media), &mut self.recording, context, now);
        if let Err(error) = taken {
            self.tell_rejected(error, context, now);
        }
    }

    /// Handles a binary message of audio.
    pub(super) fn handle_audio(&mut self, bytes: &[u8], context: &mut Context, now: Instant) {
        let taken =
            record(&mut self.session.handle_audio(bytes), &mut self.recording, context, now);
        if let Err(error) = taken {
            self.tell_rejected(error, context, now);
        }
    }

    /// Logs that audio was not taken.
    #[cold]
    fn tell_rejected(&mut self, error: Error, context: &Context, now: Instant) {
        let Self { span, has_warned, peer, .. } = self;
        span.in_scope(|| match error {
            Error::Peer(error) => warn(error, has_warned, *peer, context, now),
            error => tracing::error!(%error, "cannot record a chunk"),
        });
    }

    /// Applies a message to the recording, and adds the reply to it to the answers. Returns the next step.
    pub(super) fn follow(
        &mut self,
        mut frame: Frame<'_>,
        known: &Known,
        opening: &mut Option<Box<Opening>>,
        answers: &mut Answers,
        context: &mut Context,
        now: Instant,
    ) -> Next {
        let _entered = self.span.clone().entered();
        let stream_id = frame.stream_id;
        let hints = &known.hints;
        let mut is_rate_of_url = false;
        if let Body::Start(start) = &mut frame.body {
            is_rate_of_url = hints.complete(self.session.provider(), start);
            if known.has_bot && start.has_assumed_tracks {
                // The other side of the call is the bot, unless the provider says that it sends both.
                (start.tracks, start.has_assumed_tracks) = (Tracks::One(Track::Inbound), false);
            }
            self.expect(start);
        }
        let (has_warned, peer) = (&mut self.has_warned, self.peer);
        let mut turn = match self.session.handle_frame(frame) {
            Ok(turn) => turn,
            Err(Error::Peer(error)) => {
                if let Some(opening) = opening {
                    opening.note_strange(stream_id);
                }
                warn(error, has_warned, peer, context, now);
                return Next::GoOn;
            }
            Err(error) => {
                tracing::error!(%error, "cannot record a stream");
                return Next::Close(ws::CloseCode::INTERNAL);
            }
        };
        let mut next = Next::GoOn;
        match turn.event() {
            Event::Started { start, .. } => {
                let is_first = opening.take().is_some();
                let provider = turn.provider();
                let mut record = match context.admit(provider, start, hints, is_first, peer, now) {
                    Ok(record) => record,
                    Err(code) => return Next::Refuse(code),
                };
                if let Some(wire) = &mut record.wire {
                    wire.is_rate_of_url = is_rate_of_url;
                }
                let Record { stream_id, call_id, .. } = &record;
                self.span.record("stream", stream_id.as_str()).record("call", call_id.as_str());
                self.is_quiet = !context.tell_start(start, peer, now);
                let is_paused = pause::is_asked_by(&record.parameters);
                let mut format = context.format_of(start);
                let hears_bot = known.has_bot && start.tracks == Tracks::One(Track::Inbound);
                let sent = (hears_bot && known.keeps_sent).then(|| (record.of_sent(), format));
                if hears_bot {
                    format.spec.channels = 2;
                    record.format = format.spec.into();
                    record.tracks = Tracks::Both.iter().map(Word::from).collect();
                }
                let recording = Recording::begin(&mut context.posts, record, format, 0, now);
                let recording = if hears_bot { recording.hearing_bot(now) } else { recording };
                // Behind the recording of the call, which gets the name of the stream.
                self.sent = sent.map(|(record, format)| {
                    let sent = Recording::begin(&mut context.posts, record, format, 0, now);
                    sent.made_quiet(self.is_quiet)
                });
                let recording = self.recording.insert(recording.made_quiet(self.is_quiet));
                if is_paused {
                    recording.ask_pause(Some(PauseCause::Parameter), now);
                }
                self.began = Some(now);
            }
            Event::Refused(start) => {
                *opening = None;
                turn.reply().iter().for_each(|reply| answers.reply(reply));
                let provider = turn.provider();
                let record = context.refused(provider, start, hints, peer, now);
                return Next::Unsupported(Box::new(record));
            }
            Event::Dtmf { digit, at } => {
                if let Some(recording) = &mut self.recording {
                    let pause_key = context.pause_key.as_ref();
                    let kept = pause::heed_keys(recording, digit, pause_key, now);
                    if !kept.is_empty() {
                        recording.add_event(*at, What::Dtmf(kept));
                    }
                }
            }
            Event::Mark { name, at } => {
                add_event(&mut self.recording, *at, What::Mark, name);
                if let Some(recording) = &mut self.recording {
                    pause::heed_mark(recording, name, now);
                    recording.take_echo(&name.to_string(), now);
                }
            }
            // Whatever comes on this connection is no call.
            Event::Asked(Ask::Probe) => *opening = None,
            Event::Skipped { at, samples, is_pause } => {
                if let Some(recording) = self.recording.as_mut().filter(|_| *is_pause) {
                    recording.add_pause(*at, *samples);
                }
            }
            Event::Trouble(words) => {
                if let Some(left_out) = context.room(peer, now) {
                    let words: String = words.chars().take(TEXT_CHARS_MAX).collect();
                    let told = shown::line(&words);
                    tracing::warn!(%told, left_out, "the provider reports an error");
                }
            }
            Event::Over => next = Next::Part,
            Event::Stopped => next = Next::Stop,
            _ => {}
        }
        turn.reply().iter().for_each(|reply| answers.reply(reply));
        let is_strange = matches!(
            turn.event(),
            Event::Premature | Event::Ignored | Event::Over | Event::Stopped
        );
        if let Some(opening) = opening.as_mut().filter(|_| is_strange) {
            opening.note_strange(stream_id);
        }
        if let Some(recording) = &mut self.recording {
            recording.take(&mut turn, &mut context.posts, now);
        }
        next
    }

    /// Does the housekeeping of the stream: adds its counts to the recorder's, posts captured messages,
    /// and does the housekeeping of the recording.
    pub(super) fn tend(&mut self, posts: &mut Posts, now: Instant) {
        posts.board().counters.add(self.session.stats(), &mut self.counted);
        self.note_clock();
        if let Some(recording) = &mut self.recording {
            if !self.capture.is_empty() {
                recording.capture(std::mem::take(&mut self.capture), posts);
            }
            recording.tend(self.session.stats(), posts, now);
        }
        if let Some(sent) = &mut self.sent {
            sent.tend(&Stats::default(), posts, now);
        }
    }

    /// Logs once that the stream's timestamps are not milliseconds, and notes it in the record.
    pub(super) fn note_clock(&mut self) {
        let clock = self.session.media_clock();
        if clock == self.clock {
            return;
        }
        self.clock = clock;
        let _entered = self.span.enter();
        match clock {
            // Usual with some providers, and as good as any.
            MediaClock::Absent | MediaClock::UnixMilliseconds => {
                tracing::debug!(clock = clock.name(), "the stream's timestamps");
            }
            _ => {
                tracing::warn!(clock = clock.name(), "the stream's timestamps are not milliseconds")
            }
        }
        if let Some(recording) = &mut self.recording {
            recording.set_media_clock(clock);
        }
    }

    /// Goes on in another file: this one is as long as it may be.
    fn begin_segment(&mut self, context: &mut Context, now: Instant) {
        let Some(mut full) = self.recording.take() else {
            return;
        };
        let _entered = self.span.enter();
        full.settle_order(&mut context.posts, now);
        full.set_media_clock(self.session.media_clock());
        let record = full.record().next_segment(self.session.stats());
        let (format, first_sample) = (full.format(), full.end_sample());
        let next = Recording::begin(&mut context.posts, record, format, first_sample, now);
        let next = next.paused_like(&full).ordered_like(&full).hearing_like(&mut full);
        let nobody = Box::new(|_| ());
        full.finish(End::Segment, self.session.stats(), &mut context.posts, now, nobody);
        self.recording = Some(next.made_quiet(self.is_quiet));
    }

    /// Begins or ends a pause of the recording if that was asked for.
    pub(super) fn follow_pause(&mut self, now: Instant) {
        // Entering the span of each message would cost more than the look.
        if let Some(recording) = self.recording.as_mut().filter(|recording| recording.has_pause()) {
            let _entered = self.span.enter();
            recording.follow_pause(now);
        }
    }

    /// Ends the recording, if there is one.
    pub(super) fn finish(
        &mut self,
        end: End,
        context: &mut Context,
        now: Instant,
        done: Done,
    ) -> Option<Finishing> {
        let _entered = self.span.clone().entered();
        let mut turn = self.session.handle_end();
        if let Some(recording) = &mut self.recording {
            recording.take(&mut turn, &mut context.posts, now);
        }
        drop(turn);
        context.posts.board().counters.add(self.session.stats(), &mut self.counted);
        self.note_clock();
        if let Some(sent) = self.sent.take() {
            sent.finish(end, &Stats::default(), &mut context.posts, now, Box::new(|_| ()));
        }
        let mut recording = self.recording.take()?;
        recording.set_media_clock(self.clock);
        if !self.capture.is_empty() {
            recording.capture(std::mem::take(&mut self.capture), &mut context.posts);
        }
        let stats = self.session.stats();
        let finishing = recording.finish(end, stats, &mut context.posts, now, done);
        let duration = self.began.map_or(Duration::ZERO, |began| now - began);
        context.posts.board().counters.end(self.session.provider(), end, duration);
        if !self.is_quiet {
            tracing::info!(%end, "recording ended");
        }
        Some(finishing)
    }

    /// Keeps a message for the capture: as received, or masked while the recording is paused.
    pub(super) fn keep_line(&mut self, line: Option<&[u8]>, posts: &mut Posts) {
        let paused = self.recording.as_ref().filter(|recording| recording.is_paused());
        let line = line.and_then(|line| match paused {
            Some(paused) => masked::line(line, paused.format().payload.silence()).map(Cow::Owned),
            None => Some(Cow::Borrowed(line)),
        });
        let Some(line) = line else {
            return;
        };
        if self.capture.len() + line.len() >= CAPTURE_BYTES_MAX {
            // Without a recording the messages are dropped: there is no call, and no name for a
            // capture.
            let lines = std::mem::take(&mut self.capture);
            if let Some(recording) = &mut self.recording {
                recording.capture(lines, posts);
            }
        }
        self.capture.extend_from_slice(&line);
    }
}

/// Notes a key or a mark in the recording, with the first [`TEXT_CHARS_MAX`] characters of its text: a
/// call may have many.
fn add_event(
    recording: &mut Option<Recording>,
    at: u64,
    what: fn(String) -> What,
    text: &Text<'_>,
) {
    if let Some(recording) = recording {
        let mut text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        text.shrink_to_fit();
        recording.add_event(at, what(text));
    }
}

/// Gives the recording the audio that its session has taken.
#[inline]
fn record(
    taken: &mut Result<Turn<'_, '_, Ring>, Error>,
    recording: &mut Option<Recording>,
    context: &mut Context,
    now: Instant,
) -> Result<(), Error> {
    let turn = taken.as_mut().map_err(|error| *error)?;
    if let Some(recording) = recording {
        recording.take(turn, &mut context.posts, now);
    }
    Ok(())
}

/// Logs a rejected message, only the first of each stream.
pub(super) fn warn(
    error: PeerError,
    has_warned: &mut bool,
    peer: SocketAddr,
    context: &Context,
    now: Instant,
) {
    if std::mem::replace(has_warned, true) {
        return;
    }
    if let Some(left_out) = context.room(peer, now) {
        tracing::warn!(%error, left_out, "rejected a message; later ones are only counted");
    }
}
